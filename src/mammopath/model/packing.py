"""Real tokens of images without their padding, and back onto the grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.errors import ConfigError
from mammopath.model.vit import Grid, Layout
from mammopath.tensors import Sample, share_per_token

HALF = torch.finfo(torch.float16).max
ALIKE = 1.5
"""Lengths that differ less than this go through a block together, the shorter ones padded."""

TOKENS_AT_ONCE = 8192
"""Tokens that go through the frozen trunk together."""


def grid_of(sample: Sample, cell: int) -> Grid:
    """Rows and columns of squares of ``cell`` pixels.

    Raises:
        ConfigError: they do not fill the image.
    """
    height, width = sample.image.shape[1:]
    if height % cell or width % cell:
        raise ConfigError(
            f"a prepared image of {height} x {width} pixels is not made of squares of {cell}"
            f" (patch size times model.token_pool): change prepare height and width, or model.token_pool"
        )
    return height // cell, width // cell


def real_patches(sample: Sample, cell: int) -> Bool[Tensor, " n"]:
    """Squares more than half of which are image rather than padding."""
    return share_per_token(sample.valid.float(), cell) > 0.5


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of equal length, so many at a time that they fit.

    Nothing is ever padded to the length of a neighbour: what a frozen trunk says of an image does not
    depend on the images beside it, to the last bit, and cached activations equal fresh ones.
    """
    for length in sorted(set(lengths)):
        places = [i for i, other in enumerate(lengths) if other == length]
        size = max(1, TOKENS_AT_ONCE // length)
        yield from (places[i : i + size] for i in range(0, len(places), size))


def without_padding(
    run: Callable[[Tensor, Layout], Tensor], x: Float[Tensor, "b m d"], layout: Layout
) -> Float[Tensor, "b m d"]:
    """Run a block on real tokens alone: images of like length together, each group cut to its longest.

    Small patches beside large fields would otherwise be padded many times over.

    Args:
        run: maps tokens (b, m, d) and their layout to new tokens; does not ask for their grid.
        x: tokens, prefix first.
        layout: says which are real.

    Returns:
        New tokens at their old places, zero on padding.
    """
    keep = layout.keep
    if keep is None:
        return run(x, layout)
    lengths = keep.sum(1).tolist()
    out = torch.zeros_like(x)
    for places in _alike(lengths):
        rows, longest = torch.tensor(places, device=x.device)[:, None], max(lengths[i] for i in places)
        index = keep[rows[:, 0]].byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
        real = keep[rows, index]
        own = replace(layout, keep=None if bool(real.all()) else real, grids=None)
        out[rows, index] = (run(x[rows, index], own) * real[..., None]).to(out.dtype)
    return out


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places by length, shortest first; a group holds no length beyond ``ALIKE`` times its shortest."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and lengths[place] > ALIKE * lengths[group[0]]:
            yield group
            group = []
        group.append(place)
    yield group


def on_grid(
    tokens: Float[Tensor, "real d"], real: Bool[Tensor, " n"], *, grid: Grid, pool: int
) -> Float[Tensor, "k d"]:
    """Patch tokens at their places (zero elsewhere), averaged over ``pool`` x ``pool`` real ones."""
    real = real.to(tokens.device)
    placed = tokens.new_zeros(len(real), tokens.shape[1]).masked_scatter(real[:, None], tokens)
    if pool == 1:
        return placed
    total = F.avg_pool2d(placed.T.reshape(1, -1, *grid), pool)
    share = F.avg_pool2d(real.to(tokens.dtype).reshape(1, 1, *grid), pool)
    return (total / share.clamp_min(1 / (2 * pool * pool)))[0].flatten(1).T


def as_stored(tokens: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """Round to half precision, so that tokens are the same before and after they are kept on disk."""
    return tokens.float().clamp(-HALF, HALF).half().float()


def statistics(patches: Float[Tensor, "b n d"], cls: Float[Tensor, "b d"]) -> Float[Tensor, "b 3*d"]:
    """CLS, mean and (population) standard deviation of patch tokens; zeros where there are none."""
    if patches.shape[1] == 0:
        return torch.cat([cls, torch.zeros_like(cls), torch.zeros_like(cls)], dim=1)
    patches = patches.float()
    return torch.cat([cls.float(), patches.mean(1), patches.std(1, correction=0)], dim=1)
