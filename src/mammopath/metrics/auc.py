"""AUC with the interval that fits the data, overall or by subgroup."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from mammopath.metrics.delong import delong_interval
from mammopath.metrics.intervals import Interval, IntervalKind, bootstrap, mean_statistic
from mammopath.metrics.ranking import auc_statistic


@dataclass(frozen=True, slots=True)
class Subgroup:
    """AUC among the cases of one group; NaN where either class is below the minimum cell size."""

    name: str
    positives: int
    negatives: int
    auc: Interval


def auc_interval(
    labels: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"],
    *,
    draws: int = 2000,
    seed: int = 0,
    kind: IntervalKind = "percentile",
) -> Interval:
    """AUC with 95 % limits: DeLong where every patient has one case, else the patient bootstrap of a kind."""
    keep = (labels == 0) | (labels == 1)
    labels, scores, patients = labels[keep], scores[keep], patients[keep]
    if not len(labels):
        return Interval(np.nan, np.nan, np.nan, "no labelled cases")
    if len(np.unique(patients)) == len(patients):
        return delong_interval(labels, scores)
    statistic, jackknife = auc_statistic(labels, scores), kind == "bca"
    drawn = bootstrap([statistic], patients, draws=draws, seed=seed, jackknife=jackknife)
    return drawn.interval(kind=kind)


def mean_auc_interval(
    labels: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, "k n"],
    patients: Shaped[np.ndarray, " n"],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean AUC of several scorings of the same cases (seeds), with limits for drawing other patients.

    One scoring has the limits of ``auc_interval``.
    """
    if len(scores) == 1:
        return auc_interval(labels, scores[0], patients, draws=draws, seed=seed)
    mean = mean_statistic([auc_statistic(labels, one) for one in scores])
    return bootstrap([mean], patients, draws=draws, seed=seed).interval()


def auc_by_group(
    groups: Shaped[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, "k n"],
    patients: Shaped[np.ndarray, " n"],
    *,
    minimum: int = 10,
    draws: int = 2000,
) -> list[Subgroup]:
    """Mean AUC over scorings (seeds) within each group with its interval, names ascending.

    Groups with fewer than ``minimum`` positives or negatives keep their counts but get no AUC: an
    estimate from a handful of cases invites a story that is not there.
    """
    found = []
    for name in np.unique(groups):
        rows = groups == name
        positives, negatives = int((labels[rows] == 1).sum()), int((labels[rows] == 0).sum())
        area = Interval(np.nan, np.nan, np.nan, f"fewer than {minimum} of a class")
        if min(positives, negatives) >= minimum:
            area = mean_auc_interval(labels[rows], scores[:, rows], patients[rows], draws=draws)
        found.append(Subgroup(str(name), positives, negatives, area))
    return found
