"""From scored patches to a map of tumour over the slide, and from the map to detections and lesions."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from mammopath.errors import DataError
from mammopath.images.geometry import Frame
from mammopath.maps.values import AttentionMap
from mammopath.slides.score import SlideScore
from mammopath.types import Spacing

TUMOUR = 0.5
"""Probability from which a patch counts as tumour."""


METHOD, UNIT = "lesion", "probability, uncalibrated"
"""Of a map of tumour among the map methods: it is the lesion head's, a patch for a token."""


def map_of(score: SlideScore, *, image_id: str) -> AttentionMap:
    """The map of tumour of a slide that was scored.

    Raises:
        DataError: its features do not tell where on the slide their patches lie, or how large a pixel is.
    """
    places = score.places
    if places.spacing is None or np.isnan(places.step):
        raise DataError(
            f"{image_id}: its features do not tell the side of a patch and of a pixel at level 0;"
            " make them with `mammopath slides features`, or add the attributes to coords"
        )
    found = tumour_map(
        places.corners, score.tumour, span=places.span, step=places.step, spacing=places.spacing
    )
    return replace(found, image_id=image_id)


def tumour_map(
    corners: Int[np.ndarray, "n 2"],
    probability: Float[np.ndarray, " n"],
    *,
    span: float,
    step: float,
    spacing: Spacing,
) -> AttentionMap:
    """Lay the probabilities of patches on a grid of cells as large as the distance of neighbours.

    Where patches overlap, a cell shows the mean of those that cover its middle; it is NaN where no patch was
    read. A cell is a token of the map, one prepared pixel a side.

    Args:
        corners: of patches, in level-0 pixels.
        probability: of each.
        span: width of a patch in level-0 pixels.
        step: distance of patches beside one another in level-0 pixels.
        spacing: of a level-0 pixel.
    """
    if len(corners) == 0:
        return AttentionMap(METHOD, UNIT, np.full((1, 1), np.nan), 1, Frame(), "", spacing)
    first, steps = corners.min(axis=0), np.array([step, step * spacing.um_x / spacing.um_y])
    cells = np.rint((corners - first) / steps).astype(np.int64)
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
    (left, top), (wide, high) = first.tolist(), steps.tolist()
    frame = Frame(1 / wide, 1 / high, -left / wide, -top / high)
    return AttentionMap(METHOD, UNIT, shown, 1, frame, "", spacing)


def tumour_cells(found: AttentionMap, threshold: float = TUMOUR) -> Bool[np.ndarray, "h w"]:
    """Cells that count as tumour."""
    return np.nan_to_num(found.values, nan=0.0) >= threshold


def cell_um(found: AttentionMap) -> float:
    """Side of a cell in micrometres."""
    assert found.spacing is not None
    return found.cell / found.frame.scale_x * found.spacing.um_x


@dataclass(frozen=True)
class Piece:
    """A connected piece of tumour of a map; its cells touch by edges or corners.

    Attributes:
        confidence: the highest probability in it.
        place: centre of mass in level-0 pixels, x and y, or where that lies outside, its nearest cell.
        mask: of its cells. first: row and column of the mask in the map.
    """

    confidence: float
    place: tuple[float, float]
    mask: Bool[np.ndarray, "rows cols"]
    first: tuple[int, int]


def pieces(found: AttentionMap, *, threshold: float = TUMOUR, smooth: float = 0.0) -> list[Piece]:
    """The pieces of tumour of a map, in the order of their rows.

    Args:
        found: the map.
        threshold: probability from which a cell belongs to a piece.
        smooth: sigma of a Gaussian over the map beforehand, in cells.
    """
    filled = np.nan_to_num(found.values, nan=0.0)
    filled = ndimage.gaussian_filter(filled, smooth) if smooth else filled
    labels, _ = ndimage.label(filled >= threshold, np.ones((3, 3)))
    back = found.frame.inverse()
    told = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mask, first = labels[box] == number, (box[0].start, box[1].start)
        y, x = np.nonzero(mask)
        weight = filled[box][mask]
        middle = np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()
        at = np.argmin((y - middle[0]) ** 2 + (x - middle[1]) ** 2)
        place = back.point(float(x[at] + first[1] + 0.5), float(y[at] + first[0] + 0.5))
        told.append(Piece(float(weight.max()), place, mask, first))
    return told


def detections(found: AttentionMap, *, threshold: float = TUMOUR) -> Float[np.ndarray, "k 3"]:
    """One detection for each piece of tumour: confidence, x and y in level-0 pixels."""
    rows = [(piece.confidence, *piece.place) for piece in pieces(found, threshold=threshold)]
    return np.array(rows, dtype=float).reshape(-1, 3)
