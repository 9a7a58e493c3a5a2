"""A record as a row of a manifest, and back."""

import json
import math
from pathlib import Path
from typing import Any, Final

import polars as pl

from mammopath.types import UNKNOWN, Finding, Record, Spacing

SCHEMA: Final = {
    "image_id": pl.String,
    "path": pl.String,
    "patient": pl.String,
    "domain": pl.String,
    "modality": pl.String,
    "malignant": pl.Float64,
    "severity": pl.Float64,
    "patient_known": pl.Boolean,
    "laterality": pl.String,
    "view": pl.String,
    "um_x": pl.Float64,
    "um_y": pl.Float64,
    "spacing_source": pl.String,
    "findings": pl.String,
    "pair_key": pl.String,
    "official_split": pl.String,
    "attributes": pl.String,
    "bytes": pl.Int64,
}
"""Columns of a manifest file. Null is unknown; ``findings`` and ``attributes`` are JSON; ``path`` is relative
to the root; ``bytes`` is the size of the file when it was indexed, -1 if it could not be seen."""

_PLAIN: Final = (
    "image_id", "patient", "domain", "modality", "patient_known", "laterality", "view", "spacing_source",
    "pair_key", "official_split",
)  # fmt: skip


def to_row(record: Record, size: int) -> dict[str, Any]:
    """Cells of a record, all but its path."""
    spacing = record.spacing
    return {name: getattr(record, name) for name in _PLAIN} | {
        "malignant": _or_none(record.malignant),
        "severity": _or_none(record.severity),
        "um_x": float(spacing.um_x) if spacing else None,
        "um_y": float(spacing.um_y) if spacing else None,
        "findings": json.dumps([_plain_finding(f) for f in record.findings]),
        "attributes": json.dumps(dict(record.attributes), sort_keys=True, ensure_ascii=False),
        "bytes": size,
    }


def from_row(row: dict[str, Any], root: Path) -> Record:
    """The record of a row whose path is relative to ``root``."""
    return Record(
        **{name: row[name] for name in _PLAIN},
        path=root / row["path"],
        malignant=_or_nan(row["malignant"]),
        severity=_or_nan(row["severity"]),
        spacing=None if row["um_x"] is None else Spacing(row["um_x"], row["um_y"]),
        findings=tuple(_finding(f) for f in json.loads(row["findings"])),
        attributes=json.loads(row["attributes"]),
    )


def _plain_finding(finding: Finding) -> dict[str, Any]:
    """Without the key ``holes`` where there is none, so that fingerprints of older manifests stay true."""
    plain = {
        "kind": finding.kind,
        "points": [[float(x), float(y)] for x, y in finding.points],
        "radius": float(finding.radius),
        "malignant": _or_none(finding.malignant),
        "name": finding.name,
    }
    holes = [[[float(x), float(y)] for x, y in hole] for hole in finding.holes]
    return plain | ({"holes": holes} if holes else {})


def _finding(values: dict[str, Any]) -> Finding:
    points, holes = _points(values["points"]), tuple(map(_points, values.get("holes", ())))
    return Finding(**values | {"points": points, "malignant": _or_nan(values["malignant"]), "holes": holes})


def _points(values: list[list[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in values)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _or_nan(value: float | None) -> float:
    return UNKNOWN if value is None else value
