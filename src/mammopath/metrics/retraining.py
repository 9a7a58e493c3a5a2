"""The difference between two trained methods, when both could be trained again and other patients could come.

A bootstrap of patients takes the trained networks as they are: with enough patients it tells any two of them
apart, also two that are one method with two seeds. Here the noise of retraining is part of the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from mammopath.metrics.intervals import Difference


@dataclass(frozen=True, slots=True)
class Noise:
    """One independent part of the variance of a mean, and on how many degrees of freedom it is known."""

    variance: float
    freedom: int


def of_seeds(values: Float[np.ndarray, " s"], *, sites: int = 1) -> Noise:
    """Noise that training leaves in the mean over seeds, and in a mean over ``sites`` such means.

    NaN for one seed: it cannot show how far another would have gone.
    """
    if len(values) < 2:
        return Noise(np.nan, 0)
    return Noise(float(np.var(values, ddof=1)) / len(values) / sites**2, len(values) - 1)


def difference_retrained(
    value: float, draws: Float[np.ndarray, " b"], retraining: Sequence[Noise], *, level: float = 0.95
) -> Difference:
    """Limits and two-sided p of a difference, from drawing other patients and training again.

    The variances add up; the limits are those of Student's t with the degrees of freedom of Satterthwaite
    (1946), those of the patients' part being many. All but the value are NaN where the noise is not known.

    Args:
        value: of the sample, first minus second.
        draws: of the same under resampling of patients, both methods averaged over their seeds.
        retraining: noise of each method (``of_seeds``), at each site that the value is averaged over.
        level: nominal coverage.
    """
    known = draws[np.isfinite(draws)]
    patients = float(np.var(known, ddof=1)) if len(known) > 1 else float("nan")
    variance = patients + sum(part.variance for part in retraining)
    if np.isnan(variance):
        return Difference(value, np.nan, np.nan, np.nan)
    if variance <= 0:
        return Difference(value, value, value, 1.0 if value == 0 else np.nan)
    below = sum(part.variance**2 / part.freedom for part in retraining)
    freedom = variance**2 / below if below > 0 else np.inf
    error = np.sqrt(variance)
    reach = float(student.ppf((1 + level) / 2, freedom) * error)
    p = float(2 * student.sf(abs(value) / error, freedom))
    return Difference(value, value - reach, value + reach, p)
