"""INbreast: 410 digital mammograms, four views, Portugal, scored by radiologists (Moreira et al. 2012)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mammopath.errors import DataError, ImageReadError
from mammopath.images.dicom import DicomHeader, read_dicom_header
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.sources.columns import Row
from mammopath.sources.flags import flagged
from mammopath.sources.inbreast_xml import read_regions
from mammopath.sources.sheets import read_sheet
from mammopath.sources.source import ANNOTATED, Source, first_folder
from mammopath.types import UNKNOWN, Finding, Record, Skipped, Spacing

Convention = Literal["a", "b"]

NEGATIVE: Mapping[Convention, str] = {"a": "12", "b": "123"}
"""BI-RADS categories that count as not malignant; 4 to 6 count as malignant, others are unknown. (a) leaves 3
out, as Shen et al. 2019 and most transfer studies do; (b) is that of Zhu et al. 2017."""

SPACING = Spacing.square(70.0)
"""Published size of a pixel (Moreira et al. 2012), for files whose header has none."""

_FILE = re.compile(r"(?P<image>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>\w+?)_ANON", re.I)


@dataclass(frozen=True)
class Tree:
    """What lies where, and what labels mean."""

    root: Path
    annotations: Path
    convention: Convention


@dataclass(frozen=True)
class Image:
    """One file, the parts of its name, and its row of the table."""

    path: Path
    name: re.Match[str]
    row: Row


def index(root: Path, *, convention: Convention = "a") -> Iterator[Record | Skipped]:
    """List the mammograms of INbreast.

    Takes the folder as published. The patient is the hash in the file name, since neither the table nor the
    headers tell. **Labels are BI-RADS scores of radiologists, not pathology**; ``NEGATIVE`` says what they
    count as. BI-RADS 1 is severity 0 (normal), 2 is severity 1 (benign), others are unknown.

    Raises:
        DataError: no table, no images, or a table without the known columns.
    """
    folder = first_folder(
        root, ("AllDICOMs", "INbreast Release 1.0/AllDICOMs", ""), "*.dcm", what="AllDICOMs"
    )
    rows = _rows(folder.parent if folder != root else root)
    tree = Tree(root, folder.parent / "AllXML", convention)
    named = {path: _FILE.match(path.name) for path in sorted(folder.glob("*.dcm"))}
    files = {found["image"]: (path, found) for path, found in named.items() if found}
    yield from (
        Skipped(str(path), "annotation", "its name holds no patient")
        for path, found in named.items()
        if not found
    )
    for image in sorted(rows.keys() | files.keys()):
        if image not in rows:
            yield Skipped(str(files[image][0]), "annotation", f"{image} has no row in the table")
        elif image not in files:
            yield Skipped(image, "missing", f"no image file for row {image} of the table")
        else:
            yield from _image(Image(*files[image], rows[image]), tree)


def _rows(folder: Path) -> dict[str, Row]:
    """Rows of INbreast.csv, else of INbreast.xls, by image; rows of totals below the table are left out."""
    for name in ("INbreast.csv", "INbreast.xls", "INbreast.xlsx"):
        if (folder / name).is_file():
            rows = read_sheet(folder / name, separator=";")
            if missing := {"File Name", "Bi-Rads", "Laterality", "View"} - rows[0].keys():
                raise DataError(f"{folder / name}: columns {', '.join(sorted(missing))} are missing")
            return {row["File Name"]: row for row in rows if row["File Name"].isdigit()}
    raise DataError(f"{folder}: holds no INbreast.csv or INbreast.xls, which has the labels")


def _image(image: Image, tree: Tree) -> Iterator[Record | Skipped]:
    """The record of one image, and what is wrong with its outlines."""
    try:
        header = read_dicom_header(image.path)
    except ImageReadError as error:
        yield Skipped(str(image.path), error.code, error.why)
        return
    outlines = tree.annotations / f"{image.name['image']}.xml"
    findings: tuple[Finding, ...] | None = () if tree.annotations.is_dir() else None
    if outlines.exists():
        malignant = 0.0 if _malignant(image.row["Bi-Rads"], tree.convention) == 0 else UNKNOWN
        try:
            findings = read_regions(outlines, malignant=malignant)
        except DataError as error:
            findings = None
            yield Skipped(str(outlines), "annotation", str(error))
    yield _record(image, header, findings, tree)


def _malignant(birads: str, convention: Convention) -> float:
    if birads[:1] in NEGATIVE[convention] and birads:
        return 0.0
    return 1.0 if birads[:1] in ("4", "5", "6") else UNKNOWN


def _record(image: Image, header: DicomHeader, findings: tuple[Finding, ...] | None, tree: Tree) -> Record:
    """One record; findings that are not known are None, so that the image is not ``annotated``."""
    row, birads, side = image.row, image.row["Bi-Rads"], image.name["side"].upper()
    flags = flags_of_warnings(header.warnings) - {"no_spacing"}  # the published one stands in
    flags |= {"side_differs"} if row["Laterality"] not in ("", side) else set()
    attributes = {
        "birads": birads[:1],
        "birads_detail": birads,
        "density": row.get("ACR", ""),
        "acquired": row.get("Acquisition date", ""),
        "spacing_tag": header.spacing_tag,
        "label": f"radiologist BI-RADS, convention {tree.convention.upper()}",
        **flagged(flags),
        **(ANNOTATED if findings is not None else {}),
    }
    return Record(
        image_id=f"inbreast/{image.path.relative_to(tree.root).as_posix()}",
        path=image.path,
        patient=f"inbreast_{image.name['patient'].lower()}",
        domain="inbreast",
        modality="mammogram",
        malignant=_malignant(birads, tree.convention),
        severity={"1": 0.0, "2": 1.0}.get(birads, UNKNOWN),
        laterality=side,
        view=row["View"] or {"ML": "MLO"}.get(image.name["view"], image.name["view"]),
        spacing=header.spacing or SPACING,
        spacing_source="header" if header.spacing else "published",
        findings=findings or (),
        attributes={name: value for name, value in attributes.items() if value},
    )


SOURCE = Source(
    index=index,
    about="INbreast, digital mammograms with radiologists' BI-RADS scores (3 left out), Portugal",
    licence="research only, on request; cite Moreira et al. 2012",
    editions={"published": {"images": 410, "malignant": 100, "not malignant": 287}},
)

SOURCE_B = Source(
    index=partial(index, convention="b"),
    about="INbreast with BI-RADS 1-3 against 4-6",
    licence=SOURCE.licence,
    editions={"published": {"images": 410, "malignant": 100, "not malignant": 310}},
)
