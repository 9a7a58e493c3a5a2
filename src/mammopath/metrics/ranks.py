"""Methods ranked over sites, and how little a few sites can tell: Friedman, Nemenyi, sign test, power."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import friedmanchisquare, nct, rankdata, studentized_range
from scipy.stats import t as student


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods over sites; 1 is best.

    Attributes:
        mean: of each method; best, worst: over the sites.
        critical: difference of two mean ranks below which Nemenyi's test tells nothing apart, at 5 % over
            all pairs; NaN for fewer than two methods or sites.
        p: of the Friedman test that all methods rank alike; NaN for fewer than three methods or sites.
    """

    mean: Float[np.ndarray, " k"]
    best: Float[np.ndarray, " k"]
    worst: Float[np.ndarray, " k"]
    critical: float
    p: float


def rank_methods(values: Float[np.ndarray, "sites k"]) -> Ranking:
    """Rank methods on each site, higher values first, ties share their mean rank (Demsar 2006, 3.2)."""
    sites, k = values.shape
    ranks = np.stack([rankdata(-row) for row in values])
    alike = k < 3 or sites < 3 or bool((ranks == ranks[:, :1]).all())
    p = float("nan") if alike else float(friedmanchisquare(*values.T).pvalue)
    critical = critical_difference(k, sites) if min(k, sites) > 1 else float("nan")
    return Ranking(ranks.mean(axis=0), ranks.min(axis=0), ranks.max(axis=0), critical, p)


def critical_difference(methods: int, sites: int, *, error: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks (Demsar 2006, equation before section 3.2.3)."""
    reach = studentized_range.ppf(1 - error, methods, np.inf) / np.sqrt(2)
    return float(reach * np.sqrt(methods * (methods + 1) / (6 * sites)))


def smallest_sign_p(sites: int) -> float:
    """Two-sided p of a method that wins at every site: nothing smaller can come out of so few."""
    return min(1.0, 2.0 ** (1 - sites))


def detectable(sites: int, spread: float, *, power: float = 0.8, error: float = 0.05) -> float:
    """Mean difference over sites that a two-sided t test would find with this power.

    Args:
        sites: sampled from sites in general.
        spread: standard deviation over sites of the paired difference.
        power: wanted.
        error: of the test.

    Returns:
        The difference in the unit of ``spread``; infinite for one site.
    """
    if sites < 2:
        return float("inf")
    bound = student.ppf(1 - error / 2, sites - 1)
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        shift = middle * np.sqrt(sites)
        reached = nct.sf(bound, sites - 1, shift) + nct.cdf(-bound, sites - 1, shift)
        low, high = (middle, high) if reached < power else (low, middle)
    return float(high * spread)
