"""A synthetic cohort with known truth, to test software with: make it, and list it as records.

The same patients in both modalities, in real file formats, from sites that differ as real ones do. Its
numbers say nothing about patients, and are never to be presented as clinical.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammopath.config import dump
from mammopath.errors import ConfigError, DataError, ImageReadError
from mammopath.files import write_text
from mammopath.images.read import read_header
from mammopath.sources.phantom_cohort import Case, PhantomSettings, draw_cases
from mammopath.sources.phantom_files import NOTICE, write_dicom, write_tissue
from mammopath.sources.phantom_mammogram import paint_mammogram
from mammopath.sources.phantom_shapes import Points
from mammopath.sources.phantom_sites import SITES, Site
from mammopath.sources.phantom_tissue import paint_field
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import SEVERITIES, Finding, Record, Skipped, Spacing

VIEWS = ("CC", "MLO")
TRUTH = "truth.json"
LATENT = ("form", "fibrosis", "marked")
"""What both modalities of a patient share beside the label; attributes of its records."""


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


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the images of a phantom: by their headers, labels and outlines by the truth.

    Raises:
        DataError: ``truth.json`` is missing or not what ``generate`` writes.
    """
    try:
        images = json.loads((root / TRUTH).read_text())["images"]
    except FileNotFoundError:
        raise DataError(f"{root}: has no {TRUTH}; make the phantom again, it was not finished") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root / TRUTH}: not the truth of a phantom: {error!r}") from None
    for image in images:
        yield _listed(root, image)


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


def _listed(root: Path, image: dict[str, Any]) -> Record | Skipped:
    try:
        header = read_header(root / image["file"])
    except ImageReadError as error:
        return Skipped(image["file"], error.code, error.why)
    return Record(
        image_id=f"phantom/{image['file']}",
        path=root / image["file"],
        patient=image["patient"],
        domain=image["site"],
        modality="mammogram" if header.view else "pathology",
        malignant=float(image["malignant"]),
        severity=float(image["severity"]),
        laterality=header.laterality,
        view=header.view,
        spacing=header.spacing or Spacing.square(image["um"]),
        spacing_source="header" if header.spacing else "published",
        findings=_findings(image),
        pair_key=image["patient"],
        attributes=ANNOTATED | {"phantom": "yes"} | {name: str(image[name]) for name in LATENT},
    )


def _findings(image: dict[str, Any]) -> tuple[Finding, ...]:
    if not image["outline"]:
        return ()
    points = tuple((float(x), float(y)) for x, y in image["outline"])
    return (
        Finding("polygon", points, malignant=float(image["malignant"]), name=SEVERITIES[image["severity"]]),
    )


SOURCE = Source(
    index=index,
    about="synthetic patients with known truth, to test software with; never clinical",
    licence="Apache-2.0",
)
