"""Which file of a lesion is its mask, told by content, and the findings it stands for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from mammopath.errors import ImageReadError
from mammopath.images.masks import mask_findings
from mammopath.images.read import read_image
from mammopath.types import Finding

SAME_ASPECT = 0.05
"""Largest relative difference of aspect between a mask and its image; some masks are up to 15 % larger."""

_GREY = 0.005
"""Largest share of grey pixels in a mask: none in DICOM, some along the outline after JPEG."""


@dataclass(frozen=True)
class Lesion:
    """Findings of one mask, in pixels of the image; ``rescaled`` where their sizes differ."""

    findings: tuple[Finding, ...]
    rescaled: bool


def read_lesion(files: Sequence[Path], size: tuple[int, int], *, malignant: float, name: str) -> Lesion | str:
    """The lesion that one of ``files`` is a mask of, or why none of them is.

    Descriptions, file names and the order of the tables contradict each other about which file is the
    cropped lesion and which the mask. The mask has two values only, and the aspect of the full image, of
    which the crop is a part. The largest file is tried first; which one that is decides nothing.

    Args:
        files: of the series of the lesion.
        size: height and width of the full image.
        malignant: label of the findings.
        name: what they are called.
    """
    why = "no file of the lesion was found"
    for path in sorted(files, key=lambda file: (-file.stat().st_size, file.name)):
        try:
            pixels = read_image(path).pixels
        except ImageReadError as error:
            why = error.why
            continue
        mask = as_mask(pixels)
        if mask is None:
            why = "no file of the lesion is a mask"
            continue
        height, width = mask.shape
        if abs(math.log(height * size[1] / (width * size[0]))) > SAME_ASPECT:
            return f"its mask of {width} x {height} does not fit the image of {size[1]} x {size[0]}"
        scale = (size[1] / width, size[0] / height)
        findings = mask_findings(mask, scale=scale, malignant=malignant, name=name)
        return Lesion(findings, scale != (1.0, 1.0)) if findings else "its mask is empty"
    return why


def as_mask(pixels: Shaped[np.ndarray, "h w *c"]) -> Bool[np.ndarray, "h w"] | None:
    """The mask that an image with two values is; None for any other image."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    top = int(grey.max())
    if top == 0:
        return np.zeros(grey.shape, dtype=bool)
    between = (grey > top // 8) & (grey < top - top // 8)
    return grey > top // 2 if between.mean() <= _GREY else None
