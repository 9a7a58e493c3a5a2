"""BACH / ICIAR 2018, part A: 400 microscopy fields of breast tissue, H&E, Porto (Aresta et al. 2019)."""

import csv
from collections.abc import Iterator
from pathlib import Path

from mammopath.sources.source import Source, first_folder, measured
from mammopath.types import Record, Skipped, Spacing

_CLASSES = {"Normal": 0.0, "Benign": 1.0, "InSitu": 2.0, "Invasive": 3.0}
"""Class folders as published, and the severity of each."""

_FIELD_UM = (2048 * 0.42, 1536 * 0.42)
"""Width and height of a field in micrometres: 2048 x 1536 pixels of 0.42 um."""

_REDUCED = {"normal": "Normal", "benign": "Benign", "in_situ": "InSitu", "invasive": "Invasive"}
"""Words of ``grade_or_class`` in the labels.csv of the reduced form."""

_TRUTH = "microscopy_ground_truth.csv"


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the fields of BACH.

    Takes the folder as published (``Photos/{Normal,Benign,InSitu,Invasive}`` with or without
    ``microscopy_ground_truth.csv``), or a reduced form with ``labels.csv``. Fields may be of any size:
    spacing follows it, since a field is always 860 x 645 um.

    Raises:
        DataError: neither form is found.
    """
    if (root / "labels.csv").is_file():
        yield from _reduced(root)
        return
    folder = first_folder(
        root, ("", "Photos", "ICIAR2018_BACH_Challenge/Photos"), "InSitu", what="BACH field"
    )
    truth = _read_truth(folder / _TRUTH)
    seen = set()
    for label in _CLASSES:
        for path in sorted((folder / label).glob("*.*")):
            seen.add(path.name)
            told = truth.get(path.name, label)
            if told == label:
                yield _record(path, label, root)
            else:
                yield Skipped(str(path), "annotation", f"lies in {label}, but {_TRUTH} says {told}")
    for name in sorted(truth.keys() - seen):
        yield Skipped(
            str(folder / truth[name] / name), "missing", f"is in {_TRUTH}, but there is no such file"
        )


def _read_truth(path: Path) -> dict[str, str]:
    """File name -> class, of a table without a header; empty where there is no table."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    return {row[0]: row[1] for row in rows if len(row) >= 2 and row[1] in _CLASSES}


def _reduced(root: Path) -> Iterator[Record | Skipped]:
    with (root / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            name, word = row.get("file") or "", row.get("grade_or_class") or ""
            if not name or word not in _REDUCED:
                why = f"file {name!r} has the class {word!r}, none of {', '.join(_REDUCED)}"
                yield Skipped(f"{root / 'labels.csv'}:{number}", "annotation", why)
            else:
                yield _record(root / name, _REDUCED[word], root)


def _record(path: Path, label: str, root: Path) -> Record | Skipped:
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    return Record(
        image_id=f"bach/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"bach_{path.stem}",
        patient_known=False,
        domain="bach",
        modality="pathology",
        malignant=float(_CLASSES[label] >= 2),
        severity=_CLASSES[label],
        spacing=Spacing(_FIELD_UM[0] / size[1], _FIELD_UM[1] / size[0]),
        spacing_source="published",
    )


_EACH = dict.fromkeys(("normal", "benign", "in situ", "invasive"), 100)

SOURCE = Source(
    index=index,
    about="BACH (ICIAR 2018) part A, microscopy fields of breast tissue, H&E, Porto",
    licence="CC BY-NC-ND 4.0",
    editions={"published": {"images": 400, "malignant": 200, **_EACH}},
)
