"""CMMD: 5,202 digital mammograms of 1,775 women with a lesion proven by biopsy, China (Cui et al. 2021)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.images.dicom_facts import Facts, flags_of_facts, read_facts
from mammopath.sources.columns import Row
from mammopath.sources.flags import flagged
from mammopath.sources.sheets import read_sheet
from mammopath.sources.source import Source
from mammopath.sources.table import worst
from mammopath.types import UNKNOWN, Record, Skipped

TABLE = "CMMD_clinicaldata_revision"

_NEEDED = {"ID1", "LeftRight", "Age", "abnormality", "classification", "subtype"}

_LABELS = {"Benign": (0.0, 1.0), "Malignant": (1.0, UNKNOWN)}

Breast = tuple[str, str]
"""Patient and side."""


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of CMMD: every DICOM file below ``root``, with what the table says of its breast.

    The table (``.xlsx`` as published, or saved as ``.csv``) lies in the folder or up to two below it. A
    breast without a row has an **unknown** label: nobody says that it is healthy.

    Raises:
        DataError: no table, no images, columns are missing, or a label that is neither benign nor malignant.
    """
    breasts = _breasts(_table(root))
    files = sorted(root.rglob("*.dcm"))
    if not files:
        raise DataError(f"{root}: holds no .dcm file; give the folder that the download made")
    seen: set[Breast] = set()
    for path in files:
        try:
            facts = read_facts(path)
        except ImageReadError as error:
            yield Skipped(str(path), error.code, error.why)
            continue
        breast = facts.patient, facts.laterality
        seen.add(breast)
        if breast[0]:
            yield _record(path, facts, breasts.get(breast, ()), root)
        else:
            yield Skipped(str(path), "annotation", "its header names no patient")
    for patient, side in sorted(breasts.keys() - seen):
        yield Skipped(f"{patient} {side}", "missing", "no image of this breast of the table")


def _table(root: Path) -> Path:
    for pattern in (f"{TABLE}.*", f"*/{TABLE}.*", f"*/*/{TABLE}.*"):
        if found := sorted(p for p in root.glob(pattern) if p.suffix.lower() in (".xlsx", ".xls", ".csv")):
            return found[0]
    raise DataError(f"{root}: holds no {TABLE}.xlsx, which has the labels; it is on the data set's page")


def _breasts(table: Path) -> Mapping[Breast, Sequence[Row]]:
    """Rows of each breast."""
    rows = read_sheet(table)
    if missing := _NEEDED - rows[0].keys():
        raise DataError(f"{table}: columns {', '.join(sorted(missing))} are missing; download it again")
    breasts: defaultdict[Breast, list[Row]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        if row["classification"] not in _LABELS or row["LeftRight"] not in ("L", "R"):
            told = f"{row['LeftRight']!r}, {row['classification']!r}"
            raise DataError(f"{table}: row {number}: {told} are no side and label; download it again")
        breasts[row["ID1"], row["LeftRight"]].append(row)
    return breasts


def _record(path: Path, facts: Facts, rows: Sequence[Row], root: Path) -> Record:
    malignant, severity = worst(_LABELS[row["classification"]] for row in rows)
    told = {name: "+".join(sorted({row[name] for row in rows} - {""})) for name in _NEEDED}
    attributes = {
        "abnormality": told["abnormality"],
        "subtype": told["subtype"],
        "age": told["Age"],
        "part": facts.patient.partition("-")[0],
        "exam": facts.study,
        "intent": facts.intent,
        "spacing_tag": facts.spacing_tag,
        "label": "biopsy" if rows else "",
        **flagged(flags_of_facts(facts)),
    }
    return Record(
        image_id=f"cmmd/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"cmmd_{facts.patient}",
        domain="cmmd",
        modality="mammogram",
        malignant=malignant,
        severity=severity,
        laterality=facts.laterality,
        view=facts.view,
        spacing=facts.spacing,
        spacing_source="header" if facts.spacing else "unknown",
        attributes={name: value for name, value in attributes.items() if value},
    )


SOURCE = Source(
    index=index,
    about="CMMD, digital mammograms with lesions proven by biopsy, China",
    licence="CC BY 4.0; cite Cui et al. 2021, doi 10.7937/tcia.eqde-4b16",
    editions={"published": {"images": 5202, "patients": 1775}},
)
