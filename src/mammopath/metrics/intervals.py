"""Intervals by resampling patients, and Holm's correction.

A statistic here is a function of case weights: it takes a matrix with one row per draw and returns one
value per draw. Resampling patients with replacement is then nothing but integer weights, every
statistic of one call sees the same draws (so differences are paired), and no Python loop runs over draws.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from mammopath.errors import DataError

Statistic = Callable[[Float[np.ndarray, "draws n"]], Float[np.ndarray, " draws"]]
"""Weights of the cases, one row per draw, to one value per draw; NaN where it is undefined."""

IntervalKind = Literal["percentile", "bca"]

BLOCK = 1 << 18
"""Numbers in the weights that are in memory at once (2 MiB: they stay in the processor's cache)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence limits, NaN where undefined.

    Attributes:
        value: of the sample itself.
        low: lower limit.
        high: upper limit.
        method: how the limits were found, in words for a table's caption.
    """

    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of two statistics on the same cases.

    Attributes:
        value: first minus second.
        low: lower limit.
        high: upper limit.
        p: two-sided, of no difference; NaN where undefined.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Bootstrap:
    """Several statistics under the same draws of patients.

    Attributes:
        values: of the sample itself.
        draws: of the resampled samples.
        jackknife: with one patient left out at a time; empty unless asked for (BCa needs it).
    """

    values: Float[np.ndarray, " k"]
    draws: Float[np.ndarray, "k draws"]
    jackknife: Float[np.ndarray, "k patients"]

    def interval(self, which: int = 0, *, kind: IntervalKind = "percentile", level: float = 0.95) -> Interval:
        """Confidence limits of one statistic.

        Draws in which the statistic is undefined (one class only) are left out.

        Args:
            which: index of the statistic.
            kind: ``percentile``, or ``bca`` (bias-corrected and accelerated, Efron 1987).
            level: nominal coverage.

        Raises:
            DataError: BCa without the jackknife.
        """
        if kind == "bca" and not self.jackknife.shape[1]:
            raise DataError("BCa limits need the jackknife: call bootstrap(..., jackknife=True)")
        draws = self.draws[which][np.isfinite(self.draws[which])]
        value = float(self.values[which])
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if kind == "bca":
            tails = _bca_tails(value, draws, self.jackknife[which], tails)
        low, high = _quantiles(draws, tails)
        name = "patient bootstrap" + (", BCa" if kind == "bca" else "")
        return Interval(value, low, high, f"{name}, {self.draws.shape[1]} draws")

    def difference(self, first: int, second: int, *, level: float = 0.95) -> Difference:
        """Statistic ``first`` minus ``second`` on the same draws, percentile limits.

        The p-value counts draws on the other side of zero, twice the smaller tail, with one added
        (Davison and Hinkley 1997, section 4.2): it is never 0 and agrees with the percentile interval.
        """
        gaps = self.draws[first] - self.draws[second]
        gaps = gaps[np.isfinite(gaps)]
        value = float(self.values[first] - self.values[second])
        low, high = _quantiles(gaps, np.array([(1 - level) / 2, (1 + level) / 2]))
        if not len(gaps):
            return Difference(value, low, high, np.nan)
        tail = min(np.sum(gaps <= 0), np.sum(gaps >= 0))
        return Difference(value, low, high, float(min(1.0, 2 * (tail + 1) / (len(gaps) + 1))))


def bootstrap(
    statistics: Sequence[Statistic],
    patients: Shaped[np.ndarray, " n"],
    *,
    draws: int = 2000,
    seed: int = 0,
    strata: Shaped[np.ndarray, " n"] | None = None,
    jackknife: bool = False,
) -> Bootstrap:
    """Resample patients with replacement, all their cases together.

    Args:
        statistics: functions of case weights, over the same cases in the same order.
        patients: whose case it is; with one case per patient this is the ordinary bootstrap.
        draws: number of resampled samples.
        seed: same seed, same draws.
        strata: resample within these groups (centres, say), which then keep their numbers of patients.
            A patient's stratum is that of the patient's first case.
        jackknife: also compute what BCa limits need; costs one more draw per patient.

    Raises:
        DataError: no cases, or not one stratum per case.
    """
    if not len(patients) or (strata is not None and len(strata) != len(patients)):
        raise DataError(f"bootstrap needs cases with a patient (and a stratum) each, got {len(patients)}")
    _, first, member = np.unique(patients, return_index=True, return_inverse=True)
    groups = np.zeros(len(first), int) if strata is None else np.unique(strata[first], return_inverse=True)[1]
    rows = max(1, BLOCK // len(patients))
    resampled = _resampled(groups, rows, draws=draws, rng=np.random.default_rng(seed))
    left_out = _left_out(len(first), rows if jackknife else 0)
    return Bootstrap(
        values=_evaluate(statistics, iter([np.ones((1, len(first)))]), member)[:, 0],
        draws=_evaluate(statistics, resampled, member),
        jackknife=_evaluate(statistics, left_out, member),
    )


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics of the same cases, such as one measure over seeds."""

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        return np.mean([of(weights) for of in statistics], axis=0)

    return statistic


def holm(p_values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Adjust p-values for several comparisons (Holm 1979); NaN stays NaN and does not count."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _resampled(
    groups: Int[np.ndarray, " patients"], rows: int, *, draws: int, rng: Generator
) -> Iterator[Float[np.ndarray, "rows patients"]]:
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for start in range(0, draws, rows):
        counts = np.zeros((min(rows, draws - start), len(groups)))
        for patients in members:
            counts[:, patients] = _counts(len(patients), len(counts), rng)
        yield counts


def _counts(patients: int, rows: int, rng: Generator) -> Int[np.ndarray, "rows patients"]:
    """How often each patient is drawn, in each of ``rows`` draws."""
    drawn = rng.integers(0, patients, (rows, patients)) + patients * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients)


def _left_out(patients: int, rows: int) -> Iterator[Float[np.ndarray, "rows patients"]]:
    for start in range(0, patients if rows else 0, rows or 1):
        keep = np.ones((min(rows, patients - start), patients))
        keep[np.arange(len(keep)), start + np.arange(len(keep))] = 0
        yield keep


def _evaluate(
    statistics: Sequence[Statistic],
    counts: Iterator[Float[np.ndarray, "rows patients"]],
    member: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "k draws"]:
    blocks = [np.stack([of(weights) for of in statistics]) for weights in (c[:, member] for c in counts)]
    return np.concatenate(blocks, axis=1) if blocks else np.empty((len(statistics), 0))


def _quantiles(draws: Float[np.ndarray, " b"], tails: Float[np.ndarray, "2"]) -> tuple[float, float]:
    if not len(draws) or np.isnan(tails).any():
        return np.nan, np.nan
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def _bca_tails(
    value: float,
    draws: Float[np.ndarray, " b"],
    jackknife: Float[np.ndarray, " p"],
    tails: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "2"]:
    """Quantiles of the draws that BCa uses in place of ``tails`` (Efron 1987, equation 6.8)."""
    jackknife = jackknife[np.isfinite(jackknife)]
    pull = jackknife.mean() - jackknife if len(jackknife) else np.zeros(1)
    spread = np.sum(pull**2)
    below = (np.sum(draws < value) + np.sum(draws <= value)) / (2 * max(1, len(draws)))
    if spread == 0 or not 0 < below < 1:
        return np.full(2, np.nan)
    bias, acceleration = ndtri(below), np.sum(pull**3) / (6 * spread**1.5)
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - acceleration * shifted))
