"""BACH / ICIAR 2018, part B: slides of breast tissue, H&E, ten of them outlined (Aresta et al. 2019)."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.outlines import Meaning, Outline, area
from mammopath.images.slide_spacing import spacing_of
from mammopath.sources.slides import NO_SPACINGS, SLIDE, Header, files_by_name, read_header, read_outlines
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import SEVERITIES, UNKNOWN, Record, Skipped, Spacing

_NAME = re.compile(r".+")

WORDS = {"invasive": "invasive", "situ": "in situ", "benign": "benign", "normal": "normal"}
"""Words in the free text of regions ("Carcinoma in situ", "Invasive carcinoma"), and their severity."""

_BY_NAME = {
    name: Meaning(name, float(severity >= 2), use="finding" if severity else "nothing")
    for severity, name in enumerate(SEVERITIES)
}
"""A normal region is what is left around the others, so it is known, but no lesion."""


def meaning(outline: Outline) -> Meaning | None:
    """By the text of a region, else by its group."""
    for text in (outline.name, outline.group):
        for word, name in WORDS.items():
            if word in text.lower():
                return _BY_NAME[name]
    return None


def index(root: Path, spacings: Mapping[str, Spacing] = NO_SPACINGS) -> Iterator[Record | Skipped]:
    """List the slides of BACH: ``WSI/A01.svs`` with ``A01.xml`` (Aperio; ASAP in copies), and those without.

    Regions lie within regions, and the smaller one tells: findings are listed from the largest to the
    smallest, to be painted in this order. A slide is as severe as its worst region; one without an XML is not
    labelled.

    Args:
        root: folder of the data set.
        spacings: by name of slide, in place of headers.

    Raises:
        DataError: no slide is found.
    """
    slides, doubles = files_by_name(root, (".svs",), _NAME)
    if not slides:
        raise DataError(f"{root}: holds no slide of BACH (WSI/A01.svs, ...); give the folder as unpacked")
    drawings, more = files_by_name(root, (".xml",), _NAME)
    yield from (*doubles, *more)
    for name, path in slides.items():
        header = read_header(path, spacing_of(path, spacings))
        if isinstance(header, Skipped):
            yield header
        else:
            yield from _slide(path, header, root, drawing=drawings.get(name))


def _slide(path: Path, header: Header, root: Path, *, drawing: Path | None) -> Iterator[Record | Skipped]:
    reading = read_outlines(drawing, meaning, header)
    yield from reading.skipped
    findings = sorted(reading.findings, key=lambda finding: -area(finding.points))
    is_labelled = drawing is not None and reading.is_complete
    severity = (
        max((float(SEVERITIES.index(f.name)) for f in findings), default=0.0) if is_labelled else UNKNOWN
    )
    yield Record(
        image_id=f"bach_wsi/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"bach_wsi_{path.stem}",
        patient_known=False,
        domain="bach",
        modality="pathology",
        malignant=float(severity >= 2) if is_labelled else UNKNOWN,
        severity=severity,
        spacing=header.spacing,
        spacing_source=header.spacing_source,
        findings=tuple(findings),
        attributes=SLIDE | (ANNOTATED if is_labelled else {}),
    )


SOURCE = Source(
    index=index,
    index_spaced=index,
    about="BACH (ICIAR 2018) part B, whole slides of breast tissue, H&E, Porto",
    licence="CC BY-NC-ND 4.0",
)
