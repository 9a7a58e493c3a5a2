"""Streams of shifted sites: with the guard on no adaptation hurts; with it off some do."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from adaptation_toys import SHIFTS, source_facts, stream_of, tiny_source
from mammopath.adaptation import streaming
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.guard import Verdict, judge
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


GENTLE = {
    "style": 0.0005,
    "tent": 0.01,
    "eata": 0.01,
    "sar": 0.1,
    "deyo": 0.03,
    "shot_im": 0.0005,
    "tact_adapt": 0.0005,
}
"""Learning rates at which the guard lets some of what they do pass."""


GUARDED = GuardSettings()


def adapted(
    method: str,
    stream: list[Views],
    *,
    mode: str = "online",
    guard: GuardSettings = GUARDED,
    rates: Mapping[str, float] = EAGER,
) -> Adapted:
    settings = AdaptSettings(
        mode=mode, lr=rates.get(method), radius=1.0, anchor=0.0, drop=0.0, least_steps=12, guard=guard
    )
    return adapt(tiny_source(), stream, method=method, settings=settings, source=source_facts())


def gain(labels: torch.Tensor, stream: list[Views], result: Adapted) -> float:
    """AUC above the source."""
    with torch.no_grad():
        before = torch.cat([tiny_source()(views.plain).logit for views in stream])
    return roc_auc_score(labels, result.scores) - roc_auc_score(labels, before)


@pytest.mark.parametrize("method", ["tent", "style", "sar"])
def test_guarded_streams_do_not_lose_auc_and_the_guard_lets_some_adapt(method: str) -> None:
    changed = 0
    for shift, order in (("none", "sorted"), ("loud", "shuffled")):
        labels, stream = stream_of(shift, count=192, size=16, order=order, styled=2)
        for rates in (EAGER, GENTLE):
            result = adapted(method, stream, rates=rates)
            assert gain(labels, stream, result) >= -HALF_A_POINT
            changed += result.report.adapted_cases
    assert changed > 0


@pytest.mark.parametrize("method", ["sar", "deyo"])
def test_calibration_adapts_where_the_guard_lets_it(method: str) -> None:
    found = []
    for shift in ("none", "reversed shortcut"):
        labels, stream = stream_of(shift, count=192, size=32, styled=4)
        result = adapted(method, stream, mode="calibrate", rates=GENTLE)
        assert gain(labels, stream, result) >= -HALF_A_POINT
        found.append(result.report.adapted_cases)
    assert max(found) > 96


GRID = list(product(SHIFTS, (1, 2, 16), ("shuffled", "sorted")))
MOVING = [name for name in ADAPTATIONS if name != "none"]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "cell"), list(enumerate(GRID)), ids=[f"{s}-{n}-{o}" for s, n, o in GRID])
def test_no_stream_of_the_grid_loses_auc(place: int, cell: tuple[str, int, str]) -> None:
    """Ten shifts, three sizes of batches, two orders; methods and modes take turns."""
    shift, size, order = cell
    labels, stream = stream_of(shift, count=192, size=size, order=order, styled=2)
    method, mode = MOVING[place % len(MOVING)], ("online", "episodic")[place % 7 == 3]
    result = adapted(method, stream, mode=mode, rates=(EAGER, GENTLE)[place % 2])
    assert gain(labels, stream, result) >= -HALF_A_POINT


@pytest.mark.parametrize("mode", ["online", "episodic"])
def test_after_a_refusal_fresh_cases_are_waited_for(mode: str) -> None:
    """One case that was accepted right after a refusal met the source's answers to all that came later."""
    labels, stream = stream_of("offset", count=48, size=1, order="sorted", styled=2)
    result = adapted("eata", stream, mode=mode, guard=GuardSettings(min_cases=16))
    assert gain(labels, stream, result) >= -HALF_A_POINT


def test_no_answer_is_adapted_within_the_wait_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def watched(*args: Any, **kwargs: Any) -> Verdict:
        verdict = judge(*args, **kwargs)
        found.append(verdict.decision)
        return verdict

    monkeypatch.setattr(streaming, "judge", watched)
    _, stream = stream_of("loud", count=80, size=2, styled=1)
    adapted("tent", stream, mode="episodic", guard=GuardSettings(min_cases=16))
    refusals = [i for i, decision in enumerate(found) if decision == "refuse"]
    assert refusals
    for i in refusals:
        assert set(found[i + 1 : i + 8]) <= {"wait"}  # seven batches of two and one more make sixteen


def test_a_short_stream_is_probed_too_and_what_is_kept_is_probed_last() -> None:
    """63 cases came to the end before the probe was due; calls on it had flipped in a third."""
    others_off = GuardSettings(
        agreement=0, prevalence=1, one_class=1, auc_loss=1, spread=0, probe_every=10_000, min_cases=16
    )
    _, stream = stream_of("loud", count=63, size=16)
    report = adapted("tent", stream, guard=others_off, rates={"tent": 30.0}).report
    assert any("probe" in reason for reason in report.reasons)
    assert report.moved == ()


def test_without_the_guard_tent_collapses_on_some_streams() -> None:
    falls = []
    for shift in ("loud", "noise", "opposite offset"):
        labels, stream = stream_of(shift, order="sorted")
        falls.append(gain(labels, stream, adapted("tent", stream, guard=GuardSettings(enabled=False))))
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
