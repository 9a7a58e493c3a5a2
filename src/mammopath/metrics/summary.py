"""Every number of one results line, from the predictions on one site."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from mammopath.metrics.calibration import brier, expected_calibration_error
from mammopath.metrics.delong import delong_interval
from mammopath.metrics.intervals import Interval, bootstrap
from mammopath.metrics.operating import operating_point
from mammopath.metrics.ranking import auc_statistic, average_precision


@dataclass(frozen=True, slots=True)
class SiteMetrics:
    """Measures of one method on one site; field names are those of ``results.jsonl``.

    Attributes:
        n: cases with a known label.
        patients: patients they belong to.
        positives: malignant cases.
        auc: with limits ``auc_low`` and ``auc_high``, found as ``interval`` says.
        threshold: chosen elsewhere; balanced_accuracy, sensitivity and specificity are at it.
        ece: expected calibration error over 15 bins of equal mass.
    """

    n: int
    patients: int
    positives: int
    auc: float
    auc_low: float
    auc_high: float
    interval: str
    average_precision: float
    threshold: float
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    ece: float
    brier: float


def site_metrics(
    labels: Shaped[np.ndarray, " n"],
    probabilities: Float[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"],
    *,
    threshold: float,
    draws: int = 2000,
    seed: int = 0,
) -> SiteMetrics:
    """Judge predictions on one site at a threshold chosen on source validation.

    Args:
        labels: 1, 0 or NaN; unknown ones are left out of everything.
        probabilities: of malignancy, in [0, 1].
        patients: whose case it is.
        threshold: on the scale of ``probabilities``; NaN leaves what depends on it NaN.
        draws: of the patient bootstrap.
        seed: of the patient bootstrap.
    """
    keep = (labels == 0) | (labels == 1)
    truth, probability, patient = labels[keep].astype(float), probabilities[keep], patients[keep]
    area = auc_interval(truth, probability, patient, draws=draws, seed=seed)
    at = operating_point(truth, probability, threshold)
    return SiteMetrics(
        n=len(truth),
        patients=len(np.unique(patient)),
        positives=int(truth.sum()),
        auc=area.value,
        auc_low=area.low,
        auc_high=area.high,
        interval=area.method,
        average_precision=average_precision(truth, probability),
        threshold=threshold,
        balanced_accuracy=at.balanced_accuracy,
        sensitivity=at.sensitivity,
        specificity=at.specificity,
        ece=expected_calibration_error(truth, probability),
        brier=brier(truth, probability),
    )


def auc_interval(
    labels: Shaped[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """AUC with 95 % limits: DeLong where every patient has one case, else the patient bootstrap."""
    keep = (labels == 0) | (labels == 1)
    labels, scores, patients = labels[keep], scores[keep], patients[keep]
    if not len(labels):
        return Interval(np.nan, np.nan, np.nan, "no labelled cases")
    if len(np.unique(patients)) == len(patients):
        return delong_interval(labels, scores)
    return bootstrap([auc_statistic(labels, scores)], patients, draws=draws, seed=seed).interval()
