"""Changes of token statistics, and how they are drawn."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mammopath.objectives.ledger import Ledger
from mammopath.objectives.methods import METHODS, recipe_with
from mammopath.objectives.mixstyle import match_values, mix_style, moments, perturb_style
from mammopath.objectives.recipe import StyleRecipe
from mammopath.objectives.style import draw_change, draw_partners, draw_style
from mammopath.tensors import Batch, Style
from objective_toys import ToyNetwork, build, det, make_batch, make_batches, take_step

SURE = StyleRecipe(kind="mixstyle", probability=1.0)
KINDS = pytest.mark.parametrize("kind", ["mixstyle", "efdmix", "dsu"])


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, validity (images of 6, 4 and 5 tokens), partners, shares kept."""
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, 4:] = False
    valid[2, 5:] = False
    return (
        det((3, 6, 2)) * torch.tensor([1.0, 3.0, 0.5])[:, None, None],
        valid,
        torch.tensor([1, 2, 0]),
        det((3,), 0.5).abs(),
    )


def draw(kind: str, batch: Batch, seed: int = 0, **changes: float) -> tuple[Style, Ledger]:
    ledger = Ledger()
    recipe = StyleRecipe(kind=kind, probability=1.0, **changes)
    style = draw_style(
        recipe, batch, blocks=(3, 12), generator=torch.Generator().manual_seed(seed), ledger=ledger
    )
    return style, ledger


# ---------------------------------------------------------------- the changes


def test_mixstyle_by_brute_force() -> None:
    tokens, valid, partner, keep = case()
    mixed = mix_style(tokens, valid, partner=partner, keep=keep).numpy()
    x = tokens.double().numpy()
    for i, j, lam in zip(range(3), partner.tolist(), keep.tolist(), strict=True):
        for c in range(2):
            own, other = x[i, valid[i], c], x[j, valid[j], c]
            mean, std = own.mean(), math.sqrt(own.var(ddof=1) + 1e-6)
            std2 = math.sqrt(other.var(ddof=1) + 1e-6)
            expected = (
                (own - mean) / std * (lam * std + (1 - lam) * std2) + lam * mean + (1 - lam) * other.mean()
            )
            np.testing.assert_allclose(mixed[i, valid[i], c], expected, rtol=1e-4, atol=1e-5)


def test_values_are_matched_by_rank() -> None:
    tokens, _, partner, keep = case()
    moved = match_values(tokens, torch.ones(3, 6, dtype=torch.bool), partner=partner, keep=keep)
    for i, j, lam in zip(range(3), partner.tolist(), keep.tolist(), strict=True):
        for c in range(2):
            own, other = tokens[i, :, c].tolist(), sorted(tokens[j, :, c].tolist())
            ranked = [other[sorted(own).index(v)] for v in own]
            expected = [lam * v + (1 - lam) * w for v, w in zip(own, ranked, strict=True)]
            np.testing.assert_allclose(moved[i, :, c], expected, rtol=1e-5, atol=1e-6)


def test_values_are_matched_by_quantile_where_the_numbers_of_tokens_differ() -> None:
    tokens = torch.tensor([[4.0, 1.0, 3.0, 2.0], [20.0, 10.0, 99.0, 99.0]])[..., None]
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    moved = match_values(tokens, valid, partner=torch.tensor([1, 0]), keep=torch.zeros(2))
    assert moved[0, :, 0].tolist() == [20.0, 10.0, 20.0, 10.0]
    assert moved[1, :, 0].tolist() == [4.0, 2.0, 99.0, 99.0]


def test_perturbed_statistics_by_brute_force() -> None:
    tokens, valid, _, _ = case()
    a, b = det((3, 2), 1, 1), det((3, 2), 1, 2)
    changed = perturb_style(tokens, valid, mean_noise=a, std_noise=b)
    means = np.stack([tokens[i, valid[i]].double().mean(0).numpy() for i in range(3)])
    stds = np.sqrt(np.stack([tokens[i, valid[i]].double().var(0).numpy() for i in range(3)]) + 1e-6)
    new_means = means + a.numpy() * np.sqrt(means.var(0, ddof=1) + 1e-6)
    new_stds = stds + b.numpy() * np.sqrt(stds.var(0, ddof=1) + 1e-6)
    for i in range(3):
        expected = (tokens[i, valid[i]].numpy() - means[i]) / stds[i] * new_stds[i] + new_means[i]
        np.testing.assert_allclose(changed[i, valid[i]], expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_detached() -> None:
    """With a gradient through mean and spread, the gradient of a token would depend on the others."""
    tokens, valid, partner, keep = case()
    tokens.requires_grad_()
    mean, std = moments(tokens, valid)
    assert not mean.requires_grad
    assert not std.requires_grad
    mix_style(tokens, valid, partner=partner, keep=keep)[0, 0, 0].backward()
    assert torch.count_nonzero(tokens.grad) == 1
    expected = (keep[0] * std[0, 0, 0] + (1 - keep[0]) * std[1, 0, 0]) / std[0, 0, 0]
    torch.testing.assert_close(tokens.grad[0, 0, 0], expected)


def test_matched_values_pass_the_gradient_on_unchanged() -> None:
    tokens, valid, partner, keep = case()
    tokens.requires_grad_()
    match_values(tokens, valid, partner=partner, keep=keep).sum().backward()
    assert (tokens.grad == 1).all()


def test_keeping_all_of_the_own_style_changes_nothing() -> None:
    tokens, valid, partner, _ = case()
    ones = torch.ones(3)
    torch.testing.assert_close(mix_style(tokens, valid, partner=partner, keep=ones), tokens)
    torch.testing.assert_close(match_values(tokens, valid, partner=partner, keep=ones), tokens)
    none = torch.zeros(3, 2)
    torch.testing.assert_close(perturb_style(tokens, valid, mean_noise=none, std_noise=none), tokens)


def test_padding_has_no_say_in_the_statistics() -> None:
    tokens, valid, partner, keep = case()
    loud = tokens.masked_fill(~valid[..., None], 1e4)
    for change in (mix_style, match_values):
        quiet, noisy = (change(t, valid, partner=partner, keep=keep)[valid] for t in (tokens, loud))
        torch.testing.assert_close(quiet, noisy)


# ---------------------------------------------------------------- the draw


@KINDS
def test_a_draw_can_be_replayed(kind: str) -> None:
    batch = make_batch("mammogram")
    patches = batch.tokens[:, 1:]
    style, _ = draw(kind, batch)
    again, _ = draw(kind, batch)
    first = style.apply(patches, batch.valid)
    assert torch.equal(first, style.apply(patches, batch.valid))
    assert torch.equal(first, again.apply(patches, batch.valid))
    other, _ = draw(kind, batch, seed=1)
    assert not torch.equal(first, other.apply(patches, batch.valid))


@KINDS
def test_padding_and_undrawn_tokens_stay_as_they_are(kind: str) -> None:
    batch = make_batch("pathology", per_site=200)
    patches = batch.tokens[:, 1:]
    style, _ = draw(kind, batch, share=0.5)
    changed = (style.apply(patches, batch.valid) != patches).any(2)
    assert not changed[~batch.valid].any()
    share = changed[batch.valid].float().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)


def test_tokens_are_not_written_in_place() -> None:
    batch = make_batch("mammogram")
    patches = batch.tokens[:, 1:]
    before = patches.clone()
    draw("mixstyle", batch)[0].apply(patches, batch.valid)
    assert torch.equal(before, patches)


def test_half_precision_stays_half_precision() -> None:
    batch = make_batch("mammogram")
    for kind in ("mixstyle", "efdmix", "dsu"):
        assert draw(kind, batch)[0].apply(batch.tokens[:, 1:].bfloat16(), batch.valid).dtype == torch.bfloat16


def test_partners_come_from_another_site() -> None:
    domain = torch.tensor([0, 0, 0, 1, 2, 2])
    for seed in range(20):
        partner = draw_partners(domain, torch.Generator().manual_seed(seed))
        assert (domain[partner] != domain).all()


def test_within_one_site_partners_are_others_of_it() -> None:
    partner = draw_partners(torch.zeros(5, dtype=torch.long), torch.Generator())
    assert (partner != torch.arange(5)).all()
    assert draw_partners(torch.zeros(1, dtype=torch.long), torch.Generator()).tolist() == [0]


def test_every_partner_of_another_site_is_drawn_alike() -> None:
    domain = torch.tensor([0, 1, 1, 1])
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(
        torch.stack([draw_partners(domain, generator)[0] for _ in range(900)]), minlength=4
    )
    assert counts[0] == 0
    assert (counts[1:] - 300).abs().max() < 60


def test_shares_follow_the_beta_law() -> None:
    domain, valid = torch.zeros(4000, dtype=torch.long), torch.ones(4000, 1, dtype=torch.bool)
    keep = draw_change(SURE, domain, valid, generator=torch.Generator().manual_seed(0)).keep
    assert keep.mean().item() == pytest.approx(0.5, abs=0.03)
    assert keep.var().item() == pytest.approx(0.25 / 1.2, abs=0.01)  # Beta(0.1, 0.1)


def test_blocks_are_the_first_seven_tenths() -> None:
    batch = make_batch("mammogram")
    blocks = {draw("mixstyle", batch, seed=seed)[0].block for seed in range(80)}
    assert blocks == set(range(3, 10))  # 7 of the 10 blocks from 3 to 12


def test_a_span_of_one_block_is_used() -> None:
    style = draw_style(
        SURE, make_batch("mammogram"), blocks=(12, 12), generator=torch.Generator(), ledger=Ledger()
    )
    assert style.block == 12


def test_the_probability_is_that_of_a_batch() -> None:
    recipe, batch, generator = (
        StyleRecipe(kind="mixstyle"),
        make_batch("mammogram"),
        torch.Generator().manual_seed(0),
    )
    drawn = [
        draw_style(recipe, batch, blocks=(1, 4), generator=generator, ledger=Ledger()) is not None
        for _ in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.08)


# ---------------------------------------------------------------- in training


def test_mixing_is_counted_when_it_is_applied_not_when_it_is_drawn() -> None:
    batch = make_batch("mammogram")
    style, ledger = draw("mixstyle", batch)
    assert ledger.counters == {}
    style.apply(batch.tokens[:, 1:], batch.valid)
    assert ledger.counters == {"mixstyle": 1}


def test_mixing_within_one_site_does_not_count_as_mixing_across_sites() -> None:
    objective = build(recipe_with(METHODS["mixstyle"], {"style": {"probability": 1.0}}), sites=1)
    take_step(objective, ToyNetwork(), make_batches(sites=1))
    assert objective.counters["mixstyle"] == 0
    assert objective.counters["mixstyle within one site"] == 2
    assert "only one training site" in objective.idle_reasons["mixstyle"]


def test_mixing_changes_the_loss_in_training_and_nothing_in_evaluation() -> None:
    network, batches = ToyNetwork(), make_batches()
    plain = take_step(build(METHODS["erm"]), network, batches)["loss"]
    objective = build(recipe_with(METHODS["mixstyle"], {"style": {"probability": 1.0}}))
    assert take_step(objective, network, batches)["loss"] != plain
    objective.eval()
    assert take_step(objective, network, batches)["loss"] == plain


def test_modalities_are_never_mixed_with_each_other() -> None:
    """Each draw sees the batch of one modality; tokens of the other cannot change its result."""
    objective = build(recipe_with(METHODS["mixstyle"], {"style": {"probability": 1.0}}))
    terms = []
    for seed in (0, 1):
        batches = {"mammogram": make_batch("mammogram"), "pathology": make_batch("pathology", seed=seed)}
        network = ToyNetwork()
        outputs = network.outputs(batches)
        style = objective.style(batches["mammogram"], block_low=1, block_high=4, generator=torch.Generator())
        terms.append(style.apply(batches["mammogram"].tokens[:, 1:], outputs["mammogram"].valid))
    assert torch.equal(*terms)


def test_an_untrained_modality_keeps_its_style() -> None:
    recipe = recipe_with(METHODS["mixstyle"], {"modalities": ["mammogram"], "style": {"probability": 1.0}})
    objective = build(recipe)
    assert (
        objective.style(make_batch("pathology"), block_low=1, block_high=4, generator=torch.Generator())
        is None
    )


def test_a_partner_of_padding_alone_gives_nothing() -> None:
    """Strips at the edge of a slide can be smaller than half a token; their values would be infinite."""
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 5, [False] * 5])
    moved = match_values(tokens, valid, partner=torch.tensor([1, 0]), keep=torch.zeros(2))
    assert torch.equal(moved, tokens)
