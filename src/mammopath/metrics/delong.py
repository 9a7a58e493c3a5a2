"""DeLong's variance of the AUC, with interval and paired test.

Valid where every case is an independent unit (one image per patient); elsewhere use the patient bootstrap.
"""

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import expit, logit, ndtr, ndtri

from mammopath.metrics.intervals import Difference, Interval
from mammopath.metrics.ranking import known


def delong_covariance(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, "k n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k"]]:
    """AUCs of k methods on the same cases, and their covariance.

    DeLong, DeLong and Clarke-Pearson 1988. The share of negatives that a positive beats comes from
    sorting (as the mid-ranks of Sun and Xu 2014), so n cases cost O(n log n) per method.
    Both are NaN where a class has fewer than two cases or a score is missing.
    """
    truth, columns = known(labels, scores.T)
    positive, negative = columns[truth == 1], columns[truth == 0]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2 or np.isnan(columns).any():
        k = len(scores)
        return np.full(k, np.nan), np.full((k, k), np.nan)
    wins = np.stack([_share_below(p, q) for p, q in zip(positive.T, negative.T, strict=True)])
    losses = np.stack([_share_below(q, p) for p, q in zip(positive.T, negative.T, strict=True)])
    return wins.mean(axis=1), np.atleast_2d(np.cov(wins) / m + np.cov(losses) / n)


def delong_interval(
    labels: Shaped[np.ndarray, " n"], scores: Float[np.ndarray, " n"], *, level: float = 0.95
) -> Interval:
    """AUC with limits that are symmetric on the logit scale (Pepe 2003, section 5.2), so they stay in (0, 1).

    The limits are NaN where the variance says nothing: perfect separation, or fewer than two of a class.
    """
    areas, covariance = delong_covariance(labels, scores[None])
    area, variance = float(areas[0]), float(covariance[0, 0])
    if not (variance > 0 and 0 < area < 1):
        return Interval(area, np.nan, np.nan, "DeLong")
    reach = ndtri((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) - reach), expit(logit(area) + reach)
    return Interval(area, float(low), float(high), "DeLong")


def delong_test(
    labels: Shaped[np.ndarray, " n"],
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    *,
    level: float = 0.95,
) -> Difference:
    """AUC of ``first`` minus AUC of ``second`` on the same cases, with a two-sided p-value.

    Equal rankings differ by 0 with p = 1.
    """
    areas, covariance = delong_covariance(labels, np.stack([first, second]))
    value = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if np.isnan(variance):
        return Difference(np.nan, np.nan, np.nan, np.nan)
    error = np.sqrt(max(variance, 0.0))
    if error < 1e-12:
        return Difference(value, value, value, 1.0 if abs(value) < 1e-12 else np.nan)
    reach = float(ndtri((1 + level) / 2) * error)
    return Difference(value, value - reach, value + reach, float(2 * ndtr(-abs(value) / error)))


def _share_below(values: Float[np.ndarray, " m"], others: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """For each value the share of the others below it, ties counting half."""
    ordered = np.sort(others)
    twice = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return twice / (2 * len(others))
