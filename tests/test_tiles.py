"""Tiles: they cover, they overlap, what they say comes back to its place, and one tile is the whole image."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mammopath.errors import ConfigError
from mammopath.model.tiles import OVERLAP, tile
from model_cases import batch, network, sample

CELL = 4


@given(rows=st.integers(1, 23), columns=st.integers(1, 23), side=st.integers(2, 9))
def test_tiles_cover_every_square_and_overlap(rows: int, columns: int, side: int) -> None:
    tiling = tile(sample(size=(rows * CELL, columns * CELL)), side=side * CELL, cell=CELL)
    seen = torch.zeros(rows, columns)
    for at, piece in zip(tiling.tiles, tiling.pieces, strict=True):
        seen[at.rows, at.columns] += 1
        assert piece.image.shape[1] == min(rows, side) * CELL
        assert piece.image.shape[2] == min(columns, side) * CELL
    assert (seen > 0).all()
    starts = sorted({at.rows.start for at in tiling.tiles})
    steps = [b - a for a, b in pairwise(starts)]
    assert all(step <= max(1, side * (1 - OVERLAP)) for step in steps)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), side=st.integers(2, 6))
def test_what_tiles_say_comes_back_to_its_place(rows: int, columns: int, side: int) -> None:
    tiling = tile(sample(size=(rows * CELL, columns * CELL)), side=side * CELL, cell=CELL)
    places = torch.arange(float(rows * columns)).reshape(rows, columns, 1)
    front = torch.full((1, 1), -5.0)
    told = [torch.cat([front, places[at.rows, at.columns].reshape(-1, 1)]) for at in tiling.tiles]
    stitched = tiling.stitched(told, prefix=1)
    assert torch.allclose(stitched, torch.cat([front, places.reshape(-1, 1)]))


def test_where_tiles_overlap_their_tokens_are_averaged_and_nothing_is_zero() -> None:
    tiling = tile(sample(size=(6 * CELL, 4 * CELL)), side=4 * CELL, cell=CELL)
    told = [torch.full((1 + 16, 2), float(number)) for number in range(len(tiling.tiles))]
    assert len(tiling.tiles) == 2
    rows = tiling.stitched(told, prefix=1)[1:].reshape(6, 4, 2)[:, 0, 0]
    assert rows.tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_tiles_of_padding_alone_are_left_out() -> None:
    padded = sample(size=(4 * CELL, 12 * CELL), padded=8 * CELL)
    assert len(tile(padded, side=4 * CELL, cell=CELL).tiles) < len(
        tile(sample(size=(4 * CELL, 12 * CELL)), side=4 * CELL, cell=CELL).tiles
    )


def test_a_side_that_cuts_squares_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        tile(sample(size=(16, 16)), side=10, cell=CELL)


def test_an_image_that_fits_into_one_tile_says_the_same_with_and_without() -> None:
    plain, tiled = (network(cut={"mammogram": 2}, tile=t) for t in ({}, {"mammogram": 32}))
    own = batch([sample(seed=1), sample(seed=2)])
    assert torch.equal(plain(own).logit, tiled(own).logit)


def test_a_larger_image_is_seen_piece_by_piece() -> None:
    net = network(cut={"mammogram": 2}, tile={"mammogram": 16})
    whole = sample(size=(32, 16), seed=3)
    tokens = net.lower([whole], "mammogram")[0]
    tiling = tile(whole, side=16, cell=4)
    alone = [net.lower([piece], "mammogram")[0] for piece in tiling.pieces]
    assert torch.allclose(tokens, tiling.stitched(alone, prefix=1), atol=2e-3)
    described = net.describe([whole], "mammogram")[0]
    assert torch.allclose(described.tokens, tokens, atol=2e-3)
    own = torch.stack([net.describe([piece], "mammogram")[0].statistics for piece in tiling.pieces])
    assert torch.allclose(described.statistics, own.mean(0), atol=1e-4)
