"""The tables of CAMELYON16 and CAMELYON17, with and without header, and what is wrong in them."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammopath.errors import DataError
from mammopath.types import NODE_CLASSES, ORDINALS, Skipped

STAGES = ORDINALS["pathology"].levels

_TEST = re.compile(r"test_(\d{1,3})(\.\w+)?", re.IGNORECASE)
_PATIENT = re.compile(r"(patient_\d{3})(?:_node_(\d))?(?:\.\w+)?", re.IGNORECASE)

_COLUMNS = ("name", "label", "type", "size")
"""Of reference.csv, in this order where it has no header."""

_SIZES = {"macro": "macro", "micro": "micro", "none": "negative", "": ""}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference of CAMELYON16 says of one test slide.

    Attributes:
        tumour: whether it has metastases.
        kind: of cancer the patient has (IDC, DCIS, ...), also of slides without metastases; or empty.
        node: class of the node by its largest metastasis, or empty.
    """

    tumour: bool
    kind: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Stages:
    """The labels of CAMELYON17.

    Attributes:
        patients: pN stage by patient (``patient_000``).
        nodes: class by node (``patient_000_node_0``).
        centres: of patients, where the table has them.
        skipped: rows that say nothing usable.
    """

    patients: Mapping[str, str]
    nodes: Mapping[str, str]
    centres: Mapping[str, str]
    skipped: tuple[Skipped, ...] = ()


def read_reference(path: Path) -> tuple[dict[str, Reference], list[Skipped]]:
    """Labels of the test slides of CAMELYON16 by name (``test_001``), and rows that cannot be used.

    Some copies have a header, most have none.

    Raises:
        DataError: not a readable table, or no row of it is of a test slide.
    """
    rows = list(_rows(path))
    order = {name: i for i, name in enumerate(_COLUMNS)}
    if rows and not _TEST.fullmatch(rows[0][1][0]):
        order = _header(rows.pop(0)[1], path)
    found: dict[str, Reference] = {}
    skipped = []
    for number, row in rows:
        cell = {name: row[i] if i < len(row) else "" for name, i in order.items()}
        match = _TEST.fullmatch(cell["name"])
        label, size = cell["label"].lower(), cell.get("size", "").lower()
        if not match or label not in ("tumor", "tumour", "normal") or size not in _SIZES:
            skipped.append(
                Skipped(f"{path}:{number}", "annotation", f"not a row of the reference: {','.join(row)!r}")
            )
        else:
            reference = Reference(label != "normal", cell.get("type", ""), _SIZES[size])
            found.setdefault(f"test_{int(match[1]):03d}", reference)
    if not found:
        raise DataError(f"{path}: has no row such as test_001,Tumor,IDC,Macro; give the published reference")
    return found, skipped


def read_stages(path: Path) -> Stages:
    """Stages of patients and classes of nodes of CAMELYON17, with or without header and column of centres.

    Their words may be in capitals or small letters.

    Raises:
        DataError: not a readable table, or no row of it is of a patient or node.
    """
    patients: dict[str, str] = {}
    nodes: dict[str, str] = {}
    centres: dict[str, str] = {}
    skipped = []
    rows = list(_rows(path))
    if rows and not _PATIENT.fullmatch(rows[0][1][0]) and "stage" in map(str.lower, rows[0][1]):
        rows.pop(0)
    for number, (name, *rest) in rows:
        match = _PATIENT.fullmatch(name)
        words = {word.lower(): word for word in (NODE_CLASSES if match and match[2] else STAGES)}
        stage = words.get(rest[0].lower() if rest else "")
        if not match or stage is None:
            why = f"not a row of stages: {','.join([name, *rest])!r}"
            skipped.append(Skipped(f"{path}:{number}", "annotation", why))
            continue
        whose = match[1].lower()
        if match[2]:
            nodes[f"{whose}_node_{match[2]}"] = stage
        else:
            patients[whose] = stage
        if len(rest) > 1 and rest[1]:
            centres[whose] = rest[1]
    if not (patients or nodes):
        raise DataError(
            f"{path}: has no row such as patient_000_node_0.tif,negative; give the published table"
        )
    return Stages(patients, nodes, centres, tuple(skipped))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error}); save it as UTF-8 CSV") from None
    yield from ((number, row) for number, row in enumerate(rows, start=1) if any(row))


def _header(row: list[str], path: Path) -> dict[str, int]:
    """Place of each column; those that nobody needs may be missing."""
    names = [cell.lower() for cell in row]
    names = ["name" if name in ("image", "slide", "file") else name for name in names]
    if not {"name", "label"} <= set(names):
        raise DataError(
            f"{path}: its first row, {','.join(row)!r}, is neither a slide nor a header with name,label"
        )
    return {name: names.index(name) for name in _COLUMNS if name in names}
