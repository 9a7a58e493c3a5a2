"""The guard: every rule refuses what it is for, and the bound on AUC is a bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mammopath.adaptation.guard import Evidence, Probe, Site, Verdict, judge, measure, order_losses
from mammopath.settings import GuardSettings

RULES = GuardSettings()


def source_scores(n: int = 64, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def of(adapted: Tensor, source: Tensor, *styled: Tensor) -> Evidence:
    return Evidence(adapted, source, torch.stack(styled or (source,)))


def verdict(adapted: Tensor, source: Tensor, *styled: Tensor, probe: Probe | None = None) -> Verdict:
    return judge(of(adapted, source, *styled), probe, RULES, site=Site(0.5))


def auc_loss(adapted: Tensor, source: Tensor, *, prevalence: float, mixed: bool = True) -> float:
    return order_losses(of(adapted, source), RULES, site=Site(prevalence, mixed))["auc_loss"]


def reason(adapted: Tensor, source: Tensor, probe: Probe | None = None) -> str:
    found = verdict(adapted, source, probe=probe)
    assert found.decision == "refuse"
    return " ".join(found.reasons)


def test_a_small_change_that_keeps_the_order_is_accepted() -> None:
    z = source_scores()
    assert verdict(z, z).decision == "accept"
    assert verdict(1.001 * z, z).decision == "accept"


def test_few_cases_wait_and_broken_ones_do_not() -> None:
    z = source_scores(8)
    assert verdict(1.01 * z, z).decision == "wait"
    broken = z.clone()
    broken[3] = float("nan")
    assert verdict(broken, z).decision == "refuse"


def test_each_rule_refuses_what_it_is_for() -> None:
    z = source_scores()
    assert "predicted prevalence" in reason(z + 1.5, z)
    assert "of cases the same" in reason(z.abs() + 0.1, z)
    assert "agrees with the averaged source" in reason(-z, z)
    assert "spreads scores" in reason(0.01 * z, z)
    assert "of AUC by its order" in reason(
        z[torch.randperm(64, generator=torch.Generator().manual_seed(1))], z
    )
    flipped = Probe(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0]), torch.full((2,), torch.nan))
    assert "probe" in reason(1.001 * z, z, flipped)


def test_a_prevalence_that_comes_nearer_to_the_source_is_no_shift() -> None:
    z = source_scores()
    nearer = measure(of(z, z + 1.5), None, RULES, site=Site(0.5))
    assert nearer["prevalence_shift"] < 0.02
    away = measure(of(z + 1.5, z), None, RULES, site=Site(0.5))
    assert away["prevalence_shift"] > 0.1


def test_a_collapse_that_the_source_shares_is_not_the_adaptations() -> None:
    z = source_scores().abs() + 0.1
    assert verdict(1.0001 * z, z).decision == "accept"


def test_an_offset_of_all_cases_costs_order_against_those_the_source_answered() -> None:
    z = source_scores()
    assert auc_loss(z + 0.5, z, prevalence=0.5) > 0.01
    assert auc_loss(z, z, prevalence=0.5) == 0.0
    assert auc_loss(z + 0.5, z, prevalence=0.5, mixed=False) == 0.0  # all answered alike: no order changes


def noisy(z: Tensor, size: float, seed: int) -> Tensor:
    return z + size * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))


def labelled_probe(*, better: bool) -> Probe:
    source, label = torch.tensor([1.0, 2.0, -1.0, -2.0, 0.5, 1.5]), torch.tensor([1.0, 1, 0, 0, 0, 1])
    adapted = source.clone()
    adapted[[0, 4]] += 0.3 if better else -0.6
    adapted[4] -= 0.6 if better else -1.2
    return Probe(adapted, source, label)


def test_a_change_of_order_needs_three_signs_where_no_certificate_is_to_be_had() -> None:
    z = source_scores(128)
    adapted, styled = noisy(z, 0.05, 3), [noisy(z, 0.8, seed) for seed in range(4)]
    found = measure(of(adapted, z, *styled), labelled_probe(better=True), RULES, site=Site(0.5, mixed=False))
    assert found["auc_loss"] > RULES.auc_loss
    assert found["likely_loss"] < RULES.likely_loss
    assert found["stable_loss"] < RULES.stable_loss < found["likely_loss"] + 0.01
    loose = RULES.model_copy(update={"flips": 1.0})

    def decided(
        probe: Probe | None, *views: Tensor, rules: GuardSettings = loose, mixed: bool = False
    ) -> str:
        found = judge(of(adapted, z, *views), probe, rules, site=Site(0.5, mixed))
        return f"{found.decision} {found.reasons}"

    assert decided(labelled_probe(better=True), *styled).startswith("accept")
    assert "along a stream" in decided(labelled_probe(better=True), *styled, mixed=True)
    assert "AUC on the source's probe falls" in decided(labelled_probe(better=False), *styled)
    assert "no labelled cases" in decided(None, *styled)
    unlabelled = Probe(z[:4], z[:4], torch.full((4,), torch.nan))
    assert "no labelled cases" in decided(unlabelled, *styled)
    few = loose.model_copy(update={"likely_loss": 0.0})
    assert "likely up to" in decided(labelled_probe(better=True), *styled, rules=few)
    strict = loose.model_copy(update={"stable_loss": 0.0})
    assert "style leaves alone" in decided(labelled_probe(better=True), z, rules=strict)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_pairs_counted_as_cases_come_and_go_are_those_counted_at_once(size: int) -> None:
    z = source_scores(40)
    whole = of(noisy(z, 0.5, 1), z, noisy(z, 0.3, 2), noisy(z, 0.3, 4))
    z2 = [whole._part(slice(i, i + size)) for i in range(0, 40, size)]
    running = z2[0]
    for part in z2[1:]:
        running = running.joined(part).newest(16)
    once = whole.newest(16)
    assert running.counted == Evidence(once.adapted, once.source, once.styled).swaps()
    taken = running.withdrawn(size)
    assert taken.counted == Evidence(taken.adapted, taken.source, taken.styled).swaps()
    assert running.counted.among >= taken.counted.among >= 0
    assert running.counted.among > 0


def test_the_bound_is_reached_when_every_changed_pair_is_mixed() -> None:
    source, labels = torch.arange(20.0), torch.arange(20) >= 10
    adapted = source.clone()
    adapted[[9, 10]] = source[[10, 9]]
    fall = roc_auc_score(labels, source) - roc_auc_score(labels, adapted)
    assert auc_loss(adapted, source - 9.5, prevalence=0.5) >= fall == pytest.approx(0.01)


def test_off_the_guard_accepts_all_that_is_finite() -> None:
    z = source_scores()
    off = GuardSettings(enabled=False)
    assert judge(of(-z, z), None, off, site=Site(0.5)).decision == "accept"
    assert judge(of(z / 0, z), None, off, site=Site(0.5)).decision == "refuse"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.floats(0.0, 2.0))
def test_auc_never_falls_by_more_than_the_bound(seed: int, n: int, noise: float) -> None:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3 == 0
    source = torch.randn(n, generator=g) + labels
    adapted = source + noise * torch.randn(n, generator=g)
    bound = auc_loss(adapted, source, prevalence=labels.float().mean().item())
    fall = roc_auc_score(labels, source) - roc_auc_score(labels, adapted)
    assert fall <= bound + 1e-9


@pytest.mark.parametrize("count", [1, 16, 100])
def test_evidence_keeps_the_newest_and_thins_evenly(count: int) -> None:
    z = torch.arange(64.0)
    evidence = of(z, z)
    assert torch.equal(evidence.newest(count).source, z[-count:])
    thin = evidence.thinned(count)
    assert len(thin) == min(count, 64)
    assert thin.source[0] == 0
    assert torch.equal(evidence.joined(evidence).source, torch.cat([z, z]))
    assert torch.equal(of(z + 1, z).withdrawn(4).adapted, torch.cat([z[:60] + 1, z[60:]]))
