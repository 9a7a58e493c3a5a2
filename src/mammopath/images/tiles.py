"""Slides whose tiles are decoded straight from a TIFF file, each once, with the same pixels as OpenSlide."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding
from mammopath.images.slide_openslide import OpenSlideReader
from mammopath.images.slide_reader import Box, Found, Level

VENDORS = ("aperio", "generic-tiff")
"""Formats, by the names of OpenSlide, whose levels are plain tiled pages of one TIFF file."""

COMPRESSIONS = (1, 5, 7, 8, 32946, 33005, 34712)
"""None, LZW, JPEG, Deflate, Deflate by its old number, JPEG 2000 in RGB (Aperio), JPEG 2000."""

CACHE_BYTES = 128 << 20
"""Bytes of decoded tiles that a reader keeps."""

LARGEST = 4096 * 4096
"""Pixels of the largest tile that is decoded whole."""

_PAGES = 64
"""Pages of a file that are looked at; a broken chain of pages may have no end."""

Tile = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class TiledPage:
    """Where the tiles of one level are.

    Attributes:
        width, height: of a tile in pixels. across: tiles side by side.
        offsets, counts: first byte and number of bytes of each, row by row.
        decode: from bytes and number to pixels, as tifffile does it.
        jpeg: tiles must begin and end as a JPEG does.
    """

    width: int
    height: int
    across: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    decode: Callable[..., Any]
    tables: bytes | None
    jpeg: bool


class TileReader:
    """One slide, open for decoding tile by tile; a small cache spares patches that share a tile.

    Raises:
        ImageReadError: OpenSlide does not know the file; or ``unsupported``: its levels are not plain tiled
            pages, or decoding them gives other pixels than OpenSlide.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        plain = OpenSlideReader(path)
        try:
            self._found = replace(plain.found(), kind=plain.found().kind.replace("openslide:", "tiles:"))
            self._pages = tiled_pages(path, plain.found())
            self._file = os.open(path, os.O_RDONLY)
            self._kept: OrderedDict[tuple[int, int], Tile] = OrderedDict()
            self._bytes = 0
            if not _agree(self, plain):
                self.close()
                raise ImageReadError(path, "OpenSlide gives other pixels", code="unsupported")
        finally:
            plain.close()

    def found(self) -> Found:
        """What the file says of itself."""
        return self._found

    def pixels(self, level: int, box: Box) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a level; see ``Reader``."""
        page, size = self._pages[level], self._found.levels[level]
        left, top, right, bottom = box
        if min(left, top) >= 0 and right <= size.width and bottom <= size.height:
            column, row = left // page.width, top // page.height
            if right <= (column + 1) * page.width and bottom <= (row + 1) * page.height:
                x, y = left - column * page.width, top - row * page.height
                return self._tile(level, row * page.across + column)[
                    y : y + bottom - top, x : x + right - left
                ].copy()
            region = np.empty((bottom - top, right - left, 3), np.uint8)
        else:
            region = np.full((bottom - top, right - left, 3), self._found.background, np.uint8)
        for number, here, there in _overlaps(page, size, box):
            region[there] = self._tile(level, number)[here]
        return region

    def close(self) -> None:
        """Let go of the file and the tiles."""
        self._kept.clear()
        self._bytes = 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _tile(self, level: int, number: int) -> Tile:
        key = (level, number)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        tile = self._decoded(self._pages[level], number)
        self._kept[key] = tile
        self._bytes += tile.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return tile

    def _decoded(self, page: TiledPage, number: int) -> Tile:
        count = page.counts[number]
        data = os.pread(self._file, count, page.offsets[number])
        cut_short = page.jpeg and not (data.startswith(b"\xff\xd8") and b"\xff\xd9" in data[-256:])
        if len(data) < count or cut_short:
            raise ImageReadError(self.path, f"tile {number} is cut short", code="truncated")
        with decoding(self.path):
            segment = page.decode(data, number, jpegtables=page.tables)[0]
            tile = np.asarray(segment).reshape(segment.shape[-3:])
        if tile.shape != (page.height, page.width, 3) or tile.dtype != np.uint8:
            raise ImageReadError(self.path, f"tile {number} has the shape {tile.shape}", code="pixels")
        return tile


def tiled_pages(path: Path, found: Found) -> list[TiledPage]:
    """The pages that hold the levels of a slide.

    Raises:
        ImageReadError: ``unsupported``: a level is not a tiled page of RGB bytes in a known compression.
    """
    vendor = found.kind.split(":")[1]
    if vendor not in VENDORS:
        raise ImageReadError(path, f"{vendor} is no plain tiled TIFF", code="unsupported")
    with decoding(path), tifffile.TiffFile(path) as tiff:
        count = min(len(tiff.pages), _PAGES)
        pages = [tiff.pages[i] for i in range(count)]
        suited = {(p.imagewidth, p.imagelength): p for p in reversed(pages) if p.is_tiled and _is_suited(p)}
        if missing := [at for at in found.levels if (at.width, at.height) not in suited]:
            at = missing[0]
            raise ImageReadError(
                path, f"no plain tiled page has {at.width} x {at.height} pixels", code="unsupported"
            )
        return [_page(suited[at.width, at.height]) for at in found.levels]


def _is_suited(page: tifffile.TiffPage) -> bool:
    colours = page.photometric in (2, 6) and page.samplesperpixel == 3 and page.planarconfig == 1
    whole = page.dtype == np.uint8 and page.imagedepth == 1 and bool(page.dataoffsets)
    known = page.compression in COMPRESSIONS and page.tilewidth * page.tilelength <= LARGEST
    return bool(colours and whole and known and min(page.databytecounts) > 0)


def _page(page: tifffile.TiffPage) -> TiledPage:
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    if len(page.dataoffsets) != across * down:
        raise ValueError(f"{across * down} tiles, but {len(page.dataoffsets)} offsets")
    return TiledPage(
        page.tilewidth,
        page.tilelength,
        across,
        tuple(page.dataoffsets),
        tuple(page.databytecounts),
        page.decode,
        page.jpegtables,
        page.compression == 7,
    )


def _overlaps(
    page: TiledPage, size: Level, box: Box
) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles that a box of a level meets: number, part of the tile, part of the box."""
    left, top, right, bottom = box
    x_end, y_end = min(right, size.width), min(bottom, size.height)
    if left >= x_end or top >= y_end:
        return
    for row in range(max(0, top) // page.height, -(-y_end // page.height)):
        y = row * page.height
        y0, y1 = max(top, y, 0), min(y_end, y + page.height)
        for column in range(max(0, left) // page.width, -(-x_end // page.width)):
            x = column * page.width
            x0, x1 = max(left, x, 0), min(x_end, x + page.width)
            here = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
            yield row * page.across + column, here, (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _agree(direct: TileReader, plain: OpenSlideReader) -> bool:
    """Whether a tile of each level, and one from the middle, come out the same both ways.

    Damaged tiles say nothing; but one tile must be whole.
    """
    first, page = direct.found().levels[0], direct._pages[0]
    middle = (first.width // 2 // page.width * page.width, first.height // 2 // page.height * page.height)
    same = []
    for level, (left, top) in [(0, middle), *((i, (0, 0)) for i in range(len(direct._pages)))]:
        page = direct._pages[level]
        box = (left, top, left + page.width, top + page.height)
        with suppress(ImageReadError):
            same.append(np.array_equal(direct.pixels(level, box), plain.pixels(level, box)))
    return bool(same) and all(same)
