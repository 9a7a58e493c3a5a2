"""Make a phantom: the same patients in both modalities, from sites that differ as real ones do.

Its numbers say nothing about patients, and are never to be presented as clinical.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammopath.config import dump
from mammopath.errors import ConfigError, DataError
from mammopath.files import write_text
from mammopath.phantom.cohort import Case, PhantomSettings, draw_cases
from mammopath.phantom.files import NOTICE, write_dicom, write_tissue
from mammopath.phantom.mammogram import paint_mammogram
from mammopath.phantom.shapes import Points
from mammopath.phantom.sites import SITES, Site
from mammopath.phantom.tissue import paint_field

VIEWS = ("CC", "MLO")
TRUTH = "truth.json"


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
