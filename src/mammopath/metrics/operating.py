"""Decisions at one threshold, chosen on other cases than those judged.

A case is called positive if its score is at least the threshold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from mammopath.metrics.intervals import Statistic
from mammopath.metrics.ranking import divided, roc_curve


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What happens at a threshold; a share is NaN where its class is absent.

    Attributes:
        threshold: on the scale of the scores.
        sensitivity: share of positives called positive.
        specificity: share of negatives called negative.
        balanced_accuracy: their mean.
    """

    threshold: float
    sensitivity: float
    specificity: float
    balanced_accuracy: float


def youden_threshold(labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Threshold with the best balanced accuracy (equally: the best Youden index), to be carried to new cases.

    Among equals the one of highest specificity; half-way to the next lower score, so that a score
    a rounding error lower still counts. NaN where a class is absent.
    """
    curve = roc_curve(labels, scores)
    if not len(curve.threshold):
        return np.nan
    return _between(curve.threshold, int(np.argmax(curve.sensitivity - curve.false_positive)))


def specificity_threshold(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], *, specificity: float
) -> float:
    """Lowest threshold whose specificity is at least ``specificity``; NaN where a class is absent."""
    curve = roc_curve(labels, scores)
    if not len(curve.threshold):
        return np.nan
    reached = np.flatnonzero(1 - curve.false_positive >= specificity - 1e-12)
    return _between(curve.threshold, int(reached[-1]))


def operating_point(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float
) -> OperatingPoint:
    """Judge labelled cases at a threshold that was chosen elsewhere; all NaN for a NaN threshold or score."""
    sensitivity, specificity = _shares(labels, scores, threshold, np.ones((1, len(labels))))
    hit, pass_ = float(sensitivity[0]), float(specificity[0])
    return OperatingPoint(threshold, hit, pass_, (hit + pass_) / 2)


def sensitivity_statistic(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float
) -> Statistic:
    """Sensitivity at a threshold as a function of case weights, for the bootstrap."""
    return lambda weights: _shares(labels, scores, threshold, weights)[0]


def specificity_statistic(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float
) -> Statistic:
    """Specificity at a threshold, likewise."""
    return lambda weights: _shares(labels, scores, threshold, weights)[1]


def balanced_accuracy_statistic(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float
) -> Statistic:
    """Balanced accuracy at a threshold as a function of case weights, for the bootstrap."""

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        sensitivity, specificity = _shares(labels, scores, threshold, weights)
        return (sensitivity + specificity) / 2

    return statistic


def _shares(
    labels: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    threshold: float,
    weights: Float[np.ndarray, "draws n"],
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    positive, negative = (labels == 1).astype(float), (labels == 0).astype(float)
    defined = np.nan if np.isnan(threshold) or np.isnan(scores[labels >= 0]).any() else 1.0
    called = scores >= threshold
    sensitivity = divided(weights @ (positive * called), weights @ positive * defined)
    return sensitivity, divided(weights @ (negative * ~called), weights @ negative * defined)


def _between(thresholds: Float[np.ndarray, " t"], at: int) -> float:
    """Half-way from a threshold to the next lower one; the laxest stays, as nothing lies below it."""
    if at == len(thresholds) - 1:
        return float(thresholds[at])
    if at == 0:
        return float(np.nextafter(thresholds[1], np.inf))
    here, lower = float(thresholds[at]), float(thresholds[at + 1])
    middle = (here + lower) / 2
    return middle if lower < middle < here else here
