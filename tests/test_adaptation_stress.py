"""Streams of shifted sites: with the guard on no adaptation hurts; with it off some do."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from adaptation_toys import SHIFTS, source_facts, stream_of, tiny_source
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.values import Adapted, Views
from mammopath.settings import AdaptSettings, GuardSettings

HALF_A_POINT = 0.005
EAGER = {
    "style": 0.03,
    "tent": 1.0,
    "eata": 1.0,
    "sar": 1.0,
    "deyo": 1.0,
    "shot_im": 0.01,
    "tact_adapt": 0.01,
}
"""Learning rates at which the methods do harm."""


def adapted(method: str, stream: list[Views], *, mode: str = "online", guard: bool = True) -> Adapted:
    settings = AdaptSettings(
        mode=mode, lr=EAGER.get(method), radius=1.0, anchor=0.0, guard=GuardSettings(enabled=guard)
    )
    return adapt(tiny_source(), stream, method=method, settings=settings, source=source_facts())


def gain(labels: torch.Tensor, stream: list[Views], result: Adapted) -> float:
    """AUC above the source."""
    with torch.no_grad():
        before = torch.cat([tiny_source()(views.plain).logit for views in stream])
    return roc_auc_score(labels, result.scores) - roc_auc_score(labels, before)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("method", ["tent", "style", "tact"])
def test_guarded_streams_do_not_lose_auc(method: str, shift: str) -> None:
    for order in ("shuffled", "sorted"):
        labels, stream = stream_of(shift, order=order)
        assert gain(labels, stream, adapted(method, stream)) >= -HALF_A_POINT


@pytest.mark.slow
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_guarded_streams_of_every_kind_do_not_lose_auc(method: str, shift: str) -> None:
    """Every method on every shift; ``benchmarks/stress_streams.py`` has every size and order besides."""
    labels, stream = stream_of(shift, count=64, size=16, order="sorted", styled=2)
    assert gain(labels, stream, adapted(method, stream, mode="online")) >= -HALF_A_POINT


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("method", ["eata", "tact_adapt", "style"])
def test_guarded_streams_of_single_cases_do_not_lose_auc(method: str, size: int) -> None:
    for mode, shift in (("online", "offset"), ("episodic", "loud")):
        labels, stream = stream_of(shift, count=56, size=size, order="sorted", styled=2)
        assert gain(labels, stream, adapted(method, stream, mode=mode)) >= -HALF_A_POINT


def test_without_the_guard_tent_collapses_on_some_streams() -> None:
    falls = []
    for shift in ("loud", "noise", "opposite offset"):
        labels, stream = stream_of(shift, order="sorted")
        falls.append(gain(labels, stream, adapted("tent", stream, guard=False)))
    assert min(falls) < -0.05
    assert sum(fall < -HALF_A_POINT for fall in falls) >= 2


def test_a_harmful_adaptation_is_undone_within_two_batches() -> None:
    _, stream = stream_of("loud", size=16)
    settings = AdaptSettings(mode="online", lr=1e3, guard=GuardSettings())
    result = adapt(tiny_source(), stream, method="tent", settings=settings, source=source_facts())
    with torch.no_grad():
        source = torch.cat([tiny_source()(views.plain).logit for views in stream])
    assert result.report.rollbacks >= 1
    assert torch.equal(result.scores, source)
    assert result.report.adapted_cases <= 32


def test_adaptation_stops_when_patience_ends() -> None:
    _, stream = stream_of("loud", size=4)
    settings = AdaptSettings(mode="online", lr=1e3, guard=GuardSettings(patience=1))
    report = adapt(tiny_source(), stream, method="tent", settings=settings, source=source_facts()).report
    assert report.rollbacks == 1
    assert report.used < report.cases


def test_the_probe_sees_what_the_stream_does_not() -> None:
    """With the other rules open, calls that flip on the source's cases still undo the adaptation."""
    open_rules = GuardSettings(agreement=0.0, prevalence=1.0, one_class=1.0, auc_loss=1.0, probe_every=1)
    _, stream = stream_of("loud", size=16)
    settings = AdaptSettings(mode="online", lr=30.0, guard=open_rules)
    report = adapt(tiny_source(), stream, method="tent", settings=settings, source=source_facts()).report
    assert any("probe" in reason or "spreads" in reason or "finite" in reason for reason in report.reasons)
