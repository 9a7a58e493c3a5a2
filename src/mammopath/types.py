"""The plain values that cross rooms: Spacing, Finding, Record, Skipped. No torch here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Modality = Literal["mammogram", "pathology"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Pairing = Literal["same_patient", "same_label", "none"]
"""What links a mammogram to a piece of tissue; always explicit, always reported."""

SEVERITIES = ("normal", "benign", "in situ", "invasive")
"""Ordinal severity categories 0..3. Not the Nottingham grade."""


@dataclass(frozen=True, slots=True)
class Ordinal:
    """A further ordinal target of one modality, read from an attribute of its records.

    Attributes:
        attribute: of ``Record.attributes``.
        levels: its values from least to worst; any other value is unknown.
    """

    attribute: str
    levels: tuple[str, ...]

    def level(self, attributes: Mapping[str, str]) -> float:
        """Place among the levels, from 0; NaN where unknown."""
        value = attributes.get(self.attribute, "")
        return float(self.levels.index(value)) if value in self.levels else UNKNOWN


ORDINALS: Mapping[Modality, Ordinal] = {
    "mammogram": Ordinal("birads", ("1", "2", "3", "4", "5")),
    "pathology": Ordinal("pn", ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")),
}
"""BI-RADS assessment (0 is incomplete and 6 known beforehand, so neither is a level), and the pN stage of
CAMELYON17. Both are a patient's: of several images the worst counts."""

NODE_CLASSES = ("negative", "itc", "micro", "macro")
"""What a lymph node holds, from least to worst: nothing, isolated tumour cells, micro-, macrometastasis."""

SpacingSource = Literal["header", "published", "nominal", "override", "unknown"]
"""Where a spacing comes from; ``nominal`` is an assumption that the data set's card explains."""

UNKNOWN = math.nan
"""An unknown label is NaN, never 0."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """Size of one level-0 pixel in micrometres, across (x) and down (y)."""

    um_x: float
    um_y: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.um_x) and math.isfinite(self.um_y) and self.um_x > 0 and self.um_y > 0):
            raise ValueError(f"spacing must be positive and finite, got {self.um_x} x {self.um_y} um")

    @classmethod
    def square(cls, um: float) -> "Spacing":
        """Spacing of square pixels of ``um`` micrometres."""
        return cls(um, um)

    def scaled(self, factor: float) -> "Spacing":
        """Spacing after each pixel has grown by ``factor``."""
        return Spacing(self.um_x * factor, self.um_y * factor)


@dataclass(frozen=True, slots=True)
class Finding:
    """One annotated lesion, in level-0 pixels of its image (x to the right, y down).

    Attributes:
        kind: ``box``, ``polygon``, ``circle`` or ``point``.
        points: box: (left, top), (right, bottom); polygon: its corners; circle and point: the centre.
        radius: of a circle, in level-0 pixels; 0 otherwise.
        malignant: 1, 0 or NaN (unknown).
        name: what the source calls it (mass, calcification, metastasis, ...).
        holes: outlines of what is cut out of a polygon.
    """

    kind: Literal["box", "polygon", "circle", "point"]
    points: tuple[tuple[float, float], ...]
    radius: float = 0.0
    malignant: float = UNKNOWN
    name: str = ""
    holes: tuple[tuple[tuple[float, float], ...], ...] = ()

    def box(self) -> tuple[float, float, float, float]:
        """Bounding box (left, top, right, bottom) in level-0 pixels."""
        xs, ys = [p[0] for p in self.points], [p[1] for p in self.points]
        r = self.radius
        return min(xs) - r, min(ys) - r, max(xs) + r, max(ys) + r


@dataclass(frozen=True, slots=True)
class Record:
    """One image file: where it is, whose it is, which site made it, what is known of it.

    Attributes:
        image_id: unique in a manifest, stable across machines: ``source/relative/path``.
        path: the file.
        patient: the split unit; never in two folds. Where the source does not know its patients,
            every image is its own and ``patient_known`` is False.
        domain: site or scanner; what leave-one-domain-out leaves out.
        modality: ``mammogram`` or ``pathology``.
        malignant: 1, 0 or NaN (unknown).
        severity: 0 normal, 1 benign, 2 in situ, 3 invasive, or NaN.
        laterality: ``L``, ``R`` or empty; view: ``CC``, ``MLO``, ... or empty.
        spacing: size of a level-0 pixel, or None; spacing_source says where it comes from. The attribute
            ``spacing_tag`` names the DICOM elements of one from a header.
        findings: annotated lesions in level-0 pixels.
        pair_key: images of both modalities with the same non-empty key are of the same patient.
        official_split: the split that the source publishes (``train``, ``test``), or empty.
        attributes: what subgroups are made of (density, age, vendor, lesion type, ...).
    """

    image_id: str
    path: Path
    patient: str
    domain: str
    modality: Modality
    malignant: float = UNKNOWN
    severity: float = UNKNOWN
    patient_known: bool = True
    laterality: str = ""
    view: str = ""
    spacing: Spacing | None = None
    spacing_source: SpacingSource = "unknown"
    findings: tuple[Finding, ...] = ()
    pair_key: str = ""
    official_split: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.image_id and self.patient and self.domain):
            raise ValueError(f"image_id, patient and domain must not be empty: {self.path}")
        if self.malignant not in (0.0, 1.0) and not math.isnan(self.malignant):
            raise ValueError(f"{self.image_id}: malignant must be 1, 0 or NaN, got {self.malignant}")
        if self.severity not in (0.0, 1.0, 2.0, 3.0) and not math.isnan(self.severity):
            raise ValueError(f"{self.image_id}: severity must be 0..3 or NaN, got {self.severity}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """One file or row that was left out, with the reason code and a sentence for people."""

    where: str
    code: str
    why: str
