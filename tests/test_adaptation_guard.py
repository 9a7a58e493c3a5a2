"""The guard: every rule refuses what it is for, and the bound on AUC is a bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mammopath.adaptation.guard import Evidence, Probe, auc_loss, judge, measure
from mammopath.settings import GuardSettings

RULES = GuardSettings()


def source_scores(n: int = 64, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def verdict(adapted: Tensor, source: Tensor, *, reference: Tensor | None = None, probe: Probe | None = None):
    evidence = Evidence(adapted, source, source if reference is None else reference)
    return judge(evidence, probe, RULES, prevalence=0.5)


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
    flipped = Probe(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0]))
    assert "probe" in reason(1.001 * z, z, flipped)


def test_a_prevalence_that_comes_nearer_to_the_source_is_no_shift() -> None:
    z = source_scores()
    evidence = Evidence(z, z + 1.5, z + 1.5)
    assert measure(evidence, None, prevalence=0.5)["prevalence_shift"] < 0.02
    away = Evidence(z + 1.5, z, z)
    assert measure(away, None, prevalence=0.5)["prevalence_shift"] > 0.1


def test_a_collapse_that_the_source_shares_is_not_the_adaptations() -> None:
    z = source_scores().abs() + 0.1
    assert verdict(1.0001 * z, z).decision == "accept"


def test_an_offset_of_all_cases_costs_order_against_those_the_source_answered() -> None:
    z = source_scores()
    assert auc_loss(z + 0.5, z, prevalence=0.5) > 0.01
    assert auc_loss(z, z, prevalence=0.5) == 0.0


def test_the_bound_is_reached_when_every_changed_pair_is_mixed() -> None:
    source, labels = torch.arange(20.0), torch.arange(20) >= 10
    adapted = source.clone()
    adapted[[9, 10]] = source[[10, 9]]
    fall = roc_auc_score(labels, source) - roc_auc_score(labels, adapted)
    assert auc_loss(adapted, source - 9.5, prevalence=0.5) >= fall == pytest.approx(0.01)


def test_off_the_guard_accepts_all_that_is_finite() -> None:
    z = source_scores()
    off = GuardSettings(enabled=False)
    assert judge(Evidence(-z, z, z), None, off, prevalence=0.5).decision == "accept"
    assert judge(Evidence(z / 0, z, z), None, off, prevalence=0.5).decision == "refuse"


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
    evidence = Evidence(z, z, z)
    assert torch.equal(evidence.newest(count).source, z[-count:])
    thin = evidence.thinned(count)
    assert len(thin) == min(count, 64)
    assert thin.source[0] == 0
    assert torch.equal(evidence.joined(evidence).source, torch.cat([z, z]))
    assert torch.equal(Evidence(z + 1, z, z).withdrawn(4).adapted, torch.cat([z[:60] + 1, z[60:]]))
