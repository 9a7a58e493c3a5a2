"""The worst errors of a study as small pictures in its folder: false alarms and misses of each site."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped
from PIL import Image

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.cases import PREPARED
from mammopath.cohort.rows import from_row
from mammopath.config import parse
from mammopath.errors import MammopathError
from mammopath.evaluate import stamp
from mammopath.files import write_text, writing
from mammopath.prepare.overview import framed
from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.sources.slides import is_slide
from mammopath.types import Record

FOLDER = "gallery"

EACH = 3
"""Pictures of each kind of error and site."""

SIDE = 220
"""Longest side of a picture in pixels."""

KEYS = ["image_id", "patient", "site", "modality", "laterality", "view", "malignant"]


def write_gallery(folder: Path, method: str) -> list[dict[str, Any]]:
    """Write ``gallery/*.jpg`` and ``gallery/gallery.json`` for the worst errors of a method as trained.

    The pictures are rendered from the images themselves, those of whole slides at low power: they stay in the
    study's folder. Images that cannot be found or read any more are listed without a picture. Nothing is
    written for a study without ``cases.parquet``.

    Args:
        folder: of the study.
        method: whose errors.
    """
    cases, config = folder / "cases.parquet", folder / "config.json"
    if not cases.exists() or not config.exists():
        return []
    prepare = parse(PrepareSettings, json.loads(config.read_text()).get("prepare", {}))
    errors = worst_errors(folder, method)
    records = _records(pl.read_parquet(cases), [row["image_id"] for row in errors])
    found = []
    for number, row in enumerate(errors):
        name = f"{number:03d}.jpg"
        record = records.get(row["image_id"])
        shown = record is not None and _picture(folder / FOLDER / name, record, prepare)
        found.append(row | {"picture": f"{FOLDER}/{name}" if shown else ""})
    facts = folder / "data.json"
    told = stamp(json.loads(facts.read_text())) if facts.exists() else ""
    head = {"notice": RESEARCH_USE_ONLY, "stamp": told}
    write_text(folder / FOLDER / "gallery.json", json.dumps(head | {"errors": found}, indent=2))
    return found


def worst_errors(folder: Path, method: str, *, each: int = EACH) -> list[dict[str, Any]]:
    """The surest false alarms and misses of each held-out site, mean logit over seeds, one image a patient.

    An error is judged at the threshold of each run; its row says at how many seeds it was made.
    """
    lines = [json.loads(text) for text in (folder / "results.jsonl").read_text().splitlines()]
    sites: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if (line["method"], line["adaptation"]) == (method, "none") and line["held_out"] == line["site"]:
            sites.setdefault((line["modality"], line["site"]), []).append(line)
    found = []
    for (modality, site), runs in sorted(sites.items()):
        table = _together(folder, runs, modality, site)
        for kind, label, falling in (("false alarm", 0.0, True), ("missed", 1.0, False)):
            wrong = table.filter(pl.col("malignant") == label, pl.col("wrong") > 0)
            ordered = wrong.sort("score", "image_id", descending=[falling, False])
            one = ordered.unique("patient", keep="first", maintain_order=True).head(each)
            found += [row | {"kind": kind, "seeds": len(runs)} for row in one.iter_rows(named=True)]
    return found


def _together(folder: Path, runs: Sequence[dict[str, Any]], modality: str, site: str) -> pl.DataFrame:
    tables = []
    for line in runs:
        path = folder / "runs" / line["run"] / "predictions.parquet"
        if path.exists():
            threshold = 0.5 if line.get("threshold") is None else float(line["threshold"])
            table = pl.read_parquet(path).filter(pl.col("part") == "test", site=site, modality=modality)
            called = pl.col("score") >= threshold
            tables.append(table.with_columns(wrong=(called != (pl.col("malignant") == 1)).cast(pl.Int32)))
    if not tables:
        return pl.DataFrame(schema=dict.fromkeys(KEYS, pl.String) | {"score": pl.Float64, "wrong": pl.Int32})
    stacked = pl.concat([t.select(*KEYS, "score", "wrong") for t in tables])
    return stacked.group_by(KEYS, maintain_order=True).agg(pl.col("score").mean(), pl.col("wrong").sum())


def _records(cases: pl.DataFrame, names: Sequence[str]) -> dict[str, Record]:
    """Records as the network got them, with spacing and attributes.

    None from a study that kept paths alone: a picture made without the others is not what the network saw.
    """
    if not set(PREPARED) <= set(cases.columns):
        return {}
    rows = cases.filter(pl.col("image_id").is_in(list(names))).iter_rows(named=True)
    return {row["image_id"]: from_row(row | {"findings": "[]"}, Path()) for row in rows}


def _picture(out: Path, record: Record, prepare: PrepareSettings) -> bool:
    try:
        image = Image.fromarray(_pixels(record, prepare))
    except (MammopathError, OSError):
        return False
    image.thumbnail((SIDE, SIDE))
    with writing(out) as part:
        image.convert("RGB").save(part, format="JPEG", quality=82)
    return True


def _pixels(record: Record, prepare: PrepareSettings) -> Shaped[np.ndarray, "h w *c"]:
    """The image as it is prepared; a slide, of which a network sees patches, as a whole."""
    if is_slide(record):
        return framed(record.path, record.spacing, side=SIDE)[0]
    sample = load_sample(record, prepare, multiple=1).sample
    pixels = np.round(255 * sample.image.numpy().clip(0, 1)).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
