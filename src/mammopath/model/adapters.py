"""Small trained parts beside a frozen block; a fresh one changes nothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.model.vit import Grid, Layout
from mammopath.settings import AdapterKind


class AdaptFormer(nn.Module):
    """Bottleneck parallel to the MLP (Chen et al. 2022, equation 4): s * up(relu(down(norm(x))))."""

    def __init__(self, width: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        _fresh(self.down, self.up)

    def forward(self, h: Float[Tensor, "b m d"], layout: Layout) -> Float[Tensor, "b m d"]:
        """What the adapter adds to each token, given the normed tokens."""
        # Scaling the narrow side is the same and cheaper.
        hidden = F.relu(self.down(h)) * self.scale
        return F.linear(hidden, self.up.weight, self.up.bias * self.scale)


class LoRA(nn.Module):
    """Low-rank change of the query, key and value matrix (Hu et al. 2022): s * up(down(h))."""

    def __init__(self, width: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, 3 * width, bias=False)
        _fresh(self.down, self.up)

    def forward(self, h: Float[Tensor, "b m d"]) -> Float[Tensor, "b m 3*d"]:
        """What is added to queries, keys and values."""
        return self.up(self.down(h) * self.scale)


class Convpass(nn.Module):
    """Bottleneck with a 3x3 convolution over the token grid (Jie & Deng 2022), beside attention or MLP.

    Padding counts as zero, so that padded and unpadded images agree; prefix tokens meet the centre of
    the kernel alone, as in the original.
    """

    def __init__(self, width: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, padding=1)
        _fresh(self.down, self.up)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, h: Float[Tensor, "b m d"], layout: Layout) -> Float[Tensor, "b m d"]:
        """What the adapter adds to each token, given the normed tokens.

        Raises:
            ValueError: the batch does not say how its tokens lie in a grid.
        """
        if layout.grids is None:
            raise ValueError("Convpass needs the grid of each image: fill Batch.grid")
        hidden = _quick_gelu(self.down(h))
        if layout.keep is not None:
            hidden = hidden * layout.keep[..., None]
        hidden = self._convolve(hidden, layout.prefix, layout.grids)
        return self.up(_quick_gelu(hidden)) * self.scale

    def _convolve(
        self, hidden: Float[Tensor, "b m r"], prefix: int, grids: tuple[Grid, ...]
    ) -> Float[Tensor, "b m r"]:
        centre = F.linear(hidden[:, :prefix], self.conv.weight[:, :, 1, 1], self.conv.bias)
        patches = torch.zeros_like(hidden[:, prefix:], dtype=centre.dtype)
        for rows, columns in sorted(set(grids)):
            index = [i for i, grid in enumerate(grids) if grid == (rows, columns)]
            planes = hidden[index, prefix : prefix + rows * columns].transpose(1, 2)
            planes = self.conv(planes.reshape(len(index), -1, rows, columns))
            patches[index, : rows * columns] = planes.flatten(2).transpose(1, 2)
        return torch.cat([centre, patches], dim=1)


ADAPTERS: dict[AdapterKind, Callable[[int, int, float], dict[str, nn.Module]]] = {
    "none": lambda width, bottleneck, scale: {},
    "adaptformer": lambda width, bottleneck, scale: {"beside_mlp": AdaptFormer(width, bottleneck, scale)},
    "lora": lambda width, bottleneck, scale: {"on_qkv": LoRA(width, bottleneck, scale)},
    "convpass": lambda width, bottleneck, scale: {
        "beside_attention": Convpass(width, bottleneck, scale),
        "beside_mlp": Convpass(width, bottleneck, scale),
    },
}
"""Per kind: the parts that one block of one modality gets, by the names of ``BlockParts``."""


PUBLISHED: dict[AdapterKind, tuple[int, float]] = {
    "none": (1, 1.0),
    "adaptformer": (64, 0.1),
    "lora": (8, 1.0),
    "convpass": (8, 1.0),
}
"""Bottleneck (rank) and scale of the papers; LoRA's scale is alpha / rank with alpha equal to the rank."""


def _fresh(down: nn.Linear, up: nn.Linear) -> None:
    nn.init.kaiming_uniform_(down.weight, a=5**0.5)
    nn.init.zeros_(up.weight)
    for bias in (down.bias, up.bias):
        if bias is not None:
            nn.init.zeros_(bias)


def _quick_gelu(x: Float[Tensor, "b m r"]) -> Float[Tensor, "b m r"]:
    return x * torch.sigmoid(1.702 * x)
