"""The plain baseline: a frozen trunk's statistics and logistic regression, chosen on training sites only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mammopath.errors import DataError
from mammopath.metrics.ranking import auc
from mammopath.predict import Scores
from mammopath.types import MODALITIES, Record

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the penalty that cross-validation chooses from."""

C_DEFAULT = 1e-2
"""Where nothing can be chosen: a strong penalty, as there is next to nothing to learn from."""


@runtime_checkable
class Statistics(Protocol):
    """A bank that tells statistics of its images."""

    def statistics(self, row: int) -> Tensor:
        """Of one image: a row for each block that is known."""
        ...


@dataclass(frozen=True)
class Choice:
    """What cross-validation inside the training sites chose, and how it scored there."""

    block: int
    c: float
    auc: float


def logreg_scores(
    bank: Statistics, records: Sequence[Record], train: Sequence[int], score: Sequence[int]
) -> tuple[Scores, dict[str, Choice]]:
    """Fit on ``train`` and score ``score``, per modality.

    The features are CLS, mean and spread of the patch tokens of one block (Oquab et al. 2024 read DINOv2
    out alike). Block and penalty are chosen by grouped cross-validation over the patients of the training
    rows: the held-out site is never looked at.

    Raises:
        DataError: the training rows of a modality hold one class only.
    """
    found: dict[int, float] = {}
    choices: dict[str, Choice] = {}
    for modality in MODALITIES:
        fit_rows = [r for r in train if records[r].modality == modality and records[r].malignant in (0, 1)]
        score_rows = [r for r in score if records[r].modality == modality]
        if not fit_rows or not score_rows:
            continue
        features = _features(bank, fit_rows)
        labels = np.array([int(records[r].malignant) for r in fit_rows])
        if len(set(labels)) < 2:
            raise DataError(f"logreg: the training sites hold one class of {modality} only; add a site")
        choices[modality] = choose(features, labels, [records[r].patient for r in fit_rows])
        model = linear_model(choices[modality].c).fit(features[:, choices[modality].block], labels)
        logits = model.decision_function(_features(bank, score_rows)[:, choices[modality].block])
        found |= dict(zip(score_rows, logits.tolist(), strict=True))
    rows = np.array(sorted(found), dtype=np.int64)
    logit = np.array([found[int(r)] for r in rows])
    return Scores(rows, logit, patient_means(records, rows, logit)), choices


def choose(
    features: Float[np.ndarray, "n depth s"], labels: Int[np.ndarray, " n"], patients: Sequence[str]
) -> Choice:
    """Best block and penalty by three-fold cross-validation that never splits a patient.

    With two patients there are two folds. A fold whose other patients hold one class says nothing and is left
    out; where all do, nothing can be chosen: the top block with ``C_DEFAULT`` is taken, with an AUC of NaN.
    """
    count = min(3, len(set(patients)))
    found = GroupKFold(count, shuffle=True, random_state=0) if count > 1 else None
    every = list(found.split(features, labels, patients)) if found else []
    folds = [(train, test) for train, test in every if len(set(labels[train])) > 1]
    judged = np.sort(np.concatenate([test for _, test in folds])) if folds else np.zeros(0, dtype=np.int64)
    if len(set(labels[judged])) < 2:
        return Choice(features.shape[1] - 1, C_DEFAULT, float("nan"))
    tried = []
    for block, c in product(range(features.shape[1]), C_GRID):
        held = np.zeros(len(labels))
        for train, test in folds:
            model = linear_model(c).fit(features[train, block], labels[train])
            held[test] = model.decision_function(features[test, block])
        tried.append(Choice(block, c, float(auc(labels[judged], held[judged]))))
    return max(tried, key=lambda choice: choice.auc)


def patient_means(
    records: Sequence[Record], rows: Int[np.ndarray, " n"], logit: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Mean logit over the images of each image's patient, per modality."""
    keys = [(records[int(r)].modality, records[int(r)].patient) for r in rows]
    sums: dict[tuple[str, str], list[float]] = {}
    for key, value in zip(keys, logit, strict=True):
        sums.setdefault(key, []).append(float(value))
    return np.array([np.mean(sums[key]) for key in keys], dtype=float)


def _features(bank: Statistics, rows: Sequence[int]) -> Float[np.ndarray, "n depth s"]:
    return np.stack([bank.statistics(row).numpy() for row in rows])


def linear_model(c: float) -> Pipeline:
    """Logistic regression on standardised features, classes weighted equally; ``c`` is 1 over its penalty."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500, class_weight="balanced"))
