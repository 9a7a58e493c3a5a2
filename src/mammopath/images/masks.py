"""From a mask of pixels to findings: the outlines of its parts, with holes, in level-0 pixels."""

from collections.abc import Iterator

import contourpy
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from mammopath.images.outlines import Points
from mammopath.types import UNKNOWN, Finding

SPECK = 0.01
"""Parts of a mask below this share of its largest part are dust of its resampling or compression."""

TOLERANCE = 1.0
"""Pixels by which a simplified outline may leave the one of the mask."""

Corners = Float[np.ndarray, "_ 2"]


def mask_findings(
    mask: Bool[np.ndarray, "h w"],
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    malignant: float = UNKNOWN,
    name: str = "",
) -> tuple[Finding, ...]:
    """One polygon for each connected part (4 neighbours) of a mask, largest first; none for an empty one.

    Args:
        mask: True inside the lesion.
        scale: level-0 pixels per pixel of the mask, across and down.
        malignant: label of the findings.
        name: what they are called.
    """
    found = []
    for outline, holes, area in _parts(mask):
        points, cut = _scaled(outline, scale), tuple(_scaled(hole, scale) for hole in holes)
        found.append((area, Finding("polygon", points, malignant=malignant, name=name, holes=cut)))
    return tuple(finding for _, finding in sorted(found, key=lambda pair: -pair[0]))


def _parts(mask: Bool[np.ndarray, "h w"]) -> Iterator[tuple[Corners, list[Corners], int]]:
    """Outline, holes and area of each part that is no speck, in pixels of the mask."""
    if not mask.any():
        return
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    labels, _ = ndimage.label(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    areas = np.bincount(labels.ravel())[1:]
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if areas[number - 1] < SPECK * areas.max():
            continue
        corner = np.array([place[1].start + left - 1, place[0].start + top - 1])
        outline, *holes = _rings(np.pad(labels[place] == number, 1))
        yield outline + corner, [hole + corner for hole in holes], int(areas[number - 1])


def _rings(part: Bool[np.ndarray, "h w"]) -> list[Corners]:
    """The outer ring of one connected part, and the rings around its holes.

    Lines run half-way between centres inside and outside, so every centre stays on its side, up to
    ``TOLERANCE``.
    """
    height, width = part.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    lines = contourpy.contour_generator(x, y, part.astype(np.float32), name="serial").lines(0.5)
    rings = [_simplified(np.asarray(line)[:-1]) for line in lines]
    return sorted(rings, key=lambda ring: -_area(ring))


def _simplified(ring: Corners) -> Corners:
    """Corners without which no point of the ring moves by more than the tolerance (Ramer 1972)."""
    if len(ring) < 8:
        return ring
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    keep = {0, far}
    closed = np.concatenate([ring, ring[:1]])
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        first, last = waiting.pop()
        apart = _distances(closed[first + 1 : last], closed[first], closed[last])
        if len(apart) and apart.max() > TOLERANCE:
            middle = first + 1 + int(np.argmax(apart))
            keep.add(middle)
            waiting += [(first, middle), (middle, last)]
    return ring[sorted(keep)] if len(keep) > 2 else ring


def _distances(
    points: Corners, start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, " _"]:
    """From points to the line through two others."""
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
    across = points - start
    return np.abs(across[:, 0] * along[1] - across[:, 1] * along[0])


def _area(ring: Corners) -> float:
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _scaled(ring: Corners, scale: tuple[float, float]) -> Points:
    return tuple((round(x * scale[0], 2), round(y * scale[1], 2)) for x, y in ring.tolist())
