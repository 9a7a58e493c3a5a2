"""Penalties across sites: against autograd and brute force, and as the objective applies them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mammopath.objectives import invariance
from mammopath.objectives.judges import Discriminator, GradientSpread, WorstSite
from mammopath.objectives.methods import METHODS, recipe_with
from mammopath.objectives.sites import Site, usable_sites
from objective_toys import WIDTH, ToyNetwork, build, det, make_batch, make_batches, take_step

PENALISED = {name: r for name, r in METHODS.items() if r.invariance.kind != "none"}
LABELS = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])


def site(index: int = 0, *, phase: float = 0.0, cases: int = 8) -> Site:
    labels = (torch.arange(cases) >= cases // 2).float()
    weights = torch.full((cases,), 1 / cases)
    return Site(index, det((cases,), 2, phase), labels, det((cases, WIDTH), 1, phase), weights)


# ---------------------------------------------------------------- IRM


def autograd_gradient(logits: Tensor, labels: Tensor, weights: Tensor) -> float:
    factor = torch.ones((), requires_grad=True)
    losses = F.binary_cross_entropy_with_logits(factor * logits, labels, reduction="none")
    risk = (losses * weights).sum() / weights.sum()
    return torch.autograd.grad(risk, factor)[0].item()


def test_irm_is_the_product_of_the_gradients_of_two_halves() -> None:
    logits, weights = det((8,), 2, 1), det((8,), 1).abs() + 0.1
    even, odd = (autograd_gradient(logits[i::2], LABELS[i::2], weights[i::2]) for i in (0, 1))
    penalty = invariance.irm_penalty(logits, LABELS, weights=weights)
    assert penalty.item() == pytest.approx(even * odd, rel=1e-3)


def test_two_halves_do_not_over_estimate_the_squared_gradient() -> None:
    """Where the true gradient is 0, its square over a batch is positive; the product of halves is not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(800, 8, generator=generator)
    labels = torch.bernoulli(logits.sigmoid(), generator=generator)
    cases = list(zip(logits, labels, strict=True))
    full = np.mean([invariance.irm_penalty_full_batch(z, y).item() for z, y in cases])
    halves = np.mean([invariance.irm_penalty(z, y).item() for z, y in cases])
    assert full > 0.015
    assert abs(halves) < 0.006


@pytest.mark.parametrize("cases", [0, 1, 2, 3])
def test_irm_refuses_fewer_than_two_cases_in_a_half(cases: int) -> None:
    with pytest.raises(ValueError, match="2 in each half"):
        invariance.irm_penalty(torch.zeros(cases), torch.zeros(cases))


def test_irm_vanishes_where_the_classifier_is_best() -> None:
    """At logits whose scale minimises the risk, the gradient with respect to the scale is 0."""
    logits = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 1]) * math.log(3)
    labels = torch.tensor([1.0, 1, 1, 1, 1, 0, 1, 0])  # three quarters malignant: logit ln 3
    assert invariance.irm_penalty_full_batch(logits, labels).item() == pytest.approx(0, abs=1e-12)
    assert invariance.irm_penalty_full_batch(2 * logits, labels).item() > 1e-3


# ---------------------------------------------------------------- the others


def test_vrex_is_the_population_variance_of_mean_risks_not_of_cases() -> None:
    """Variance of the cases' losses inside a site would be positive where all sites have one risk."""
    assert invariance.vrex_penalty(torch.tensor([0.3, 0.9])).item() == pytest.approx(np.var([0.3, 0.9]))
    assert invariance.vrex_penalty(torch.tensor([0.4, 0.4, 0.4])).item() == pytest.approx(0, abs=1e-12)


def test_group_weights_by_hand() -> None:
    raised = [0.5 * math.exp(0.2 * 1), 0.5 * math.exp(0.2 * 3)]
    found = invariance.group_weights(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 3.0]), step_size=0.2)
    assert found.tolist() == pytest.approx([raised[0] / sum(raised), raised[1] / sum(raised)])


def test_coral_by_brute_force() -> None:
    sites = [det((5, 3), 1, phase) for phase in (0, 1, 2)]
    expected = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = sites[i].double().numpy(), sites[j].double().numpy()
        mean = ((a.mean(0) - b.mean(0)) ** 2).mean()
        expected.append(mean + ((np.cov(a.T) - np.cov(b.T)) ** 2).mean())
    assert invariance.coral_penalty(sites).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_fishr_gradients_are_those_of_the_head() -> None:
    """Per-case gradients by autograd on a linear head, one case at a time."""
    head, features = nn.Linear(WIDTH, 1), det((8, WIDTH))
    logits = head(features)[:, 0]
    expected = []
    for i in range(8):
        loss = F.binary_cross_entropy_with_logits(head(features[i : i + 1])[:, 0], LABELS[i : i + 1])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        expected.append(torch.cat([weight[0], bias]))
    gradients = invariance.head_gradients(features, logits, LABELS)
    torch.testing.assert_close(gradients, torch.stack(expected))
    variance = torch.stack(expected).detach().numpy().var(0)
    np.testing.assert_allclose(invariance.gradient_variance(gradients).detach(), variance, rtol=1e-4)


def test_fishr_by_brute_force() -> None:
    variances = det((3, 4)).abs()
    mean = variances.numpy().mean(0)
    expected = np.mean([((v - mean) ** 2).mean() for v in variances.numpy()])
    assert invariance.fishr_penalty(variances).item() == pytest.approx(expected, rel=1e-5)


def test_the_bottleneck_is_the_mean_variance_of_the_features() -> None:
    features = det((6, 3))
    expected = features.numpy().var(0, ddof=1).mean()
    assert invariance.bottleneck_penalty(features).item() == pytest.approx(expected, rel=1e-5)


def test_reversed_features_keep_their_values_and_turn_their_gradient() -> None:
    features = det((4, 3)).requires_grad_()
    turned = invariance.gradient_reversed(features, strength=0.5)
    assert torch.equal(turned, features)
    turned.sum().backward()
    assert (features.grad == -0.5).all()


@pytest.mark.parametrize(
    "penalty",
    [
        lambda: invariance.vrex_penalty(torch.ones(1)),
        lambda: invariance.coral_penalty([torch.ones(3, 2)]),
        lambda: invariance.coral_penalty([torch.ones(3, 2), torch.ones(1, 2)]),
        lambda: invariance.fishr_penalty(torch.ones(1, 2)),
        lambda: invariance.bottleneck_penalty(torch.ones(1, 2)),
    ],
)
def test_too_few_sites_or_cases_are_refused(penalty) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        penalty()


# ---------------------------------------------------------------- what remembers and learns


def test_the_worst_site_gains_weight() -> None:
    judge = WorstSite(2, step_size=0.5)
    bad = replace(site(1), logits=-10 * (site(1).labels - 0.5))
    first = judge([site(0), bad])
    for _ in range(20):
        last = judge([site(0), bad])
    assert judge.share[1] > 0.9
    assert judge.share.sum().item() == pytest.approx(1, abs=1e-5)
    risks = torch.stack([site(0).risk(), bad.risk()])
    assert first < last < risks.max() - risks.mean() + 1e-6


def test_an_absent_site_keeps_its_weight() -> None:
    judge = WorstSite(3, step_size=0.5)
    judge([site(0), replace(site(2), logits=torch.full((8,), 9.0))])
    assert judge.share[1].item() == pytest.approx(1 / 3)
    assert judge.share.sum().item() == pytest.approx(1, abs=1e-5)


def test_fishr_remembers_as_the_original_code_does() -> None:
    judge = GradientSpread(2, width=WIDTH, decay=0.95)
    steps = [[site(0, phase=t), site(1, phase=t + 3)] for t in (0.0, 1.0)]
    running = torch.zeros(2, WIDTH + 1)
    for sites in steps:
        now = torch.stack(
            [
                invariance.gradient_variance(invariance.head_gradients(s.features, s.logits, s.labels))
                for s in sites
            ]
        )
        running = 0.95 * running + 0.05 * now
        value = judge(sites)
        torch.testing.assert_close(value, invariance.fishr_penalty(running / 0.05))
    torch.testing.assert_close(judge.running, running)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_discriminator_learns_while_the_features_learn_to_hide(conditional: bool) -> None:
    torch.manual_seed(0)
    judge = Discriminator(2, width=WIDTH, hidden=16, conditional=conditional)
    features = torch.stack([det((8, WIDTH)), det((8, WIDTH)) + 3]).requires_grad_()
    sites = [replace(site(i), features=features[i]) for i in (0, 1)]
    loss = judge(sites)
    loss.backward()
    direct = features.detach().clone().requires_grad_()
    given = (
        F.one_hot(site().labels.long(), 2).expand(2, 8, 2).float() if conditional else torch.empty(2, 8, 0)
    )
    plain = F.cross_entropy(
        judge.layers(torch.cat([direct, given], 2)).flatten(0, 1), torch.arange(2).repeat_interleave(8)
    )
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(features.grad, -torch.autograd.grad(plain, direct, retain_graph=True)[0])
    for own, expected in zip(
        judge.parameters(), torch.autograd.grad(plain, list(judge.parameters())), strict=True
    ):
        torch.testing.assert_close(own.grad, expected)


# ---------------------------------------------------------------- in the objective


def test_sites_are_balanced_halves_and_all() -> None:
    batch = make_batch("mammogram")
    batch.malignant[:2] = torch.tensor([1.0, torch.nan])
    output = ToyNetwork().outputs({"mammogram": batch})["mammogram"]
    first, second = usable_sites(output, batch)
    assert first.labels.tolist() == [0, 0, 1, 1, 1, 1, 1]
    for one in (first, second):
        assert one.weights.sum().item() == pytest.approx(1)
        assert one.weights[one.labels == 1].sum().item() == pytest.approx(0.5)
        assert min(one.labels[::2].min(), one.labels[1::2].min()) == 0
        assert max(one.labels[::2].max(), one.labels[1::2].max()) == 1


@pytest.mark.parametrize("per_class", [2, 3, 5])
def test_halves_of_odd_classes_estimate_the_same_gradient(per_class: int) -> None:
    """In expectation the product of the halves is the squared class-balanced gradient, for any count.

    Cases with one logit per class: what is drawn does not matter, so a single site shows the expectation.
    """
    labels = torch.tensor([0.0] * per_class + [1.0] * per_class)
    logits = torch.where(labels == 1, 0.4, -0.3)
    site = Site(0, logits, labels, torch.zeros(2 * per_class, 1), torch.full_like(labels, 0.5 / per_class))
    each = invariance.multiplier_gradient(torch.tensor([-0.3, 0.4]), torch.tensor([0.0, 1.0]))
    weights = site.weights_in_halves()
    for half in (weights[::2], weights[1::2]):
        assert half.sum().item() == pytest.approx(1)
    found = invariance.irm_penalty(logits, labels, weights=weights)
    assert found.item() == pytest.approx(each.mean().square().item(), abs=1e-7)


def test_prevalence_alone_gives_no_penalty() -> None:
    """Two sites with the same images and another share of malignant ones have the same balanced risk."""
    batch = make_batch("mammogram", per_site=8)
    rows = torch.tensor([0, 1, 4, 5, 0, 1, 0, 1, 0, 1, 4, 5])
    batch = replace(
        batch,
        **{
            name: value[rows]
            for name, value in vars(batch).items()
            if isinstance(value, Tensor) and name != "domain"
        },
        domain=torch.tensor([0] * 4 + [1] * 8),
    )
    objective = build(METHODS["vrex"])
    outputs = ToyNetwork().outputs({"mammogram": batch})
    assert objective(outputs, {"mammogram": batch}, step=9)["vrex"].item() == pytest.approx(0, abs=1e-10)


def weight_of(kind: str, terms: dict[str, Tensor]) -> float:
    """With what weight a penalty went into the loss, from the gradient of the loss with respect to it."""
    return torch.autograd.grad(terms["loss"], terms[kind], retain_graph=True)[0].item()


@pytest.mark.parametrize("name", PENALISED)
def test_the_weight_is_annealed_and_the_optimiser_made_anew(name: str) -> None:
    recipe = PENALISED[name].invariance
    objective, network = build(METHODS[name], steps=100), ToyNetwork()
    switch = round(100 * recipe.anneal) + 1
    assert objective.switch_steps == ((switch,) if recipe.anneal else ())
    outputs, batches = network.outputs(make_batches()), make_batches()
    objective.eval()
    before, after = (objective(outputs, batches, step=step) for step in (max(1, switch - 1), switch))
    assert weight_of(recipe.kind, before) == pytest.approx(
        recipe.weight_before if recipe.anneal else recipe.weight
    )
    assert weight_of(recipe.kind, after) == pytest.approx(recipe.weight, rel=1e-4)
    assert ("bottleneck" in before, "bottleneck" in after) == (False, recipe.bottleneck > 0)


@pytest.mark.parametrize("name", PENALISED)
def test_with_one_training_site_the_penalty_is_idle_and_says_why(name: str) -> None:
    objective, network = build(METHODS[name], sites=1), ToyNetwork()
    terms = take_step(objective, network, make_batches(sites=1))
    kind = METHODS[name].invariance.kind
    assert kind not in terms
    assert objective.counters[kind] == 0
    assert objective.switch_steps == ()
    assert "only one training site of mammogram" in objective.idle_reasons[kind]
    assert "only one training site of pathology" in objective.idle_reasons[kind]


def test_sites_without_both_classes_are_left_out_and_counted() -> None:
    batches = make_batches(sites=3)
    batches["mammogram"].malignant[:8] = 0.0
    batches["pathology"].malignant[8:] = 0.0
    objective = build(METHODS["irm"], sites=3)
    take_step(objective, ToyNetwork(), batches)
    assert objective.counters["irm"] == 2  # two of three mammogram sites; one pathology site is not enough
    assert "2 sites of pathology" in objective.idle_reasons["irm"]


def test_penalties_are_per_modality() -> None:
    """The penalty of both modalities is the mean of each alone: no site meets the other modality."""
    batches = make_batches()
    outputs = ToyNetwork().outputs(batches)
    for name in ("irm", "vrex", "coral"):
        alone = [build(METHODS[name])({m: outputs[m]}, {m: batches[m]}, step=9)[name] for m in outputs]
        both = build(METHODS[name])(outputs, batches, step=9)[name]
        torch.testing.assert_close(both, torch.stack(alone).mean())


def test_no_weight_before_the_switch_leaves_erm() -> None:
    recipe = recipe_with(METHODS["fishr"], {"invariance": {"weight_before": 0.0}})
    objective, plain = build(recipe, steps=100), build(METHODS["erm"])
    outputs, batches = ToyNetwork().outputs(make_batches()), make_batches()
    assert objective(outputs, batches, step=1)["loss"] == plain(outputs, batches, step=1)["loss"]
    assert objective(outputs, batches, step=31)["loss"] != plain(outputs, batches, step=31)["loss"]
