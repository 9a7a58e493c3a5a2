"""Map methods against independent references, and the promises that every one of them keeps."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from mammopath.images.geometry import Frame
from mammopath.maps.attention import attention
from mammopath.maps.crossmodal import cross_link
from mammopath.maps.integrated import attributed, blank, integrated
from mammopath.maps.lesion import lesion
from mammopath.maps.methods import METHODS
from mammopath.maps.relevance import relevance
from mammopath.maps.rollout import rollout
from mammopath.maps.scene import Packed, Scene, at_cut, one_of, packed
from mammopath.maps.values import AttentionMap
from mammopath.model.network import Network
from mammopath.tensors import Batch
from model_cases import batch, network, sample, stir

SIZES = [(24, 16), (16, 24)]


def trained(**changes: object) -> Network:
    """A network whose attention and heads say something."""
    net = network(**changes)
    for part in ("heads", "fusion", "adapter"):
        stir(net, part)
    return net.requires_grad_(False)


def scene(net: Network | None = None, *, padded: int = 4) -> Scene:
    net = net or trained()
    return Scene(net, at_cut(net, batch([sample(padded=padded)])))


def test_images_taken_out_of_a_batch_are_as_if_alone() -> None:
    net = trained()
    both = at_cut(net, batch([sample(size=s, seed=i) for i, s in enumerate(SIZES)]))
    for place, size in enumerate(SIZES):
        alone = at_cut(net, batch([sample(size=size, seed=place)]))
        one = one_of(both, place)
        assert one.valid.shape == alone.valid.shape
        torch.testing.assert_close(one.tokens, alone.tokens)


@pytest.mark.parametrize("name", METHODS)
def test_every_map_lies_on_the_grid_and_leaves_padding_out(name: str) -> None:
    one = scene()
    values = METHODS[name].make(one)
    assert values.shape == (6, 4)
    assert (np.isnan(values) == ~one.batch.valid[0].reshape(6, 4).numpy()).all()
    assert np.nanmin(values) >= 0
    assert np.nanstd(values) > 0
    again = METHODS[name].make(scene())
    np.testing.assert_array_equal(values, again)
    AttentionMap(name, METHODS[name].unit, values, cell=4, frame=Frame(), image_id="i")


@pytest.mark.parametrize("name", METHODS)
def test_every_map_can_be_made_where_gradients_are_off(name: str) -> None:
    one = scene()
    with torch.no_grad():
        inside = METHODS[name].make(one)
    np.testing.assert_array_equal(inside, METHODS[name].make(one))


def test_the_cheap_maps_are_what_the_network_says() -> None:
    one = scene()
    said = one.network.upper(one.batch)
    valid = one.batch.valid[0].numpy()
    np.testing.assert_allclose(attention(one).ravel()[valid], said.attention[0].numpy()[valid], rtol=1e-6)
    expected = said.token_logit[0].sigmoid().numpy()
    np.testing.assert_allclose(lesion(one).ravel()[valid], expected[valid], rtol=1e-6)
    assert np.nansum(attention(one)) == pytest.approx(1.0, abs=1e-5)


def test_rollout_is_the_product_of_matrices() -> None:
    one = scene(padded=0)
    watch: list[torch.Tensor] = []
    said = one.network.upper(one.batch, watch=watch)
    flow = torch.eye(25)
    for weights in watch:
        flow = (0.5 * weights[0].mean(0) + 0.5 * torch.eye(25)) @ flow
    readout = 0.5 * flow[0, 1:] + 0.5 * said.attention[0] @ flow[1:, 1:]
    expected = (readout / readout.sum()).reshape(6, 4).detach().numpy()
    np.testing.assert_allclose(rollout(one), expected, rtol=1e-4)


def test_relevance_is_the_rule_written_with_whole_matrices() -> None:
    one = scene(padded=0)
    tokens = one.batch.tokens.clone().requires_grad_(True)
    watch: list[torch.Tensor] = []
    said = one.network.upper(one.batch.with_tokens(tokens), watch=watch)
    slopes = torch.autograd.grad(said.logit[0], [*watch, said.attention])
    found = torch.eye(25)
    for weights, slope in zip(watch, slopes, strict=False):
        found = found + (weights * slope).clamp_min(0).mean(1)[0] @ found
    start = torch.cat([torch.ones(1), (said.attention * slopes[-1]).clamp_min(0)[0]])
    expected = (start @ found)[1:].reshape(6, 4).detach().numpy()
    np.testing.assert_allclose(relevance(one), expected, rtol=1e-4, atol=1e-8)


def test_integrated_gradients_agree_with_captum_and_add_up() -> None:
    one = scene(padded=0)

    def logit(tokens: torch.Tensor) -> torch.Tensor:
        batches = [one.batch.with_tokens(t[None]) for t in tokens]
        return torch.cat([one.network.upper(b).logit for b in batches])

    tokens = one.batch.tokens
    start = blank(one)
    torch.testing.assert_close(start[0, 5], tokens[0, 1:].mean(0))
    reference = IntegratedGradients(logit).attribute(tokens, start, n_steps=24, method="gausslegendre")
    torch.testing.assert_close(attributed(one), reference[0].float(), atol=2e-4, rtol=2e-3)
    rise = float(logit(tokens)[0] - logit(start)[0])
    assert float(attributed(one, steps=48).sum()) == pytest.approx(rise, abs=0.02 * abs(rise) + 1e-3)
    positive = reference[0].sum(-1)[1:].clamp_min(0).reshape(6, 4).numpy()
    np.testing.assert_allclose(integrated(one), positive, atol=2e-3)


@pytest.mark.parametrize("name", ["rollout", "relevance"])
@pytest.mark.parametrize("score", ["pooled", "top_tokens"])
def test_maps_without_padding_are_those_with_it(
    name: str, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scene(trained(image_score=score), padded=8)
    without = METHODS[name].make(one)
    few = packed(one.network, one.batch)
    assert few.batch.valid.all()
    assert few.batch.tokens.shape[1] < one.batch.tokens.shape[1]

    def whole(_: Network, batch: Batch) -> Packed:
        return Packed(batch, torch.arange(batch.valid.shape[1]).expand(len(batch), -1))

    monkeypatch.setattr(f"mammopath.maps.{name}.packed", whole)
    np.testing.assert_allclose(without, METHODS[name].make(one), rtol=1e-4, atol=1e-7)


def test_an_adapter_that_asks_for_the_grid_keeps_every_token() -> None:
    one = scene(trained(adapter="convpass"), padded=8)
    assert packed(one.network, one.batch).batch is one.batch
    assert np.isfinite(relevance(one)[:, :2]).all()


# ---------------------------------------------------------------- across modalities


def pair(net: Network, *, images: int = 2) -> dict[str, Batch]:
    mammograms = [sample(seed=i, padded=4) for i in range(images)]
    fields = [sample("pathology", (16, 16), seed=9 + i) for i in range(images)]
    return {
        "mammogram": at_cut(net, batch(mammograms, patient=[0] * images, pair=[0] * images)),
        "pathology": at_cut(net, batch(fields, "pathology", patient=[0] * images, pair=[0] * images)),
    }


def test_the_link_covers_real_tokens_of_both_sides() -> None:
    net = trained(fusion=True)
    batches = pair(net)
    link = cross_link(net, batches)
    assert link.attention.shape == link.relevance.shape == (2 * 18, 2 * 16)
    torch.testing.assert_close(link.attention.sum(1), torch.ones(36))
    assert (link.relevance >= 0).all()
    assert link.relevance.std() > 0
    for modality in ("mammogram", "pathology"):
        places = batches[modality].valid.flatten().nonzero()[:, 0]
        assert getattr(link, modality).sort().values.tolist() == places.tolist()
    outputs = {m: net.upper(b) for m, b in batches.items()}
    assert link.logit == pytest.approx(float(net.fuse(outputs, batches).logit[0]), abs=1e-5)


def test_without_blocks_above_the_cut_the_link_is_attention_that_helps() -> None:
    net = trained(fusion=True, cut={"mammogram": 4, "pathology": 4}, adapter="none")
    batches = pair(net, images=1)
    link = cross_link(net, batches)
    sides = {m: net.upper(b) for m, b in batches.items()}
    region, tissue = sides["mammogram"].tokens[0][batches["mammogram"].valid[0]], sides["pathology"].tokens[0]
    fusion = net.fusion
    weights = (fusion.query(region) @ fusion.key(tissue).T / fusion.query.out_features**0.5).softmax(-1)
    weights.requires_grad_(True)
    seen = fusion.tissue(tissue)
    hidden = fusion.region(region) + fusion.explain(weights @ seen)
    pooled = [g(h).softmax(0) @ h for g, h in ((fusion.regions, hidden), (fusion.tissues, seen))]
    fusion.malignancy(fusion.norm(torch.cat(pooled))).sum().backward()
    expected = (weights * weights.grad).clamp_min(0).detach()
    torch.testing.assert_close(link.relevance, expected, atol=1e-7, rtol=1e-3)


def test_a_link_is_asked_for_one_patient_with_both_modalities() -> None:
    net = trained(fusion=True)
    batches = pair(net)
    strangers = batches | {
        "pathology": at_cut(net, batch([sample("pathology", (16, 16))], "pathology", pair=[5]))
    }
    with pytest.raises(ValueError, match="exactly one patient"):
        cross_link(net, strangers)


# ---------------------------------------------------------------- values


def test_a_map_knows_where_its_tokens_lie_on_level_0() -> None:
    frame = Frame().cropped(100, 40).scaled(0.1, 0.1).mirrored(50).padded(0, 3)
    values = np.array([[0.1, 0.2], [np.nan, 0.9]])
    found = AttentionMap("lesion", "p", values, cell=4, frame=frame, image_id="i")
    assert found.peak() == (1, 1)
    left, top, right, bottom = found.box(*found.peak())
    assert (right - left, bottom - top) == pytest.approx((40, 40))
    assert frame.point((left + right) / 2, (top + bottom) / 2) == pytest.approx((6, 6))
    kept = found.to_json()
    assert kept["values"] == [[0.1, 0.2], [None, 0.9]]
    assert kept["verdict"] == "not tested"


@pytest.mark.parametrize("bad", [-0.1, np.inf])
def test_a_map_refuses_values_that_mean_nothing(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        AttentionMap("lesion", "p", np.array([[bad]]), cell=4, frame=Frame(), image_id="i")
