"""BreakHis: 7,909 fields of breast tumours at four magnifications, H&E, Brazil (Spanhol et al. 2016)."""

import re
from collections.abc import Iterator
from pathlib import Path

from mammopath.errors import DataError
from mammopath.sources.source import Source, measured
from mammopath.types import UNKNOWN, Record, Skipped

_NAME = re.compile(
    r"(?P<procedure>[A-Z]+)_(?P<label>[BM])_(?P<kind>[A-Z]+)-(?P<patient>\d+-\d+)[A-Z]*-(?P<power>\d+)-(?P<number>\d+)"
)
"""``SOB_M_DC-14-2523-100-023``: biopsy, class, subtype, year and slide, magnification, field."""

KINDS = {
    "A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes tumour", "TA": "tubular adenoma",
    "DC": "ductal carcinoma", "LC": "lobular carcinoma", "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}  # fmt: skip
"""Subtypes; the first four are benign."""

POWERS = ("40", "100", "200", "400")


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the fields of ``BreaKHis_v1``, wherever its PNG files lie under ``root``; the name says it all.

    The patient is the year and number of the slide (``14-2523``), at all magnifications, in all classes, and
    whatever letters follow (``14-22549AB``): that may join patients, and never parts one.

    Raises:
        DataError: no field is found.
    """
    paths = sorted(path for path in root.rglob("*.png") if path.name.startswith("SOB_"))
    if not paths:
        raise DataError(f"{root}: holds no field of BreakHis (SOB_M_DC-14-2523-100-023.png, ...)")
    for path in paths:
        yield _record(path, root)


def _record(path: Path, root: Path) -> Record | Skipped:
    found = _NAME.fullmatch(path.stem)
    if found is None or found["kind"] not in KINDS or found["power"] not in POWERS:
        return Skipped(str(path), "annotation", "its name is not SOB_CLASS_TYPE-YEAR-SLIDE-POWER-NUMBER.png")
    benign = list(KINDS).index(found["kind"]) < 4
    if benign != (found["label"] == "B"):
        return Skipped(str(path), "annotation", f"says {found['label']}, but {KINDS[found['kind']]} is not")
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    return Record(
        image_id=f"breakhis/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"breakhis_{found['patient']}",
        domain="breakhis",
        modality="pathology",
        malignant=float(not benign),
        severity=1.0 if benign else UNKNOWN,
        attributes={"magnification": f"{found['power']}X", "type": KINDS[found["kind"]]},
    )


SOURCE = Source(
    index=index,
    about="BreakHis, fields of breast tumours at four magnifications, H&E, Brazil",
    licence="CC BY 4.0",
    editions={"published": {"images": 7909, "malignant": 5429, "not malignant": 2480}},
)
