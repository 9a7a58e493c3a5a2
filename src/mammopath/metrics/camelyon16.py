"""CAMELYON16: its two tasks by its rules, with the slides that the organisers left out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from mammopath.errors import DataError
from mammopath.metrics.auc import auc_interval
from mammopath.metrics.froc import Froc, Regions, froc, froc_statistic, mark
from mammopath.metrics.intervals import Interval, bootstrap

T = TypeVar("T")

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
        lesions: of ``froc.camelyon16_regions``, by slide; a slide that is not among them has none.
        draws: of a bootstrap over slides; 0 for no interval.

    Raises:
        DataError: detections or lesions of a slide that is not in the test, or outside of it, or a
            confidence that is not above 0.
    """
    judged = sorted({slide_name(name) for name in slides} - DUPLICATE - NOT_EXHAUSTIVE)
    found, known = _by_name(detections, judged), _by_name(lesions, judged)
    if wrong := [name for name, rows in found.items() if (rows[:, 0] <= 0).any()]:
        raise DataError(f"{wrong[0]}: a detection needs a confidence above 0")
    marks = [mark(found.get(name, np.empty((0, 3))), known.get(name)) for name in judged]
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


def _by_name(values: Mapping[str, T], judged: Collection[str]) -> dict[str, T]:
    named = {slide_name(name): value for name, value in values.items()}
    if strange := sorted(named.keys() - set(judged) - DUPLICATE - NOT_EXHAUSTIVE):
        raise DataError(f"{strange[0]}: is not among the slides of the test; give all of their names")
    return named
