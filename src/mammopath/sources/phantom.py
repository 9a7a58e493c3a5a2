"""A synthetic cohort with known truth, to test software with: make it, and list it as records.

The same patients in both modalities, in real file formats, from sites that differ as real ones do. Its
numbers say nothing about patients, and are never to be presented as clinical.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from mammopath.config import dump
from mammopath.errors import ConfigError, DataError
from mammopath.files import write_text
from mammopath.sources.phantom_cohort import Case, PhantomSettings, draw_cases
from mammopath.sources.phantom_files import NOTICE, write_dicom, write_tissue
from mammopath.sources.phantom_mammogram import paint_mammogram
from mammopath.sources.phantom_shapes import Points
from mammopath.sources.phantom_sites import SITES, Site
from mammopath.sources.phantom_tissue import paint_field
from mammopath.types import SEVERITIES, Finding, Modality, Record, Spacing

VIEWS = ("CC", "MLO")
TRUTH = "truth.json"
HEADER = ("PatientID", "InstitutionName", "ImageLaterality", "ViewPosition", "ImagerPixelSpacing")


def generate(root: Path, settings: PhantomSettings) -> None:
    """Paint a cohort under ``root``; ``truth.json`` is written last and holds what is true of every image.

    Raises:
        ConfigError: a site is not in the table of sites.
        DataError: ``root`` holds something already.
    """
    unknown = set(settings.sites) - set(SITES)
    if unknown:
        raise ConfigError(f"no phantom site is called {sorted(unknown)}; there are: {', '.join(SITES)}")
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root}: is not empty; a phantom is never written over something else")
    images: list[dict[str, Any]] = []
    for name in settings.sites:
        site = SITES[name]
        for case in draw_cases(settings, name, settings.prevalence.get(name, site.prevalence)):
            images += _make_mammograms(root, case, site, contrast=settings.contrast)
            images += _make_fields(root, case, site, count=settings.fields)
    truth = {"notice": NOTICE, "settings": dump(settings), "images": images}
    write_text(root / TRUTH, json.dumps(truth, indent=1))


def index(root: Path) -> Iterator[Record]:
    """List the images of a phantom: mammograms by their DICOM headers, labels and outlines by the truth.

    Raises:
        DataError: ``truth.json`` is missing or not what ``generate`` writes, or an image is missing.
    """
    try:
        images = json.loads((root / TRUTH).read_text())["images"]
    except FileNotFoundError:
        raise DataError(f"{root}: has no {TRUTH}; make the phantom again, it was not finished") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root / TRUTH}: not the truth of a phantom: {error!r}") from None
    for image in images:
        yield _mammogram(root, image) if image["file"].endswith(".dcm") else _record(root, image, "pathology")


def _make_mammograms(root: Path, case: Case, site: Site, *, contrast: float) -> Iterator[dict[str, Any]]:
    for view in VIEWS:
        made = paint_mammogram(case, view, site.mammogram, contrast=contrast)
        file = f"{case.site}/mammograms/{case.name}_{case.side}_{view}.dcm"
        write_dicom(root / file, made.pixels, case, view=view, style=site.mammogram)
        yield _truth(file, case, made.outline, um=site.mammogram.mm * 1000)


def _make_fields(root: Path, case: Case, site: Site, *, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        made = paint_field(case, number, site.tissue)
        file = f"{case.site}/tissue/{case.name}_{number}.{site.tissue.format}"
        write_tissue(root / file, made.pixels, site.tissue)
        yield _truth(file, case, made.outline, um=site.tissue.um)


def _truth(file: str, case: Case, outline: Points, *, um: float) -> dict[str, Any]:
    return {
        "file": file,
        "patient": case.name,
        "site": case.site,
        "malignant": case.malignant,
        "severity": case.severity,
        "side": case.side,
        "form": round(case.form, 4),
        "fibrosis": round(case.fibrosis, 4),
        "marked": case.marked,
        "um": um,
        "outline": [[round(x, 2), round(y, 2)] for x, y in outline],
    }


def _record(root: Path, image: dict[str, Any], modality: Modality) -> Record:
    """What both modalities share."""
    return Record(
        image_id=f"phantom/{image['file']}",
        path=root / image["file"],
        patient=image["patient"],
        domain=image["site"],
        modality=modality,
        malignant=float(image["malignant"]),
        severity=float(image["severity"]),
        spacing=Spacing.square(image["um"]),
        spacing_source="header",
        findings=_findings(image),
        pair_key=image["patient"],
        attributes={"phantom": "yes", "form": str(image["form"]), "fibrosis": str(image["fibrosis"])},
    )


def _mammogram(root: Path, image: dict[str, Any]) -> Record:
    path = root / image["file"]
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER))
        spacing = header.ImagerPixelSpacing
        seen = {"patient": str(header.PatientID), "site": str(header.InstitutionName)}
        side, view = str(header.ImageLaterality), str(header.ViewPosition)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise DataError(f"{path}: no readable phantom mammogram ({error}); make the phantom again") from None
    record = _record(root, image | seen, "mammogram")
    um = Spacing(float(spacing[1]) * 1000, float(spacing[0]) * 1000)
    return replace(record, laterality=side, view=view, spacing=um)


def _findings(image: dict[str, Any]) -> tuple[Finding, ...]:
    if not image["outline"]:
        return ()
    points = tuple((float(x), float(y)) for x, y in image["outline"])
    return (
        Finding("polygon", points, malignant=float(image["malignant"]), name=SEVERITIES[image["severity"]]),
    )
