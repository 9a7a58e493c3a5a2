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

Said = tuple[str, float, Float[np.ndarray, "_ 3"]]
"""Of a slide: its name, probability of metastases (NaN where it was not read), detections."""


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


def write_said_camelyon16(said: Path, out: Path) -> tuple[int, list[str]]:
    """Write what was said of slides in the formats of CAMELYON16.

    Args:
        said: folder of a finished ``mammopath slides stages`` or ``mammopath slides predict``.
        out: gets ``slides.csv`` and a file in ``detections`` for each slide.

    Returns:
        How many slides were written, and the names of those that could not be read and have no score.

    Raises:
        DataError: not such a folder.
    """
    slides = list(_predicted(said) if (said / "predictions.csv").is_file() else _staged(said))
    scores = {name: score for name, score, _ in slides if not math.isnan(score)}
    write_camelyon16_slides(out / SLIDES, scores)
    write_camelyon16_detections(out / DETECTIONS, {name: rows for name, _, rows in slides if name in scores})
    return len(scores), [name for name, score, _ in slides if math.isnan(score)]


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


def _staged(study: Path) -> Iterator[Said]:
    """Nodes of ``stages.json``."""
    path = study / "stages.json"
    try:
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            score = math.nan if node["score"] is None else float(node["score"])
            yield node["slide"], score, _rows(node["detections"])
    except OSError:
        raise DataError(
            f"{study}: holds neither stages.json nor predictions.csv; give the folder of a finished "
            "mammopath slides stages or slides predict"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no finished study of stages ({error!r})") from None


def _predicted(folder: Path) -> Iterator[Said]:
    """Slides of ``predictions.csv`` with the rows of ``detections.csv``."""
    places: dict[str, list[tuple[float, float, float]]] = {}
    try:
        for row in _table(folder / "detections.csv"):
            place = (float(row["confidence"]), float(row["x"]), float(row["y"]))
            places.setdefault(row["slide"], []).append(place)
        for row in _table(folder / "predictions.csv"):
            score = float(row["score"]) if row["score"] else math.nan
            yield row["slide"], score, _rows(places.get(row["slide"], []))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: is no finished mammopath slides predict ({error!r})") from None


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


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
