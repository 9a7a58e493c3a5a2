"""Do probabilities mean what they say: ECE, Brier, log loss, temperature, reliability bins.

Labels are 1, 0 or NaN (left out); probabilities are of malignancy, in [0, 1]. No cases: NaN.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.optimize import minimize_scalar
from scipy.special import expit

from mammopath.metrics.intervals import Statistic
from mammopath.metrics.ranking import divided, known

SMALLEST = 1e-12
"""Probabilities are clipped to this for the log loss, which one confident error would make infinite."""


@dataclass(frozen=True)
class Reliability:
    """Cases in bins of ascending probability; empty bins are left out.

    Attributes:
        predicted: mean probability of the bin.
        observed: share of positives in the bin.
        cases: number of cases in the bin.
    """

    predicted: Float[np.ndarray, " b"]
    observed: Float[np.ndarray, " b"]
    cases: Float[np.ndarray, " b"]


def reliability(
    labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], *, bins: int = 15
) -> Reliability:
    """Predicted against observed, in bins of equal mass.

    Bin edges are quantiles, so equal probabilities share a bin and the order of cases does not matter;
    with many ties there are fewer than ``bins`` bins.
    """
    truth, probability = known(labels, probabilities)
    if not len(truth) or np.isnan(probability).any():
        return Reliability(np.empty(0), np.empty(0), np.empty(0))
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1])
    where = np.searchsorted(edges, probability)
    cases = np.bincount(where, minlength=bins).astype(float)
    filled = cases > 0
    predicted = divided(np.bincount(where, weights=probability, minlength=bins), cases)[filled]
    observed = divided(np.bincount(where, weights=truth, minlength=bins), cases)[filled]
    return Reliability(predicted, observed, cases[filled])


def expected_calibration_error(
    labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], *, bins: int = 15
) -> float:
    """Mean distance of predicted from observed over equal-mass bins (Nguyen and O'Connor 2015), 0 is best."""
    parts = reliability(labels, probabilities, bins=bins)
    if not len(parts.cases):
        return np.nan
    return float(np.average(np.abs(parts.predicted - parts.observed), weights=parts.cases))


def calibration_error_statistic(
    labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], *, bins: int = 15
) -> Statistic:
    """The same error as a function of case weights, for the bootstrap; the bins stay those of the sample.

    It is biased upwards, the more so in a resampled sample: limits lie rather above than around the value.
    """
    keep = (labels == 0) | (labels == 1)
    off = np.where(keep, probabilities - np.where(keep, labels, 0), 0.0)
    chosen = probabilities[keep]
    bad = not len(chosen) or bool(np.isnan(chosen).any())
    edges = np.quantile(chosen, np.linspace(0, 1, bins + 1)[1:-1]) if not bad else np.zeros(bins - 1)
    member = (np.searchsorted(edges, probabilities)[:, None] == np.arange(bins)) * off[:, None]

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        if bad:
            return np.full(len(weights), np.nan)
        return divided(np.abs(weights @ member).sum(axis=1), weights @ keep.astype(float))

    return statistic


def brier(labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> float:
    """Mean squared error of the probabilities (Brier 1950), 0 is best."""
    truth, probability = known(labels, probabilities)
    return float(np.mean((probability - truth) ** 2)) if len(truth) else np.nan


def log_loss(labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> float:
    """Mean negative log-likelihood in nats, 0 is best; probabilities are clipped to 1e-12."""
    truth, probability = known(labels, probabilities)
    if not len(truth):
        return np.nan
    right = np.where(truth == 1, probability, 1 - probability)
    return float(-np.mean(np.log(np.maximum(right, SMALLEST))))


def fit_temperature(labels: Shaped[np.ndarray, " n"], logits: Float[np.ndarray, " n"]) -> float:
    """Temperature that minimises the log loss of ``expit(logits / temperature)`` (Guo et al. 2017).

    Fit it on source validation cases only. Searched between 0.01 and 100; NaN where a class is
    absent, every case is on its right side of 0, or a logit is missing, as the best temperature is then 0
    or unknown.
    """
    truth, logit = known(labels, logits)
    if not 0 < truth.sum() < len(truth) or not np.isfinite(logit).all():
        return np.nan
    margin = np.where(truth == 1, logit, -logit)
    if (margin > 0).all():
        return np.nan
    best = minimize_scalar(
        lambda log_t: np.logaddexp(0, -margin * np.exp(-log_t)).mean(),
        bounds=(np.log(0.01), np.log(100)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(best.x))


def with_temperature(logits: Float[np.ndarray, " n"], temperature: float) -> Float[np.ndarray, " n"]:
    """Probabilities of logits softened (temperature above 1) or sharpened (below 1)."""
    return expit(logits / temperature)
