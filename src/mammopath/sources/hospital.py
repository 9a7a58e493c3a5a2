"""A folder of slides with a table beside them, and outlines where there are any: a laboratory's way in."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.outlines import Reading
from mammopath.images.slide_files import find_slides
from mammopath.images.slide_spacing import spacing_of
from mammopath.sources.columns import ATTRIBUTE, COLUMNS, Row, read_cells
from mammopath.sources.hospital_files import drawing_of, name_slides, slide_named
from mammopath.sources.hospital_words import meaning
from mammopath.sources.slides import NO_SPACINGS, SLIDE, Header, read_header, read_outlines
from mammopath.sources.source import Source
from mammopath.sources.table import attributes_of, demand_known_words, label_of
from mammopath.sources.words import read_number
from mammopath.types import NODE_CLASSES, ORDINALS, Record, Skipped, Spacing

TABLE = "slides.csv"

HOSPITAL_COLUMNS: Mapping[str, str] = {
    "slide": "file of the slide: its path, its name, or its name without suffix; required",
    "patient": "pseudonym of the patient, the same wherever seen; empty if not known; required",
    "site": "hospital or scanner; required",
    **{name: COLUMNS[name] for name in ("label", "malignant", "severity", "spacing_um", "spacing_um_y")},
    **{name: COLUMNS[name] for name in ("split", "pair")},
    "annotation": "file of outlines; else one with the name of the slide, beside it or in annotations/",
    "annotated": "yes if all that is malignant is outlined, so that elsewhere nothing is",
    "node": "negative, itc, micro or macro: class of a lymph node",
    "pn": "pN0, pN0(i+), pN1mi, pN1 or pN2: stage of the patient",
}
"""Columns of ``slides.csv``. A column ``attr_NAME`` becomes the attribute NAME."""

_LEVELS = {"node": NODE_CLASSES, "pn": ORDINALS["pathology"].levels}


def index(root: Path, spacings: Mapping[str, Spacing] = NO_SPACINGS) -> Iterator[Record | Skipped]:
    """List the slides of a table, in its order, then the slides that have no row.

    Args:
        root: a folder with ``slides.csv`` (``HOSPITAL_COLUMNS``), or a table of another name beside its
            slides.
        spacings: by name of slide, in place of headers; a row's own column goes before.

    Raises:
        DataError: no table, missing or unknown columns, a label that is none of the allowed words, or no
            slide.
    """
    table = root / TABLE if root.is_dir() else root
    rows = read_cells(table)
    _demand_columns(rows[0], table)
    slides = find_slides([table.parent])
    names, used = name_slides(slides, table.parent), set[Path]()
    for number, row in enumerate(rows, start=2):
        where = f"{table}: row {number}"
        demand_known_words(_translated(row), where)
        path = slide_named(row["slide"], names, where)
        if isinstance(path, Path) and path in used:
            path = Skipped(where, "annotation", f"the slide {row['slide']!r} has an earlier row")
        if isinstance(path, Skipped):
            yield path
            continue
        used.add(path)
        yield from _slide(path, row, where, root=table.parent, spacings=spacings)
    for path in slides:
        if path not in used:
            yield Skipped(str(path), "annotation", f"has no row in {table.name}")


def _slide(
    path: Path, row: Row, where: str, *, root: Path, spacings: Mapping[str, Spacing]
) -> Iterator[Record | Skipped]:
    try:
        header = read_header(path, _spacing(row) or spacing_of(path, spacings))
        drawing = drawing_of(path, row.get("annotation", ""), root)
        if isinstance(header, Skipped):
            yield header
            return
        reading = read_outlines(drawing, meaning, header)
        yield from reading.skipped
        yield _record(path, row, header, reading, root)
    except ValueError as error:
        yield Skipped(where, "annotation", str(error))


def _record(path: Path, row: Row, header: Header, reading: Reading, root: Path) -> Record:
    name = f"{row['site']}/{path.relative_to(root).as_posix()}"
    malignant, severity = label_of(_translated(row))
    if malignant == 0 and any(finding.malignant == 1 for finding in reading.findings):
        raise ValueError("is labelled as not malignant, but has outlines that are")
    if row.get("split", "") not in ("", "train", "test"):
        raise ValueError(f"split {row['split']!r} is none of: train, test, or empty")
    if not row["site"]:
        raise ValueError("the column site is empty")
    return Record(
        image_id=name,
        path=path,
        patient=row["patient"] or name,
        patient_known=bool(row["patient"]),
        domain=row["site"],
        modality="pathology",
        malignant=malignant,
        severity=severity,
        spacing=header.spacing,
        spacing_source=header.spacing_source,
        findings=reading.findings,
        pair_key=row.get("pair", ""),
        official_split=row.get("split", ""),
        attributes=SLIDE | _levels(row) | _annotated(row, malignant, reading),
    )


def _annotated(row: Row, malignant: float, reading: Reading) -> dict[str, str]:
    """A slide is completely annotated if its row says so and all of its drawing was understood."""
    attributes = attributes_of(_translated(row))
    has_all = reading.is_complete and (bool(reading.findings) or malignant == 0)
    if attributes.get("annotated") and not has_all:
        return attributes | {"annotated": "partly"}
    return attributes


def _levels(row: Row) -> dict[str, str]:
    for name, levels in _LEVELS.items():
        if row.get(name, "") not in ("", *levels):
            raise ValueError(f"{name} {row[name]!r} is none of: {', '.join(levels)}, or empty")
    return {name: row[name] for name in _LEVELS if row.get(name)}


def _spacing(row: Row) -> Spacing | None:
    names = ("spacing_um", "spacing_um_y")
    across, down = (read_number(row.get(name, ""), name, low=0.0) for name in names)
    if math.isnan(across):
        return None
    return Spacing(across, across if math.isnan(down) else down)


def _translated(row: Row) -> Row:
    """In the columns of the source ``table``, which has the words for labels and attributes."""
    known = {name: row.get(name, "") for name in ("label", "malignant", "severity", "annotated")}
    return known | {name: cell for name, cell in row.items() if name.startswith(ATTRIBUTE)}


def _demand_columns(row: Row, table: Path) -> None:
    if missing := [name for name in ("slide", "patient", "site") if name not in row]:
        raise DataError(f"{table}: column {', '.join(missing)} is missing; the first line names the columns")
    if unknown := [name for name in row if name not in HOSPITAL_COLUMNS and not name.startswith(ATTRIBUTE)]:
        raise DataError(
            f"{table}: unknown column {unknown[0]!r}; allowed are {', '.join(HOSPITAL_COLUMNS)}; call it "
            f"{ATTRIBUTE}{unknown[0]} to keep it as an attribute"
        )
    if not {"label", "malignant", "severity"} & row.keys():
        raise DataError(
            f"{table}: no column label, malignant or severity; add one, with empty cells if need be"
        )


SOURCE = Source(
    index=index,
    index_spaced=index,
    about="a folder of slides with a table of patients, sites and labels beside them",
    licence="that of the slides",
)
