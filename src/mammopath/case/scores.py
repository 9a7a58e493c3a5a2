"""From logits to what is said: calibrated probability, conformal set, answer; severity from CORN logits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from sklearn.isotonic import isotonic_regression
from torch import Tensor

from mammopath.case.values import Score
from mammopath.confidence import UNITS, Settled, judge
from mammopath.evaluate import Units, by_unit
from mammopath.metrics.abstention import ANSWERS, ConformalCut, conformal_sets
from mammopath.settings import Unit
from mammopath.types import MODALITIES, SEVERITIES

SETTLED_AS: Mapping[str, Unit] = {"slide": "patient"}
"""Units that are calibrated as another one: a slide is a bag of fields, as patients are in training."""

Validation = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
"""Labels and logits of validation cases by modality and unit."""


def answered(
    unit: str, which: str, modality: str, logit: float, settled: Settled | None, familiar_p: float | None
) -> Score:
    """What is said of one unit; without calibration its probability is the network's own, and no answer."""
    if settled is None:
        probability = float(torch.tensor(logit, dtype=torch.float64).sigmoid())
        return Score(unit, which, modality, logit, probability, ANSWERS[2], "not calibrated", (), familiar_p)
    p = None if familiar_p is None else np.array([familiar_p])
    found = judge(settled, np.array([logit]), p)
    kept = conformal_sets(ConformalCut(settled.negative, settled.positive), found.probability)[0]
    return Score(
        unit=unit,
        which=which,
        modality=modality,
        logit=logit,
        probability=float(found.probability[0]),
        answer=str(found.answer[0]),
        why=str(found.why[0]),
        labels=tuple(name for name, is_kept in zip(ANSWERS[:2], kept, strict=True) if is_kept),
        familiar_p=familiar_p,
        calibrated=not math.isnan(settled.temperature),
        cases=settled.cases,
    )


def severities(logits: Float[Tensor, " k"]) -> dict[str, float]:
    """Probability of each severity category from CORN logits (Shi et al. 2023): chained conditionals."""
    at_least = torch.cat([logits.new_ones(1), logits.sigmoid().cumprod(0), logits.new_zeros(1)]).double()
    return dict(zip(SEVERITIES, (at_least[:-1] - at_least[1:]).tolist(), strict=True))


def worst(logits: Float[Tensor, "n k"], groups: Sequence[str]) -> dict[str, float]:
    """Severity of the worst group of images (a breast), each group by the mean of its CORN logits."""
    found = []
    for group in sorted(set(groups)):
        rows = torch.tensor([name == group for name in groups], device=logits.device)
        found.append(severities(logits[rows].mean(0)))
    return max(found, key=lambda one: sum(k * p for k, p in enumerate(one.values())))


def read_validation(folder: Path) -> Validation:
    """Validation cases of a run, from its table of predictions; none where there is no table."""
    if not (folder / "predictions.parquet").exists():
        return {}
    val = pl.read_parquet(folder / "predictions.parquet").filter(pl.col("part") == "val")
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for modality in MODALITIES:
        own = val.filter(pl.col("modality") == modality)
        for unit in UNITS if own.height else ():
            table = by_unit(own, Units(unit))
            found[modality, unit] = (table["malignant"].to_numpy(), table["logit"].to_numpy())
    return found


def with_interval(score: Score, validation: Validation) -> Score:
    """The score with its Venn-Abers interval."""
    unit = SETTLED_AS.get(score.unit, score.unit)
    labels, logits = validation.get((score.modality, unit), (np.zeros(0), np.zeros(0)))
    if not len(labels):
        return score
    low, high = venn_abers(labels, logits, score.logit)
    return replace(score, low=low, high=high)


def venn_abers(
    labels: Float[np.ndarray, " n"], logits: Float[np.ndarray, " n"], logit: float
) -> tuple[float, float]:
    """Inductive Venn-Abers interval of a probability (Vovk and Petej 2014, algorithm 2).

    Isotonic regression over calibration cases and the new one, taken for benign and for malignant; one of
    the two is calibrated whatever the distribution. Wide where few cases have such logits.
    """
    order = np.argsort(np.append(logits, logit), kind="stable")
    place = int(np.flatnonzero(order == len(logits))[0])
    fits = []
    for taken in (0.0, 1.0):
        truth = np.append(labels, taken)[order]
        _, tied = np.unique(np.append(logits, logit)[order], return_inverse=True)
        weight = np.bincount(tied).astype(float)
        fits.append(isotonic_regression(np.bincount(tied, truth) / weight, sample_weight=weight)[tied[place]])
    return float(min(fits)), float(max(fits))
