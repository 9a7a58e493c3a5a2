"""CAMELYON16: its two tasks by its rules, with the slides that the organisers left out."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mammopath.errors import DataError
from mammopath.metrics.auc import auc_interval
from mammopath.metrics.froc import Froc, Regions, froc, froc_statistic, mark
from mammopath.metrics.intervals import Interval, bootstrap

DUPLICATE = frozenset({"test_049"})
"""Removed from both tasks: a slide that stands twice (the data set's README)."""

NOT_EXHAUSTIVE = frozenset({"test_114"})
"""Removed from the lesion task too: not all of its lesions are outlined (the data set's README)."""

Detections = Float[np.ndarray, "n 3"]
"""Rows of confidence (above 0), x, y in level-0 pixels."""


@dataclass(frozen=True)
class LesionTask:
    """Task 1, finding metastases.

    Attributes:
        curve: its ``score`` is the challenge's figure.
        interval: of the score, by resampling slides; NaN without draws.
        slides: that count. lesions: that can be found, isolated tumour cells not among them.
    """

    curve: Froc
    interval: Interval
    slides: int
    lesions: int


def lesion_task(
    slides: Collection[str],
    detections: Mapping[str, Detections],
    lesions: Mapping[str, Regions],
    *,
    draws: int = 0,
) -> LesionTask:
    """Mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide.

    Evaluation_FROC.py of the organisers, with the excluded slides left out of both counts.

    Args:
        slides: names of all slides of the test, with or without lesions; ``Test_001.tif`` is ``test_001``.
        detections: by slide; a slide that is not among them has none.
        lesions: of ``froc.camelyon16_regions``, by slide; a slide that is not among them has none. They are
            asked for one at a time, so a mapping may paint them as it goes.
        draws: of a bootstrap over slides; 0 for no interval.

    Raises:
        DataError: detections or lesions of a slide that is not in the test, or outside of it, or a
            confidence that is not above 0.
    """
    judged = sorted({slide_name(name) for name in slides} - DUPLICATE - NOT_EXHAUSTIVE)
    found, known = _names(detections, judged), _names(lesions, judged)
    if wrong := [name for name in found.values() if not (detections[name][:, 0] > 0).all()]:
        raise DataError(f"{wrong[0]}: a detection needs a confidence above 0")
    marks = []
    for name in judged:
        rows = detections[found[name]] if name in found else np.empty((0, 3))
        marks.append(mark(rows, lesions[known[name]] if name in known else None))
    curve, value = froc(marks), Interval(np.nan, np.nan, np.nan, "not asked for")
    if draws:
        value = bootstrap([froc_statistic(marks)], np.arange(len(marks)), draws=draws).interval()
    return LesionTask(curve, value, len(marks), sum(len(m.hits) for m in marks))


def slide_task(truth: Mapping[str, float], scores: Mapping[str, float]) -> Interval:
    """Task 2, AUC of telling slides with metastases from those without, with DeLong's limits.

    Args:
        truth: 1 for a slide with metastases, 0 for one without.
        scores: probability of metastases, for every slide of ``truth``.

    Raises:
        DataError: a slide has no score.
    """
    known = {slide_name(name): label for name, label in truth.items()}
    told = {slide_name(name): score for name, score in scores.items()}
    judged = sorted(known.keys() - DUPLICATE)
    if missing := [name for name in judged if name not in told]:
        raise DataError(f"{len(missing)} slides have no score, the first: {missing[0]}; score every slide")
    labels, values = np.array([known[n] for n in judged]), np.array([float(told[n]) for n in judged])
    return auc_interval(labels, values, np.array(judged))


def slide_name(name: str) -> str:
    """``Test_001.tif`` and ``test_001`` are the same slide; so are ``normal_86`` and ``normal_086``."""
    kind, _, number = name.rsplit("/", 1)[-1].partition(".")[0].lower().partition("_")
    return f"{kind}_{int(number):03d}" if number.isdigit() else f"{kind}_{number}".rstrip("_")


def _names(names: Iterable[str], judged: Collection[str]) -> dict[str, str]:
    """Names as they are given, by the name of the slide."""
    named = {slide_name(name): name for name in names}
    if strange := sorted(named.keys() - set(judged) - DUPLICATE - NOT_EXHAUSTIVE):
        raise DataError(f"{strange[0]}: is not among the slides of the test; give all of their names")
    return named
