"""PNG, JPEG, TIFF and PGM as arrays, at the depth they are stored in."""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import tifffile
from jaxtyping import UInt8, UInt16

from mammopath.errors import ImageReadError
from mammopath.images.guard import check_shape, check_size, contents, decoding
from mammopath.images.headers import (
    HEADER_BYTES,
    jpeg_size,
    only_page,
    pgm_header,
    pgm_size,
    png_size,
    tiff_size,
)

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it grumbles at, we refuse by name

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]
"""Grey (h, w) or RGB (h, w, 3)."""


@dataclass(frozen=True)
class Format:
    """One raster format: how to know it, name it, measure it and decode it.

    ``size`` reads the header and checks that the end of the file is there; ``decode`` reads everything.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    size: Callable[[io.BufferedIOBase, Path], tuple[int, int]]
    decode: Callable[[bytes, Path], np.ndarray]


def read_raster(path: Path) -> Pixels:
    """Read an image at its stored depth: 8 or 16 bits, grey (h, w) or RGB (h, w, 3).

    What a file is follows from its content; a suffix that says otherwise is refused, since something went
    wrong where it was written. Opaque alpha channels are dropped; MINISWHITE TIFFs are turned over, so more
    is always brighter. EXIF orientation is not applied: annotations are in stored pixels.

    Raises:
        ImageReadError: with the reason code ``missing``, ``empty``, ``truncated``, ``format`` (not a raster
            image, or not what its suffix says), ``unsupported`` (animated, multi-page, transparent, CMYK,
            floating point), ``pixels`` (broken) or ``too_large``.
    """
    data = contents(path)
    kind = _format(data[:16], path)
    check_shape(path, *_measure(kind, io.BytesIO(data), path))
    with decoding(path):
        return _grey_or_rgb(kind.decode(data, path), path)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header.

    Also sees that the file is not cut short, as far as its own end mark or offsets tell.

    Raises:
        ImageReadError: as ``read_raster``, except for faults that only decoding shows.
    """
    check_size(path)
    with decoding(path), path.open("rb") as file:
        kind = _format(file.read(16), path)
        size = _measure(kind, file, path)
    check_shape(path, *size)
    return size


def is_raster(start: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a format that ``read_raster`` knows."""
    return any(start.startswith(mark) for kind in FORMATS for mark in kind.magic)


def _format(start: bytes, path: Path) -> Format:
    suffix = path.suffix.lower()
    kind = next((k for k in FORMATS if any(start.startswith(mark) for mark in k.magic)), None)
    if kind is None:
        known = ", ".join(k.name for k in FORMATS)
        raise ImageReadError(path, f"its content is none of {known}", code="format", hint="export it as PNG")
    if suffix in _SUFFIXES and suffix not in kind.suffixes:
        raise ImageReadError(
            path, f"is named {suffix}, but its content is {kind.name}", code="format",
            hint=f"rename it to {kind.suffixes[0]} if that is what it should be",
        )  # fmt: skip
    return kind


def _measure(kind: Format, file: io.BufferedIOBase, path: Path) -> tuple[int, int]:
    with decoding(path):
        file.seek(0)
        return kind.size(file, path)


def _grey_or_rgb(pixels: np.ndarray, path: Path) -> Pixels:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageReadError(path, f"holds {pixels.dtype} values, not 8 or 16 bits", code="unsupported")
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        opaque = np.iinfo(pixels.dtype).max
        if pixels[..., -1].min() < opaque:
            raise ImageReadError(path, "is partly transparent", code="unsupported", hint="flatten it")
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] == 3):
        raise ImageReadError(path, f"has the shape {pixels.shape}, not grey or RGB", code="unsupported")
    return np.ascontiguousarray(pixels)


def _png_decode(data: bytes, path: Path) -> np.ndarray:
    return imagecodecs.png_decode(data)


def _jpeg_decode(data: bytes, path: Path) -> np.ndarray:
    """Decode with libjpeg-turbo as Pillow ships it, which refuses truncated data."""
    with PIL.Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageReadError(path, "holds several pictures", code="unsupported")
        if image.mode not in ("L", "RGB"):
            raise ImageReadError(
                path, f"has {image.mode} colours", code="unsupported", hint="convert it to RGB"
            )
        return np.array(image)


def _tiff_decode(data: bytes, path: Path) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = only_page(tiff, path)
        colours = tifffile.PHOTOMETRIC(page.photometric).name
        if colours not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR"):
            raise ImageReadError(path, f"has {colours} colours", code="unsupported", hint="convert it to RGB")
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    if colours == "MINISWHITE" and pixels.dtype.kind == "u":
        bits = 8 if page.bitspersample == 1 else page.bitspersample
        pixels = (1 << bits) - 1 - pixels
    return pixels


def _pgm_decode(data: bytes, path: Path) -> np.ndarray:
    height, width, depth, begin = pgm_header(data[:HEADER_BYTES], path)
    end = begin + height * width * depth
    if data[end:].strip(b"\0\r\n\t "):
        raise ImageReadError(path, "holds more than one image", code="unsupported")
    values = np.frombuffer(data[begin:end], dtype="u1" if depth == 1 else ">u2")
    return values.reshape(height, width).astype(np.uint8 if depth == 1 else np.uint16)


FORMATS = (
    Format("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",), png_size, _png_decode),
    Format("JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), jpeg_size, _jpeg_decode),
    Format(
        "TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), tiff_size, _tiff_decode
    ),
    Format("PGM", (".pgm", ".pnm"), (b"P5",), pgm_size, _pgm_decode),
)  # fmt: skip
"""Raster formats that are read."""

_SUFFIXES = {suffix for kind in FORMATS for suffix in kind.suffixes}
