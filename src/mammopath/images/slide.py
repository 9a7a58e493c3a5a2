"""A slide: levels, size, spacing, and regions read at a spacing, whatever format it is stored in."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from jaxtyping import UInt8
from PIL import Image

from mammopath.errors import ImageReadError
from mammopath.images.geometry import Number
from mammopath.images.guard import decoding
from mammopath.images.slide_field import FieldReader
from mammopath.images.slide_openslide import OpenSlideReader
from mammopath.images.slide_reader import Box, Found, Level, Reader
from mammopath.images.slide_spacing import settle_spacing
from mammopath.images.tiles import TileReader
from mammopath.types import Spacing, SpacingSource

ALMOST = 1.01
"""A level whose pixels are up to this much larger than wanted still counts as fine enough."""


@dataclass(frozen=True)
class Slide:
    """One slide.

    It can be sent to other processes; each opens the file for itself, when it first reads.

    Attributes:
        path: the file.
        levels: finest first.
        spacing: size of a level-0 pixel. spacing_source: where that comes from.
        bounds: where there is anything to see: left, top, right, bottom in level-0 pixels.
        kind: who reads it, with the format.
        notes: what is odd about the file, for people.
    """

    path: Path
    levels: tuple[Level, ...]
    spacing: Spacing
    spacing_source: SpacingSource
    bounds: Box
    kind: str
    notes: tuple[str, ...] = ()
    _open: list[tuple[int, Reader]] = field(default_factory=list, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Of level 0, in pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Of level 0, in pixels."""
        return self.levels[0].height

    def level_um(self, level: int) -> Spacing:
        """Size of a pixel of a level."""
        found = self.levels[level]
        return Spacing(self.spacing.um_x * found.scale_x, self.spacing.um_y * found.scale_y)

    def level_for(self, um: Number) -> int:
        """The coarsest level that still shows details of ``um`` micrometres both ways; 0 if none does."""
        sides = [self.level_um(i) for i in range(len(self.levels))]
        fine = [i for i, side in enumerate(sides) if max(side.um_x, side.um_y) <= um * ALMOST]
        return fine[-1] if fine else 0

    def read(self, x: Number, y: Number, *, size: tuple[int, int], um: Number) -> UInt8[np.ndarray, "h w 3"]:
        """A region at a spacing.

        It comes from the coarsest level that is fine enough, resampled unless that level has the wanted
        spacing to within half a pixel over the whole region. What lies outside of the slide is background.

        Args:
            x: left edge in level-0 pixels.
            y: upper edge in level-0 pixels.
            size: its height and width in pixels of ``um``.
            um: side of a pixel of the result in micrometres.

        Raises:
            ImageReadError: this part of the slide is damaged; others can still be read.
        """
        level = self.level_for(um)
        at, own = self.levels[level], self.level_um(level)
        left, top = x / at.scale_x, y / at.scale_y
        across, down = size[1] * um / own.um_x, size[0] * um / own.um_y
        if abs(across - size[1]) < 0.5 and abs(down - size[0]) < 0.5:
            corner = (math.floor(left + 0.5), math.floor(top + 0.5))
            return self.pixels(level, (*corner, corner[0] + size[1], corner[1] + size[0]))
        margin = math.ceil(max(2.0, across / size[1], down / size[0]))
        box = (
            math.floor(left) - margin,
            math.floor(top) - margin,
            math.ceil(left + across) + margin,
            math.ceil(top + down) + margin,
        )
        inside = (left - box[0], top - box[1], left - box[0] + across, top - box[1] + down)
        image = Image.fromarray(self.pixels(level, box))
        return np.asarray(
            image.resize(size[::-1], Image.Resampling.BILINEAR, box=inside, reducing_gap=3.0)
        ).copy()

    def pixels(self, level: int, box: Box) -> UInt8[np.ndarray, "h w 3"]:
        """Whole pixels of a level, as they are stored.

        Raises:
            ImageReadError: this part of the slide is damaged; others can still be read.
        """
        return self._reader().pixels(level, box)

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        while self._open:
            self._open.pop()[1].close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": []}

    def _reader(self) -> Reader:
        """The open file. A process that was forked off opens it anew: a shared file position would mix."""
        if not self._open or self._open[0][0] != os.getpid():
            self._open[:] = [(os.getpid(), READERS[self.kind.split(":")[0]](self.path))]
        return self._open[0][1]


def open_slide(path: Path, spacing: Spacing | None = None) -> Slide:
    """Open a slide of any format, or a plain field.

    Args:
        path: the file; for DICOM one of the slide's files, for MRXS the .mrxs beside its folder.
        spacing: size of a level-0 pixel, in place of what the header says.

    Raises:
        ImageReadError: ``missing``, ``empty``, ``format`` (no slide and no image), ``unsupported``,
            ``pixels`` (damaged), ``geometry`` (no spacing, or an impossible one), ``too_large`` (a plain
            image that does not fit in memory).
    """
    path = Path(path)
    with decoding(path):
        size = path.stat().st_size
    if path.is_dir():
        raise ImageReadError(path, "is a folder, not a slide", code="format")
    if size == 0:
        raise ImageReadError(path, "the file has no bytes", code="empty", hint="copy it again")
    reader = _reader_of(path)
    found: Found = reader.found()
    try:
        settled, source = settle_spacing(path, found.um, spacing)
    except ImageReadError:
        reader.close()
        raise
    slide = Slide(path, found.levels, settled, source, found.bounds, found.kind, found.notes)
    slide._open.append((os.getpid(), reader))
    return slide


def is_whole_slide(path: Path) -> bool:
    """Whether a file is of a slide format (tiled, in levels), and not a picture that is read at once."""
    return path.is_file() and openslide.OpenSlide.detect_format(path) is not None


def _reader_of(path: Path) -> Reader:
    """The fastest reader that can; what the first one that knows the format says is the error."""
    told: ImageReadError | None = None
    for kind in ("tiles", "openslide", "field"):
        try:
            return READERS[kind](path)
        except ImageReadError as error:
            told = error if told is None or told.code in ("format", "unsupported") else told
    assert told is not None
    raise told


READERS: dict[str, Callable[[Path], Reader]] = {
    "tiles": TileReader,
    "openslide": OpenSlideReader,
    "field": FieldReader,
}
"""Readers by the first word of ``Slide.kind``."""
