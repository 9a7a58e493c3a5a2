"""Plain microscope fields as slides of one level: PNG, JPEG and TIFF that fit in memory."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding
from mammopath.images.raster import read_raster
from mammopath.images.slide_reader import WHITE, Box, Found, Level


class FieldReader:
    """One field, decoded when it is opened.

    Raises:
        ImageReadError: as ``read_raster``; or ``pixels``: it is not 8-bit colour.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        pixels = read_raster(path)
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise ImageReadError(
                path, "is grey or has 16 bits; stained tissue needs 8-bit colour", code="pixels"
            )
        self._pixels = pixels
        height, width = pixels.shape[:2]
        self._found = Found((Level(width, height),), _um(path), (0, 0, width, height))

    def found(self) -> Found:
        """What the file says of itself."""
        return self._found

    def pixels(self, level: int, box: Box) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the field; see ``Reader``."""
        del level  # there is only one
        left, top, right, bottom = box
        height, width = self._pixels.shape[:2]
        region = np.full((bottom - top, right - left, 3), WHITE, np.uint8)
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, right), min(height, bottom)
        if x0 < x1 and y0 < y1:
            region[y0 - top : y1 - top, x0 - left : x1 - left] = self._pixels[y0:y1, x0:x1]
        return region

    def close(self) -> None:
        """Nothing to let go of."""


def _um(path: Path) -> tuple[float, float] | None:
    """From the resolution in dots per inch that all three formats may state."""
    with decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata; the pixels were read by stricter code
        image = Image.open(path)
        across, down = image.info.get("dpi", (0, 0))
        image.close()
        return (25400 / float(across), 25400 / float(down)) if across and down else None
