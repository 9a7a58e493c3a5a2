"""What subgroups of cases are made of: view, density, age band, vendor, lesion; and where each image lies."""

from collections.abc import Sequence

import polars as pl

from mammopath.cohort.rows import SCHEMA, to_row
from mammopath.types import Record

GROUPS = {
    "density": ("density", "acr", "tissue"),
    "vendor": ("vendor", "manufacturer", "scanner"),
    "lesion": ("lesion", "abnormality"),
}
"""Subgroup -> attributes of records that tell it, in order of preference."""


PREPARED = tuple(name for name in SCHEMA if name not in ("path", "findings", "bytes"))
"""Columns of a manifest that a picture of an image can be made from again, as the network got it."""


def case_table(records: Sequence[Record]) -> pl.DataFrame:
    """A row per image: its file, what preparing it needs, and its groups; empty where not known."""
    rows = [
        {"path": str(r.path.absolute())}
        | {name: value for name, value in to_row(r, -1).items() if name in PREPARED}
        | {group: _told(r, names) for group, names in GROUPS.items()}
        | {"age": age_band(_told(r, ("age", "patient_age")))}
        for r in records
    ]
    groups = dict.fromkeys(("path", *GROUPS, "age"), pl.String)
    return pl.DataFrame(rows, schema_overrides=groups | {name: SCHEMA[name] for name in PREPARED})


def age_band(told: str) -> str:
    """Ten years around an age such as ``61``, ``61.0`` or ``061Y``; empty where it is not one."""
    digits = told.strip().upper().removesuffix("Y").split(".")[0]
    if not digits.isdigit() or not 0 < int(digits) < 120:
        return ""
    age = int(digits)
    if age < 40:
        return "under 40"
    return "80 and over" if age >= 80 else f"{age // 10 * 10} to {age // 10 * 10 + 9}"


def _told(record: Record, names: Sequence[str]) -> str:
    found = next((record.attributes[n] for n in names if record.attributes.get(n)), "")
    kinds = sorted({f.name for f in record.findings if f.name})
    return found or ("+".join(kinds) if "lesion" in names else "")
