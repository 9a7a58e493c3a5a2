"""The rows of a CSV or Parquet table, as text, in our own columns."""

import csv
import difflib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from mammopath.errors import DataError
from mammopath.sources import labels_csv

Row = dict[str, str]

COLUMNS: Mapping[str, str] = {
    "image": "path of the image, relative to the table's folder; required",
    "patient": "pseudonym of the patient, the same wherever seen; empty if not known; required",
    "domain": "site or scanner; required",
    "modality": "mammogram or pathology; required",
    "label": "normal, benign, in situ, invasive, malignant, not malignant; empty or unknown if not known",
    "malignant": "1, 0 or empty; in place of label or beside it",
    "severity": "0 normal, 1 benign, 2 in situ, 3 invasive, or empty",
    "laterality": "L, R or empty",
    "view": "CC, MLO, ... or empty",
    "spacing_um": "width of a pixel in micrometres, or empty",
    "spacing_um_y": "height of a pixel, if it is not the same",
    "spacing_source": "header, published, nominal or override (the default)",
    "split": "train or test where the data set publishes a split",
    "pair": "images of both modalities with the same value are of the same patient",
    "findings": "lesions in pixels of the image: box 1 2 3 4 malignant; circle 5 6 7; point 8 9; polygon ...",
    "annotated": "yes if findings holds every lesion of the image, so that elsewhere there is none",
}
"""Columns of our own tables. A column ``attr_NAME`` becomes the attribute NAME (density, age, vendor, ...);
any other column is refused, so that a misspelt one is noticed."""

REQUIRED = ("image", "patient", "domain", "modality")
ATTRIBUTE = "attr_"


def read_rows(path: Path) -> list[Row]:
    """Rows of a table with our ``COLUMNS`` or with those of ``labels.csv``, which are translated.

    Findings of a ``lesions.csv`` beside a ``labels.csv`` stand in place of those in the table.

    Raises:
        DataError: not a table, no rows, or missing or unknown columns.
    """
    rows = read_cells(path)
    kind = labels_csv.modality(frozenset(rows[0]))
    if kind is None:
        _demand_columns(rows[0], path)
        return [dict.fromkeys(COLUMNS, "") | row for row in rows]
    translated = [dict.fromkeys(COLUMNS, "") | labels_csv.translate(row, kind) for row in rows]
    beside = path.with_name("lesions.csv")
    if path.name != "labels.csv" or not beside.is_file():
        return translated
    findings = _lesions(beside)
    return [row | {"findings": findings.get(row["image"], row["findings"])} for row in translated]


def read_cells(path: Path) -> list[Row]:
    """Cells of a CSV or Parquet file as text without spaces around it; null and NaN are empty.

    Raises:
        DataError: not such a file, or no rows.
    """
    try:
        rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such table; give a .csv or .parquet file") from None
    except (OSError, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path}: not a readable table ({error}); save it as UTF-8 CSV or as Parquet"
        ) from None
    if not rows:
        raise DataError(f"{path}: the table has no rows")
    return rows


def _lesions(path: Path) -> dict[str, str]:
    """Findings by image."""
    rows = read_cells(path)
    if labels_csv.modality(frozenset(rows[0])) != "mammogram":
        raise DataError(
            f"{path}: its columns are not {', '.join(labels_csv.RADIOLOGY)}; correct or remove it"
        )
    found = defaultdict(list)
    for row in rows:
        found[row["file"]].append(labels_csv.translate(row, "mammogram")["findings"])
    return {image: "; ".join(findings) for image, findings in found.items()}


def _csv(path: Path) -> list[Row]:
    """Rows of a CSV file; separated by semicolons, as many spreadsheets do, where its first line says so."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        separator = ";" if first.count(";") > first.count(",") else ","
        reader = csv.DictReader(file, restval="", strict=True, delimiter=separator)
        names = [str(name).strip() for name in reader.fieldnames or () if name]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise csv.Error(f"column {', '.join(twice)} is there twice")
        return [{str(name).strip(): _text(cell) for name, cell in row.items() if name} for row in reader]


def _parquet(path: Path) -> list[Row]:
    rows = pl.read_parquet(path).iter_rows(named=True)
    return [{name.strip(): _text(cell) for name, cell in row.items()} for row in rows]


def _text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(int(cell)) if isinstance(cell, bool) else str(cell).strip()


def _demand_columns(columns: Iterable[str], path: Path) -> None:
    columns = list(columns)
    if missing := [name for name in REQUIRED if name not in columns]:
        raise DataError(
            f"{path}: column {', '.join(missing)} is missing; a table needs: {', '.join(REQUIRED)}"
        )
    unknown = [name for name in columns if name not in COLUMNS and not name.startswith(ATTRIBUTE)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], COLUMNS, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"{path}: unknown column {unknown[0]!r}; {guess}Leave it out, or call it "
            f"{ATTRIBUTE}{unknown[0]} to keep it as an attribute"
        )
    if not {"label", "malignant", "severity"} & set(columns):
        raise DataError(
            f"{path}: no column label, malignant or severity; add one, with empty cells if need be"
        )
