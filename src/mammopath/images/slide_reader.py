"""What every reader of slides offers: levels of a pyramid, and whole pixels of one level as RGB."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

WHITE = (255, 255, 255)
"""What lies outside of a slide, unless the file names a colour of its own."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid.

    Attributes:
        width, height: in pixels of the level.
        scale_x, scale_y: level-0 pixels per pixel of the level; 1 for level 0.
    """

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0


@dataclass(frozen=True)
class Found:
    """What a file says of itself.

    Attributes:
        levels: finest first. Levels that are no smaller copy of the first are left out.
        um: width and height of a level-0 pixel in micrometres, or None.
        bounds: where there is anything to see, in level-0 pixels.
        background: colour outside of what was scanned.
        kind: who reads it, with the format: ``openslide:aperio``, ``tiles:generic-tiff``, ``field``.
        notes: what is odd about it, for people.
    """

    levels: tuple[Level, ...]
    um: tuple[float, float] | None
    bounds: Box
    background: tuple[int, int, int] = WHITE
    kind: str = "field"
    notes: tuple[str, ...] = ()


@runtime_checkable
class Reader(Protocol):
    """An open slide."""

    def found(self) -> Found:
        """What the file says of itself."""
        ...

    def pixels(self, level: int, box: Box) -> UInt8[ndarray, "h w 3"]:
        """Pixels of a level; what lies outside of it has the background colour.

        Raises:
            ImageReadError: the part is damaged. Other parts can still be read.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def true_levels(path: Path, sizes: list[tuple[int, int]]) -> tuple[list[int], list[Level], tuple[str, ...]]:
    """Levels that are smaller copies of the first, their numbers in the file, and notes on the others.

    Args:
        path: for the notes.
        sizes: width and height of each level, finest first.
    """
    width, height = sizes[0]
    numbers: list[int] = []
    levels: list[Level] = []
    notes: list[str] = []
    for number, (w, h) in enumerate(sizes):
        across, down = width / w, height / h
        # Sides are rounded to whole pixels, up or down.
        tolerance = 0.02 + 1.5 / min(w, h)
        if abs(across / down - 1) > tolerance or (levels and w >= levels[-1].width):
            notes.append(f"{path.name}: level {number} ({w} x {h}) is no smaller copy of {width} x {height}")
            continue
        numbers.append(number)
        levels.append(Level(w, h, across, down))
    return numbers, levels, tuple(notes)
