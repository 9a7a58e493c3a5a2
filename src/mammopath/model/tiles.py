"""Large images below the cut: overlapping tiles go through the trunk one by one; their tokens are joined.

A trunk is used to images of a few hundred tokens. Attention over thousands costs their square and meets
positions it was not trained on, but lesions of a few millimetres need the resolution. So a sample is cut into
tiles, each with positions of its own, and where tiles overlap their tokens are averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.errors import ConfigError
from mammopath.model.packing import grid_of, real_patches
from mammopath.model.vit import Grid
from mammopath.tensors import Sample

OVERLAP = 0.25
"""Least share of a tile's side that it has in common with the next one, where one tile is not enough."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a grid of tokens that one tile shows."""

    rows: slice
    columns: slice


@dataclass(frozen=True)
class Tiling:
    """One sample in tiles.

    Attributes:
        tiles: where they lie on the grid.
        pieces: what they show; views of the sample, not copies.
        grid: rows and columns of the sample's tokens.
    """

    tiles: Sequence[Tile]
    pieces: Sequence[Sample]
    grid: Grid

    def stitched(self, tokens: Sequence[Float[Tensor, "_ d"]], *, prefix: int) -> Float[Tensor, "m d"]:
        """Tokens of all tiles as those of the sample.

        Args:
            tokens: of each tile, ``prefix`` tokens first, then its squares row by row.
            prefix: number of tokens in front (CLS, registers).

        Returns:
            The mean of the prefixes, then the grid row by row: each square's mean over the tiles that show
            it, zero where none does.
        """
        total, count = tokens[0].new_zeros(*self.grid, tokens[0].shape[1]), torch.zeros(*self.grid, 1)
        count = count.to(total)
        for own, at in zip(tokens, self.tiles, strict=True):
            part = total[at.rows, at.columns]
            part += own[prefix:].reshape(part.shape)
            count[at.rows, at.columns] += 1
        front = torch.stack([own[:prefix] for own in tokens]).mean(0)
        return torch.cat([front, (total / count.clamp(min=1)).flatten(0, 1)])


def tile(sample: Sample, *, side: int, cell: int) -> Tiling:
    """Cover a sample with evenly spaced tiles; those of padding alone are left out.

    Args:
        sample: what to cover. If it fits into one tile, it is one tile of its own size.
        side: of a tile in prepared pixels.
        cell: side of a token's square in prepared pixels.

    Raises:
        ConfigError: ``side`` is not a multiple of ``cell``, or squares do not fill the sample.
    """
    if side % cell:
        raise ConfigError(f"model.tile: {side} is not a multiple of a token's side, {cell} pixels")
    grid, longest = grid_of(sample, cell), side // cell
    rows, columns = (_windows(length, min(length, longest)) for length in grid)
    real = real_patches(sample, cell).reshape(grid)
    every = [Tile(down, across) for down in rows for across in columns]
    tiles = [at for at in every if _shows_image(real, at)] or every[:1]
    return Tiling(tiles, [_piece(sample, at, cell) for at in tiles], grid)


def _windows(length: int, size: int) -> list[slice]:
    """Evenly spaced windows that cover ``length``, each overlapping the next by ``OVERLAP`` at least."""
    if length == size:
        return [slice(0, size)]
    count = 1 + math.ceil((length - size) / max(1, int(size * (1 - OVERLAP))))
    starts = [round(i * (length - size) / (count - 1)) for i in range(count)]
    return [slice(start, start + size) for start in starts]


def _shows_image(real: Bool[Tensor, "h w"], at: Tile) -> bool:
    return bool(real[at.rows, at.columns].any())


def _piece(sample: Sample, at: Tile, cell: int) -> Sample:
    down, across = (slice(s.start * cell, s.stop * cell) for s in (at.rows, at.columns))
    return Sample(sample.image[:, down, across], sample.valid[down, across], sample.lesion[down, across])
