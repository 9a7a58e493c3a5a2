"""Saying less when unsure: conformal label sets, risk against coverage."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mammopath.metrics.ranking import divided, known

ANSWERS = ("not malignant", "malignant", "insufficient")
"""What can be said of a case; the last one says nothing, and is an answer of its own."""


@dataclass(frozen=True)
class ConformalCut:
    """Largest nonconformity (1 minus probability of the class) that keeps a class in the set.

    Attributes:
        negative: for label 0; infinite if there were too few calibration cases to leave it out ever.
        positive: for label 1, likewise.
    """

    negative: float
    positive: float


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the most confident cases.

    Attributes:
        coverage: share of cases answered, ascending to 1.
        risk: share of wrong answers among them.
        area: mean risk over all coverages (AURC), 0 is best.
    """

    coverage: Float[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]
    area: float


def fit_conformal(
    labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], *, error: float = 0.1
) -> ConformalCut:
    """Class-conditional (Mondrian) split-conformal cuts from calibration cases (Vovk et al. 2005, ch. 4.5).

    If new cases are exchangeable with these, each class is missed by its set at most ``error`` of the
    time. Under a change of site they are not: report the realised coverage there.
    """
    truth, probability = known(labels, probabilities)
    misfit = np.where(truth == 1, 1 - probability, probability)
    return ConformalCut(*(_conformal_quantile(misfit[truth == label], error) for label in (0, 1)))


def conformal_sets(cut: ConformalCut, probabilities: Float[np.ndarray, " n"]) -> Bool[np.ndarray, "n 2"]:
    """Which labels (columns 0 and 1) each case keeps; both means "insufficient", neither "unlike both"."""
    return np.stack([probabilities <= cut.negative, 1 - probabilities <= cut.positive], axis=1)


def coverage_per_class(
    sets: Bool[np.ndarray, "n 2"], labels: Shaped[np.ndarray, " n"]
) -> Float[np.ndarray, "2"]:
    """Realised share of negatives and positives whose set holds the truth; NaN for an absent class."""
    held = [float(np.sum(sets[labels == label, label])) for label in (0, 1)]
    return divided(np.array(held), np.array([float(np.sum(labels == label)) for label in (0, 1)]))


def answers(
    sets: Bool[np.ndarray, "n 2"], unfamiliar: Bool[np.ndarray, " n"]
) -> tuple[Shaped[np.ndarray, " n"], Shaped[np.ndarray, " n"]]:
    """What is said of each case, one of ``ANSWERS``, and why nothing is said where it is ``insufficient``.

    An image unlike the training sites is not answered whatever its probability, since the probability was
    calibrated on others. Otherwise the conformal set must hold exactly one label.
    """
    undecided, neither = sets.all(axis=1), ~sets.any(axis=1)
    silent = unfamiliar | undecided | neither
    said = np.where(silent, ANSWERS[2], np.where(sets[:, 1], ANSWERS[1], ANSWERS[0]))
    why = np.select(
        [unfamiliar, undecided, neither],
        ["unlike the training sites", "both answers are possible", "unlike either class"],
        default="",
    )
    return said, why


def risk_coverage(
    labels: Shaped[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], *, threshold: float = 0.5
) -> RiskCoverage:
    """Error rate when only the most confident cases are answered (Geifman and El-Yaniv 2017).

    Confidence is the distance from the threshold, relative to the room on that side, so that both sides
    count alike for a threshold other than 0.5. Equally confident cases share their mean risk.
    """
    truth, probability = known(labels, probabilities)
    if not len(truth):
        return RiskCoverage(np.empty(0), np.empty(0), np.nan)
    called = probability >= threshold
    room = np.where(called, 1 - threshold, threshold)
    confidence = np.abs(probability - threshold) / np.maximum(room, 1e-12)
    _, level = np.unique(-confidence, return_inverse=True)
    shared = divided(np.bincount(level, weights=called != truth), np.bincount(level).astype(float))
    order = np.argsort(level, kind="stable")
    answered = np.arange(1, len(truth) + 1)
    risk = shared[level][order].cumsum() / answered
    return RiskCoverage(answered / len(truth), risk, float(risk.mean()))


def _conformal_quantile(misfit: Float[np.ndarray, " m"], error: float) -> float:
    rank = int(np.ceil((len(misfit) + 1) * (1 - error) - 1e-9))
    return float(np.sort(misfit)[rank - 1]) if 1 <= rank <= len(misfit) else np.inf
