"""Patches of a slide: a grid in micrometres over its tissue, read in batches of bounded memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from mammopath.errors import ConfigError, ImageReadError
from mammopath.images.geometry import Number
from mammopath.images.slide import Slide
from mammopath.prepare.tissue import Tissue
from mammopath.types import Skipped, Spacing

BAND = 16384
"""Width of the bands, in pixels of the level that is read, which patches are read along: tiles of two rows of
a band fit in the cache of a reader, so that each tile is decoded once."""


@dataclass(frozen=True)
class Grid:
    """Places of the patches of a slide.

    Attributes:
        corners: upper left corner of each, x and y in level-0 pixels.
        tissue: share of each that is tissue.
        side: of a patch as it is read, in pixels.
        um: side of such a pixel in micrometres.
        step: distance of neighbours in micrometres.
        spacing: of a level-0 pixel.
    """

    corners: Int[np.ndarray, "n 2"]
    tissue: Float[np.ndarray, " n"]
    side: int
    um: float
    step: float
    spacing: Spacing

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def span(self) -> tuple[float, float]:
        """Width and height of a patch in level-0 pixels."""
        return self.side * self.um / self.spacing.um_x, self.side * self.um / self.spacing.um_y

    def part(self, rows: Int[np.ndarray, " m"] | slice) -> "Grid":
        """Some of the patches."""
        return replace(self, corners=self.corners[rows], tissue=self.tissue[rows])


@dataclass(frozen=True)
class PatchBatch:
    """Some patches of a grid.

    Attributes:
        rows: which ones, as places in the grid.
        pixels: of each.
        skipped: those among them that could not be read; they are in neither of the two above.
    """

    rows: Int[np.ndarray, " b"]
    pixels: UInt8[np.ndarray, "b h w 3"]
    skipped: tuple[Skipped, ...] = ()


def patch_grid(
    slide: Slide,
    tissue: Tissue,
    *,
    side: int = 224,
    um: Number = 0.5,
    overlap: Number = 0.0,
    least: Number = 0.25,
) -> Grid:
    """A regular grid over the slide; patches with little tissue are left out.

    It starts at the corner of ``slide.bounds``. Corners lie on whole pixels of the level that is read, so
    that patches are cut and not interpolated wherever that level has the wanted spacing. Patches that would
    reach over the right or lower edge are left out, unless the slide is smaller than one patch.

    Args:
        slide: any slide.
        tissue: of this slide.
        side: of a patch in pixels of ``um`` micrometres.
        um: side of such a pixel.
        overlap: share of a side that neighbours have in common.
        least: share of a patch that must be tissue.

    Raises:
        ConfigError: no side, no spacing, or an overlap that leaves no step.
    """
    if side < 1 or um <= 0 or not 0 <= overlap < 1:
        raise ConfigError(
            f"patches need a side, a spacing and an overlap below 1, not {side}, {um}, {overlap}"
        )
    left, top, right, bottom = slide.bounds
    level, step = slide.levels[slide.level_for(um)], side * um * (1 - overlap)
    x = _corners(left, right, side * um / slide.spacing.um_x, step / slide.spacing.um_x, level.scale_x)
    y = _corners(top, bottom, side * um / slide.spacing.um_y, step / slide.spacing.um_y, level.scale_y)
    corners = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    grid = Grid(corners, np.zeros(len(corners)), side, float(um), step, slide.spacing)
    shares = tissue_share(tissue, corners, grid.span)
    grid = replace(grid, tissue=shares)
    return grid.part(_reading_order(corners, level.scale_x, kept=shares >= max(least, 1e-6)))


def stream(slide: Slide, grid: Grid, *, batch: int = 64) -> Iterator[PatchBatch]:
    """The patches of a grid in its order, ``batch`` at a time, one batch in memory.

    A patch in a damaged part of the slide is skipped and told of.
    """
    for start in range(0, len(grid), batch):
        rows, found, skipped = [], [], []
        for row in range(start, min(start + batch, len(grid))):
            x, y = grid.corners[row].tolist()
            try:
                found.append(slide.read(x, y, size=(grid.side, grid.side), um=grid.um))
                rows.append(row)
            except ImageReadError as error:
                skipped.append(Skipped(f"{slide.path.name} at {x},{y}", error.code, error.why))
        pixels = np.stack(found) if found else np.zeros((0, grid.side, grid.side, 3), np.uint8)
        yield PatchBatch(np.array(rows, dtype=np.int64), pixels, tuple(skipped))


def tissue_share(
    tissue: Tissue, corners: Int[np.ndarray, "n 2"], span: tuple[float, float]
) -> Float[np.ndarray, " n"]:
    """Share of boxes that is tissue, by a summed-area table over the mask.

    Args:
        tissue: of the slide.
        corners: upper left, in level-0 pixels.
        span: width and height of a box in level-0 pixels.
    """
    table = np.zeros(np.add(tissue.mask.shape, 1), np.int64)
    table[1:, 1:] = tissue.mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    x0, x1 = _edges(corners[:, 0], span[0], tissue.frame.scale_x, tissue.mask.shape[1])
    y0, y1 = _edges(corners[:, 1], span[1], tissue.frame.scale_y, tissue.mask.shape[0])
    inside = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0))


def _edges(
    start: Int[np.ndarray, " n"], span: float, scale: float, size: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """First and last pixel of the mask that boxes cover, at least one."""
    first = np.clip(np.rint(start * scale).astype(np.int64), 0, size - 1)
    last = np.clip(np.rint((start + span) * scale).astype(np.int64), first + 1, size)
    return first, last


def _corners(first: int, end: int, span: float, step: float, scale: float) -> Int[np.ndarray, " n"]:
    count = max(1, math.floor((end - first - span) / step + 1e-9) + 1)
    at_level = np.rint((first + step * np.arange(count)) / scale)
    return np.rint(at_level * scale).astype(np.int64)


def _reading_order(
    corners: Int[np.ndarray, "n 2"], scale: float, *, kept: np.ndarray
) -> Int[np.ndarray, " m"]:
    """Kept patches along bands, and row by row within each."""
    rows = np.flatnonzero(kept)
    x, y = corners[rows].T
    return rows[np.lexsort((x, y, x // round(BAND * scale)))]
