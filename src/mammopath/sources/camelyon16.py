"""CAMELYON16: 399 slides of sentinel lymph nodes, H&E, two Dutch centres (Ehteshami Bejnordi et al. 2017)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.outlines import Meaning
from mammopath.images.slide_spacing import spacing_of
from mammopath.sources.camelyon_tables import Reference, read_reference
from mammopath.sources.slides import (
    MATERIAL,
    NO_SPACINGS,
    SLIDE,
    Header,
    by_group,
    files_by_name,
    packed,
    read_header,
    read_outlines,
)
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import UNKNOWN, Record, Skipped, Spacing

_NAME = re.compile(r"(normal|tumor|test)_(\d{3})")

TUMOUR = Meaning("metastasis", 1.0)
HOLE = Meaning(use="hole")
GROUPS = {"_0": TUMOUR, "_1": TUMOUR, "tumor": TUMOUR, "_2": HOLE, "exclusion": HOLE}
"""Groups of the XML: ``_0`` to ``_2`` by the README of the data set, the others as in copies of it."""

PARTLY_OUTLINED = frozenset(
    f"tumor_{number:03d}"
    for number in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
) | {"test_114"}
"""Slides with tumour that is not outlined, most of them second sections of the same tissue (README)."""

DUPLICATE = "test_049"
"""Stands twice; the organisers removed it (README)."""

MISCLASSIFIED, RENAMED = "normal_086", "tumor_111"
"""A tumour slide that was published as normal and renamed later (README)."""

_CENTRES = {"camelyon16_radboud": 0.243, "camelyon16_utrecht": 0.2265}
"""Centres by the pixels of their scanners in micrometres: 3DHISTECH and Hamamatsu (Litjens et al. 2018)."""

_TOLERANCE_UM = 0.006


@dataclass(frozen=True)
class _Found:
    """The files of a copy of the data set."""

    slides: Mapping[str, Path]
    drawings: Mapping[str, Path]
    reference: Mapping[str, Reference]
    spacings: Mapping[str, Spacing]


def index(root: Path, spacings: Mapping[str, Spacing] = NO_SPACINGS) -> Iterator[Record | Skipped]:
    """List the slides of CAMELYON16.

    Takes the layout of the challenge (``training/{normal,tumor}``, ``testing/images``,
    ``lesion_annotations``) and that of the archive (``images``, ``annotations``); ``reference.csv`` may be
    anywhere. Labels come from names and the reference, never from an XML that is missing: a tumour slide
    without one is a tumour slide that is not outlined.

    Args:
        root: folder of the data set.
        spacings: by name of slide, in place of headers.

    Raises:
        DataError: no slide is found, or the reference is none.
    """
    slides, doubles = files_by_name(root, (".tif", ".tiff"), _NAME)
    if not slides:
        raise DataError(
            f"{root}: holds no slide of CAMELYON16 (normal_001.tif, tumor_001.tif, test_001.tif, ...)"
        )
    drawings, more = files_by_name(root, (".xml",), _NAME)
    yield from (*doubles, *more, *packed(root, drawings))
    reference: dict[str, Reference] = {}
    if path := next(iter(sorted(root.rglob("*reference*.csv"), key=lambda p: (len(p.name), p))), None):
        reference, bad = read_reference(path)
        yield from bad
    elif any(name.startswith("test") for name in slides):
        why = "there is none, so the labels of test slides without an outline are not known"
        yield Skipped(str(root / "reference.csv"), "missing", why)
    found = _Found(slides, drawings, reference, spacings)
    for name, path in slides.items():
        yield from _slide(name, path, root, found)


def _slide(name: str, path: Path, root: Path, found: _Found) -> Iterator[Record | Skipped]:
    if name == DUPLICATE:
        yield Skipped(str(path), "annotation", "the same slide as another one; the organisers removed it")
        return
    if name == MISCLASSIFIED and RENAMED in found.slides:
        yield Skipped(str(path), "annotation", f"is not normal: it is {RENAMED}, which is here too")
        return
    header = read_header(path, spacing_of(path, found.spacings))
    if isinstance(header, Skipped):
        yield header
        return
    drawing = found.drawings.get(name)
    reading = read_outlines(drawing, by_group(GROUPS), header)
    yield from reading.skipped
    malignant = _malignant(name, drawing, found.reference)
    outlined = drawing is not None and reading.is_complete and bool(reading.findings)
    yield Record(
        image_id=f"camelyon16/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"camelyon16_{name}",
        patient_known=False,
        domain=_centre(header),
        modality="pathology",
        malignant=malignant,
        spacing=header.spacing,
        spacing_source=header.spacing_source,
        findings=reading.findings,
        official_split="test" if name.startswith("test") else "train",
        attributes=SLIDE
        | {MATERIAL: "camelyon16"}
        | _told(found.reference.get(name))
        | _annotated(name, malignant, outlined),
    )


def _malignant(name: str, drawing: Path | None, reference: Mapping[str, Reference]) -> float:
    if not name.startswith("test"):
        return float(name.startswith("tumor") or name == MISCLASSIFIED)
    if name in reference:
        return float(reference[name].tumour)
    return UNKNOWN if drawing is None else 1.0


def _annotated(name: str, malignant: float, outlined: bool) -> dict[str, str]:
    """Complete on slides without tumour; on others where all tumour is outlined."""
    if malignant == 0 or (outlined and name not in PARTLY_OUTLINED):
        return ANNOTATED
    return {"annotated": "partly"} if outlined else {}


def _told(reference: Reference | None) -> dict[str, str]:
    if reference is None:
        return {}
    facts = {"cancer": reference.kind, "node": reference.node}
    return {name: value for name, value in facts.items() if value}


def _centre(header: Header) -> str:
    for name, um in _CENTRES.items():
        if abs(header.spacing.um_x - um) <= _TOLERANCE_UM:
            return name
    return "camelyon16"


SOURCE = Source(
    index=index,
    index_spaced=index,
    about="CAMELYON16, whole slides of sentinel lymph nodes, H&E, Nijmegen and Utrecht",
    licence="CC0",
    editions={
        "published": {"images": 399, "malignant": 160, "not malignant": 239},
        "training part": {"images": 270, "malignant": 111, "not malignant": 159},
    },
)
