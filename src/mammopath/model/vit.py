"""The trunk: a plain vision transformer with the parameter names of timm."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Grid = tuple[int, int]
"""Rows and columns of the patch tokens of one image."""


LONG = 512
"""Tokens from which on attention gains more from queries, keys and values side by side than a copy costs."""


@dataclass(frozen=True)
class ViTShape:
    """What must be known of a vision transformer to build it.

    Attributes:
        patch: side of a square patch in pixels.
        width: of a token. depth: number of blocks. heads: of self-attention.
        mlp: hidden units between the two layers of the MLP (after the gate, where it is a SwiGLU).
        grid: patches down and across that the stored position embeddings cover.
        registers: extra tokens after CLS (Darcet et al. 2024).
        positioned: how many of the prefix tokens (CLS, registers) have a position embedding of their own.
        layer_scale: whether residual branches are scaled per channel (Touvron et al. 2021).
        swiglu: gated MLP as timm's ``SwiGLUPacked``: silu(first half of fc1) * second half.
        antialias: low-pass filter when position embeddings are interpolated to a smaller grid.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp: int
    grid: Grid
    registers: int = 0
    positioned: int = 1
    layer_scale: bool = True
    swiglu: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        if self.positioned not in (0, 1, 1 + self.registers):
            raise ValueError(f"positioned must be 0, 1 or {1 + self.registers}, got {self.positioned}")

    @property
    def prefix(self) -> int:
        """Number of tokens in front of the patch tokens: CLS and registers."""
        return 1 + self.registers


@dataclass(frozen=True)
class Layout:
    """How the tokens of a batch lie: prefix tokens first, then the patches of each image row by row.

    Attributes:
        prefix: number of CLS and register tokens.
        keep: False on padding; None where every token is real.
        grids: grid of each image, whose tokens follow the prefix; None where tokens have no place.
        watch: where each block leaves its attention (b, heads, m, m), which is then computed in the open, as
            explanations need it; None computes it as fast as possible and keeps nothing.
    """

    prefix: int
    keep: Bool[Tensor, "b m"] | None = None
    grids: tuple[Grid, ...] | None = None
    watch: list[Tensor] | None = None


class BlockParts(nn.Module):
    """What one modality brings to one shared block; what is None is the block's own or absent.

    Args:
        norm1: in front of attention. norm2: in front of the MLP.
        on_qkv: added to queries, keys and values.
        beside_attention: runs parallel to attention. beside_mlp: runs parallel to the MLP.
    """

    def __init__(
        self,
        norm1: nn.Module | None = None,
        norm2: nn.Module | None = None,
        *,
        on_qkv: nn.Module | None = None,
        beside_attention: nn.Module | None = None,
        beside_mlp: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm1, norm2
        self.on_qkv, self.beside_attention, self.beside_mlp = on_qkv, beside_attention, beside_mlp


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(
        self, x: Float[Tensor, "b m d"], layout: Layout, on_qkv: nn.Module | None
    ) -> Float[Tensor, "b m d"]:
        """Every token attends to the tokens that ``layout.keep`` marks."""
        b, m, d = x.shape
        qkv = self.qkv(x) if on_qkv is None else self.qkv(x) + on_qkv(x)
        split = qkv.view(b, m, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = (split.contiguous() if m > LONG else split).unbind(0)
        mask = None if layout.keep is None else layout.keep[:, None, None, :]
        if layout.watch is None:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            layout.watch.append(_attention(q, k, mask))
            mixed = layout.watch[-1] @ v
        return self.proj(mixed.transpose(1, 2).reshape(b, m, d))


class Mlp(nn.Module):
    """Two layers with GELU, or the gated SwiGLU (Shazeer 2020) in timm's packed layout."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.swiglu = shape.swiglu
        self.fc1 = nn.Linear(shape.width, shape.mlp * (2 if shape.swiglu else 1))
        self.fc2 = nn.Linear(shape.mlp, shape.width)

    def forward(self, x: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        """Transform each token by itself."""
        hidden = self.fc1(x)
        if self.swiglu:
            gate, value = hidden.chunk(2, dim=-1)
            return self.fc2(F.silu(gate) * value)
        return self.fc2(F.gelu(hidden))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))


class Block(nn.Module):
    """Pre-norm transformer block; a modality may pass in norms and adapters, the rest is shared."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=1e-6)
        self.attn = Attention(shape)
        self.ls1 = LayerScale(shape.width) if shape.layer_scale else None
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp = Mlp(shape)
        self.ls2 = LayerScale(shape.width) if shape.layer_scale else None

    def forward(
        self, x: Float[Tensor, "b m d"], layout: Layout, parts: BlockParts | None = None
    ) -> Float[Tensor, "b m d"]:
        """Tokens after the block, with the parts of one modality or with the block's own alone."""
        parts = parts or BlockParts()
        # Adapters add in place: after a branch is added, x is a tensor of this call that nobody else holds.
        h = (parts.norm1 or self.norm1)(x)
        x = _add(x, self.attn(h, layout, parts.on_qkv), self.ls1)
        if parts.beside_attention is not None:
            x += parts.beside_attention(h, layout)
        h = (parts.norm2 or self.norm2)(x)
        x = _add(x, self.mlp(h), self.ls2)
        if parts.beside_mlp is not None:
            x += parts.beside_mlp(h, layout)
        return x


class PatchEmbed(nn.Module):
    """Linear embedding of the pixels of each patch."""

    def __init__(self, channels: int, shape: ViTShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, shape.width, kernel_size=shape.patch, stride=shape.patch)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """One token per patch, row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) whose state dict has timm's names."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.reg_token = (
            nn.Parameter(torch.zeros(1, shape.registers, shape.width)) if shape.registers else None
        )
        self.pos_embed = nn.Parameter(
            torch.zeros(1, shape.positioned + shape.grid[0] * shape.grid[1], shape.width)
        )
        self.patch_embed = PatchEmbed(3, shape)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self._initialise()

    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        """CLS and registers, with their position embeddings where they have some."""
        tokens = (
            self.cls_token[0] if self.reg_token is None else torch.cat([self.cls_token[0], self.reg_token[0]])
        )
        positions = self.pos_embed[0, : self.shape.positioned]
        return tokens + F.pad(positions, (0, 0, 0, self.shape.prefix - self.shape.positioned))

    def positions(self, grid: Grid) -> Float[Tensor, "n d"]:
        """Position embedding of each patch of ``grid``, interpolated (bicubic) from the stored grid."""
        stored = self.pos_embed[0, self.shape.positioned :]
        if grid == self.shape.grid:
            return stored
        plane = stored.T.reshape(1, -1, *self.shape.grid).float()
        plane = F.interpolate(plane, size=grid, mode="bicubic", antialias=self.shape.antialias)
        return plane[0].flatten(1).T.to(stored.dtype)

    def embedded(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b m d"]:
        """Tokens of normalised images in front of the first block; prefix tokens first."""
        grid = (images.shape[2] // self.shape.patch, images.shape[3] // self.shape.patch)
        patches = self.patch_embed(images) + self.positions(grid)
        return torch.cat([self.prefix_tokens().expand(len(images), -1, -1), patches], dim=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b m d"]:
        """Tokens of normalised images after the last block and the final norm."""
        x, layout = self.embedded(images), Layout(self.shape.prefix)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=0.02)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def _attention(
    q: Float[Tensor, "b h m c"], k: Float[Tensor, "b h m c"], mask: Bool[Tensor, "b 1 1 m"] | None
) -> Float[Tensor, "b h m m"]:
    score = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return (score if mask is None else score.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def _add(
    x: Float[Tensor, "b m d"], branch: Float[Tensor, "b m d"], scale: LayerScale | None
) -> Float[Tensor, "b m d"]:
    return x + branch if scale is None else torch.addcmul(x, branch, scale.gamma)
