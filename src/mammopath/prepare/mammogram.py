"""From mammogram pixels to a canvas: breast cropped, chest wall left, square pixels, one intensity range."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from scipy import ndimage

from mammopath.prepare.breast import find_breast, wall_on_left
from mammopath.prepare.resample import Box, Canvas, Size, fit, largest_canvas, lay, resample
from mammopath.settings import MammogramSettings
from mammopath.types import Spacing

RIM = 6
"""Coarse pixels (of 192 to 384 along the longer side) of film that stay around the breast."""


def prepare_mammogram(
    pixels: Shaped[np.ndarray, "rows columns"],
    *,
    spacing: Spacing | None,
    laterality: str,
    settings: MammogramSettings,
    multiple: int = 1,
) -> Canvas:
    """Prepare one mammogram.

    The breast is cut out, fitted into ``settings.height`` x ``settings.width`` with its aspect kept
    (pixels that are not square are made so), mirrored where its chest wall is on the right, and laid on
    the canvas with the chest wall at the left edge, halfway down. Robust quantiles of the breast become 0
    and 1. Film beyond a rim around the breast becomes padding, with the labels, tape and borders on it, so
    that no token is spent on it and attention cannot lie there; ``settings.background`` keeps it.

    Args:
        pixels: as read, more is brighter; any integer or floating type.
        spacing: size of a pixel; unknown means square.
        laterality: L, R or empty; asked only where the pixels do not show the side (``wall_on_left``).
        settings: size and quantiles.
        multiple: sides of the canvas are multiples of this (patch size times token pooling).
    """
    breast = find_breast(pixels)
    rows, columns = pixels.shape
    left, top, right, bottom = box = breast.box if settings.crop else (0, 0, columns, rows)
    canvas = largest_canvas(settings.height, settings.width, multiple)
    um = spacing or Spacing.square(1.0)
    size = fit((bottom - top) * um.um_y, (right - left) * um.um_x, canvas)
    image = _ranged(resample(pixels, box, size), _resized(breast.mask, box, size, of=pixels.shape), settings)
    image[_resized(breast.marks, box, size, of=pixels.shape)] = 0
    keep = settings.background or not settings.crop
    shown = None if keep else _resized(_with_rim(breast.mask), box, size, of=pixels.shape)
    mirror = not wall_on_left(breast, laterality)
    return lay(image[None], box, canvas=canvas, top=(canvas[0] - size[0]) // 2, mirror=mirror, shown=shown)


def _with_rim(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The breast without holes, and a rim around it for the skin line."""
    return ndimage.binary_dilation(ndimage.binary_fill_holes(mask), iterations=RIM)


def _ranged(
    image: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], settings: MammogramSettings
) -> Float[np.ndarray, "h w"]:
    """Quantiles of the breast to 0 and 1; what lies beyond them is cut off."""
    within = image[inside] if inside.any() else image
    low, high = np.quantile(within, (settings.low, settings.high))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _resized(
    mask: Bool[np.ndarray, "h w"], box: Box, size: Size, *, of: tuple[int, ...]
) -> Bool[np.ndarray, "height width"]:
    """The part of a coarse mask that lies in ``box`` of an image of that shape, at ``size``."""
    down, across = mask.shape[0] / of[0], mask.shape[1] / of[1]
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    coarse = Image.fromarray(mask.view(np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.NEAREST, box=part)).astype(bool)
