"""Which files in folders are slides: by their suffix; of the many files of a DICOM slide, the first."""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from mammopath.errors import DataError

SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".tif", ".tiff", ".dcm",
    ".png", ".jpg", ".jpeg",
)  # fmt: skip
"""Of slides and plain fields, in small letters."""

PICTURES = (".png", ".jpg", ".jpeg")
"""Suffixes that fields have, and so do the pictures that scanners and viewers put beside slides."""

_NO_FIELD = re.compile(r"(^|[^a-z])(macro|label|thumb(nail)?s?|overview|preview|mask|heat_?map)s?([^a-z]|$)")
"""Words in the names of such pictures, or of their folders."""


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """Slides among files and folders, in the order of their names; hidden files are left out.

    In a folder, a PNG or JPEG with the name of a slide, or called macro, label, thumbnail, overview, preview,
    mask or heatmap, is a picture of a slide and no field; one that is given by itself is taken.

    Raises:
        DataError: a path does not exist, or there is no slide at all.
    """
    if gone := [path for path in paths if not path.exists()]:
        raise DataError(f"{gone[0]}: there is no such file or folder")
    found = [slide for path in paths for slide in (_within(path) if path.is_dir() else [path])]
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no slide here ({', '.join(SUFFIXES)})")
    return list(dict.fromkeys(found))


def _within(folder: Path) -> Iterator[Path]:
    series: set[str] = set()
    files = [path for path in sorted(folder.rglob("*")) if _is_candidate(path, folder)]
    stems = {path.stem.lower() for path in files if path.suffix.lower() not in PICTURES}
    for path in files:
        if path.suffix.lower() in PICTURES and _shows_a_slide(path, folder, stems):
            continue
        if path.suffix.lower() == ".dcm":
            name = _series(path)
            if not name or name in series:
                continue
            series.add(name)
        yield path


def _is_candidate(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _shows_a_slide(path: Path, folder: Path, slides: Set[str]) -> bool:
    """Whether a picture bears the name of a slide, whole or up to a sign, or one of the telling words."""
    if any(_NO_FIELD.search(part.lower()) for part in path.relative_to(folder).parts):
        return True
    stem = path.stem.lower()
    starts = [stem[: found.start()] for found in re.finditer(r"[^a-z0-9]", stem)]
    return not slides.isdisjoint([stem, *starts])


def _series(path: Path) -> str:
    """Series of a DICOM slide; empty for other DICOM files."""
    try:
        header = pydicom.dcmread(
            path, specific_tags=["SOPClassUID", "SeriesInstanceUID"], stop_before_pixels=True
        )
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return ""
    is_slide = header.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage
    return str(header.get("SeriesInstanceUID", path)) if is_slide else ""
