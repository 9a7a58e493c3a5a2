"""Any images with a CSV or Parquet table beside them: a hospital's way in."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast, get_args

from mammopath.errors import DataError, ImageReadError
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.images.read import Header, read_header
from mammopath.sources.columns import ATTRIBUTE, Row, read_rows
from mammopath.sources.flags import FLAGS, flagged, flags_of
from mammopath.sources.source import ANNOTATED, Source
from mammopath.sources.words import Label, read_findings, read_label, read_number, read_side
from mammopath.types import MODALITIES, UNKNOWN, Record, Skipped, Spacing, SpacingSource

_CODES = {"malignant": (0, 1), "severity": (0, 1, 2, 3)}
"""Columns of numeric labels, and the numbers they may hold."""

_TOPS = {0.0: 1.0, 1.0: 3.0}
"""The worst severity of what is not malignant, and of what is."""

_MAY_DIFFER = {"label", "malignant", "severity", "findings"}
"""Columns in which rows of the same image may differ: one row per lesion."""


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the images of a table, in the order of their first rows.

    Several rows of one image add up their findings, if nothing but labels and findings differ; the image
    is then as malignant as its worst row (``worst``). What the table leaves open of spacing, side and view is
    taken from a DICOM header.

    Args:
        root: a ``.csv`` or ``.parquet`` file (``columns.read_rows``), or a folder with a ``labels.csv``.

    Raises:
        DataError: no table, missing or unknown columns, or a label that is none of the allowed words or
            numbers: to leave such rows out could drop a whole class unseen.
    """
    path = root / "labels.csv" if root.is_dir() else root
    images: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(read_rows(path), start=2):
        demand_known_words(row, f"{path}: row {number}")
        if row["image"]:
            images.setdefault(row["image"], []).append((number, row))
        else:
            yield Skipped(f"{path}: row {number}", "annotation", "the column image is empty")
    for rows in images.values():
        yield from _image(rows, path)


def demand_known_words(row: Row, where: str) -> None:
    """See that the labels of a row are allowed words and numbers.

    Raises:
        DataError: they are not.
    """
    try:
        read_label(row["label"])
        for name, allowed in _CODES.items():
            if read_number(row[name], name) not in allowed and row[name].lower() not in ("", "nan"):
                raise ValueError(f"{name} {row[name]!r} is none of: {', '.join(map(str, allowed))}, or empty")
    except ValueError as error:
        raise DataError(f"{where}: {error}. Correct the table") from None


def demand_known_split(split: str) -> None:
    """See that a split is ``train``, ``test`` or empty.

    Raises:
        ValueError: it is not.
    """
    if split not in ("", "train", "test"):
        raise ValueError(f"split {split!r} is none of: train, test, or empty")


def _image(rows: list[tuple[int, Row]], path: Path) -> Iterator[Record | Skipped]:
    """One record of the rows of one image, and what is wrong with any of them."""
    (first, row), *others = rows
    used = [row]
    for number, other in others:
        differ = [name for name in row if row[name] != other.get(name, "")]
        if not differ or set(differ) - _MAY_DIFFER or "findings" not in differ:
            why = f"contradicts row {first} in: {', '.join(differ)}" if differ else f"repeats row {first}"
            yield Skipped(f"{path}: row {number}", "annotation", why)
        else:
            used.append(other)
    try:
        file = _file(row["image"], path.parent)
        yield _record(used, file, read_header(file), path.parent)
    except ImageReadError as error:
        yield Skipped(str(error.path), error.code, error.why)
    except ValueError as error:
        yield Skipped(f"{path}: row {first}", "annotation", str(error))


def _file(name: str, folder: Path) -> Path:
    """The image, which must lie in the folder of the table, so that both can move together."""
    file = Path(os.path.normpath(folder / name.replace("\\", "/")))
    if not file.is_relative_to(os.path.normpath(folder)):
        raise ValueError(f"image {name!r} does not lie in the folder of the table")
    return file


def _record(rows: list[Row], file: Path, header: Header, folder: Path) -> Record:
    row = rows[0]
    if row["modality"] not in MODALITIES:
        raise ValueError(f"modality {row['modality']!r} is none of: {', '.join(MODALITIES)}")
    demand_known_split(row["split"])
    if not row["domain"]:
        raise ValueError("the column domain is empty")
    attributes = attributes_of(row)
    if unknown := set(flags_of(attributes)) - FLAGS.keys():
        raise ValueError(f"flag {min(unknown)!r} is none of: {', '.join(FLAGS)}; join several by +")
    labels = [label_of(each) for each in rows]
    malignant, severity = worst(labels)
    name = file.relative_to(os.path.normpath(folder)).as_posix()
    spacing, source = _spacing(row, header)
    return Record(
        image_id=f"{row['domain']}/{name}",
        path=file,
        patient=row["patient"] or f"{row['domain']}/{name}",
        patient_known=bool(row["patient"]),
        domain=row["domain"],
        modality=row["modality"],
        malignant=malignant,
        severity=severity,
        laterality=read_side(row["laterality"]) or header.laterality,
        view=row["view"].upper() or header.view,
        spacing=spacing,
        spacing_source=source,
        findings=tuple(
            f
            for each, (label, _) in zip(rows, labels, strict=True)
            for f in read_findings(each["findings"], label)
        ),
        pair_key=row["pair"],
        official_split=row["split"],
        attributes=attributes
        | ({"spacing_tag": header.spacing_tag} if header.spacing_tag and not row["spacing_um"] else {})
        | flagged({*flags_of(attributes), *_odd(row, header)}),
    )


def _odd(row: Row, header: Header) -> set[str]:
    """Flags of what a DICOM header says that cannot be true, or that the table contradicts."""
    flags = flags_of_warnings(header.warnings) - ({"no_spacing"} if row["spacing_um"] else set())
    side = read_side(row["laterality"])
    return flags | ({"side_differs"} if side and header.laterality not in ("", side) else set())


def label_of(row: Row) -> Label:
    """What label, malignant and severity say together.

    Raises:
        ValueError: they contradict one another.
    """
    malignant, severity = read_label(row["label"])
    severity = _agreed(severity, read_number(row["severity"], "severity"), row)
    malignant = _agreed(malignant, read_number(row["malignant"], "malignant"), row)
    implied = UNKNOWN if math.isnan(severity) else float(severity >= 2)
    return _agreed(malignant, implied, row), severity


def _agreed(one: float, other: float, row: Row) -> float:
    if not (math.isnan(one) or math.isnan(other) or one == other):
        told = {name: row[name] for name in ("label", "malignant", "severity") if row[name]}
        raise ValueError(f"the labels contradict one another: {told}")
    return other if math.isnan(one) else one


def worst(labels: Iterable[Label]) -> Label:
    """The label of several lesions or rows together: that of the worst one; unknown ones say nothing.

    The severity is unknown where one of the lesions that decide has none and so may be worse than the
    others: a malignant lesion beside a benign one makes an image malignant, and in situ or invasive.
    """
    known = [label for label in labels if not math.isnan(label[0])]
    malignant = max((label[0] for label in known), default=UNKNOWN)
    severities = [severity for each, severity in known if each == malignant]
    if not known or (any(map(math.isnan, severities)) and _TOPS[malignant] not in severities):
        return malignant, UNKNOWN
    return malignant, max(severity for severity in severities if not math.isnan(severity))


def _spacing(row: Row, header: Header) -> tuple[Spacing | None, SpacingSource]:
    across, down = (read_number(row[name], name, low=0.0) for name in ("spacing_um", "spacing_um_y"))
    if math.isnan(across):
        return header.spacing, "header" if header.spacing else "unknown"
    source = row["spacing_source"] or "override"
    if source not in get_args(SpacingSource):
        raise ValueError(f"spacing_source {source!r} is none of: {', '.join(get_args(SpacingSource))}")
    return Spacing(across, across if math.isnan(down) else down), cast(SpacingSource, source)


def attributes_of(row: Row) -> dict[str, str]:
    """What subgroups are made of, and whether the image is completely annotated."""
    named = {
        name.removeprefix(ATTRIBUTE): cell
        for name, cell in row.items()
        if name.startswith(ATTRIBUTE) and cell
    }
    return named | (ANNOTATED if row["annotated"].lower() in ("yes", "1", "true") else {})


SOURCE = Source(
    index=index,
    about="any images with a CSV or Parquet table beside them",
    licence="that of the images",
)
