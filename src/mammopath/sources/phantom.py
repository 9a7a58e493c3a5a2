"""The phantom as a source: synthetic patients, listed by the headers of their files and the known truth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammopath.errors import DataError, ImageReadError
from mammopath.images.read import read_header
from mammopath.phantom.generate import TRUTH
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import SEVERITIES, Finding, Record, Skipped, Spacing

LATENT = ("form", "fibrosis", "marked")
"""What both modalities of a patient share beside the label; attributes of its records."""


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
