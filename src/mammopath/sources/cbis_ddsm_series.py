"""Where the series of CBIS-DDSM lie on disk, whichever way they were downloaded."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pydicom

from mammopath.errors import DataError, ImageReadError
from mammopath.images.guard import decoding
from mammopath.sources.columns import read_cells

Series = Mapping[str, tuple[Path, ...]]
"""SeriesInstanceUID -> its files, sorted by name."""

_UID_FOLDER = re.compile(r"(?:MG_)?(\d+(?:\.\d+)+)")
"""Folders named by their series: as NBIA did at first (classic), as IDC does, and as Kaggle's JPEGs."""


def find_series(root: Path) -> Series:
    """Files of every series under ``root``.

    A file belongs to the series that its folder is named after (classic, IDC, Kaggle), else to the one that
    ``metadata.csv`` gives for its folder (NBIA, descriptive), else to the one in its header. PatientID and
    SeriesDescription are of no use: 396 series have a broken one, and masks are called crops at random.

    Raises:
        DataError: no DICOM or JPEG file is there.
    """
    told = dict(_metadata(root))
    series: defaultdict[str, list[Path]] = defaultdict(list)
    for path in _files(root):
        named = _UID_FOLDER.fullmatch(path.parent.name)
        if uid := named[1] if named else told.get(path.parent) or _uid_of(path):
            series[uid].append(path)
    if not series:
        raise DataError(f"{root}: holds no .dcm or .jpg file of CBIS-DDSM; give the folder as downloaded")
    return {uid: tuple(sorted(files)) for uid, files in series.items()}


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names if name.lower().endswith((".dcm", ".jpg", ".jpeg")))


def _metadata(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders of series, as the ``metadata.csv`` of the NBIA Data Retriever lists them."""
    found: Iterable[Path] = [*root.glob("metadata.csv"), *root.glob("*/metadata.csv")]
    for table in found:
        for row in read_cells(table):
            place = PurePosixPath(row.get("File Location", "").replace("\\", "/"))
            if row.get("Series UID"):
                yield table.parent / place, row["Series UID"]


def _uid_of(path: Path) -> str:
    """SeriesInstanceUID of a header; empty where there is none to read."""
    try:
        with decoding(path):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            return str(header.get("SeriesInstanceUID", ""))
    except ImageReadError:
        return ""
