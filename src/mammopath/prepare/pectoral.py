"""The pectoral muscle in an MLO view: what a straight line cuts off at the upper corner by the chest wall.

The muscle is a bright triangle. Of all lines from the top of the breast to its chest wall, the one is taken
along which the corner's side is brighter than the other most steadily, on a coarse copy; where no line is
good enough, there is no muscle to be seen. A line is the usual first step (Karssemeijer 1998, Physics in
Medicine and Biology 43:365-378); the muscle's true edge is a little curved.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from mammopath.prepare.breast import Breast

SMOOTH = 1.5
"""Sigma in coarse pixels that takes away the texture of tissue."""

APART = 3.0
"""Distance from the line, in coarse pixels, at which both sides are compared."""

STEEP = (1.0, 4.0)
"""How much higher than wide the triangle may be: the edge runs 45 to 76 degrees from the horizontal."""

LEAST = 0.05
"""Least mean difference of the sides, in parts of the breast's range."""

_POINTS = 48
"""Points along a line."""


@dataclass(frozen=True)
class Line:
    """From ``across`` coarse pixels along the top of the breast to ``down`` along its chest wall."""

    across: float
    down: float


def find_pectoral(
    grey: Float[np.ndarray, "h w"], breast: Breast, *, on_left: bool
) -> Bool[np.ndarray, "h w"]:
    """Where the pectoral muscle is in the coarse copy of an MLO view; nowhere if no line fits.

    Args:
        grey: the coarse copy (``coarse_copy``).
        breast: found in it.
        on_left: whether the chest wall is on its left.
    """
    mask = breast.mask if on_left else breast.mask[:, ::-1]
    image = grey if on_left else grey[:, ::-1]
    found = np.zeros_like(mask)
    top, left = np.flatnonzero(mask.any(1))[0], np.flatnonzero(mask.any(0))[0]
    inside = mask[top:, left:]
    line = _line(image[top:, left:], inside)
    if line:
        y, x = np.mgrid[: inside.shape[0], : inside.shape[1]]
        found[top:, left:] = (x / line.across + y / line.down < 1) & inside
    return found if on_left else found[:, ::-1]


def _line(image: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"]) -> Line | None:
    """The best line of all that cross the corner of a box around the breast, its wall on the left."""
    low, high = np.quantile(image[inside], (0.02, 0.98))
    even = ndimage.gaussian_filter(np.clip((image - low) / max(high - low, 1e-6), 0, 1), SMOOTH)
    height, width = (np.flatnonzero(inside.any(axis))[-1] + 1 for axis in (1, 0))
    across, down = np.meshgrid(
        np.arange(0.12 * width, 0.85 * width), np.arange(0.15 * height, 0.9 * height, 2)
    )
    fits = (down >= STEEP[0] * across) & (down <= STEEP[1] * across)
    lines = np.stack([across[fits], down[fits]], axis=1)
    if not len(lines):
        return None
    scores = _scores(even, inside, lines)
    best = int(np.argmax(scores))
    return Line(*lines[best]) if scores[best] > LEAST else None


def _scores(
    even: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], lines: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, " n"]:
    """Mean difference of both sides of each line, in parts of the range; places off the breast count none."""
    along = (np.arange(_POINTS) + 0.5) / _POINTS
    across, down = lines[:, :1], lines[:, 1:]
    places = np.stack([down * along, across * (1 - along)])
    normal = np.stack([across, down]) / np.hypot(across, down)
    near, far = places - APART * normal, places + APART * normal
    rise = _at(even, near) - _at(even, far)
    return np.where(_at(inside.astype(float), far) > 0.5, rise, 0).mean(axis=1)


def _at(image: Float[np.ndarray, "h w"], places: Float[np.ndarray, "2 n p"]) -> Float[np.ndarray, "n p"]:
    return ndimage.map_coordinates(image, places, order=1, mode="nearest")
