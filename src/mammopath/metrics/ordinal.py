"""Agreement on ordered severity categories.

Categories are 0, 1, ... or NaN (unknown truth, left out). They are an order of severity, not the
Nottingham grade. Undefined is NaN.
"""

import numpy as np
from jaxtyping import Float, Shaped

from mammopath.metrics.intervals import Statistic
from mammopath.metrics.ranking import divided


def confusion(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"], *, categories: int = 4
) -> Float[np.ndarray, "true predicted"]:
    """Counts: one row per true category, one column per predicted category."""
    where, count = _cells(truth, predicted, categories), categories**2
    return np.bincount(where[where >= 0], minlength=count).reshape(categories, categories).astype(float)


def quadratic_kappa(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"], *, categories: int = 4
) -> float:
    """Agreement beyond chance, errors weighing as their squared distance (Cohen 1968): 1 is perfect.

    NaN where truth and prediction are one and the same single category: chance agreement is then full.
    """
    statistic = quadratic_kappa_statistic(truth, predicted, categories=categories)
    return float(statistic(np.ones((1, len(truth))))[0])


def quadratic_kappa_statistic(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"], *, categories: int = 4
) -> Statistic:
    """Quadratically weighted kappa as a function of case weights, for the bootstrap."""
    where = _cells(truth, predicted, categories)
    member = (where[:, None] == np.arange(categories**2)).astype(float)
    penalty = np.subtract.outer(np.arange(categories), np.arange(categories)) ** 2

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        table = (weights @ member).reshape(-1, categories, categories)
        chance = np.einsum("bi,bj->bij", table.sum(axis=2), table.sum(axis=1))
        seen = (penalty * table).sum(axis=(1, 2)) * table.sum(axis=(1, 2))
        return 1 - divided(seen, (penalty * chance).sum(axis=(1, 2)))

    return statistic


def mean_absolute_error(truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]) -> float:
    """Mean distance in categories, 0 is best."""
    distance = _distances(truth, predicted)
    return float(distance.mean()) if len(distance) else np.nan


def within_one(truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]) -> float:
    """Share of cases at most one category off."""
    distance = _distances(truth, predicted)
    return float((distance <= 1).mean()) if len(distance) else np.nan


def recall_per_category(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"], *, categories: int = 4
) -> Float[np.ndarray, " true"]:
    """Share of each true category that was predicted as such; NaN for an absent category."""
    table = confusion(truth, predicted, categories=categories)
    return divided(table.diagonal(), table.sum(axis=1))


def _cells(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"], categories: int
) -> Shaped[np.ndarray, " n"]:
    """Cell of each case in the flattened confusion table; -1 for an unknown truth."""
    known = ~np.isnan(truth.astype(float))
    return np.where(known, np.where(known, truth, 0) * categories + predicted, -1).astype(int)


def _distances(
    truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]
) -> Float[np.ndarray, " m"]:
    known = ~np.isnan(truth.astype(float))
    return np.abs(truth[known].astype(float) - predicted[known])
