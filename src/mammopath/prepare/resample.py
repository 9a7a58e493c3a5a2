"""Cut a box out of pixels, bring it to a size and lay it on a canvas, keeping track of where things went."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image

from mammopath.errors import ConfigError
from mammopath.images.geometry import Frame

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

Size = tuple[int, int]
"""Height, width in pixels."""


@dataclass(frozen=True)
class Canvas:
    """Pixels of one prepared image.

    Attributes:
        image: intensities in [0, 1]; 0 on padding.
        valid: True where there is image, False where there is padding (or film beside the breast).
        frame: from level-0 pixels to canvas pixels and back.
    """

    image: Float[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    frame: Frame


def largest_canvas(height: int, width: int, multiple: int) -> Size:
    """The settings' size, rounded down to multiples.

    Raises:
        ConfigError: a side is shorter than one multiple.
    """
    if min(height, width) < multiple:
        raise ConfigError(
            f"prepared images of {height} x {width} cannot hold one square of {multiple} pixels"
        )
    return height // multiple * multiple, width // multiple * multiple


def fit(height: float, width: float, largest: Size) -> Size:
    """Largest size of this aspect that fits; at least one pixel each way."""
    scale = min(largest[0] / height, largest[1] / width)
    return max(1, min(largest[0], round(height * scale))), max(1, min(largest[1], round(width * scale)))


def resample(pixels: Shaped[np.ndarray, "h w"], box: Box, size: Size) -> Float[np.ndarray, "height width"]:
    """Bicubic resampling of a box, widened when shrinking so that nothing aliases.

    Much larger boxes are averaged over whole pixels first, down to twice the size: as good, and faster.

    Returns:
        float32 in the units of ``pixels``; it may overshoot their range a little at sharp edges.
    """
    left, top, right, bottom = box
    cut = np.ascontiguousarray(pixels[top:bottom, left:right], dtype=np.float32)
    image = Image.fromarray(cut).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def lay(
    image: Float[np.ndarray, "c h w"],
    box: Box,
    *,
    canvas: Size,
    top: int = 0,
    mirror: bool = False,
    shown: Bool[np.ndarray, "h w"] | None = None,
) -> Canvas:
    """Lay an image that shows ``box`` on a canvas, at its left edge and ``top`` pixels down.

    Args:
        image: intensities in [0, 1].
        box: what it shows, in level-0 pixels.
        canvas: size to pad to.
        top: rows of padding above.
        mirror: turn left and right around first.
        shown: where the image shows anything; the rest becomes padding. None means everywhere.
    """
    shown = np.ones(image.shape[1:], dtype=bool) if shown is None else shown
    image = np.where(shown, image, 0)
    height, width = image.shape[1:]
    padded = np.zeros((len(image), *canvas), dtype=np.float32)
    valid = np.zeros(canvas, dtype=bool)
    padded[:, top : top + height, :width] = image[:, :, ::-1] if mirror else image
    valid[top : top + height, :width] = shown[:, ::-1] if mirror else shown
    return Canvas(padded, valid, _frame(box, (height, width), top, mirror))


def _frame(box: Box, size: Size, top: int, mirror: bool) -> Frame:
    left, above, right, below = box
    height, width = size
    frame = Frame().cropped(left, above).scaled(width / (right - left), height / (below - above))
    return (frame.mirrored(width) if mirror else frame).padded(0, top)
