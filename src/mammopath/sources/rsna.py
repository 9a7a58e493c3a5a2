"""RSNA 2022: 54,706 screening mammograms of 11,913 women at two sites, cancer by breast (a challenge)."""

from collections.abc import Iterator
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.images.dicom import DicomHeader, read_dicom_header
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.sources.columns import Row, read_cells
from mammopath.sources.flags import flagged
from mammopath.sources.source import Source
from mammopath.sources.words import Label
from mammopath.types import UNKNOWN, Record, Skipped

TABLE = "train.csv"

_NEEDED = {
    "site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive",
    "BIRADS", "implant", "density", "machine_id", "difficult_negative_case",
}  # fmt: skip

_LABELS = {"0": False, "1": True}


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of the training part, one record per row of ``train.csv``; the rest has no labels.

    A breast is malignant if cancer was found in it. The severity is 3 where it was invasive and 2 where it
    was not; without cancer 1 where a biopsy was made, 0 where the reading was negative (BIRADS 1), and
    unknown otherwise. The two sites are two domains. Headers were stripped: a file without Modality is a
    mammogram by its place, and flagged.

    Raises:
        DataError: no table, or columns are missing.
    """
    rows = read_cells(root / TABLE)
    if missing := _NEEDED - rows[0].keys():
        raise DataError(
            f"{root / TABLE}: columns {', '.join(sorted(missing))} are missing; download it again"
        )
    for number, row in enumerate(rows, start=2):
        path = root / "train_images" / row["patient_id"] / f"{row['image_id']}.dcm"
        try:
            label = _label(row)
            yield _record(path, row, label, read_dicom_header(path, assume_mg=True), root)
        except ImageReadError as error:
            yield Skipped(str(path), error.code, error.why)
        except (ValueError, KeyError) as error:
            yield Skipped(f"{root / TABLE}: row {number}", "annotation", f"cannot be used: {error}")


def _label(row: Row) -> Label:
    is_cancer, is_invasive, has_biopsy = (_LABELS[row[name]] for name in ("cancer", "invasive", "biopsy"))
    if is_cancer:
        return 1.0, 3.0 if is_invasive else 2.0
    return 0.0, 1.0 if has_biopsy else 0.0 if row["BIRADS"] in ("1", "1.0") else UNKNOWN


def _record(path: Path, row: Row, label: Label, header: DicomHeader, root: Path) -> Record:
    flags = flags_of_warnings(header.warnings)
    flags |= {"no_spacing"} if header.spacing is None else set()
    flags |= {"special_view"} if row["view"] == "AT" else set()  # axillary tail: a part of the breast
    attributes = {
        "rating": row["BIRADS"].removesuffix(".0"),
        "density": row["density"],
        "age": row["age"],
        "machine": row["machine_id"],
        "implant": "yes" if row["implant"] in ("1", "1.0") else "",
        "difficult": "yes" if row["difficult_negative_case"].lower() == "true" else "",
        "intent": header.intent,
        "spacing_tag": header.spacing_tag,
        "label": "cancer of the breast",
        **flagged(flags),
    }
    return Record(
        image_id=f"rsna/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"rsna_{row['patient_id']}",
        domain=f"rsna_{row['site_id']}",
        modality="mammogram",
        malignant=label[0],
        severity=label[1],
        laterality=row["laterality"],
        view=row["view"],
        spacing=header.spacing,
        spacing_source="header" if header.spacing else "unknown",
        attributes={name: value for name, value in attributes.items() if value},
    )


SOURCE = Source(
    index=index,
    about="RSNA 2022, screening mammograms with cancer by breast, two sites, US and Australia",
    licence="rules of the Kaggle challenge: not for commercial use; attribute to RSNA",
    editions={"training": {"images": 54706, "patients": 11913, "malignant": 1158, "not malignant": 53548}},
)
