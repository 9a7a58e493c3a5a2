"""Would a model do at a site: earlier sites as a prior, the site's own cases, how many more it takes.

AUC and sensitivity are judged on the logit scale, each by the posterior probability that it reaches its
target. Everything is on a grid, so that any prior can be used and no draw is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import t as student

GRID = np.linspace(-7.0, 9.0, 1601)
"""Logits of a share: from 0.001 to 0.9999."""

MIXTURE = 0.2
"""Weight of the vague part of a prior: a new site may be unlike all earlier ones (Schmidli et al. 2014)."""

VAGUE = (0.0, 1.8)
"""Mean and spread of the vague part: shares of 0.03 to 0.97."""

SPREAD = 0.3
"""Between-site spread on the logit scale that one earlier site is taken to have, as it cannot show its own;
AUCs of 0.77 to 0.86 around 0.82 (seen between public data sets)."""

Density = Float[np.ndarray, " grid"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An estimate of a share on the logit scale: of one earlier site, or of the local sample.

    Attributes:
        value: the estimate, a share.
        error: its standard error on the logit scale; infinite where it says nothing.
    """

    value: float
    error: float


@dataclass(frozen=True)
class Rules:
    """When a site is accepted.

    Attributes:
        sure: posterior probability of reaching the target that accepts; 1 minus it rejects.
        least: fewest local patients of a class; below it no site is accepted, however good its prior.
        assurance: probability with which "need m more" shall be enough.
    """

    sure: float = 0.95
    least: int = 10
    assurance: float = 0.8


def site_prior(earlier: Sequence[Evidence]) -> Density:
    """Density of a new site's share: a random-effects prediction from earlier sites, with a vague part.

    Between-site variance by DerSimonian and Laird (1986), never below none; the predictive spread is a
    Student distribution with one degree of freedom less than there are sites (Higgins et al. 2009), so that
    two sites promise little. No sites: the vague part alone.
    """
    vague = _normal(GRID, *VAGUE)
    known = [e for e in earlier if np.isfinite(e.error) and 0 < e.value < 1]
    if not known:
        return vague
    values = logit(np.array([e.value for e in known]))
    errors = np.array([e.error for e in known])
    between = max(_between(values, errors), 0.0) if len(known) > 1 else SPREAD**2
    weights = 1 / (errors**2 + between)
    mean = float((weights * values).sum() / weights.sum())
    scale = float(np.sqrt(between + 1 / weights.sum()))
    freedom = max(1, len(known) - 1)
    informed = student.pdf((GRID - mean) / scale, freedom)
    return _unit((1 - MIXTURE) * _unit(informed) + MIXTURE * vague)


def posterior(prior: Density, own: Evidence) -> Density:
    """The prior after the local estimate."""
    if not np.isfinite(own.error) or not 0 < own.value < 1:
        return prior
    return _unit(prior * np.exp(-0.5 * ((logit(own.value) - GRID) / own.error) ** 2))


def reaches(density: Density, target: float) -> float:
    """Probability of a share of at least ``target``."""
    return float(density[logit(target) - 1e-12 <= GRID].sum())


def mean_share(density: Density) -> float:
    """Expected share."""
    return float((density * expit(GRID)).sum())


def quantile(density: Density, level: float) -> float:
    """Share below which the density holds ``level`` of its mass."""
    place = int(np.searchsorted(np.cumsum(density), level))
    return float(expit(GRID[min(place, len(GRID) - 1)]))


def sensitivity_evidence(hits: float, positives: int) -> Evidence:
    """Sensitivity from counts, half a case added on each side so that 0 and 1 stay finite (Agresti 2013)."""
    if positives == 0:
        return Evidence(np.nan, np.inf)
    low, high = hits + 0.5, positives - hits + 0.5
    return Evidence(float(low / (low + high)), float(np.sqrt(1 / low + 1 / high)))


def auc_evidence(value: float, positives: int, negatives: int, *, error: float | None = None) -> Evidence:
    """AUC from a value and its standard error on the scale of the AUC; by its size where none is known.

    Perfect separation is pulled in by half a pair, as a small sample can show it for any good model.
    """
    pairs = positives * negatives
    if pairs == 0 or np.isnan(value):
        return Evidence(np.nan, np.inf)
    area = float(np.clip(value, 0.5 / pairs, 1 - 0.5 / pairs))
    expected = hanley_mcneil(area, positives, negatives)
    spread = expected if error is None or not error > 0 else error
    return Evidence(area, spread / (area * (1 - area)))


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC for exponential scores (Hanley and McNeil 1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    square = area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return float(np.sqrt(max(square, 0.0) / (positives * negatives)))


def assured(
    density: Density, target: float, errors: Float[np.ndarray, " k"], rules: Rules
) -> Float[np.ndarray, " k"]:
    """Probability that a further sample will decide, for several standard errors of its estimate.

    For each true share under ``density`` a new estimate scatters around it; the share of estimates after
    which the posterior would accept or reject, averaged over the density.
    """
    thin = slice(None, None, 20)
    truths, weights = GRID[thin], _unit(density[thin])
    estimates = truths
    found = []
    for error in errors:
        likelihood = np.exp(-0.5 * ((estimates[:, None] - GRID[None]) / error) ** 2)
        after = density * likelihood
        total = after.sum(axis=1)
        above = after[:, logit(target) - 1e-12 <= GRID].sum(axis=1) / np.maximum(total, 1e-300)
        decided = (above >= rules.sure) | (above <= 1 - rules.sure)
        scatter = np.exp(-0.5 * ((estimates[None] - truths[:, None]) / error) ** 2)
        scatter /= scatter.sum(axis=1, keepdims=True)
        found.append(float(weights @ (scatter @ decided)))
    return np.array(found)


def _between(values: Float[np.ndarray, " k"], errors: Float[np.ndarray, " k"]) -> float:
    weights = 1 / errors**2
    mean = (weights * values).sum() / weights.sum()
    excess = (weights * (values - mean) ** 2).sum() - (len(values) - 1)
    return float(excess / (weights.sum() - (weights**2).sum() / weights.sum()))


def _normal(at: Float[np.ndarray, " grid"], mean: float, spread: float) -> Density:
    return _unit(np.exp(-0.5 * ((at - mean) / spread) ** 2))


def _unit(density: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return density / density.sum()
