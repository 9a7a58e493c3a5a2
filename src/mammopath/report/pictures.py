"""Pictures of a report as small data URIs: examples of runs, and the worst errors of the gallery."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mammopath.report.sections import examples
from mammopath.report.study import Study

LONGEST = 320
"""Longest side of an embedded picture in pixels, so that a report stays small."""

MOST_BYTES = 6_000_000
"""Of all pictures of one kind together; later ones are left out, so that a report stays under 10 MB."""

TRUTH = {"1": "malignant", "0": "not malignant"}


@dataclass(frozen=True, slots=True)
class Failure:
    """One of the worst errors; ``wrong`` is at how many of the ``seeds`` it was made, ``uri`` its picture."""

    modality: str
    site: str
    kind: str
    image_id: str
    score: float
    wrong: int
    seeds: int
    uri: str


def example_pictures(study: Study) -> list[dict[str, Any]]:
    """Example images of the runs with their attention."""
    shown = []
    for run, example in examples(study):
        folder = study.folder / "runs" / run
        pictures = [data_uri(folder / str(example[k])) for k in ("image", "overlay") if example.get(k)]
        truth = TRUTH.get(str(example.get("malignant"))[:1], "truth unknown")
        shown.append(dict(example) | {"run": run, "pictures": pictures, "truth": truth})
    return shown


def failure_pictures(study: Study) -> list[Failure]:
    """Rows of ``gallery/gallery.json``, each with its picture."""
    path = study.folder / "gallery" / "gallery.json"
    told = json.loads(path.read_text()) if path.exists() else []
    rows: Sequence[Mapping[str, Any]] = told["errors"] if isinstance(told, dict) else told
    found, size = [], 0
    for row in rows:
        uri = data_uri(study.folder / row["picture"]) if row["picture"] and size < MOST_BYTES else ""
        size += len(uri)
        names = ("modality", "site", "kind", "image_id", "score", "wrong", "seeds")
        found.append(Failure(**{name: row[name] for name in names}, uri=uri))
    return found


def data_uri(path: Path) -> str:
    """A small copy of a picture as a data URI; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return ""
    small.thumbnail((LONGEST, LONGEST))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
