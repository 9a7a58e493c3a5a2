"""Submission files of CAMELYON16, CAMELYON17 and BACH, in the formats of the challenges."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mammopath.errors import DataError
from mammopath.files import write_text
from mammopath.metrics.camelyon17 import pn_stage
from mammopath.types import SEVERITIES

_NODE = re.compile(r"(?P<patient>patient_\d{3})_node_\d")


def write_camelyon16_slides(path: Path, scores: Mapping[str, float]) -> None:
    """Task 2: one row per slide, its name and the probability that it has metastases; no header.

    Raises:
        DataError: a probability outside of 0 to 1.
    """
    if wrong := [name for name, score in scores.items() if not 0 <= score <= 1]:
        raise DataError(f"{wrong[0]}: {scores[wrong[0]]} is no probability")
    _write(path, ((name, f"{score:.6g}") for name, score in sorted(scores.items())))


def write_camelyon16_detections(folder: Path, detections: Mapping[str, Float[np.ndarray, "_ 3"]]) -> None:
    """Task 1: a file ``SLIDE.csv`` per slide with a row per detection: confidence, x, y; no header.

    A slide without detections gets an empty file: false positives are averaged over all files.

    Args:
        folder: made if need be.
        detections: by slide: confidence, x, y; coordinates are rounded down to whole pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in detections.items():
        _write(folder / f"{name}.csv", ((f"{p:.6g}", int(x), int(y)) for p, x, y in rows))


def read_camelyon16_detections(folder: Path) -> dict[str, Float[np.ndarray, "_ 3"]]:
    """Detections by slide, from the files of task 1.

    Raises:
        DataError: no file, or a row that is not three numbers.
    """
    found = {path.stem: _detections(path) for path in sorted(folder.glob("*.csv"))}
    if not found:
        raise DataError(f"{folder}: holds no detections (one SLIDE.csv per slide)")
    return found


def write_camelyon17(path: Path, nodes: Mapping[str, str]) -> None:
    """A row per patient with its pN stage and one per node with its class, under ``patient,stage``.

    Args:
        path: the file, ``submission.csv`` for the challenge.
        nodes: negative, itc, micro or macro by node: ``patient_000_node_0``. The stages follow from them.

    Raises:
        DataError: a name or class of another form.
    """
    patients: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, node in sorted(nodes.items()):
        if not (found := _NODE.fullmatch(name)):
            raise DataError(f"{name!r} is not the name of a node, such as patient_000_node_0")
        patients[found["patient"]][name] = node
    rows = [("patient", "stage")]
    for patient, own in patients.items():
        rows.append((f"{patient}.zip", pn_stage(list(own.values()))))
        rows.extend((f"{name}.tif", node) for name, node in own.items())
    _write(path, rows)


def write_bach(path: Path, classes: Mapping[str, int]) -> None:
    """Part A: a row per field under ``case,class``: its number or name, and 0 normal to 3 invasive.

    Raises:
        DataError: another class.
    """
    if wrong := [case for case, found in classes.items() if found not in range(len(SEVERITIES))]:
        raise DataError(f"{wrong[0]}: class {classes[wrong[0]]} is none of 0 to {len(SEVERITIES) - 1}")
    _write(path, [("case", "class"), *sorted(classes.items())])


def _detections(path: Path) -> Float[np.ndarray, "n 3"]:
    rows = []
    for number, row in enumerate(csv.reader(path.read_text().splitlines()), start=1):
        try:
            confidence, x, y = map(float, row)
        except ValueError:
            raise DataError(f"{path}:{number}: {','.join(row)!r} is not confidence,x,y") from None
        rows.append((confidence, x, y))
    return np.array(rows, dtype=float).reshape(-1, 3)


def _write(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
