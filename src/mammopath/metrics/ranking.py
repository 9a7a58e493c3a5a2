"""Measures of ranking: AUC, ROC, average precision, sensitivity at a specificity.

Labels are 1, 0 or NaN (unknown, left out). Where a measure is undefined (one class only, or a labelled
case without a score) it is NaN: never an error, never a warning.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from mammopath.metrics.intervals import Statistic


@dataclass(frozen=True)
class Curve:
    """An ROC curve, from the strictest threshold to the laxest.

    Attributes:
        false_positive: share of negatives called positive, from 0 to 1.
        sensitivity: share of positives called positive, from 0 to 1.
        threshold: a case is called positive if its score is at least this; first infinite.
    """

    false_positive: Float[np.ndarray, " t"]
    sensitivity: Float[np.ndarray, " t"]
    threshold: Float[np.ndarray, " t"]


def auc(labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: the share of pairs ranked right, ties counting half.

    Equals the Mann-Whitney statistic (Hanley and McNeil 1982). Scores may be on any scale.
    """
    return float(auc_statistic(labels, scores)(np.ones((1, len(labels))))[0])


def auc_statistic(labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Statistic:
    """AUC as a function of case weights, for the bootstrap.

    Sorting happens once; each draw then costs one running sum over the negatives.
    """
    negative, positive = (_ascending(labels == label, scores) for label in (0, 1))
    missing = bool(np.isnan(scores[np.concatenate([negative, positive])]).any())
    first = np.searchsorted(scores[negative], scores[positive], "left")
    last = np.searchsorted(scores[negative], scores[positive], "right")

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        below = np.zeros((len(weights), len(negative) + 1))
        np.cumsum(weights[:, negative], axis=1, out=below[:, 1:])
        ours = weights[:, positive]
        wins = np.einsum("bi,bi->b", ours, below[:, first] + below[:, last]) / 2
        return divided(wins, ours.sum(axis=1) * below[:, -1] * (np.nan if missing else 1))

    return statistic


def roc_curve(labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Curve:
    """Every operating point, one per distinct score; empty where undefined."""
    labels, scores = known(labels, scores)
    if not 0 < labels.sum() < len(labels) or np.isnan(scores).any():
        nothing = np.empty(0)
        return Curve(nothing, nothing, nothing)
    thresholds, where = np.unique(-scores, return_inverse=True)
    hits = np.bincount(where, weights=labels, minlength=len(thresholds)).cumsum()
    alarms = np.bincount(where, weights=1 - labels, minlength=len(thresholds)).cumsum()
    return Curve(
        false_positive=np.concatenate([[0.0], alarms / alarms[-1]]),
        sensitivity=np.concatenate([[0.0], hits / hits[-1]]),
        threshold=np.concatenate([[np.inf], -thresholds]),
    )


def average_precision(labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Mean precision over the gains in sensitivity (area under the step precision-recall curve)."""
    return float(average_precision_statistic(labels, scores)(np.ones((1, len(labels))))[0])


def average_precision_statistic(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> Statistic:
    """Average precision as a function of case weights, for the bootstrap."""
    order = _ascending((labels == 0) | (labels == 1), scores)[::-1]
    missing = bool(np.isnan(scores[order]).any())
    positive = labels[order] == 1
    steps = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)[: len(order)])

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        sorted_weights = weights[:, order]
        called = sorted_weights.cumsum(axis=1)[:, steps]
        hits = (sorted_weights * positive).cumsum(axis=1)[:, steps]
        precision = divided(hits, called)
        gains = np.diff(hits, axis=1, prepend=0.0)
        total = np.nansum(precision * gains, axis=1)
        return divided(total, sorted_weights @ positive * (np.nan if missing else 1))

    return statistic


def sensitivity_at(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], *, specificity: float
) -> float:
    """Best sensitivity among thresholds whose specificity is at least ``specificity`` (0 to 1).

    No interpolation: the value is reached by a real threshold.
    """
    curve = roc_curve(labels, scores)
    reached = curve.sensitivity[1 - curve.false_positive >= specificity - 1e-12]
    return float(reached.max()) if len(reached) else np.nan


def known(
    labels: Shaped[np.ndarray, " n"], values: Float[np.ndarray, "n ..."]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m ..."]]:
    """The cases whose label is 1 or 0, and their values."""
    keep = (labels == 0) | (labels == 1)
    return labels[keep].astype(float), values[keep]


def divided(above: Float[np.ndarray, "*s"], below: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Element-wise ratio; NaN, without a warning, where the denominator is not positive."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _ascending(chosen: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Shaped[np.ndarray, " m"]:
    index = np.flatnonzero(chosen)
    return index[np.argsort(scores[index], kind="stable")]
