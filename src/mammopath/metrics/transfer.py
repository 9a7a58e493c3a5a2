"""What was settled on source validation, tried on another site: temperature, conformal sets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import expit

from mammopath.metrics.abstention import conformal_sets, coverage_per_class, fit_conformal, risk_coverage
from mammopath.metrics.calibration import expected_calibration_error, fit_temperature, with_temperature


@dataclass(frozen=True, slots=True)
class Transfer:
    """How well calibration carries over; NaN where undefined.

    Attributes:
        temperature: fitted on source validation.
        ece: on the target, before; ece_scaled: with that temperature.
        coverage_negative: realised share of negatives whose conformal set holds the truth;
            coverage_positive: of positives.
        undecided: share of target cases whose set holds both labels.
        aurc: area under the risk-coverage curve on the target.
    """

    temperature: float
    ece: float
    ece_scaled: float
    coverage_negative: float
    coverage_positive: float
    undecided: float
    aurc: float


def transfer(
    source: tuple[Shaped[np.ndarray, " m"], Float[np.ndarray, " m"]],
    target: tuple[Shaped[np.ndarray, " n"], Float[np.ndarray, " n"]],
    *,
    error: float = 0.1,
    threshold: float = 0.5,
) -> Transfer:
    """Fit on source validation, judge on the target.

    Args:
        source: labels and logits of validation cases of the training sites.
        target: labels and logits of the site judged.
        error: nominal miss rate of the conformal sets, per class.
        threshold: operating point of the risk-coverage curve.
    """
    labels, logits = target
    probabilities = expit(logits)
    temperature = fit_temperature(*source)
    sets = conformal_sets(fit_conformal(source[0], expit(source[1]), error=error), probabilities)
    covered = coverage_per_class(sets, labels)
    known = (labels == 0) | (labels == 1)
    return Transfer(
        temperature=temperature,
        ece=expected_calibration_error(labels, probabilities),
        ece_scaled=expected_calibration_error(labels, with_temperature(logits, temperature)),
        coverage_negative=float(covered[0]),
        coverage_positive=float(covered[1]),
        undecided=float(sets[known].all(axis=1).mean()) if known.any() else np.nan,
        aurc=risk_coverage(labels, probabilities, threshold=threshold).area,
    )
