"""From scored patches to a map of tumour over the slide, and from the map to detections and lesions."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from mammopath.images.geometry import Frame
from mammopath.types import Spacing

TUMOUR = 0.5
"""Probability from which a patch counts as tumour."""


@dataclass(frozen=True)
class TumourMap:
    """Probability of tumour over a slide.

    Attributes:
        probability: of each cell of the grid of patches; NaN where no patch was read.
        frame: from level-0 pixels to cells.
        um: side of a cell in micrometres.
    """

    probability: Float[np.ndarray, "h w"]
    frame: Frame
    um: float

    def tumour(self, threshold: float = TUMOUR) -> Bool[np.ndarray, "h w"]:
        """Cells that count as tumour."""
        return np.nan_to_num(self.probability, nan=0.0) >= threshold


def tumour_map(
    corners: Int[np.ndarray, "n 2"],
    probability: Float[np.ndarray, " n"],
    *,
    span: float,
    step: float,
    spacing: Spacing,
) -> TumourMap:
    """Lay the probabilities of patches on a grid of cells as large as the distance of neighbours.

    Where patches overlap, a cell shows the mean of those that cover its middle.

    Args:
        corners: of patches, in level-0 pixels.
        probability: of each.
        span: side of a patch in level-0 pixels.
        step: distance of neighbouring patches in level-0 pixels.
        spacing: of a level-0 pixel.
    """
    if len(corners) == 0:
        return TumourMap(np.full((1, 1), np.nan), Frame(), spacing.um_x)
    first = corners.min(axis=0)
    cells = np.rint((corners - first) / step).astype(np.int64)
    reach = max(1, math.floor(span / step - 0.5) + 1)
    width, height = cells.max(axis=0) + reach
    sums, counts = np.zeros((height, width)), np.zeros((height, width))
    for down in range(reach):
        for across in range(reach):
            place = (cells[:, 1] + down, cells[:, 0] + across)
            np.add.at(sums, place, probability)
            np.add.at(counts, place, 1)
    with np.errstate(invalid="ignore"):
        shown = sums / counts
    left, top = first.tolist()
    return TumourMap(shown, Frame(1 / step, 1 / step, -left / step, -top / step), step * spacing.um_x)


def detections(
    found: TumourMap, *, threshold: float = TUMOUR, smooth: float = 0.0
) -> Float[np.ndarray, "k 3"]:
    """One detection for each connected piece of tumour: confidence, x and y in level-0 pixels.

    The confidence is the highest probability of the piece; the place is its centre of mass, or where that
    lies outside of the piece, its nearest cell.

    Args:
        found: the map.
        threshold: probability from which a cell belongs to a piece; pieces touch by edges or corners.
        smooth: sigma of a Gaussian over the map beforehand, in cells.
    """
    filled = np.nan_to_num(found.probability, nan=0.0)
    filled = ndimage.gaussian_filter(filled, smooth) if smooth else filled
    labels, count = ndimage.label(filled >= threshold, np.ones((3, 3)))
    back = found.frame.inverse()
    rows = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[box] == number
        y, x = np.nonzero(piece)
        weight = filled[box][piece]
        middle = np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()
        at = np.argmin((y - middle[0]) ** 2 + (x - middle[1]) ** 2)
        place = back.point(float(x[at] + box[1].start + 0.5), float(y[at] + box[0].start + 0.5))
        rows.append((float(weight.max()), *place))
    return np.array(rows, dtype=float).reshape(count, 3)
