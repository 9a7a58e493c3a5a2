"""Pixels of one tile of a TIFF file from its bytes."""

import math
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8

JPEG = 7

YCC = 33003
"""JPEG 2000 in YCbCr (Aperio): its decoder leaves the colours as they are stored."""

_CHROMA = np.arange(256) - 128
_RED_OF_CR, _BLUE_OF_CB = (np.rint(part * _CHROMA).astype(np.int32) for part in (1.402, 1.772))
_GREEN_OF_CB, _GREEN_OF_CR = (
    np.rint(-part * 65536 * _CHROMA).astype(np.int32) for part in (0.34414, 0.71414)
)

Tile = UInt8[np.ndarray, "h w 3"]

Decoder = Callable[[bytes, int], Tile]
"""From the bytes and number of a tile to its pixels."""


def decoder(page: tifffile.TiffPage) -> Decoder:
    """The decoder of a page's tiles, by its compression."""
    return (_by_jpeg if page.compression == JPEG else _by_tifffile)(page)


def rgb_of(ycc: Tile) -> Tile:
    """Colours of YCbCr pixels by JFIF (ITU-T T.871, 7), with the roundings of OpenSlide's tables."""
    y, cb, cr = (ycc[..., i].astype(np.int32) for i in range(3))
    green = (_GREEN_OF_CB[cb] + _GREEN_OF_CR[cr] + (1 << 15)) >> 16
    rgb = np.stack((y + _RED_OF_CR[cr], y + green, y + _BLUE_OF_CB[cb]), axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _by_jpeg(page: tifffile.TiffPage) -> Decoder:
    """Decoder of the JPEG tiles of a page; pixels begin 8 bytes past a multiple of 32.

    At a multiple of 32 (or of 16, by processor) libjpeg-turbo writes past the caches: a tile takes
    1.4 times as long, and whoever looks at it next waits for memory. numpy's memory begins there by chance.
    """
    shape = (page.tilelength, page.tilewidth, 3)
    stored = "RGB" if page.photometric == 2 and not page.is_jfif else None
    told = {"tables": page.jpegtables, "colorspace": stored, "outcolorspace": "RGB", "shape": shape[:2]}

    def decode(data: bytes, _: int) -> Tile:
        memory = np.empty(math.prod(shape) + 32, np.uint8)
        first = (8 - memory.ctypes.data) % 32
        out = memory[first : first + math.prod(shape)].reshape(shape)
        tile: Tile = imagecodecs.jpeg_decode(data, out=out, **told)
        return tile

    return decode


def _by_tifffile(page: tifffile.TiffPage) -> Decoder:
    """Decoder of the tiles of a page in every other compression."""

    def decode(data: bytes, number: int) -> Tile:
        segment = page.decode(data, number)[0]
        tile = np.asarray(segment).reshape(segment.shape[-3:])
        return rgb_of(tile) if page.compression == YCC else tile

    return decode
