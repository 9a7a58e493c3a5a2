"""Which files in folders are slides: by their suffix; of the many files of a DICOM slide, the first."""

from collections.abc import Iterator, Sequence
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


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """Slides among files and folders, in the order of their names; hidden files are left out.

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
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or path.suffix.lower() not in SUFFIXES:
            continue
        if path.suffix.lower() == ".dcm":
            name = _series(path)
            if not name or name in series:
                continue
            series.add(name)
        yield path


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
