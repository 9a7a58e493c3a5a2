"""Thumbnails of slides: what was taken for tissue keeps its colours under an outline, the rest is pale."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from mammopath import RESEARCH_USE_ONLY
from mammopath.files import write_bytes
from mammopath.prepare.tissue import Tissue

SIDE = 1024
"""Longest side of a thumbnail in pixels."""

GREEN = (0, 150, 60)


def write_thumbnail(path: Path, tissue: Tissue) -> None:
    """Write a JPEG with the verdict under the picture, whole or not at all."""
    edge = tissue.mask ^ ndimage.binary_erosion(tissue.mask, iterations=2)
    shown = np.where(tissue.mask[..., None], tissue.thumbnail, 128 + tissue.thumbnail // 2)
    shown[edge] = GREEN
    image = Image.fromarray(shown.astype(np.uint8))
    image.thumbnail((SIDE, SIDE))
    canvas = Image.new("RGB", (max(image.width, 420), image.height + 34), "white")
    canvas.paste(image)
    words = f"{tissue.verdict}: {tissue.share:.1%} tissue, {tissue.pen:.1%} ink"
    ImageDraw.Draw(canvas).multiline_text(
        (4, image.height + 3), f"{words}\n{RESEARCH_USE_ONLY}", fill="black"
    )
    buffer = io.BytesIO()
    canvas.save(buffer, "jpeg", quality=85)
    write_bytes(path, buffer.getvalue())
