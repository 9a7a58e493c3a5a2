"""A whole slide at low power, put together from pieces so that memory stays bounded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mammopath.errors import ImageReadError
from mammopath.images.geometry import Frame, Number
from mammopath.images.slide import Slide, open_slide
from mammopath.types import Spacing

PIECE = 2048
"""Side of the piece of a level that is read at a time, in pixels of that level."""


FINEST, MOST_DAMAGE = 16, 64
"""Sides at which a damaged place is no longer divided, in pixels of the overview; and how many are borne."""

Piece = tuple[slice, slice]


def overview(slide: Slide, um: Number) -> UInt8[np.ndarray, "h w 3"]:
    """All of a slide in pixels of ``um`` micrometres; pixel (0, 0) starts at the level-0 origin.

    Damaged places stay white.

    Raises:
        ImageReadError: there are more than ``MOST_DAMAGE`` of them.
    """
    height, width = overview_size(slide, um)
    shown = np.full((height, width, 3), 255, np.uint8)
    waiting, damaged = list(_pieces(slide, um, height, width)), 0
    while waiting:
        rows, columns = waiting.pop()
        size = (rows.stop - rows.start, columns.stop - columns.start)
        x, y = columns.start * um / slide.spacing.um_x, rows.start * um / slide.spacing.um_y
        try:
            shown[rows, columns] = slide.read(x, y, size=size, um=um)
        except ImageReadError:
            if max(size) > FINEST:
                waiting += [(r, c) for r in _halves(rows) for c in _halves(columns)]
                continue
            damaged += 1
            if damaged > MOST_DAMAGE:
                raise
    return shown


def framed(path: Path, spacing: Spacing | None, *, side: int) -> tuple[UInt8[np.ndarray, "h w 3"], Frame]:
    """A slide in about ``side`` pixels or fewer, never finer than it is, and the way there from level 0.

    Raises:
        ImageReadError: as ``open_slide`` and ``overview``.
    """
    with open_slide(path, spacing) as slide:
        own = slide.spacing
        um = max(slide.width * own.um_x / side, slide.height * own.um_y / side, own.um_x, own.um_y)
        return overview(slide, um), Frame(own.um_x / um, own.um_y / um)


def overview_size(slide: Slide, um: Number) -> tuple[int, int]:
    """Height and width of the overview; at least one pixel."""
    return (
        max(1, round(slide.height * slide.spacing.um_y / um)),
        max(1, round(slide.width * slide.spacing.um_x / um)),
    )


def _pieces(slide: Slide, um: Number, height: int, width: int) -> Iterator[Piece]:
    level = slide.level_um(slide.level_for(um))
    side = max(16, int(PIECE * level.um_x / um))
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _halves(part: slice) -> list[slice]:
    middle = (part.start + part.stop) // 2
    return [p for p in (slice(part.start, middle), slice(middle, part.stop)) if p.stop > p.start]
