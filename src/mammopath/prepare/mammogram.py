"""From mammogram pixels to a canvas: breast cropped, chest wall left, square pixels, one intensity range."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from scipy import ndimage

from mammopath.errors import DataError
from mammopath.prepare.breast import Breast, coarse_copy, find_breast, wall_on_left
from mammopath.prepare.pectoral import find_pectoral
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
    view: str = "",
    multiple: int = 1,
) -> Canvas:
    """Prepare one mammogram.

    The breast is cut out, fitted into ``settings.height`` x ``settings.width`` with its aspect kept
    (pixels that are not square are made so), mirrored where its chest wall is on the right, and laid on
    the canvas with the chest wall at the left edge, halfway down. With ``settings.um`` it is resampled to
    that many micrometres per pixel instead; what then goes beyond the canvas is cut off, above and below
    alike and at the nipple's side. Robust quantiles of the breast become 0 and 1. Film beyond a rim around
    the breast becomes padding, with the labels, tape and borders on it, so that no token is spent on it and
    attention cannot lie there; ``settings.background`` keeps it.

    Args:
        pixels: as read, more is brighter; any integer or floating type.
        spacing: size of a pixel; unknown means square.
        laterality: L, R or empty; asked only where the pixels do not show the side (``wall_on_left``).
        settings: size, scale, quantiles, and what becomes of the pectoral muscle.
        view: MLO, CC, ...; only MLO views show the muscle.
        multiple: sides of the canvas are multiples of this (patch size times token pooling).

    Raises:
        DataError: ``settings.um`` asks for a spacing that is not known.
    """
    breast = find_breast(pixels)
    rows, columns = pixels.shape
    on_left = wall_on_left(breast, laterality)
    canvas = largest_canvas(settings.height, settings.width, multiple)
    whole = breast.box if settings.crop else (0, 0, columns, rows)
    box, size = _placed(whole, spacing, settings.um, canvas, on_left=on_left)
    muscle = _muscle(pixels, breast, view, settings, on_left=on_left)
    measured = _resized(breast.mask & ~muscle, box, size, of=pixels.shape)
    image = _ranged(resample(pixels, box, size), measured, settings)
    image[_resized(breast.marks, box, size, of=pixels.shape)] = 0
    keep = settings.background or not settings.crop
    seen = np.ones_like(breast.mask) if keep else _with_rim(breast.mask)
    if settings.pectoral == "remove":
        seen &= ~muscle
    shown = None if seen.all() else _resized(seen, box, size, of=pixels.shape)
    top = (canvas[0] - size[0]) // 2
    return lay(image[None], box, canvas=canvas, top=top, mirror=not on_left, shown=shown)


def _placed(box: Box, spacing: Spacing | None, um: float, canvas: Size, *, on_left: bool) -> tuple[Box, Size]:
    """What of a box is shown, and how large: fitted to the canvas, or at a scale and cut off at its edges."""
    left, top, right, bottom = box
    if not um:
        pixel = spacing or Spacing.square(1.0)
        return box, fit((bottom - top) * pixel.um_y, (right - left) * pixel.um_x, canvas)
    if spacing is None:
        raise DataError(f"its spacing is not known, and mammogram.um asks for {um:g} micrometres per pixel")
    height, tall = _at_scale(bottom - top, spacing.um_y / um, canvas[0])
    width, wide = _at_scale(right - left, spacing.um_x / um, canvas[1])
    top += (bottom - top - tall) // 2
    left = left if on_left else right - wide
    return (left, top, left + wide, top + tall), (height, width)


def _at_scale(length: int, factor: float, most: int) -> tuple[int, int]:
    """Length of a side when prepared, at most ``most``, and how many of its own pixels that shows."""
    prepared = max(1, min(most, round(length * factor)))
    return prepared, max(1, min(length, round(prepared / factor)))


def _muscle(
    pixels: Shaped[np.ndarray, "rows columns"], breast: Breast, view: str, settings: MammogramSettings,
    *, on_left: bool,
) -> Bool[np.ndarray, "h w"]:  # fmt: skip
    """The pectoral muscle in the coarse copy, where it is asked for."""
    if settings.pectoral == "keep" or view != "MLO":
        return np.zeros_like(breast.mask)
    return find_pectoral(coarse_copy(pixels), breast, on_left=on_left)


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
