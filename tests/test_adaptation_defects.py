"""Defects of public versions, and of earlier ones of ours: each has a test that fails where it is back."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from adaptation_toys import source_facts, stream_of, tiny_source
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.values import AdaptationReport, SourceFacts, Views
from mammopath.settings import AdaptSettings, GuardSettings

OFF = GuardSettings(enabled=False)


def report(method: str, settings: AdaptSettings, source: SourceFacts | None = None) -> AdaptationReport:
    _, stream = stream_of("spread", count=48, size=16, styled=2)
    facts = source or source_facts()
    return adapt(tiny_source(), stream, method=method, settings=settings, source=facts).report


@pytest.mark.parametrize("method", ["deyo", "tent", "eata"])
def test_after_a_refusal_the_next_step_starts_at_the_source(method: str) -> None:
    """DeYO's published reset reads attributes that were never set."""
    refusing = GuardSettings(min_cases=2, auc_loss=0, prevalence=0, agreement=1, flips=0, patience=9)
    _, stream = stream_of("loud", count=16, size=16, styled=2)
    settings = AdaptSettings(mode="online", lr=1.0, drop=-1.0, margin=0.95, guard=refusing)
    found = adapt(tiny_source(), stream * 3, method=method, settings=settings, source=source_facts()).report
    assert found.rollbacks == 1
    assert found.losses[0] == found.losses[2] != found.losses[1]


def test_the_fisher_term_keeps_what_matters_to_the_source() -> None:
    free, bound = (
        report("eata", AdaptSettings(lr=0.1, margin=0.95, fisher=weight, guard=OFF))
        for weight in (0.0, 100.0)
    )
    assert 0 < bound.distance < 0.9 * free.distance
    assert free.losses[0] == bound.losses[0]  # at the source there is nothing to forget
    assert free.losses[1] != bound.losses[1]
    unknown = SourceFacts(source_facts().prevalence)
    alone = report("eata", AdaptSettings(lr=0.1, margin=0.95, fisher=100.0, guard=OFF), unknown)
    assert alone.distance == pytest.approx(free.distance)  # without a probe the term is zero
    assert alone.rules["probe"] == 0


def test_the_anchor_binds_at_its_default() -> None:
    bound, free = (
        report(
            "style",
            AdaptSettings(lr=0.01, radius=100.0, guard=OFF)
            if anchor is None
            else AdaptSettings(lr=0.01, radius=100.0, anchor=anchor, guard=OFF),
        )
        for anchor in (None, 0.0)
    )
    assert 0 < bound.distance < 0.95 * free.distance


def test_the_mean_prediction_is_drawn_to_the_sources_prevalence() -> None:
    """SHOT's diversity term asks for equally many of each class, wherever the site is."""
    _, stream = stream_of("none", count=64, size=16)
    means = []
    for prevalence in (0.1, 0.5, 0.9):
        facts = replace(source_facts(), prevalence=prevalence)
        settings = AdaptSettings(lr=0.005, guard=OFF)
        scores = adapt(tiny_source(), stream, method="shot_im", settings=settings, source=facts).scores
        means.append(scores.sigmoid().mean().item())
    assert means[0] < means[1] - 0.05 < means[2] - 0.1


class Counted:
    """A stream that counts how often each batch is read."""

    def __init__(self, batches: list[Views]) -> None:
        self.batches, self.reads = batches, [0] * len(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Views:
        self.reads[place] += 1
        return self.batches[place]


@pytest.mark.parametrize("mode", ["calibrate", "online", "episodic"])
def test_every_batch_is_read_once(mode: str) -> None:
    stream = Counted(stream_of("spread", count=40, size=8, styled=2)[1])
    settings = AdaptSettings(mode=mode, cases=16, guard=OFF)
    found = adapt(tiny_source(), stream, method="tent", settings=settings, source=source_facts()).report
    assert stream.reads == [2, 1, 1, 1, 1]  # the first once more, for the modality
    assert found.cases == 40
    learned = 16 if mode == "calibrate" else 40
    assert list(found.learned) == [True] * learned + [False] * (40 - learned)


def test_a_method_that_learned_from_nobody_says_so_and_is_not_adapted() -> None:
    found = report("eata", AdaptSettings(margin=1e-6, reliable=0.0))
    assert (found.decision, found.adapted_cases, found.moved) == ("source", 0, ())
    assert "no case was learned from" in found.reasons[0]


def test_a_movement_within_rounding_is_none() -> None:
    found = report("tent", AdaptSettings(lr=1e-12, guard=OFF))
    assert (found.decision, found.relative, found.moved) == ("source", 0.0, ())
    assert found.reasons == ("nothing moved beyond rounding",)
