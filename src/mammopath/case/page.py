"""The page of a case: one self-contained HTML file without scripts, for screen, keyboard and print."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.case.links import OWN
from mammopath.case.pictures import caption
from mammopath.case.scan import TOLD
from mammopath.case.values import Link, Prediction, Score, SeenImage
from mammopath.files import write_text
from mammopath.maps.methods import METHODS


def write_page(folder: Path, prediction: Prediction) -> Path:
    """Write ``report.html`` of a case from its folder's pictures and its numbers."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("mammopath.case")
    sheets = (files("mammopath").joinpath("base.css"), source.joinpath("page.css"))
    style = Markup("".join(sheet.read_text() for sheet in sheets))  # noqa: S704 - files of ours
    page = environment.from_string(source.joinpath("page.html").read_text())
    write_text(folder / "report.html", page.render(_told(folder, prediction), style=style))
    return folder / "report.html"


def _told(folder: Path, prediction: Prediction) -> dict[str, Any]:
    links = prediction.links
    return {
        "notice": RESEARCH_USE_ONLY,
        "version": __version__,
        "stamp": prediction.stamp,
        "case": prediction.case,
        "phantom": any(i.record.attributes.get("phantom") == "yes" for i in prediction.images),
        "concordance": prediction.concordance,
        "scores": [_score(s) for s in prediction.scores],
        "severity": prediction.severity,
        "links": links,
        "own": links.kind == OWN,
        "link_picture": _data(folder / "links.png"),
        "link_kind": kind_of(links.verdict),
        "link_rows": [*_rows(links.to_tissue, "tissue"), *_rows(links.to_mammogram, "mammogram")],
        "images": [_image(folder, n, i) for n, i in enumerate(prediction.images, start=1)],
        "skipped": prediction.skipped,
        "told": TOLD,
        "provenance": _flat(prediction.provenance),
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "unit": "patient, both modalities" if score.unit == "both" else score.unit,
        "which": score.which,
        "modality": "mammogram and tissue" if score.modality == "both" else score.modality,
        "short": f"{score.probability:.2f}",
        "calibrated": score.calibrated,
        "probability": f"{score.probability:.2f}" + ("" if score.calibrated else " (not calibrated)"),
        "interval": _interval(score),
        "labels": " or ".join(score.labels) or "neither",
        "answer": score.answer,
        "why": score.why,
        "familiar": "unknown" if score.familiar_p is None else f"{score.familiar_p:.2f}",
        "cases": score.cases,
    }


def _interval(score: Score) -> str:
    """The Venn-Abers interval, and whether the probability, calibrated in another way, is outside it."""
    if score.low is None or score.high is None:
        return "unknown"
    told = f"{score.low:.2f} to {score.high:.2f}"
    return told if score.low <= score.probability <= score.high else f"{told} (disagrees)"


def _image(folder: Path, number: int, seen: SeenImage) -> dict[str, Any]:
    pictures = sorted((folder / "maps").glob(f"{number:02d}_*.png"))
    order = {name: k for k, name in enumerate(METHODS)}
    by_method = sorted(((p.stem.rsplit("_", 1)[1], p) for p in pictures), key=lambda x: order[x[0]])
    spacing = seen.record.spacing
    return {
        "number": number,
        "mark": seen.mark,
        "name": seen.record.image_id,
        "modality": seen.record.modality,
        "spacing": f"{spacing.um_x:g} um per pixel ({seen.record.spacing_source})" if spacing else "unknown",
        "decoder": seen.decoder,
        "fields": seen.fields,
        "unread": len(seen.unread),
        "sha256": seen.sha256,
        "score": _score(seen.score),
        "spots": [_spot(s) for s in seen.spots],
        "lesion_map": seen.maps["lesion"].verdict if "lesion" in seen.maps else "",
        "maps": [
            {
                "told": METHODS[name].caption,
                "verdict": seen.maps[name].verdict,
                "kind": kind_of(seen.maps[name].verdict),
                "data": _data(path),
            }
            for name, path in by_method
        ],
    }


def kind_of(verdict: str) -> str:
    """How a verdict is coloured: ``good`` only where nothing is held against it."""
    if verdict.startswith("failed"):
        return "bad"
    return "good" if verdict == "passed" else "warning"


def _spot(spot: Any) -> dict[str, Any]:
    return {
        "number": spot.number,
        "score": f"{spot.score:.2f}",
        "box": ", ".join(f"{v:.0f}" for v in spot.box),
        "size": _size(spot.mm),
        "point": f"{spot.point[0]:.0f}, {spot.point[1]:.0f}",
    }


def _size(mm: tuple[float, float] | None) -> str:
    """In millimetres, or in micrometres where those say more."""
    if mm is None:
        return "unknown"
    return f"{mm[0]:.1f} x {mm[1]:.1f} mm" if min(mm) >= 1 else f"{1000 * mm[0]:.0f} x {1000 * mm[1]:.0f} um"


def _rows(found: tuple[Link, ...], other: str) -> list[dict[str, Any]]:
    return [
        {
            "from": f"region {link.number} of {link.image_id}",
            "other": other,
            "patches": [
                {
                    "image": patch.image_id,
                    "box": "no longer at hand"
                    if patch.box is None
                    else ", ".join(f"{v:.0f}" for v in patch.box),
                    "told": caption(patch),
                    "whose": patch.whose,
                }
                for patch in link.patches
            ],
        }
        for link in found
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key} ")
        else:
            rows.append((f"{prefix}{key}".replace("_", " "), "unknown" if value is None else str(value)))
    return rows


def _data(path: Path) -> str:
    """A picture as a data URI; empty where there is none."""
    if not path.exists():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
