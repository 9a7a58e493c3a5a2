"""Random changes of prepared images: draw, then apply. Tensors only, no files.

A draw is a small value that can be kept, logged and replayed; applying it is not random. Shape changes
treat image, validity and lesion alike; changes of intensity treat the image only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import imagecodecs
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.prepare.stain import jitter_hed
from mammopath.settings import AugmentSettings
from mammopath.tensors import Sample
from mammopath.types import Modality


@dataclass(frozen=True)
class Augmentation:
    """One draw; the defaults change nothing.

    Attributes:
        mirror: left-right.
        quarters: quarter turns anticlockwise; an image that is not square makes half turns instead, so
            that its size stays.
        angle: further rotation in degrees.
        zoom: scale; above 1 things grow.
        outside: what comes in from beyond the edge: padding, or the image reflected.
        stain: factors on haematoxylin, eosin and DAB; stain_shift: added to them (natural density).
        gamma: exponent. contrast: factor about the mean. brightness: added after it.
        blur: sigma of a Gaussian in pixels. noise: standard deviation; noise_seed: of its generator.
        coarser: pixels so many times as large, brought back to the size.
        jpeg: quality of compression; 0 for none.
    """

    mirror: bool = False
    quarters: int = 0
    angle: float = 0.0
    zoom: float = 1.0
    outside: Literal["padding", "reflection"] = "padding"
    stain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stain_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    coarser: float = 1.0
    jpeg: int = 0


COARSEST = 2.0
"""Largest pixel of a mammogram's style view: detectors have 50 to 100 micrometres."""

JPEG = (50, 95)
"""Qualities of compression of a pathology style view; scanners store slides at 70 to 90."""

IDENTITY = Augmentation()
"""Changes nothing."""


def draw(settings: AugmentSettings, modality: Modality, *, generator: torch.Generator) -> Augmentation:
    """Draw shape and intensity changes of a training image.

    Pathology has no up, so it is mirrored and turned freely. Mammograms are not: preparation has put the
    chest wall on the left, at training and at test alike.
    """
    style = _draw_tones(settings, modality, generator=generator)
    uniform = _uniform(generator)
    zoom = 1 + uniform(settings.zoom)
    if modality == "mammogram":
        return replace(style, zoom=zoom, angle=uniform(settings.rotate))
    mirror, quarters = uniform(1.0) > 0, int(torch.randint(4, (), generator=generator))
    free = replace(style, zoom=zoom, outside="reflection")
    return replace(free, mirror=mirror, quarters=quarters) if settings.flip else free


def draw_style(settings: AugmentSettings, modality: Modality, *, generator: torch.Generator) -> Augmentation:
    """Draw changes of style only, as another scanner or laboratory would make them.

    Besides tones, blur and noise: the size of a detector's pixel, and a scanner's compression. Training
    images do without those two, so that views stored for training keep their content.
    """
    tones = _draw_tones(settings, modality, generator=generator)
    share = torch.rand((), generator=generator).item()
    if modality == "mammogram":
        return replace(tones, coarser=1 + (COARSEST - 1) * share)
    return replace(tones, jpeg=round(JPEG[0] + (JPEG[1] - JPEG[0]) * share))


def _draw_tones(settings: AugmentSettings, modality: Modality, *, generator: torch.Generator) -> Augmentation:
    uniform = _uniform(generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    common = Augmentation(
        blur=abs(uniform(settings.blur)), noise=abs(uniform(settings.noise)), noise_seed=seed
    )
    if modality == "mammogram":
        return replace(
            common,
            gamma=math.exp(uniform(settings.gamma)),
            contrast=1 + uniform(settings.contrast),
            brightness=uniform(settings.contrast) / 4,
        )
    hed = settings.hed
    return replace(
        common,
        stain=(1 + uniform(hed), 1 + uniform(hed), 1 + uniform(hed)),
        stain_shift=(uniform(hed), uniform(hed), uniform(hed)),
        brightness=uniform(settings.brightness),
    )


def apply(sample: Sample, augmentation: Augmentation) -> Sample:
    """Carry out a draw; the size of the sample stays, and padding stays 0."""
    moved = _reshape(sample, augmentation)
    image = _restyle(moved.image, moved.valid, augmentation)
    return replace(moved, image=image * moved.valid)


def hide_middle(sample: Sample) -> Sample:
    """The sample with its middle rows, half of what is valid, replaced by the mean: no shape is left there.

    The occlusion of DeYO (Lee et al. 2024). Its other form, shuffled patches, would take a mammogram's chest
    wall and a field's padding apart as well.
    """
    valid = sample.valid if sample.valid.any() else torch.ones_like(sample.valid)
    rows = valid.sum(1).cumsum(0)
    hidden = (rows > rows[-1] // 4) & (rows <= rows[-1] - rows[-1] // 4)
    mean = (sample.image * valid).sum((1, 2), keepdim=True) / valid.sum()
    return replace(sample, image=torch.where(hidden[None, :, None] & valid, mean, sample.image))


def _uniform(generator: torch.Generator) -> Callable[[float], float]:
    def between(most: float) -> float:
        return most * (2 * torch.rand((), generator=generator).item() - 1)

    return between


def _reshape(sample: Sample, a: Augmentation) -> Sample:
    """Mirror and turn exactly, then rotate and zoom by interpolation."""
    square = sample.image.shape[1] == sample.image.shape[2]
    turns = a.quarters if square else 2 * (a.quarters % 2)

    def turned(x: Tensor) -> Tensor:
        return (x.flip(-1) if a.mirror else x).rot90(turns, (-2, -1))

    parts = [turned(sample.image), turned(sample.valid), turned(sample.lesion)]
    if a.angle == 0 and a.zoom == 1:
        return Sample(*parts)
    return _resample(Sample(*parts), a)


def _resample(sample: Sample, a: Augmentation) -> Sample:
    grid = _grid(sample.image, a)
    padding = "zeros" if a.outside == "padding" else "reflection"
    image = _look_up(sample.image, grid, mode="bilinear", padding=padding)
    valid = _look_up(sample.valid[None].to(image), grid, mode="nearest", padding=padding)[0] > 0.5
    if sample.lesion.isnan().all():
        return Sample(image, valid, sample.lesion)
    lesion = _look_up(sample.lesion[None], grid, mode="nearest", padding=padding)[0]
    return Sample(image, valid, lesion)


def _grid(image: Float[Tensor, "c h w"], a: Augmentation) -> Float[Tensor, "1 h w 2"]:
    """Where each pixel comes from, in the coordinates of ``grid_sample``."""
    height, width = image.shape[1:]
    cos, sin = math.cos(math.radians(a.angle)) / a.zoom, math.sin(math.radians(a.angle)) / a.zoom
    # the coordinates run from -1 to 1 on both sides, so a rotation must know the aspect
    rows = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    return F.affine_grid(image.new_tensor(rows)[None], [1, 1, height, width], align_corners=False)


def _look_up(
    x: Float[Tensor, "c h w"], grid: Float[Tensor, "1 h w 2"], *, mode: str, padding: str
) -> Float[Tensor, "c h w"]:
    return F.grid_sample(x[None], grid, mode=mode, padding_mode=padding, align_corners=False)[0]


def _restyle(
    image: Float[Tensor, "c h w"], valid: Bool[Tensor, "h w"], a: Augmentation
) -> Float[Tensor, "c h w"]:
    """Stain, response curve, focus, pixels, noise and storage, in the order in which a scanner adds them."""
    if a.stain != IDENTITY.stain or a.stain_shift != IDENTITY.stain_shift:
        image = jitter_hed(image, image.new_tensor(a.stain), image.new_tensor(a.stain_shift))
    if a.gamma != 1:
        image = image.clamp(0, 1) ** a.gamma
    if a.contrast != 1 or a.brightness != 0:
        mean = (image * valid).sum() / (valid.sum() * len(image)).clamp_min(1)
        image = (image - mean) * a.contrast + mean + a.brightness
    if a.blur > 0:
        image = _blur(image, a.blur)
    if a.coarser > 1:
        image = _coarsened(image, a.coarser)
    if a.noise > 0:
        generator = torch.Generator().manual_seed(a.noise_seed)
        image = image + a.noise * torch.randn(image.shape, generator=generator).to(image)
    image = image.clamp(0, 1)
    return _compressed(image, a.jpeg) if a.jpeg else image


def _coarsened(image: Float[Tensor, "c h w"], factor: float) -> Float[Tensor, "c h w"]:
    """Larger pixels, each the mean of what it covers, brought back to the size."""
    height, width = image.shape[1:]
    size = [max(1, round(height / factor)), max(1, round(width / factor))]
    small = F.interpolate(image[None], size, mode="area")
    return F.interpolate(small, [height, width], mode="bilinear", align_corners=False)[0]


def _compressed(image: Float[Tensor, "c h w"], quality: int) -> Float[Tensor, "c h w"]:
    """Through JPEG and back, with 8 bits a channel."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    data = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=quality)
    stored = torch.from_numpy(imagecodecs.jpeg8_decode(data).copy())
    return stored.permute(2, 0, 1).to(image) / 255


def _blur(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """Gaussian blur; the edge is repeated outwards."""
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    bell = torch.softmax(-(steps**2) / (2 * sigma**2), dim=0)
    wide = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(wide, bell[None, None, None, :]), bell[None, None, :, None])[:, 0]
