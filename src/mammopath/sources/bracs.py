"""BRACS: 4,539 regions of breast lesions of seven classes, H&E, Naples (Brancati et al. 2022)."""

import re
from collections.abc import Iterator
from pathlib import Path

from mammopath.errors import DataError
from mammopath.sources.source import Source, measured
from mammopath.types import UNKNOWN, Record, Skipped, Spacing

_UM = 0.25
"""Size of a pixel in micrometres, as published (40x)."""

CLASSES = {
    "N": ("normal", 0.0, 0.0), "PB": ("pathological benign", 0.0, 1.0),
    "UDH": ("usual ductal hyperplasia", 0.0, 1.0), "FEA": ("flat epithelial atypia", UNKNOWN, UNKNOWN),
    "ADH": ("atypical ductal hyperplasia", UNKNOWN, UNKNOWN), "DCIS": ("ductal carcinoma in situ", 1.0, 2.0),
    "IC": ("invasive carcinoma", 1.0, 3.0),
}  # fmt: skip
"""Class -> name, malignant, severity. Atypia is neither benign nor malignant, and has no severity here."""

_NAME = re.compile(rf"BRACS_(?P<slide>\d+)_(?P<label>{'|'.join(CLASSES)})_(?P<number>\d+)")
_SPLITS = {"train": "train", "val": "train", "test": "test"}


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the regions: ``{train,val,test}/{0_N,...,6_IC}/BRACS_264_N_1.png``, anywhere under ``root``.

    Regions of a slide have its number; which slides are of one patient stands in ``BRACS.xlsx``, which is not
    read: the slide stands for the patient.

    Raises:
        DataError: no region is found.
    """
    paths = sorted(path for path in root.rglob("BRACS_*") if path.suffix.lower() in (".png", ".jpg"))
    if not paths:
        raise DataError(f"{root}: holds no region of BRACS (train/0_N/BRACS_264_N_1.png, ...)")
    for path in paths:
        yield _record(path, root)


def _record(path: Path, root: Path) -> Record | Skipped:
    found = _NAME.fullmatch(path.stem)
    if found is None:
        return Skipped(str(path), "annotation", "its name is not BRACS_SLIDE_CLASS_NUMBER")
    folder = path.parent.name.partition("_")[2]
    if folder in CLASSES and folder != found["label"]:
        return Skipped(str(path), "annotation", f"lies in {path.parent.name}, but is named {found['label']}")
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    name, malignant, severity = CLASSES[found["label"]]
    part = next((part for part in path.relative_to(root).parts if part in _SPLITS), "")
    return Record(
        image_id=f"bracs/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"bracs_{int(found['slide']):03d}",
        patient_known=False,
        domain="bracs",
        modality="pathology",
        malignant=malignant,
        severity=severity,
        spacing=Spacing.square(_UM),
        spacing_source="published",
        official_split=_SPLITS.get(part, ""),
        attributes={"class": name} | ({"bracs_split": part} if part else {}),
    )


SOURCE = Source(
    index=index,
    about="BRACS, regions of breast lesions of seven classes, H&E, Naples",
    licence="CC BY-NC 4.0",
    editions={"published": {"images": 4539}},
)
