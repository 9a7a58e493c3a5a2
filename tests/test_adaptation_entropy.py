"""Entropy objectives, prototypes and descent: thresholds that scale, weights, agreement with torch."""

import math

import pytest
import torch
from torch import Tensor

from adaptation_toys import batch_of
from mammopath.adaptation import entropy as e
from mammopath.adaptation import prototypes
from mammopath.adaptation.descent import Descent, Moving, climbed, descend, distance, gradient, leaves, within
from mammopath.adaptation.updates import middle_hidden


def logits_of(*probabilities: float) -> Tensor:
    """Two-class logits whose second class has these probabilities."""
    return e.two_class(torch.logit(torch.tensor(probabilities)))


# ---------------------------------------------------------------- which cases count


@pytest.mark.parametrize(("classes", "expected"), [(2, 0.2773), (4, 0.5545), (1000, 2.7631)])
def test_margins_scale_with_the_number_of_classes(classes: int, expected: float) -> None:
    assert e.margin(classes, 0.4) == pytest.approx(expected, abs=1e-4)


def test_two_classes_are_filtered_although_ln_1000_would_filter_none() -> None:
    unsure, sure = 0.5, 0.99
    assert e.reliable(logits_of(unsure, sure), e.margin(2, 0.4)).used.tolist() == [False, True]
    assert e.reliable(logits_of(unsure, sure), 0.4 * math.log(1000)).used.all()


def test_the_reset_threshold_of_two_classes_is_not_reached_by_every_sure_case() -> None:
    limit = e.margin(2, e.RESET)
    assert e.margin(1000, e.RESET) == pytest.approx(0.2)
    assert limit < 0.2 * e.margin(2, 0.4)  # the hard-coded 0.2 lies just under the margin 0.277


def test_two_class_softmax_is_the_sigmoid() -> None:
    z = torch.linspace(-4, 4, 9)
    assert torch.allclose(e.two_class(z).softmax(1)[:, 1], z.sigmoid())


def test_redundancy_is_published_for_a_thousand_classes_and_idle_for_two() -> None:
    assert e.redundancy(1000) == pytest.approx(0.05)
    assert e.redundancy(2) > 1


def test_surer_cases_weigh_more() -> None:
    weight = e.fresh(logits_of(0.9, 0.99, 0.5), None, e.margin(2, 0.6), 0.05).weight
    assert weight[1] > weight[0] > 1
    assert weight[2] == 0


def test_a_case_counts_only_if_hiding_its_shape_costs_its_class() -> None:
    whole, hidden = logits_of(0.95, 0.95, 0.05), logits_of(0.5, 0.94, 0.6)
    choice = e.shape_bound(whole, hidden, limit=e.margin(2, 0.5), centre=e.margin(2, 0.4), drop=0.2)
    assert choice.used.tolist() == [True, False, True]
    expected = math.exp(e.margin(2, 0.4) - e.entropy(whole)[0].item()) + math.exp(0.45)
    assert choice.weight[0].item() == pytest.approx(expected, rel=1e-5)


def test_no_used_case_gives_no_loss() -> None:
    choice = e.reliable(logits_of(0.5, 0.5), 0.1)
    assert choice.mean(torch.ones(2)).item() == 0.0


def test_imbalance_is_shots_diversity_for_a_uniform_prior_and_zero_at_the_prior() -> None:
    mean = torch.tensor([0.7, 0.3])
    diversity = (mean * mean.log()).sum()
    assert e.imbalance(mean, torch.tensor([0.5, 0.5])).item() == pytest.approx(diversity.item() + math.log(2))
    assert e.imbalance(mean, mean).item() == pytest.approx(0.0, abs=1e-7)


def test_running_mean_ignores_an_empty_batch() -> None:
    old = torch.tensor([0.2, 0.8])
    assert e.running_mean(old, torch.zeros(0, 2)) is old
    assert e.running_mean(None, torch.zeros(0, 2)) is None
    assert torch.allclose(e.running_mean(old, torch.tensor([[1.0, 0.0]])), torch.tensor([0.28, 0.72]))


def test_the_middle_of_an_image_is_hidden_and_its_mean_kept() -> None:
    batch = batch_of(torch.randn(2, 9, 4), prefix=1)
    hidden = middle_hidden(batch)
    assert torch.equal(hidden.tokens[:, :3], batch.tokens[:, :3])
    assert torch.equal(hidden.tokens[:, 7:], batch.tokens[:, 7:])
    mean = batch.tokens[:, 1:].mean(1, keepdim=True).expand(-1, 4, -1)
    assert torch.allclose(hidden.tokens[:, 3:7], mean, atol=1e-6)


# ---------------------------------------------------------------- prototypes


def test_keeping_all_supports_drops_none() -> None:
    g = torch.Generator().manual_seed(0)
    weight, z = torch.randn(3, 5, generator=g), torch.randn(40, 5, generator=g)
    start = prototypes.begin(weight, torch.zeros(3))
    assert len(prototypes.extend(start, z, z @ weight.T, keep=None).label) == 43
    kept = prototypes.extend(start, z, z @ weight.T, keep=2)
    assert torch.bincount(kept.label).tolist() == [2, 2, 2]


def test_the_surest_supports_stay() -> None:
    g = torch.Generator().manual_seed(0)
    weight, z = torch.randn(2, 5, generator=g), torch.randn(40, 5, generator=g)
    logits = z @ weight.T
    kept = prototypes.extend(prototypes.begin(weight, torch.zeros(2)), z, logits, keep=4)
    for label in (0, 1):
        rows = torch.cat([weight @ weight.T, logits])
        own = e.entropy(rows)[rows.argmax(1) == label].sort().values[:4]
        assert torch.allclose(kept.entropy[kept.label == label].sort().values, own)


def test_without_cases_the_prototypes_are_the_source_head() -> None:
    weight, bias = torch.randn(1, 6), torch.randn(1)
    start = prototypes.begin(prototypes.binary_rows(weight, bias), torch.zeros(2))
    found = prototypes.binary_head(prototypes.prototypes(start, 2), weight, bias)
    assert torch.allclose(found[0], weight, atol=1e-6)
    assert torch.allclose(found[1], bias, atol=1e-6)


def test_a_binary_head_ranks_as_the_two_prototypes_do() -> None:
    g = torch.Generator().manual_seed(3)
    weight, bias, z = torch.randn(1, 6, generator=g), torch.zeros(1), torch.randn(30, 6, generator=g)
    supports = prototypes.begin(prototypes.binary_rows(weight, bias), torch.zeros(2))
    score = (z @ weight.T)[:, 0]
    supports = prototypes.extend(supports, prototypes.with_one(z), e.two_class(score), keep=5)
    rows = prototypes.prototypes(supports, 2)
    published = prototypes.with_one(z) @ (rows[1] - rows[0])
    new_weight, new_bias = prototypes.binary_head(rows, weight, bias)
    ours = (z @ new_weight.T)[:, 0] + new_bias
    assert torch.equal(published.argsort(), ours.argsort())
    assert torch.cat([new_weight[0], new_bias]).norm().item() == pytest.approx(weight.norm().item(), rel=1e-5)


# ---------------------------------------------------------------- descent


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_descent_is_that_of_torch(kind: str) -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(1))
    theirs = start.clone().requires_grad_(True)
    optimiser = (
        torch.optim.SGD([theirs], 0.05, momentum=0.9) if kind == "sgd" else torch.optim.Adam([theirs], 0.05)
    )
    moving = Moving({"x": start})
    for _ in range(5):
        params = leaves(moving.params)
        moving = descend(moving, gradient((params["x"] ** 4).sum(), params), Descent(kind, 0.05, 0.9))
        optimiser.zero_grad()
        (theirs**4).sum().backward()
        optimiser.step()
    assert torch.allclose(moving.params["x"], theirs, atol=1e-6)


def test_a_parameter_that_does_not_matter_has_no_slope() -> None:
    params = leaves({"a": torch.ones(2), "b": torch.ones(3)})
    slope = gradient((params["a"] ** 2).sum(), params)
    assert slope["a"].tolist() == [2.0, 2.0]
    assert slope["b"].tolist() == [0.0, 0.0, 0.0]


def test_climbing_goes_rho_far_uphill() -> None:
    params, slope = {"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.ones(2), "b": torch.ones(1)}
    up = climbed(params, slope, 0.3)
    assert distance(up, params).item() == pytest.approx(0.3)
    assert (up["a"] > 0).all()


def test_the_ball_holds_and_leaves_its_inside_alone() -> None:
    source = {"a": torch.full((4,), 2.0)}
    inside, outside = Moving({"a": source["a"] + 0.01}), Moving({"a": source["a"] + 5})
    assert within(inside, source, 0.1) is inside
    held = within(outside, source, 0.1)
    assert distance(held.params, source).item() == pytest.approx(0.1 * source["a"].norm().item(), rel=1e-5)


def test_a_source_that_is_seldom_sure_is_not_left_without_reliable_cases() -> None:
    unsure = e.two_class(torch.linspace(-0.5, 0.5, 11))  # entropy from 0.65 up, over 0.277
    limit = e.reliable_limit(unsure, 0.4, 0.4)
    assert e.reliable(unsure, limit + 1e-6).used.sum() == 6  # 40 % of 11, ties by symmetry
    sure = e.two_class(torch.tensor([-9.0, 9.0]))
    assert e.reliable_limit(sure, 0.4, 0.4) == e.margin(2, 0.4)
    assert e.reliable_limit(unsure, 0.4, 0.0) == e.reliable_limit(unsure[:0], 0.4, 0.4) == e.margin(2, 0.4)
