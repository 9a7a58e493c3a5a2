"""The network: one trunk for both modalities, whatever the cut, the padding or the batch."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mammopath.errors import ConfigError
from mammopath.model.network import Network
from mammopath.model.parts import IMAGENET_MEAN, IMAGENET_STD
from mammopath.model.vit import Layout
from mammopath.tensors import Batch, Output, Style
from mammopath.types import MODALITIES, Modality
from model_cases import TINY, batch, network, sample, stir

SIZES: dict[Modality, tuple[int, int]] = {"mammogram": (24, 16), "pathology": (16, 16)}


def both(net: Network, count: int = 2) -> list[Batch]:
    return [
        batch([sample(m, SIZES[m], seed=i) for i in range(count)], m, cell=net.cell(m))
        for m in net.modalities
    ]


def assert_same(found: Output, wanted: Output, *, atol: float = 1e-5) -> None:
    for field in fields(Output):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(a, Tensor) and a.is_floating_point():
            a, b = (x * 1.0 if x.shape[:2] != found.valid.shape else _real(x, found.valid) for x in (a, b))
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-3, msg=field.name)


def _real(x: Tensor, valid: Tensor) -> Tensor:
    return x * valid.reshape(*valid.shape, *[1] * (x.ndim - 2))


# ---------------------------------------------------------------- one trunk


def test_both_modalities_run_through_the_same_tensors() -> None:
    net = network()
    used: dict[Modality, set[int]] = {}
    for one in both(net):
        seen: set[int] = set()
        hooks = [
            module.register_forward_pre_hook(
                lambda m, _, seen=seen: seen.update(p.data_ptr() for p in m.parameters(recurse=False))
            )
            for block in net.trunk.blocks
            for module in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
        ]
        net(one)
        for hook in hooks:
            hook.remove()
        used[one.modality] = seen
    assert len(used["mammogram"]) == 4 * 8
    assert used["mammogram"] == used["pathology"]
    own = {p.data_ptr() for p in net.parts.parameters()}
    assert not own & {p.data_ptr() for p in net.trunk.parameters()}


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("adapter", ["none", "adaptformer", "lora", "convpass"])
def test_a_fresh_network_is_the_trunk_on_normalised_rgb(adapter: str, modality: Modality) -> None:
    net = network(adapter=adapter, train_trunk="all")
    picture = sample(modality, SIZES[modality])
    rgb = picture.image.expand(3, -1, -1)
    mean, std = (torch.tensor(c)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = net.trunk(((rgb - mean) / std)[None])
    found = net(batch([picture], modality))
    assert found.tokens is not None
    torch.testing.assert_close(found.tokens, wanted[:, 1:], atol=1e-4, rtol=1e-4)
    pooled = torch.cat([wanted[:, 0], wanted[:, 1:].mean(1), wanted[:, 1:].std(1, correction=0)], dim=1)
    torch.testing.assert_close(found.embedding, F.layer_norm(pooled, (72,)), atol=1e-4, rtol=1e-4)


def test_parts_are_routed_hard() -> None:
    net = network()
    before = [net(one) for one in both(net)]
    stir(net.parts["mammogram"], "")
    after = [net(one) for one in both(net)]
    assert not torch.allclose(before[0].logit, after[0].logit)
    assert torch.equal(before[1].logit, after[1].logit)


# ---------------------------------------------------------------- cut, padding, batch


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_cut_changes_nothing(cut: int) -> None:
    readout = dict.fromkeys(MODALITIES, (3, 4))
    whole, net = (
        network(adapter="none", readout=readout, cut=dict.fromkeys(MODALITIES, c)) for c in (0, cut)
    )
    for each in (whole, net):
        stir(each, "trunk.blocks")
        stir(each, "heads")
        each.start_parts()
    for one in both(net):
        assert_same(net(one), whole(one), atol=2e-2)


def test_tokens_from_the_cache_give_the_same_as_samples() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 2))
    stir(net, "adapter")
    for one in both(net):
        kept = [t.half() for t in net.lower(one.samples, one.modality)]
        cached = one.with_tokens(torch.stack([t.float() for t in kept]))
        assert torch.equal(net(cached).logit, net(one).logit)


@pytest.mark.parametrize("adapter", ["adaptformer", "convpass"])
@pytest.mark.parametrize("cut", [0, 2])
def test_a_batch_of_mixed_sizes_says_of_each_image_what_it_says_alone(cut: int, adapter: str) -> None:
    net = network(cut=dict.fromkeys(MODALITIES, cut), adapter=adapter)
    stir(net, "parts")
    images = [sample(size=(24, 16), padded=4), sample(size=(16, 12), seed=1), sample(size=(24, 20), seed=2)]
    together = net(batch(images))
    for i, image in enumerate(images):
        alone = net(batch([image]))
        n = alone.valid.shape[1]
        torch.testing.assert_close(together.logit[i], alone.logit[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.projection[i], alone.projection[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.attention[i, :n], alone.attention[0])
        assert (together.attention[i, n:] == 0).all()


def test_padding_never_enters_the_trunk() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 2))
    padded = sample(padded=4)
    noise = replace(padded, image=torch.where(padded.valid, padded.image, 7.0))
    assert torch.equal(net(batch([padded])).logit, net(batch([noise])).logit)
    tokens = net.lower([padded], "mammogram")[0]
    assert (tokens[1:].reshape(6, 4, 24)[:, 3] == 0).all()
    real = torch.tensor([True, True, True, False]).repeat(6)
    embedded = net.of("mammogram").stem(padded.image[None])[0] + net.trunk.positions((6, 4))
    x = torch.cat([net.trunk.prefix_tokens(), embedded[real]])[None]
    for block in net.trunk.blocks[:2]:
        x = block(x, Layout(1))
    torch.testing.assert_close(tokens[1:][real], x[0, 1:], atol=2e-3, rtol=2e-3)


def test_padded_tokens_are_blind_above_the_cut() -> None:
    net = network()
    one = batch([sample(padded=4)])
    tokens = torch.stack(net.lower(one.samples, "mammogram"))
    keep = torch.cat([torch.tensor([True]), one.valid[0]])
    short = replace(
        one.with_tokens(tokens[:, keep]), valid=one.valid[:, one.valid[0]], lesion=one.lesion[:, one.valid[0]]
    )
    noisy = one.with_tokens(torch.where(keep[:, None], tokens, 50.0))
    torch.testing.assert_close(net(noisy).logit, net(short).logit)


def test_an_image_that_is_all_padding_gives_finite_values() -> None:
    net = network()
    output = net(batch([sample(padded=16), sample(seed=1)]))
    assert torch.isfinite(output.logit).all()
    assert (output.attention[0] == 0).all()
    assert torch.isfinite(net.describe([sample(padded=16)], "mammogram")[0].statistics).all()


def test_what_the_frozen_trunk_says_does_not_depend_on_neighbours() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 3))
    images = [sample(seed=i) for i in range(5)] + [sample(seed=9, padded=8)]
    for precision in ("fp32", "bf16"):
        together = net.lower(images, "mammogram", precision=precision)
        alone = [net.lower([image], "mammogram", precision=precision)[0] for image in images]
        assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
        assert all(torch.equal(t, t.half().float()) and not t.requires_grad for t in together)


def test_token_pooling_averages_real_tokens() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 2), token_pool=dict.fromkeys(MODALITIES, 2))
    fine = network(cut=dict.fromkeys(MODALITIES, 2))
    image = sample(padded=4)
    assert net.cell("mammogram") == 8
    coarse, tokens = net.lower([image], "mammogram")[0], fine.lower([image], "mammogram")[0]
    plane = tokens[1:].reshape(3, 2, 2, 2, 24).transpose(1, 2).reshape(3, 2, 4, 24)
    wanted = torch.stack([plane[:, 0].mean(1), plane[:, 1, [0, 2]].mean(1)], dim=1).reshape(6, 24)
    torch.testing.assert_close(coarse[1:], wanted, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(coarse[0], tokens[0])
    assert torch.isfinite(net(batch([image], cell=8)).logit).all()


def test_description_is_the_plain_trunk_block_by_block() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 2))
    stir(net, "blocks.0.norm")
    images = [sample(seed=1, padded=4), sample(seed=2)]
    found = net.describe(images, "mammogram")
    for image, tokens, said in zip(images, net.lower(images, "mammogram"), found, strict=True):
        assert torch.equal(said.tokens, tokens)
        real = F.avg_pool2d(image.valid[None].float(), 4)[0].flatten() > 0.5
        embedded = net.of("mammogram").stem(image.image[None])[0] + net.trunk.positions((6, 4))
        x = torch.cat([net.trunk.prefix_tokens(), embedded[real]])[None]
        for number, block in enumerate(net.trunk.blocks):
            x = block(x, Layout(1))
            wanted = torch.cat([x[0, 0], x[0, 1:].mean(0), x[0, 1:].std(0, correction=0)])
            torch.testing.assert_close(said.statistics[number], wanted, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- readout, style, patients


def test_readout_mix_starts_as_the_average_of_normed_blocks() -> None:
    net = network(readout={"mammogram": (2, 4)}, train_trunk="all")
    two, four = (
        network(readout={"mammogram": (b,)}, train_trunk="all")(batch([sample()])).tokens for b in (2, 4)
    )
    assert two is not None
    assert four is not None
    torch.testing.assert_close(net(batch([sample()])).tokens, (two + four) / 2, atol=1e-5, rtol=1e-4)
    mix = net.of("mammogram").mix
    assert mix is not None
    torch.nn.init.constant_(mix[1:].detach(), 30.0)
    torch.testing.assert_close(net(batch([sample()])).tokens, four, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("cut", "block"), [(0, 1), (0, 3), (2, 3), (2, 4), (4, 5)])
def test_style_changes_patch_tokens_in_front_of_its_block(cut: int, block: int) -> None:
    net = network(cut={"mammogram": cut}, readout={"mammogram": (4,)}, adapter="none")
    one = batch([sample(seed=i) for i in range(2)])
    seen: list[tuple[Tensor, Tensor]] = []

    def doubled(patches: Tensor, valid: Tensor) -> Tensor:
        seen.append((patches, valid))
        return patches * 2

    styled = net(one, Style(block, doubled))
    x = torch.stack(net.lower(one.samples, "mammogram"))
    for number in range(cut, 4):
        if number + 1 == block:
            x = torch.cat([x[:, :1], x[:, 1:] * 2], dim=1)
        x = net.trunk.blocks[number](x, Layout(1))
    x = torch.cat([x[:, :1], x[:, 1:] * 2], dim=1) if block == 5 else x
    assert styled.tokens is not None
    torch.testing.assert_close(styled.tokens, net.trunk.norm(x)[:, 1:])
    assert seen[0][0].shape == (2, 24, 24)
    assert torch.equal(seen[0][1], one.valid)
    low, high = net.style_blocks("mammogram")
    assert low <= block <= high


def test_a_style_that_would_not_run_is_an_error() -> None:
    net = network(cut=dict.fromkeys(MODALITIES, 2))
    for block in (0, 2, 5):
        with pytest.raises(ValueError, match=f"block {block} would not run"):
            net(batch([sample()]), Style(block, lambda x, valid: x))


def test_a_patient_is_the_attention_mean_of_its_images() -> None:
    net = network()
    stir(net, "heads")
    images = [sample(seed=i) for i in range(4)]
    out = net(batch(images, patient=[7, 3, 7, 9]))
    assert out.patients.tolist() == [3, 7, 9]
    torch.testing.assert_close(out.patient_logit[[0, 2]], out.logit[[1, 3]])
    heads = net.of("mammogram").heads
    weights = heads.images(out.embedding[[0, 2]]).softmax(0)
    wanted = heads.malignancy(weights @ out.embedding[[0, 2]])
    torch.testing.assert_close(out.patient_logit[1:2], wanted)
    torch.testing.assert_close(out.projection.norm(dim=1), torch.ones(3))


def test_dropout_only_in_training() -> None:
    net, one = network(dropout=0.5), batch([sample()])
    assert torch.equal(net(one).logit, net(one).logit)
    net.train()
    assert not torch.equal(net(one).logit, net(one).logit)


@pytest.mark.parametrize("adapter", ["adaptformer", "lora", "convpass"])
def test_registers_and_half_precision_go_with_every_adapter(adapter: str) -> None:
    net = network(replace(TINY, registers=2, positioned=3), adapter=adapter)
    stir(net, "parts")
    one = batch([sample(), sample(seed=1, padded=4)])
    with torch.inference_mode():
        exact = net(one)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(one)
    assert rough.logit.dtype == torch.float32
    torch.testing.assert_close(rough.logit, exact.logit, atol=0.2, rtol=0.1)


def test_tokens_that_do_not_fit_the_batch_are_refused() -> None:
    net, one = network(), batch([sample()])
    with pytest.raises(ValueError, match="24 tokens per image, but 1 prefix and patch tokens make 25"):
        net(one.with_tokens(torch.zeros(1, 24, 24)))
    with pytest.raises(ValueError, match="call the network itself"):
        net.upper(one)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": {}}, "at least one modality"),
        ({"readout": {"mammogram": (5,)}}, "blocks count from 1 to 4"),
        ({"readout": {"mammogram": (0, 2)}}, "blocks count from 1 to 4"),
        ({"readout": {"mammogram": (3, 2)}}, "ascending order"),
        (
            {"readout": {"mammogram": (2,)}, "cut": {"mammogram": 3}},
            "between 0 and the lowest readout block 2",
        ),
        ({"cut": {"mammogram": 4, "pathology": 0}}, "adaptformer would never run, no mammogram block"),
        ({"train_trunk": "all", "cut": {"mammogram": 1}}, "blocks 1 to 4 are trained"),
        ({"train_trunk": "last_k", "cut": {"pathology": 3}}, "cached up to block 2 only, got 3"),
        ({"token_pool": {"mammogram": 0}}, "at least 1"),
        ({"fusion": True, "readout": {"mammogram": (4,)}}, "fusion needs both"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**changes)


def test_an_image_that_is_not_made_of_cells_is_refused() -> None:
    net = network(token_pool=dict.fromkeys(MODALITIES, 4))
    with pytest.raises(ConfigError, match="24 x 16 pixels is not made of squares of 16"):
        net.lower([sample()], "mammogram")


def test_blocks_above_the_cut_see_no_padding_and_gradients_are_the_same(monkeypatch) -> None:
    """Short images beside long ones: packed and padded runs agree, in values and in gradients."""
    net = network(cut={"mammogram": 1})
    stir(net, "blocks")
    own = batch(
        [sample(size=(8, 8), seed=1), sample(size=(40, 24), seed=2), sample(size=(24, 16), seed=3, padded=4)]
    )
    lengths: list[int] = []
    attend = type(net.trunk.blocks[1].attn).forward

    def noted(self, x, layout, on_qkv):
        lengths.append(x.shape[1])
        return attend(self, x, layout, on_qkv)

    monkeypatch.setattr(type(net.trunk.blocks[1].attn), "forward", noted)
    grads, logits = [], []
    for packed in (True, False):
        if not packed:
            monkeypatch.setattr(
                "mammopath.model.network.without_padding", lambda block, x, layout: block(x, layout)
            )
        tokens = net.with_tokens(own)
        lengths.clear()
        output = net.upper(tokens)
        net.zero_grad()
        output.logit.sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        logits.append(output.logit.detach())
        assert (max(lengths), min(lengths)) == ((61, 5) if packed else (61, 61))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)
