"""Cells of spreadsheets (.xls, .xlsx) and of CSV files with any separator, as text by column name."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

from mammopath.errors import DataError
from mammopath.sources.columns import Row


def read_sheet(path: Path, *, separator: str = ",") -> list[Row]:
    """Rows of the first sheet, or of a CSV file; the first row names the columns.

    Whole numbers lose the ``.0`` that spreadsheets give them.

    Raises:
        DataError: not such a file, or no rows.
    """
    try:
        cells = _csv(path, separator) if path.suffix.lower() == ".csv" else _sheet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such table") from None
    except (OSError, UnicodeDecodeError, csv.Error, CalamineError, ValueError) as error:
        raise DataError(f"{path}: not a readable table ({error}); save it as CSV") from None
    rows = [row for row in cells if any(row)]
    if len(rows) < 2:
        raise DataError(f"{path}: the table has no rows")
    names = rows[0]
    return [dict(zip(names, [*row, *[""] * len(names)], strict=False)) for row in rows[1:]]


def _csv(path: Path, separator: str) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [[_text(cell) for cell in row] for row in csv.reader(file, delimiter=separator)]


def _sheet(path: Path) -> list[list[str]]:
    sheet: Iterable[Sequence[object]] = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    return [[_text(cell) for cell in row] for row in sheet]


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()
