"""IDC patches: 50 x 50 pixels of invasive ductal carcinoma or not, H&E (Cruz-Roa et al. 2014)."""

import re
from collections.abc import Iterator
from pathlib import Path

from mammopath.sources.source import Source, first_folder, measured
from mammopath.types import UNKNOWN, Record, Skipped, Spacing

_UM = 4.0
"""Nominal size of a pixel in micrometres: slides scanned at 40x (0.25 um), reduced 16:1 (Janowczyk and
Madabhushi 2016); no file states it."""

_NAME = re.compile(r"(?P<patient>\d+)_idx\d+_x\d+_y\d+_class(?P<label>[01])\.png")


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the patches: ``PATIENT/{0,1}/PATIENT_idx5_xX_yY_class{0,1}.png``, a patient at a time.

    The folder of patients is ``root`` itself, ``IDC_regular_ps50_idx5`` or ``patches`` in it.

    Raises:
        DataError: no such folder.
    """
    folder = first_folder(
        root, ("", "IDC_regular_ps50_idx5", "patches"), "[0-9]*/[01]/*_class[01].png", what="IDC patch"
    )
    for patient in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()):
        for path in sorted(patient.glob("*/*.png")):
            yield _record(path, root)


def _record(path: Path, root: Path) -> Record | Skipped:
    found = _NAME.fullmatch(path.name)
    if found is None:
        return Skipped(str(path), "annotation", "its name is not PATIENT_idxN_xX_yY_classC.png")
    if (found["patient"], found["label"]) != (path.parent.parent.name, path.parent.name):
        return Skipped(str(path), "annotation", "patient or class in its name are not those of its folders")
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    return Record(
        image_id=f"idc/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"idc_{found['patient']}",
        domain="idc",
        modality="pathology",
        malignant=float(found["label"]),
        severity=3.0 if found["label"] == "1" else UNKNOWN,
        spacing=Spacing.square(_UM),
        spacing_source="nominal",
    )


SOURCE = Source(
    index=index,
    about="IDC patches of 50 x 50 pixels, breast tissue, H&E, US",
    licence="published for research; cite Cruz-Roa et al. 2014, Janowczyk and Madabhushi 2016",
    editions={
        "published": {"images": 277_524, "patients": 279, "malignant": 78_786},
        "selection of 120 patients": {"images": 3_600, "patients": 120, "malignant": 973},
    },
)
