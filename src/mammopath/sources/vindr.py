"""VinDr-Mammo: 20,000 digital mammograms of 5,000 exams, BI-RADS and boxes, Vietnam (Nguyen et al. 2023)."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.images.dicom import DicomHeader, read_dicom_header
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.sources.columns import Row, read_cells
from mammopath.sources.flags import flagged
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import UNKNOWN, Finding, Record, Skipped

TABLE = "finding_annotations.csv"

_NEEDED = {
    "study_id", "image_id", "laterality", "view_position", "breast_birads", "finding_categories", "split",
    "xmin", "ymin", "xmax", "ymax",
}  # fmt: skip

_SPLITS = {"training": "train", "test": "test", "": ""}


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of VinDr-Mammo, one record per image of ``finding_annotations.csv``.

    **Labels are BI-RADS of radiologists, not pathology**: 1 and 2 are not malignant, 4 and 5 are, 3 is
    unknown. A study is taken for a patient, since each has one. Boxes are cut off at the edge of the image.

    Raises:
        DataError: no table, or columns are missing.
    """
    rows = read_cells(root / TABLE)
    if missing := _NEEDED - rows[0].keys():
        raise DataError(
            f"{root / TABLE}: columns {', '.join(sorted(missing))} are missing; download it again"
        )
    images: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        images[row["study_id"], row["image_id"]].append(row)
    for (study, image), own in sorted(images.items()):
        path = root / "images" / study / f"{image}.dicom"
        try:
            yield _record(path, own, read_dicom_header(path), root)
        except ImageReadError as error:
            yield Skipped(str(path), error.code, error.why)
        except (ValueError, KeyError) as error:
            yield Skipped(str(path), "annotation", f"its rows cannot be used: {error}")


def _record(path: Path, rows: Sequence[Row], header: DicomHeader, root: Path) -> Record:
    row = rows[0]
    birads = row["breast_birads"].removeprefix("BI-RADS").strip()
    malignant = 0.0 if birads in ("1", "2") else 1.0 if birads in ("4", "5", "6") else UNKNOWN
    attributes = {
        "birads": birads,
        "density": row.get("breast_density", "").removeprefix("DENSITY").strip(),
        "exam": row["study_id"],
        "intent": header.intent,
        "spacing_tag": header.spacing_tag,
        "label": "radiologist BI-RADS",
        **ANNOTATED,
        **flagged(flags_of_warnings(header.warnings) | ({"no_spacing"} if header.spacing is None else set())),
    }
    return Record(
        image_id=f"vindr/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"vindr_{row['study_id']}",
        domain="vindr",
        modality="mammogram",
        malignant=malignant,
        severity={"1": 0.0, "2": 1.0}.get(birads, UNKNOWN),
        laterality=row["laterality"],
        view=row["view_position"],
        spacing=header.spacing,
        spacing_source="header" if header.spacing else "unknown",
        findings=tuple(_finding(each, header, malignant) for each in rows if each["xmin"]),
        official_split=_SPLITS[row["split"]],
        attributes={name: value for name, value in attributes.items() if value},
    )


def _finding(row: Row, header: DicomHeader, malignant: float) -> Finding:
    """A box, cut off at the edges: some start at -6 pixels. The categories are a list in Python's words."""
    left, right = (min(max(float(row[name]), 0.0), float(header.width)) for name in ("xmin", "xmax"))
    top, bottom = (min(max(float(row[name]), 0.0), float(header.height)) for name in ("ymin", "ymax"))
    if not (left < right and top < bottom):
        raise ValueError(f"a box of {left:g} {top:g} {right:g} {bottom:g}")
    names = "+".join(str(name).lower() for name in ast.literal_eval(row["finding_categories"]))
    label = 0.0 if malignant == 0 else UNKNOWN
    return Finding("box", ((left, top), (right, bottom)), malignant=label, name=names)


SOURCE = Source(
    index=index,
    about="VinDr-Mammo, digital mammograms with radiologists' BI-RADS and boxes, Vietnam",
    licence="PhysioNet credentialed health data licence 1.5.0; cite Nguyen et al. 2023",
    editions={"1.0.0": {"images": 20000, "patients": 5000}},
)
