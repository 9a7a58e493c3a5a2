"""What belongs to one modality: stem, norms, adapters, readout mix, heads. Hard-routed, never shared."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.model.adapters import ADAPTERS, PUBLISHED
from mammopath.model.heads import Heads
from mammopath.model.vit import BlockParts, PatchEmbed, ViT, ViTShape
from mammopath.settings import ModelSettings
from mammopath.types import Modality

CHANNELS: dict[Modality, int] = {"mammogram": 1, "pathology": 3}
"""Channels of a prepared image."""

Colours = tuple[float, float, float]
"""One number for each of red, green and blue."""

IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)


class ModalityParts(nn.Module):
    """Everything of one modality around the shared trunk."""

    def __init__(self, settings: ModelSettings, shape: ViTShape, modality: Modality) -> None:
        super().__init__()
        self.readout = settings.readout[modality]
        self.cut = settings.cut.get(modality, 0)
        self.token_pool = settings.token_pool.get(modality, 1)
        self.tile = settings.tile.get(modality, 0)
        self.stem = PatchEmbed(CHANNELS[modality], shape)
        self.blocks = nn.ModuleList(_block_parts(settings, shape.width) for _ in range(self.cut, self.top))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6) if settings.modality_norms else None
        self.mix = nn.Parameter(torch.zeros(len(self.readout))) if len(self.readout) > 1 else None
        self.heads = Heads(shape.width, settings, modality)

    @property
    def top(self) -> int:
        """The last block that is read."""
        return max(self.readout)

    def start_from(self, trunk: ViT, *, mean: Colours, std: Colours) -> None:
        """Take norms and the stem from the trunk, so that fresh parts change nothing.

        The stem takes images in [0, 1]: the encoder's normalisation by ``mean`` and ``std`` is folded in,
        and one channel stands for grey in all three.
        """
        pixels, bias = _folded(trunk.patch_embed, mean, std)
        pixels = pixels.sum(1, keepdim=True) if self.stem.proj.in_channels == 1 else pixels
        self.stem.proj.load_state_dict({"weight": pixels, "bias": bias})
        for own, block in zip(self.blocks, trunk.blocks[self.cut :], strict=False):
            for name in ("norm1", "norm2"):
                if (norm := getattr(own, name)) is not None:
                    norm.load_state_dict(getattr(block, name).state_dict())
        if self.norm is not None:
            self.norm.load_state_dict(trunk.norm.state_dict())

    def mixed(self, read: list[Float[Tensor, "b m d"]]) -> Float[Tensor, "b m d"]:
        """Learned convex mix of the read blocks, one after the other in ascending order."""
        if self.mix is None:
            return read[0]
        return torch.einsum("k,kbmd->bmd", self.mix.softmax(0), torch.stack(read))


def _block_parts(settings: ModelSettings, width: int) -> BlockParts:
    norms = (nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)) if settings.modality_norms else ()
    published = PUBLISHED[settings.adapter]
    bottleneck = published[0] if settings.adapter_width is None else settings.adapter_width
    scale = published[1] if settings.adapter_scale is None else settings.adapter_scale
    adapters = ADAPTERS[settings.adapter](width, bottleneck, scale)
    return BlockParts(*norms, **adapters)


def _folded(
    embed: PatchEmbed, mean: Colours, std: Colours
) -> tuple[Float[Tensor, "d 3 p p"], Float[Tensor, " d"]]:
    """Weight and bias that do to x what the embedding does to (x - mean) / std."""
    weight, bias = embed.proj.weight.detach(), embed.proj.bias
    assert bias is not None
    folded = weight / weight.new_tensor(std)[:, None, None]
    return folded, bias.detach() - torch.einsum("dcxy,c->d", folded, weight.new_tensor(mean))
