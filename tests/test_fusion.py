"""The cross-modal link: by pairing keys alone, against loops, with either modality missing."""

import inspect
from dataclasses import fields, replace

import pytest
import torch

from mammopath.errors import ConfigError
from mammopath.model.fusion import Fusion, Side
from mammopath.model.network import Network
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import MODALITIES, Modality
from model_cases import batch, network, sample, stir


def fusion(*, trained: bool = True) -> Fusion:
    torch.manual_seed(0)
    made = Fusion(6, hidden=8, gate=4, dropout=0.0).eval()
    if trained:
        stir(made, "")
    return made


def side(pair: list[int], lengths: list[int], *, seed: int = 0) -> Side:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    valid = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return Side(torch.randn(len(pair), longest, 6, generator=generator), valid, torch.tensor(pair))


def tokens_of(one: Side, key: int) -> tuple[torch.Tensor, list[int]]:
    """Real tokens of a patient in order, and their flat places."""
    places = [
        b * one.valid.shape[1] + n
        for b in range(len(one.pair))
        for n in range(one.valid.shape[1])
        if one.pair[b] == key and one.valid[b, n]
    ]
    return one.tokens.flatten(0, 1)[places], places


def by_hand(f: Fusion, m: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Malignancy logit and link of one patient, without batches."""
    link = (f.query(m) @ f.key(t).T / f.query.out_features**0.5).softmax(-1)
    tissue = f.tissue(t)
    region = f.region(m) + f.explain(link @ tissue)
    pooled = [g(h).softmax(0) @ h for g, h in ((f.regions, region), (f.tissues, tissue))]
    return f.malignancy(f.norm(torch.cat(pooled)))[0], link


MAMMOGRAMS = side([4, -1, 2, 4, 9], [3, 5, 4, 2, 5], seed=1)
TISSUE = side([2, 7, 4, 2, -1], [2, 3, 3, 4, 1], seed=2)


def test_fusion_is_the_definition_patient_by_patient() -> None:
    f = fusion()
    found = f(MAMMOGRAMS, TISSUE)
    assert found.pairs.tolist() == [2, 4, 7, 9]
    assert found.paired.tolist() == [True, True, False, False]
    for row, key in enumerate((2, 4)):
        (m, m_places), (t, t_places) = tokens_of(MAMMOGRAMS, key), tokens_of(TISSUE, key)
        logit, link = by_hand(f, m, t)
        torch.testing.assert_close(found.logit[row], logit)
        torch.testing.assert_close(found.link[row, : len(m), : len(t)], link)
        assert found.mammogram[row][found.mammogram[row] >= 0].tolist() == m_places
        assert found.pathology[row][found.pathology[row] >= 0].tolist() == t_places


def test_a_missing_modality_is_the_learned_token() -> None:
    f = fusion()
    found = f(MAMMOGRAMS, TISSUE)
    only_tissue, _ = by_hand(f, f.absent["mammogram"][None], tokens_of(TISSUE, 7)[0])
    only_image, _ = by_hand(f, tokens_of(MAMMOGRAMS, 9)[0], f.absent["pathology"][None])
    torch.testing.assert_close(found.logit[2:], torch.stack([only_tissue, only_image]))
    alone = f(MAMMOGRAMS, None)
    assert alone.pairs.tolist() == [2, 4, 9]
    assert not alone.paired.any()
    torch.testing.assert_close(alone.logit[2], only_image)
    torch.testing.assert_close(f(None, TISSUE).logit[2], only_tissue)


def test_link_weights_sum_to_one_over_tissue_and_only_for_true_pairs() -> None:
    found = fusion()(MAMMOGRAMS, TISSUE)
    real = (found.mammogram >= 0) & found.paired[:, None]
    torch.testing.assert_close(found.link.sum(-1), real.float())
    assert (found.link.transpose(1, 2)[found.pathology < 0] == 0).all()
    by_tissue = found.link[1].sum(0)[found.pathology[1] >= 0]
    assert by_tissue.std() > 1e-3


def test_no_pairing_key_no_row() -> None:
    found = fusion()(side([-1, -1], [2, 3]), side([-1], [2]))
    assert len(found.pairs) == len(found.logit) == 0
    assert found.severity.shape == (0, 3)


def test_other_patients_do_not_matter() -> None:
    f = fusion()
    together = f(MAMMOGRAMS, TISSUE)
    keep = MAMMOGRAMS.pair == 4
    mine = Side(MAMMOGRAMS.tokens[keep], MAMMOGRAMS.valid[keep], MAMMOGRAMS.pair[keep])
    keep = TISSUE.pair == 4
    theirs = Side(TISSUE.tokens[keep], TISSUE.valid[keep], TISSUE.pair[keep])
    torch.testing.assert_close(f(mine, theirs).logit[0], together.logit[1])
    noise = replace(MAMMOGRAMS, tokens=torch.where(MAMMOGRAMS.valid[..., None], MAMMOGRAMS.tokens, 99.0))
    torch.testing.assert_close(f(noise, TISSUE).logit, together.logit)


def test_training_hides_either_modality_now_and_then() -> None:
    f = fusion().train()
    torch.manual_seed(0)
    keys = list(range(500))
    one, two = side(keys, [2] * 500, seed=3), side(keys, [3] * 500, seed=4)
    found = f(one, two)
    hidden = found.link.sum((1, 2)) == 0
    assert found.paired.all()
    assert 0.1 < hidden.float().mean() < 0.3
    exact = f.eval()(one, two)
    torch.testing.assert_close(found.logit[~hidden], exact.logit[~hidden])
    without = [f(None, two).logit, f(one, None).logit]
    kinds = [torch.isclose(found.logit, other, atol=1e-6) for other in without]
    assert torch.equal(hidden, kinds[0] | kinds[1])
    assert all(kind.sum() > 10 for kind in kinds)


def test_labels_have_no_way_in() -> None:
    assert {f.name for f in fields(Side)} == {"tokens", "valid", "pair"}
    assert list(inspect.signature(Fusion.forward).parameters) == ["self", "mammogram", "pathology", "watch"]
    outputs, batches, net = _network_case()
    told = {
        m: replace(b, malignant=torch.ones(3), severity=torch.full((3,), 3.0), domain=b.domain + 1)
        for m, b in batches.items()
    }
    assert torch.equal(net.fuse(outputs, batches).logit, net.fuse(outputs, told).logit)


def _network_case() -> tuple[dict[Modality, Output], dict[Modality, Batch], Network]:
    net = network(fusion=True)
    stir(net, "fusion")
    pairs = {"mammogram": [3, 5, 3], "pathology": [5, 8, 5]}
    batches = {m: batch([sample(m, seed=i) for i in range(3)], m, pair=pairs[m]) for m in MODALITIES}
    return {m: net(b) for m, b in batches.items()}, batches, net


def test_network_fuses_the_read_out_tokens_of_the_same_patient() -> None:
    outputs, batches, net = _network_case()
    found = net.fuse(outputs, batches)
    assert found.pairs.tolist() == [3, 5, 8]
    assert found.paired.tolist() == [False, True, False]
    images, slides = outputs["mammogram"].tokens, outputs["pathology"].tokens
    assert images is not None
    assert slides is not None
    assert isinstance(net.fusion, Fusion)
    logit, _ = by_hand(net.fusion, images[1], torch.cat([slides[0], slides[2]]))
    torch.testing.assert_close(found.logit[1], logit, atol=1e-5, rtol=1e-4)
    only = net.fuse({"mammogram": outputs["mammogram"]}, batches)
    assert isinstance(only, FusedOutput)
    assert not only.paired.any()


def test_fusion_that_cannot_be_is_an_error() -> None:
    outputs, batches, net = _network_case()
    with pytest.raises(ValueError, match="at least one modality"):
        net.fuse({}, batches)
    dropped = {m: replace(o, tokens=None) for m, o in outputs.items()}
    with pytest.raises(ValueError, match="were dropped"):
        net.fuse(dropped, batches)
    with pytest.raises(ConfigError, match=r"model\.fusion is off"):
        network().fuse(outputs, batches)
