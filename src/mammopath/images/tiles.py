"""Slides whose tiles are decoded straight from a TIFF file, each once, with the same pixels as OpenSlide."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding
from mammopath.images.slide_openslide import OpenSlideReader
from mammopath.images.slide_reader import Box, Found, Level
from mammopath.images.tile_pixels import JPEG, YCC, Decoder, Tile, decoder

PADDED = "philips"
"""Format of CAMELYON16 and CAMELYON17: pages are filled up to whole tiles, and tiles of bare glass have no
bytes."""

VENDORS = ("aperio", "generic-tiff", PADDED)
"""Formats, by the names of OpenSlide, whose levels are plain tiled pages of one TIFF file."""

COMPRESSIONS = (1, 5, JPEG, 8, 32946, YCC, 33005, 34712)
"""None, LZW, JPEG, Deflate, Deflate by its old number, JPEG 2000 of Aperio in YCbCr and in RGB, JPEG 2000."""

CACHE_BYTES = 128 << 20
"""Bytes of decoded tiles that a reader keeps."""

LARGEST = 4096 * 4096
"""Pixels of the largest tile that is decoded whole."""

_PAGES = 64
"""Pages of a file that are looked at; a broken chain of pages may have no end."""


@dataclass(frozen=True)
class TiledPage:
    """Where the tiles of one level are.

    Attributes:
        width, height: of a tile in pixels. across: tiles side by side.
        offsets, counts: first byte and number of bytes of each, row by row; no bytes: background.
        decode: from the bytes and number of a tile to its pixels. jpeg: tiles must begin and end as a JPEG
            does.
    """

    width: int
    height: int
    across: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    decode: Decoder
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
            self._given: set[tuple[int, int]] = set()
            self._shared = False
            self._bytes = 0
            if not _agree(self, plain):
                self.close()
                raise ImageReadError(path, "OpenSlide gives other pixels", code="unsupported")
            self._given.clear()
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
            x, y = left - column * page.width, top - row * page.height
            wide, high = right - left, bottom - top
            if x + wide <= page.width and y + high <= page.height:
                number = row * page.across + column
                if (wide, high) == (page.width, page.height) and self._may_be_given(level, number):
                    return self._given_away(level, number)
                return self._tile(level, number)[y : y + high, x : x + wide].copy()
            region = np.empty((high, wide, 3), np.uint8)
        else:
            region = np.full((bottom - top, right - left, 3), self._found.background, np.uint8)
        for number, here, there in _overlaps(page, size, box):
            region[there] = self._tile(level, number)[here]
        return region

    def close(self) -> None:
        """Let go of the file and the tiles."""
        self._kept.clear()
        self._given.clear()
        self._bytes = 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _may_be_given(self, level: int, number: int) -> bool:
        """Whether a whole tile need not be kept: so far no patch has needed one that was given away."""
        return not self._shared and (level, number) not in self._kept

    def _given_away(self, level: int, number: int) -> Tile:
        """A whole tile that is not kept: where patches are tiles, this spares each a copy and new memory."""
        tile = self._decoded(self._pages[level], number)
        self._given.add((level, number))
        return tile if tile.flags.writeable else tile.copy()

    def _tile(self, level: int, number: int) -> Tile:
        key = (level, number)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        self._shared = self._shared or key in self._given
        tile = self._decoded(self._pages[level], number)
        self._kept[key] = tile
        self._bytes += tile.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return tile

    def _decoded(self, page: TiledPage, number: int) -> Tile:
        count = page.counts[number]
        if not count:
            return np.full((page.height, page.width, 3), self._found.background, np.uint8)
        data = os.pread(self._file, count, page.offsets[number])
        cut_short = page.jpeg and not (data.startswith(b"\xff\xd8") and b"\xff\xd9" in data[-256:])
        if len(data) < count or cut_short:
            raise ImageReadError(self.path, f"tile {number} is cut short", code="truncated")
        with decoding(self.path):
            tile = page.decode(data, number)
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
        if vendor == PADDED:
            return [_page(page) for page in _padded(path, [p for p in pages if p.is_tiled], found.levels)]
        suited = {(p.imagewidth, p.imagelength): p for p in reversed(pages) if p.is_tiled and _is_suited(p)}
        if missing := [at for at in found.levels if (at.width, at.height) not in suited]:
            raise _unsuited(path, missing[0])
        return [_page(suited[at.width, at.height]) for at in found.levels]


def _padded(
    path: Path, pages: Sequence[tifffile.TiffPage], levels: Sequence[Level]
) -> Sequence[tifffile.TiffPage]:
    """Pages in the order of the levels, each as large as its level in whole tiles."""
    if len(pages) != len(levels):
        raise ImageReadError(path, f"{len(pages)} tiled pages, {len(levels)} levels", code="unsupported")
    for page, at in zip(pages, levels, strict=True):
        spare = (page.imagewidth - at.width, page.imagelength - at.height)
        whole = 0 <= spare[0] < page.tilewidth and 0 <= spare[1] < page.tilelength
        if not whole or not _is_suited(page, sparse=True):
            raise _unsuited(path, at)
    return pages


def _unsuited(path: Path, at: Level) -> ImageReadError:
    why = f"no plain tiled page has {at.width} x {at.height} pixels"
    return ImageReadError(path, why, code="unsupported")


def _is_suited(page: tifffile.TiffPage, *, sparse: bool = False) -> bool:
    colours = page.photometric in (2, 6) and page.samplesperpixel == 3 and page.planarconfig == 1
    whole = page.dtype == np.uint8 and page.imagedepth == 1 and bool(page.dataoffsets)
    known = page.compression in COMPRESSIONS and page.tilewidth * page.tilelength <= LARGEST
    full = max(page.databytecounts) > 0 if sparse else min(page.databytecounts) > 0
    return bool(colours and whole and known and full)


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
        decoder(page),
        jpeg=page.compression == JPEG,
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
    """Whether tiles from the middle of level 0, and the first and last of each level, come out the same.

    Damaged tiles say nothing, nor do those without bytes; but one tile must be whole.
    """
    same = []
    for level, number in dict.fromkeys(_samples(direct._pages)):
        page, size = direct._pages[level], direct.found().levels[level]
        left, top = number % page.across * page.width, number // page.across * page.height
        whole = size.scale_x == size.scale_y and size.scale_x.is_integer()
        if left >= size.width or top >= size.height or not (whole or left == top == 0):
            continue  # nothing but padding; or OpenSlide, asked in level-0 pixels, would shift it
        box = (left, top, left + page.width, top + page.height)
        with suppress(ImageReadError):
            same.append(np.array_equal(direct.pixels(level, box), plain.pixels(level, box)))
    return bool(same) and all(same)


def _samples(pages: Sequence[TiledPage]) -> Iterator[tuple[int, int]]:
    """Level and number of tiles with bytes."""
    for level, page in enumerate(pages):
        filled = np.flatnonzero(page.counts)
        if level == 0:
            middle = len(page.counts) // page.across // 2 * page.across + page.across // 2
            yield 0, int(filled[np.abs(filled - middle).argmin()])
        yield from ((level, int(filled[0])), (level, int(filled[-1])))
