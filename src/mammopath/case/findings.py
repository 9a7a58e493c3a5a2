"""Suspicious regions of an image: from its lesion map to boxes and contours on level 0, in millimetres."""

from typing import cast

import contourpy
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from mammopath.case.values import Spot
from mammopath.maps.values import AttentionMap, Box, within
from mammopath.types import Spacing

MOST = 5
"""Regions of an image that are told of."""

ROUND = np.ones((3, 3), dtype=bool)
"""Tokens touch in an edge or a corner."""


def spots(found: AttentionMap, threshold: float) -> tuple[Spot, ...]:
    """Connected regions of a map at and above a threshold, the most suspicious first.

    Args:
        found: lesion map.
        threshold: of its values; NaN finds nothing.
    """
    above = np.nan_to_num(found.values, nan=-np.inf) >= threshold
    label, count = ndimage.label(above, ROUND)
    regions = [label == k for k in range(1, count + 1)]
    regions.sort(key=lambda r: -float(found.values[r].max()))
    return tuple(_spot(found, region, number) for number, region in enumerate(regions[:MOST], start=1))


def _spot(found: AttentionMap, region: Bool[np.ndarray, "rows cols"], number: int) -> Spot:
    rows, columns = np.nonzero(region)
    peak = int(np.argmax(found.values[rows, columns]))
    corners = [
        found.box(int(r), int(c)) for r, c in ((rows.min(), columns.min()), (rows.max(), columns.max()))
    ]
    box = _around(*corners)
    middle = found.box(int(rows[peak]), int(columns[peak]))
    return Spot(
        image_id=found.image_id,
        number=number,
        score=float(found.values[rows[peak], columns[peak]]),
        box=box,
        contour=_contour(found, region),
        point=((middle[0] + middle[2]) / 2, (middle[1] + middle[3]) / 2),
        mm=_mm(box, found.spacing),
        area_mm2=_area(found, region),
        cells=tuple(zip(rows.tolist(), columns.tolist(), strict=True)),
    )


def _contour(found: AttentionMap, region: Bool[np.ndarray, "rows cols"]) -> tuple[tuple[float, float], ...]:
    """Outer line of a region, halfway between its tokens' middles and those beside it, on level 0.

    Just below half, so that between tokens that touch in a corner alone the line goes around both.
    """
    padded: Float[np.ndarray, "r c"] = np.pad(region.astype(float), 1)
    lines = cast(list[np.ndarray], contourpy.contour_generator(z=padded).lines(0.5 - 1e-9))
    outer = max(lines, key=lambda line: float(np.ptp(line[:, 0])))
    back = found.frame.inverse()
    at = ((np.asarray(outer) - 0.5) * found.cell).tolist()
    return tuple(within((*back.point(x, y), *back.point(x, y)), found.size)[:2] for x, y in at)


def _around(first: Box, second: Box) -> Box:
    both = np.array([first, second])
    low, high = both.min(axis=0), both.max(axis=0)
    return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def _mm(box: Box, spacing: Spacing | None) -> tuple[float, float] | None:
    if spacing is None:
        return None
    return (box[2] - box[0]) * spacing.um_x / 1000, (box[3] - box[1]) * spacing.um_y / 1000


def _area(found: AttentionMap, region: Bool[np.ndarray, "rows cols"]) -> float | None:
    """Area of the tokens of a region, as far as they lie in the image."""
    sides = [_mm(found.box(int(r), int(c)), found.spacing) for r, c in np.argwhere(region)]
    return None if found.spacing is None else sum(side[0] * side[1] for side in sides if side)
