"""Patches through the frozen trunk: one row of features each, from the tokens at the cut."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from mammopath.errors import ConfigError
from mammopath.model.network import Network, Precision
from mammopath.model.vit import Layout
from mammopath.model.weights import build_network
from mammopath.parallel import device_of
from mammopath.prepare.stain import StainFit, fit_stain
from mammopath.prepare.tissue import Tissue
from mammopath.settings import ModelSettings, PatchSettings
from mammopath.slide_settings import SlideSettings, TrunkSettings

CHUNK = 64
"""Patches that go through the trunk together."""


def embed(
    network: Network,
    pixels: UInt8[np.ndarray, "b h w 3"],
    settings: PatchSettings,
    *,
    stain: StainFit | None = None,
    precision: Precision = "fp32",
) -> Float32[np.ndarray, "b d"]:
    """Features of patches: the mean of their tokens after a block, or the CLS token there.

    Args:
        network: with a frozen trunk.
        pixels: of the patches.
        settings: what of the tokens is kept.
        stain: of the slide, which is normalised; None leaves colours as they are.
        precision: of the trunk.
    """
    rows = []
    for start in range(0, len(pixels), CHUNK):
        images = torch.from_numpy(pixels[start : start + CHUNK]).permute(0, 3, 1, 2).float() / 255
        images = stain.apply(images) if stain is not None else images
        tokens = _tokens(network, images.to(network.device()), precision)
        rows.append(
            tokens[:, network.shape.prefix :].mean(dim=1) if settings.read == "mean" else tokens[:, 0]
        )
    return torch.cat(rows).cpu().numpy() if rows else np.zeros((0, network.shape.width), np.float32)


def stain_of(tissue: Tissue, settings: PatchSettings, *, most: int = 200_000) -> StainFit:
    """The stains of a slide, from its tissue at low power; the same for all of its patches."""
    pixels = tissue.thumbnail[tissue.mask]
    pixels = pixels[:: max(1, len(pixels) // most)]
    return fit_stain(torch.from_numpy(pixels).float() / 255, settings.stain)


def model_settings(trunk: TrunkSettings) -> ModelSettings:
    """A network without a block above the one that is read: its tokens at the cut are features of patches."""
    return ModelSettings(
        encoder=trunk.encoder,
        weights=trunk.weights,
        readout={"pathology": (trunk.block,)},
        cut={"pathology": trunk.block},
        adapter="none",
    )


def frozen_trunk(settings: SlideSettings) -> Network:
    """The network that gives features; the same numbers from the same settings, also without weights.

    Raises:
        ConfigError: unknown encoder or block; or patches that the trunk cannot cut into tokens.
        WeightsError: the weights are missing, damaged or of another encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(model_settings(settings.trunk)).eval()
    check_side(network, settings.patches)
    return network.to(device_of(settings.device))


def check_side(network: Network, settings: PatchSettings) -> None:
    """Refuse patches that the trunk cannot cut into tokens.

    Raises:
        ConfigError: the side is no multiple of a token's.
    """
    cell = network.cell("pathology")
    if settings.side % cell:
        raise ConfigError(
            f"patches.side: {settings.side} is no multiple of the {cell} pixels of a token;"
            f" take {settings.side // cell * cell or cell}"
        )


@torch.no_grad()
def _tokens(
    network: Network, images: Float[Tensor, "b 3 h w"], precision: Precision
) -> Float[Tensor, "b m d"]:
    """Tokens at the cut of images of one size, as ``Network.lower`` gives them one by one."""
    trunk, parts, cell = network.trunk, network.of("pathology"), network.shape.patch
    layout = Layout(network.shape.prefix)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        x = parts.stem(images) + trunk.positions((images.shape[2] // cell, images.shape[3] // cell))
        x = torch.cat([trunk.prefix_tokens().expand(len(x), -1, -1), x], dim=1)
        for block in trunk.blocks[: parts.cut]:
            x = block(x, layout)
    return x.float()
