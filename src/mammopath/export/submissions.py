"""Submission files read back, and those that finished studies and predictions amount to."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from mammopath.errors import DataError
from mammopath.export.challenges import write_bach, write_camelyon16_detections, write_camelyon16_slides
from mammopath.types import SEVERITIES

T = TypeVar("T")

SLIDES, DETECTIONS = "slides.csv", "detections"
"""Of a submission to CAMELYON16: the file of task 2 and the folder of task 1."""


def read_camelyon16_slides(path: Path) -> dict[str, float]:
    """Probability of metastases by slide: rows ``slide,probability``, with or without a header.

    Raises:
        DataError: not a readable table, a row of another form, no probability, or a slide that stands twice.
    """
    found: dict[str, float] = {}
    for number, (name, score) in _pairs(path):
        try:
            value = float(score)
        except ValueError:
            if number == 1:
                continue  # a header
            value = math.nan
        if not 0 <= value <= 1:
            raise DataError(f"{path}:{number}: {score!r} is no probability from 0 to 1")
        _keep(found, name, value, where=f"{path}:{number}")
    return _demand(found, path, "slide_name,0.5")


def read_bach(path: Path) -> dict[str, int]:
    """Class of each field, 0 normal to 3 invasive: rows ``case,class``, with or without a header.

    Raises:
        DataError: not a readable table, a row of another form, another class, or a field that stands twice.
    """
    found: dict[str, int] = {}
    for number, (name, label) in _pairs(path):
        if number == 1 and label.lower() == "class":
            continue
        if label not in map(str, range(len(SEVERITIES))):
            raise DataError(f"{path}:{number}: class {label!r} is none of 0 to {len(SEVERITIES) - 1}")
        _keep(found, name, int(label), where=f"{path}:{number}")
    return _demand(found, path, "n001,0")


def write_study_camelyon16(study: Path, out: Path) -> tuple[int, list[str]]:
    """Write the slides of a finished ``mammopath slides stages`` in the formats of CAMELYON16.

    Args:
        study: its folder, with ``stages.json``.
        out: gets ``slides.csv`` and a file in ``detections`` for each slide.

    Returns:
        How many slides were written, and the names of those that could not be read and have no score.

    Raises:
        DataError: not such a folder.
    """
    path = study / "stages.json"
    nodes = _json(path).get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise DataError(f"{path}: lists no nodes; give the folder of a finished mammopath slides stages")
    try:
        read = {node["slide"]: node for node in nodes if not node["note"]}
        scores = {name: float(node["score"]) for name, node in read.items()}
        places = {name: _rows(node["detections"]) for name, node in read.items()}
        unread = [str(node["slide"]) for node in nodes if node["note"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a node lacks its score or its detections ({error})") from None
    write_camelyon16_slides(out / SLIDES, scores)
    write_camelyon16_detections(out / DETECTIONS, places)
    return len(scores), unread


def write_predicted_bach(predictions: Path, path: Path) -> tuple[int, list[str]]:
    """Write the fields of a ``mammopath predict`` as a submission to part A of BACH: the likeliest category.

    Args:
        predictions: its folder, with ``predictions.jsonl``.
        path: the file.

    Returns:
        How many fields were written, and the identifiers of tissue images without a severity.

    Raises:
        DataError: not such a folder, no severity at all, or two fields of one name.
    """
    classes: dict[str, int] = {}
    without: list[str] = []
    for image in _tissue(predictions / "predictions.jsonl"):
        told = {name: value for name, value in image["severity"].items() if value is not None}
        if not set(SEVERITIES) <= told.keys():
            without.append(image["image_id"])
            continue
        likeliest = max(range(len(SEVERITIES)), key=lambda k: float(told[SEVERITIES[k]]))
        _keep(classes, Path(image["image_id"]).stem, likeliest, where=str(predictions))
    if not classes:
        raise DataError(f"{predictions}: no tissue image has a severity; the run must learn it")
    write_bach(path, classes)
    return len(classes), without


def _tissue(path: Path) -> Iterator[Mapping[str, Any]]:
    """Tissue images of every case."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise DataError(f"{path}: there is none; give the folder that mammopath predict made") from None
    for number, line in enumerate(lines, start=1):
        try:
            yield from (i for i in json.loads(line)["images"] if i["modality"] == "pathology")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: is no prediction ({error})") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a finished study ({error})") from None
    return found if isinstance(found, dict) else {}


def _rows(detections: Sequence[Sequence[float]]) -> Float[np.ndarray, "n 3"]:
    return np.array(detections, dtype=float).reshape(-1, 3)


def _pairs(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Rows of two cells, with their numbers; empty ones are passed over."""
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from None
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2 or not all(cells):
            raise DataError(f"{path}:{number}: {','.join(row)!r} is not a name and a value")
        yield number, (cells[0], cells[1])


def _keep(found: dict[str, T], name: str, value: T, *, where: str) -> None:
    if name in found:
        raise DataError(f"{where}: {name} stands twice")
    found[name] = value


def _demand(found: dict[str, T], path: Path, example: str) -> dict[str, T]:
    if not found:
        raise DataError(f"{path}: has no row such as {example}")
    return found
