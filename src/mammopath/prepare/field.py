"""From histology pixels to a canvas: borders off, fitted to a size or to a scale."""

import numpy as np
from jaxtyping import UInt8

from mammopath.prepare.resample import Box, Canvas, Size, fit, largest_canvas, lay, resample
from mammopath.settings import PathologySettings
from mammopath.types import Spacing

FLAT = 6
"""A row or column whose values differ by no more than this (of 255) shows no tissue."""

STRETCH = 0.05
"""Largest relative change of a side that is taken rather than padding."""


def prepare_field(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    spacing: Spacing | None,
    settings: PathologySettings,
    multiple: int = 1,
) -> Canvas:
    """Prepare one field or patch.

    Flat borders are cut off. Then the field is fitted into ``settings.height`` x ``settings.width``; or,
    where ``settings.um`` is set and the spacing known, resampled to that many micrometres per pixel, and
    what does not fill whole multiples is cut off evenly around the middle. A fitted side becomes a multiple
    by stretching a little; where that would be more than ``STRETCH``, it is padded on the right or below.

    Args:
        rgb: pixels as read.
        spacing: size of a pixel; unknown means square.
        settings: largest size, scale.
        multiple: sides of the result are multiples of this (patch size times token pooling).
    """
    largest = largest_canvas(settings.height, settings.width, multiple)
    box = _without_borders(rgb)
    if settings.um and spacing:
        scale = (spacing.um_y / settings.um, spacing.um_x / settings.um)
        box, size = _at_scale(box, scale, largest, multiple=multiple)
    else:
        um = spacing or Spacing.square(1.0)
        exact = fit((box[3] - box[1]) * um.um_y, (box[2] - box[0]) * um.um_x, largest)
        size = (_stretched(exact[0], multiple), _stretched(exact[1], multiple))
    canvas = (-(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple)
    image = np.stack([resample(rgb[:, :, channel], box, size) for channel in range(3)])
    return lay(np.clip(image / 255, 0, 1), box, canvas=canvas)


def _without_borders(rgb: UInt8[np.ndarray, "h w 3"]) -> Box:
    """The field without flat rows and columns at its edges; a quarter of a side is the most that may go."""
    top, bottom = _without_flat_ends(rgb)
    left, right = _without_flat_ends(rgb[top:bottom].swapaxes(0, 1))
    return left, top, right, bottom


def _without_flat_ends(rows: UInt8[np.ndarray, "n m 3"]) -> tuple[int, int]:
    ranges = rows.max(axis=1).astype(int) - rows.min(axis=1)
    lively = np.flatnonzero((ranges > FLAT).any(axis=1))
    if len(lively) == 0 or lively[-1] + 1 - lively[0] < 0.75 * len(rows):
        return 0, len(rows)
    return int(lively[0]), int(lively[-1]) + 1


def _stretched(length: int, multiple: int) -> int:
    """The nearest multiple, if that is near; the length itself otherwise."""
    near = max(1, round(length / multiple)) * multiple
    return near if abs(near - length) <= STRETCH * length else length


def _at_scale(box: Box, scale: tuple[float, float], largest: Size, *, multiple: int) -> tuple[Box, Size]:
    """The middle of the box that fills whole multiples at that scale, and its size.

    A side shorter than one multiple is taken whole.
    """
    (left, right, width), (top, bottom, height) = (
        _middle(start, end, factor, most=most, multiple=multiple)
        for start, end, factor, most in (
            (box[0], box[2], scale[1], largest[1]),
            (box[1], box[3], scale[0], largest[0]),
        )
    )
    return (left, top, right, bottom), (height, width)


def _middle(start: int, end: int, factor: float, *, most: int, multiple: int) -> tuple[int, int, int]:
    length = round((end - start) * factor)
    size = min(most, length // multiple * multiple)
    if size == 0:
        return start, end, max(1, length)
    part = min(end - start, round(size / factor))
    first = start + (end - start - part) // 2
    return first, first + part, size
