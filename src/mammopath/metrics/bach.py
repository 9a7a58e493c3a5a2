"""BACH: accuracy of fields, and the score of labelled slides (Aresta et al. 2019, section 4)."""

import numpy as np
from jaxtyping import Int, Shaped

from mammopath.errors import DataError

CLASSES = 4
"""Normal 0, benign 1, in situ 2, invasive 3."""

_TINY = 1e-9
"""The paper's a, so that a slide without any lesion divides by something."""


def accuracy(truth: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]) -> float:
    """Part A: share of fields whose class is right; NaN without fields."""
    return float((truth == predicted).mean()) if len(truth) else np.nan


def slide_score(truth: Int[np.ndarray, "h w"], predicted: Int[np.ndarray, "rows columns"]) -> float:
    """Part B: how well the pixels of a slide are labelled, 1 is perfect.

    One minus the distances between the classes, over the largest that were possible where either truth or
    prediction is not normal: pixels that both call normal count nothing, so empty background helps nobody.

    Args:
        truth: class of each pixel, 0 to 3.
        predicted: likewise.

    Raises:
        DataError: other classes, or masks of different sizes.
    """
    if truth.shape != predicted.shape:
        raise DataError(f"masks of {truth.shape} and {predicted.shape} pixels cannot be compared")
    if truth.size and not (
        0 <= min(truth.min(), predicted.min()) <= max(truth.max(), predicted.max()) < CLASSES
    ):
        raise DataError("classes of a mask must be 0 (normal) to 3 (invasive)")
    pairs = np.bincount((truth * CLASSES + predicted).ravel(), minlength=CLASSES**2)
    table = pairs.reshape(CLASSES, CLASSES).astype(float)
    true, told = np.indices((CLASSES, CLASSES))
    worst = np.maximum(true, CLASSES - 1 - true) * ((true > 0) | (told > 0))
    return float(1 - (table * abs(true - told)).sum() / ((table * worst).sum() + _TINY))
