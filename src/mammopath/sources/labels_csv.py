"""The columns of ``labels.csv`` as reduced copies of public data sets use them, turned into our own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mammopath.types import Modality, Spacing, SpacingSource

Row = Mapping[str, str]

RADIOLOGY = (
    "source", "file", "patient_id", "laterality", "view", "label", "lesion_x", "lesion_y",
    "lesion_radius_or_mask", "notes",
)  # fmt: skip
PATHOLOGY = (
    "source", "file", "patient_id", "slide_id", "label", "grade_or_class", "magnification_or_mpp", "centre",
    "notes",
)  # fmt: skip

_MPP = re.compile(r"\s*(\d+(?:\.\d+)?)\s*um/px")
_BOX = re.compile(r"bbox_xywh=([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+)")
_KEEP = {name: name for name in ("density", "pathology", "subtlety", "tissue", "class")} | {
    "assessment": "birads"
}
"""Keys of the notes that become attributes, and what those are called."""


@dataclass(frozen=True)
class Export:
    """What is known of one reduced copy beside its table.

    ``domain`` is the site; ``complete`` says that every lesion of its images is annotated.
    """

    domain: str
    spacing: Spacing | None = None
    spacing_source: SpacingSource = "unknown"
    complete: bool = False


EXPORTS: Mapping[str, Export] = {
    "mias_film": Export("mias", Spacing.square(320.0), "published"),
    "cbis_ddsm_mass_800": Export("cbis_ddsm", Spacing(175.0, 300.0), "nominal", complete=True),
    "bach_jpeg": Export("bach", Spacing.square(1.92), "published"),
    "idc_silainanir": Export("idc", Spacing.square(4.0), "nominal"),
}
"""Known values of ``source``. The spacing of CBIS-DDSM squashed to 800 x 800 is nominal: see its card."""


def modality(columns: frozenset[str]) -> Modality | None:
    """The modality whose ``labels.csv`` has these columns, or None if they are neither."""
    if columns == set(RADIOLOGY):
        return "mammogram"
    return "pathology" if columns == set(PATHOLOGY) else None


def translate(row: Row, kind: Modality) -> dict[str, str]:
    """One row in our own columns; text stays text, so that mistakes are told in one place."""
    export = EXPORTS.get(row["source"], Export(row["source"]))
    notes = dict(part.strip().split("=", 1) for part in row["notes"].split(";") if "=" in part)
    spacing = _spacing(row, export)
    return {
        "image": row["file"],
        "patient": row["patient_id"],
        "domain": export.domain,
        "modality": kind,
        "label": row["label"] if kind == "mammogram" else _label(row),
        "laterality": row.get("laterality", ""),
        "view": row.get("view", ""),
        "spacing_um": "" if spacing is None else str(spacing.um_x),
        "spacing_um_y": "" if spacing is None else str(spacing.um_y),
        "spacing_source": "published" if spacing and spacing != export.spacing else export.spacing_source,
        "split": notes.get("split", ""),
        "findings": _finding(row) if kind == "mammogram" else "",
        "annotated": "yes" if export.complete else "",
        **{f"attr_{name}": notes[key] for key, name in _KEEP.items() if key in notes},
    }


def _label(row: Row) -> str:
    """The class is finer than the label, where there is one."""
    return row["grade_or_class"] or row["label"]


def _spacing(row: Row, export: Export) -> Spacing | None:
    told = _MPP.match(row.get("magnification_or_mpp", ""))
    return Spacing.square(float(told[1])) if told else export.spacing


def _finding(row: Row) -> str:
    """A box ``bbox_xywh=LEFT/TOP/WIDTH/HEIGHT``, a circle around the lesion's centre, or nothing.

    What is none of them is handed on as it is, to be refused with its row.
    """
    shape = row["lesion_radius_or_mask"]
    if found := _BOX.fullmatch(shape):
        left, top, width, height = (float(number) for number in found.groups())
        return f"box {left} {top} {left + width} {top + height} {row['label']}"
    if not shape or "=" in shape:
        return shape
    return f"circle {row['lesion_x']} {row['lesion_y']} {shape} {row['label']}"
