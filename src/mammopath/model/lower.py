"""Below the cut: images to tokens at the cut, without a token of padding going through the trunk."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.model import packing
from mammopath.model.parts import ModalityParts
from mammopath.model.tiles import Tiling, tile
from mammopath.model.vit import Layout, ViT
from mammopath.tensors import Described, Sample


def tokens_at_cut(trunk: ViT, parts: ModalityParts, samples: Sequence[Sample]) -> list[Float[Tensor, "_ d"]]:
    """Tokens of each image at the cut: prefix first, then the pooled grid row by row, zero on padding."""
    if not parts.tile:
        return _tokens(trunk, parts, samples)
    plans = [_plan(sample, trunk, parts) for sample in samples]
    tokens = iter(_tokens(trunk, parts, [piece for plan in plans for piece in plan.pieces]))
    return [plan.stitched([next(tokens) for _ in plan.tiles], prefix=trunk.shape.prefix) for plan in plans]


def describe(trunk: ViT, parts: ModalityParts, samples: Sequence[Sample]) -> list[Described]:
    """Tokens of each image at the cut, and statistics after every block of the plain trunk.

    Of an image in tiles, the statistics are the mean of its tiles'.
    """
    if not parts.tile:
        return _described(trunk, parts, samples)
    plans = [_plan(sample, trunk, parts) for sample in samples]
    every = iter(_described(trunk, parts, [piece for plan in plans for piece in plan.pieces]))
    found = []
    for plan in plans:
        own = [next(every) for _ in plan.tiles]
        tokens = plan.stitched([one.tokens for one in own], prefix=trunk.shape.prefix)
        found.append(Described(tokens, torch.stack([one.statistics for one in own]).mean(0)))
    return found


def _plan(sample: Sample, trunk: ViT, parts: ModalityParts) -> Tiling:
    return tile(sample, side=parts.tile, cell=trunk.shape.patch * parts.token_pool)


def _tokens(trunk: ViT, parts: ModalityParts, samples: Sequence[Sample]) -> list[Float[Tensor, "_ d"]]:
    found: dict[int, Tensor] = {}
    for places, embedded in _packed(trunk, parts, samples):
        x = embedded
        for block in trunk.blocks[: parts.cut]:
            x = block(x, Layout(trunk.shape.prefix))
        found |= {i: _on_grid(one, trunk, parts, samples[i]) for i, one in zip(places, x, strict=True)}
    return [found[i] for i in range(len(samples))]


def _described(trunk: ViT, parts: ModalityParts, samples: Sequence[Sample]) -> list[Described]:
    found: dict[int, Described] = {}
    for places, embedded in _packed(trunk, parts, samples):
        rows, x, at_cut = [], embedded, embedded
        for number, block in enumerate(trunk.blocks, start=1):
            x = block(x, Layout(trunk.shape.prefix))
            rows.append(packing.statistics(x[:, trunk.shape.prefix :], x[:, 0]))
            at_cut = x if number == parts.cut else at_cut
        for i, one, statistics in zip(places, at_cut, torch.stack(rows, dim=1), strict=True):
            found[i] = Described(_on_grid(one, trunk, parts, samples[i]), statistics)
    return [found[i] for i in range(len(samples))]


def _packed(
    trunk: ViT, parts: ModalityParts, samples: Sequence[Sample]
) -> Iterator[tuple[list[int], Float[Tensor, "b m d"]]]:
    """Embedded images with the places they have in ``samples``, grouped by their number of real patches."""
    prefix, patch = trunk.prefix_tokens(), trunk.shape.patch
    grids = [packing.grid_of(s, patch) for s in samples]
    positions = {grid: trunk.positions(grid) for grid in set(grids)}
    real = [packing.real_patches(s, patch) for s in samples]
    for places in packing.groups([int(r.sum()) + len(prefix) for r in real]):
        embedded = [
            parts.stem(samples[i].image[None].to(prefix.device))[0] + positions[grids[i]] for i in places
        ]
        patches = [one[real[i]] for i, one in zip(places, embedded, strict=True)]
        yield places, torch.stack([torch.cat([prefix, p]) for p in patches])


def _on_grid(
    x: Float[Tensor, "real d"], trunk: ViT, parts: ModalityParts, sample: Sample
) -> Float[Tensor, "m d"]:
    prefix, patch = trunk.shape.prefix, trunk.shape.patch
    packing.grid_of(sample, patch * parts.token_pool)
    grid, real = packing.grid_of(sample, patch), packing.real_patches(sample, patch)
    patches = packing.on_grid(x[prefix:], real, grid=grid, pool=parts.token_pool)
    return torch.cat([x[:prefix], patches])
