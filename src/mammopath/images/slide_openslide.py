"""Slides through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, generic tiled TIFF, DICOM and more."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding
from mammopath.images.slide_reader import WHITE, Box, Found, true_levels


class OpenSlideReader:
    """One slide, open in OpenSlide. Label and macro images are never looked at: they show names.

    Raises:
        ImageReadError: OpenSlide does not know the format, or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide = self._open()
        with decoding(path):
            self._numbers, levels, notes = true_levels(path, list(self._slide.level_dimensions))
            properties = self._slide.properties
            self._found = Found(
                tuple(levels),
                _um(properties),
                _bounds(properties, levels[0].width, levels[0].height),
                _background(properties),
                f"openslide:{properties.get(openslide.PROPERTY_NAME_VENDOR, 'unknown')}",
                notes,
            )

    def found(self) -> Found:
        """What the file says of itself."""
        return self._found

    def pixels(self, level: int, box: Box) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a level; see ``Reader``.

        OpenSlide takes level-0 coordinates, so pixels of a level whose scale is no whole number may come
        shifted by a part of a pixel.
        """
        (left, top, right, bottom), scale = box, self._found.levels[level]
        corner = (round(left * scale.scale_x), round(top * scale.scale_y))
        try:
            with decoding(self.path):
                region = self._slide.read_region(corner, self._numbers[level], (right - left, bottom - top))
                return _on_background(np.asarray(region), self._found.background)
        except ImageReadError:
            # A handle that has failed once fails ever after (openslide.h); the rest of the slide may be fine.
            self.close()
            self._slide = self._open()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._slide.close()

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self.path)
        except openslide.OpenSlideUnsupportedFormatError:
            raise ImageReadError(
                self.path, "is in no slide format that OpenSlide reads", code="format"
            ) from None
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            raise ImageReadError(self.path, f"cannot be opened as a slide: {error}", code="pixels") from None


def _on_background(
    rgba: UInt8[np.ndarray, "h w 4"], background: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    rgb = np.ascontiguousarray(rgba[..., :3])
    seen = rgba[..., 3]
    if seen.min() < 255:
        share = seen[..., None] / np.float32(255)
        rgb = np.rint(rgb * share + np.array(background, np.float32) * (1 - share)).astype(np.uint8)
    return rgb


def _um(properties: openslide._PropertyMap) -> tuple[float, float] | None:
    with suppress(KeyError, ValueError):
        return float(properties[openslide.PROPERTY_NAME_MPP_X]), float(
            properties[openslide.PROPERTY_NAME_MPP_Y]
        )
    return None


def _bounds(properties: Mapping[str, str], width: int, height: int) -> Box:
    """The scanned part, which some scanners give; all of the slide otherwise."""
    with suppress(KeyError, ValueError):
        left, top = int(properties["openslide.bounds-x"]), int(properties["openslide.bounds-y"])
        right = left + int(properties["openslide.bounds-width"])
        bottom = top + int(properties["openslide.bounds-height"])
        left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
        if left < right and top < bottom:
            return left, top, right, bottom
    return 0, 0, width, height


def _background(properties: openslide._PropertyMap) -> tuple[int, int, int]:
    with suppress(KeyError, ValueError):
        red, green, blue = bytes.fromhex(properties[openslide.PROPERTY_NAME_BACKGROUND_COLOR])
        return red, green, blue
    return WHITE
