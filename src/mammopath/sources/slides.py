"""What the sources of whole slides share: headers, drawings beside slides, files found by name."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.images.annotations import read_drawing
from mammopath.images.outlines import Meaning, Outline, Reading, interpret
from mammopath.images.slide import open_slide
from mammopath.types import Record, Skipped, Spacing, SpacingSource

SLIDE = {"image": "slide"}
"""Attribute of records that are whole slides, and not fields or patches."""

MATERIAL = "material"
"""Attribute that names the slides that pixels come from, where several data sets are cut from the same."""

NO_SPACINGS: Mapping[str, Spacing] = {}
"""Every header is believed."""

_NOT_SLIDES = re.compile(r"mask|evaluation|background|thumbnail|ground_?truth|__MACOSX", re.IGNORECASE)
"""Folders that hold pictures named as slides are, but are none."""


_SAME_UM = 0.05
"""Part by which the sizes of pixels in a drawing and a slide may differ: rounding."""


def is_slide(record: Record) -> bool:
    """Whether a record is a whole slide."""
    return record.attributes.items() >= SLIDE.items()


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a slide says.

    Attributes:
        size: height and width at level 0.
    """

    size: tuple[int, int]
    spacing: Spacing
    spacing_source: SpacingSource


def read_header(path: Path, spacing: Spacing | None = None) -> Header | Skipped:
    """Size and spacing of a slide, or why it is left out, and what to do about it.

    Args:
        path: the slide.
        spacing: in place of what its header says.
    """
    try:
        with open_slide(path, spacing) as slide:
            return Header((slide.height, slide.width), slide.spacing, slide.spacing_source)
    except ImageReadError as error:
        hint = f"; {error.hint}" if error.code == "geometry" and error.hint else ""
        return Skipped(str(path), error.code, error.why + hint)


def read_outlines(path: Path | None, meaning: Callable[[Outline], Meaning | None], header: Header) -> Reading:
    """Findings of the annotation file of a slide; a file that cannot be read or used is among the skipped.

    Args:
        path: None for a slide without one, which says nothing of what is on the slide.
        meaning: of its outlines.
        header: of the slide; a drawing made on pixels of another size is not used.
    """
    if path is None:
        return Reading(())
    try:
        drawing = read_drawing(path)
    except DataError as error:
        return Reading((), (Skipped(str(path), "annotation", str(error).removeprefix(f"{path}: ")),))
    low, high = sorted((header.spacing.um_x, header.spacing.um_y))
    if drawing.um < low * (1 - _SAME_UM) or drawing.um > high * (1 + _SAME_UM):
        why = f"was drawn on pixels of {drawing.um:g} um, the slide has {high:g}: drawn on another slide?"
        return Reading((), (Skipped(str(path), "annotation", why),))
    return interpret(drawing, meaning, where=str(path), size=header.size)


def by_group(meanings: Mapping[str, Meaning]) -> Callable[[Outline], Meaning | None]:
    """Meaning by the group of an outline, whatever its case."""
    return lambda outline: meanings.get(outline.group.strip().lower())


def files_by_name(
    root: Path, suffixes: Iterable[str], pattern: re.Pattern[str]
) -> tuple[dict[str, Path], list[Skipped]]:
    """Files anywhere under a folder by their lower-case stem, names ascending, and second ones of a name.

    Args:
        root: folder. Folders of masks, thumbnails and evaluations in it are passed over.
        suffixes: lower case, with the dot.
        pattern: that the whole stem must match.
    """
    found: dict[str, Path] = {}
    doubles = []
    for path in sorted(_files(root)):
        name = path.stem.lower()
        if path.suffix.lower() not in suffixes or not pattern.fullmatch(name):
            continue
        if name in found:
            doubles.append(Skipped(str(path), "annotation", f"has the same name as {found[name]}"))
        else:
            found[name] = path
    return dict(sorted(found.items())), doubles


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not any(map(_NOT_SLIDES.search, path.relative_to(root).parts[:-1])):
            yield path


def packed(root: Path, unpacked: Mapping[str, Path]) -> Iterator[Skipped]:
    """Archives of annotations that nobody has unpacked."""
    if unpacked:
        return
    for path in sorted(root.rglob("*annotation*.zip")):
        why = "is still packed; unpack it beside itself, or every tumour counts as not outlined"
        yield Skipped(str(path), "annotation", why)
