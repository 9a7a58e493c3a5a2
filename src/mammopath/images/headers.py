"""What the header of a raster file promises: its size, one still picture, and an end."""

import io
import itertools
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import tifffile

from mammopath.errors import ImageReadError

_TAIL = 4096
"""Bytes at the end of a file in which its end mark must stand."""

HEADER_BYTES = 4096
"""Bytes at the start of a PGM in which its header, comments included, must stand."""

_MAX_PAGES = 32
"""Pages of a TIFF that are looked at; a pyramid has a dozen, a broken chain of pages may have no end."""


def png_size(file: io.BufferedIOBase, path: Path) -> tuple[int, int]:
    """Height and width of a PNG (W3C PNG, third edition: IHDR, ``acTL``, IEND).

    Raises:
        ImageReadError: ``truncated``, or ``unsupported`` where an ``acTL`` chunk says that it is animated.
    """
    start = file.read(1 << 16)
    if len(start) < 33:
        raise ImageReadError(path, "ends in its header", code="truncated")
    width, height = struct.unpack(">II", start[16:24])
    if b"acTL" in start[: start.find(b"IDAT")]:
        raise ImageReadError(path, "is animated", code="unsupported", hint="save the one frame that counts")
    _demand_end(file, b"IEND", path)
    return height, width


_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers: SOF0..SOF15 without DHT, JPG, DAC (T.81 table B.1), and SOF55 of JPEG-LS (T.87)."""


@dataclass(frozen=True)
class JpegFrame:
    """Frame header of a JPEG or JPEG-LS code stream: its size, samples per pixel, and bits of each."""

    height: int
    width: int
    samples: int
    bits: int


def jpeg_frame(file: io.BufferedIOBase) -> JpegFrame | None:
    """The frame header of a JPEG or JPEG-LS (ITU-T T.81, annex B; T.87, annex C); None if there is none."""
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        length = int.from_bytes(head[2:], "big")
        if head[1] in _FRAME_MARKERS:
            fields = file.read(6)
            if len(fields) < 6:
                break
            bits, height, width, samples = struct.unpack(">BHHB", fields)
            return JpegFrame(height, width, samples, bits)
        is_fill = head[1] == 0xFF
        if not is_fill and length < 2:
            break
        file.seek(-3 if is_fill else length - 2, io.SEEK_CUR)
    return None


def jpeg_size(file: io.BufferedIOBase, path: Path) -> tuple[int, int]:
    """Height and width of a JPEG.

    Raises:
        ImageReadError: ``truncated``: no frame header, or no end-of-image marker.
    """
    if (frame := jpeg_frame(file)) is None:
        raise ImageReadError(path, "has no frame header", code="truncated", hint="copy it again")
    _demand_end(file, b"\xff\xd9", path)
    return frame.height, frame.width


def tiff_size(file: io.BufferedIOBase, path: Path) -> tuple[int, int]:
    """Height and width of a TIFF or BigTIFF.

    Raises:
        ImageReadError: ``truncated``: strips or tiles lie behind the end of the file; or as ``only_page``.
    """
    with tifffile.TiffFile(file) as tiff:
        page = only_page(tiff, path)
        ends = zip(page.dataoffsets, page.databytecounts, strict=True)
        last = max((start + count for start, count in ends), default=0)
    if last == 0 or last > file.seek(0, io.SEEK_END):
        raise ImageReadError(path, "ends before its pixels do", code="truncated", hint="copy it again")
    return page.imagelength, page.imagewidth


def only_page(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPage:
    """The full-resolution page; reduced copies of it (bit 0 of NewSubfileType) do not count.

    Raises:
        ImageReadError: ``unsupported``: several pages, or a volume.
    """
    first = itertools.islice(tiff.pages, _MAX_PAGES)
    pages = [page for page in first if page.index == 0 or not int(page.subfiletype) & 1]
    if len(pages) != 1 or pages[0].imagedepth != 1:
        raise ImageReadError(
            path,
            f"holds {len(pages)} pages, as whole slides do",
            code="unsupported",
            hint="save the one page that counts; whole slides go through `mammopath slides predict`",
        )
    return pages[0]


_PGM_HEADER = re.compile(rb"P5(?:\s|#[^\n]*\n)+?(\d+)(?:\s|#[^\n]*\n)+?(\d+)(?:\s|#[^\n]*\n)+?(\d+)\s")


def pgm_header(start: bytes, path: Path) -> tuple[int, int, int, int]:
    """Height, width, bytes per pixel of a binary PGM (netpbm P5), and where its pixels begin.

    Raises:
        ImageReadError: ``format``: the header is broken.
    """
    if not (found := _PGM_HEADER.match(start)):
        raise ImageReadError(path, "has no PGM header", code="format")
    width, height, top = (int(text) for text in found.groups())
    if not 0 < top < 65536:
        raise ImageReadError(path, f"has a largest value of {top}", code="format")
    return height, width, 1 if top < 256 else 2, found.end()


def pgm_size(file: io.BufferedIOBase, path: Path) -> tuple[int, int]:
    """Height and width of a binary PGM.

    Raises:
        ImageReadError: ``truncated``, or as ``pgm_header``.
    """
    height, width, depth, begin = pgm_header(file.read(HEADER_BYTES), path)
    if file.seek(0, io.SEEK_END) < begin + height * width * depth:
        raise ImageReadError(path, "ends before its pixels do", code="truncated", hint="copy it again")
    return height, width


def _demand_end(file: io.BufferedIOBase, mark: bytes, path: Path) -> None:
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - _TAIL))
    if mark not in file.read():
        raise ImageReadError(path, "ends too early", code="truncated", hint="copy it again")
