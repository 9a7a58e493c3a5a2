"""What was answered at each held-out site and what was held back: unfamiliar, insufficient, wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
from scipy.special import expit

from mammopath.metrics.abstention import ANSWERS, ConformalCut, answers, conformal_sets
from mammopath.metrics.ood import unfamiliar
from mammopath.report.sections import CalibrationRow
from mammopath.report.study import Study, by_label, by_site, read_json, read_table
from mammopath.report.tables import grouped

FAMILIAR_ERROR = 0.05
"""Share of images like the training sites that is called unfamiliar."""


@dataclass(frozen=True, slots=True)
class TrustRow:
    """One method on one held-out site, images, mean over seeds.

    Attributes:
        unfamiliar: share of images unlike the training sites; NaN where not known.
        insufficient: share that is not answered, for any reason.
        wrong: share of wrong answers among those given; wrong_all: if every case were called.
    """

    modality: str
    site: str
    label: str
    unfamiliar: float
    insufficient: float
    wrong: float
    wrong_all: float


@dataclass(frozen=True)
class Calibration:
    """Section Calibration: rows of each site and modality, and what was answered there."""

    blocks: Sequence[tuple[Any, Sequence[CalibrationRow]]]
    trust: Sequence[TrustRow]


def calibration(rows: Sequence[CalibrationRow], trust: Sequence[TrustRow]) -> Calibration:
    """Rows of both tables, arranged for the page."""
    return Calibration(grouped(rows, lambda c: (c.site, c.modality)), trust)


def trust_rows(study: Study) -> list[TrustRow]:
    """Rows of the runs that keep ``confidence.json``; adapted runs keep none."""
    found = []
    for (modality, site), group in by_site(study.judged).items():
        for label, runs in by_label(group).items():
            told = [_answered(study, j.line["run"], modality, site) for j in runs]
            known = [t for t in told if t]
            if known:
                means = {name: _mean([t[name] for t in known]) for name in known[0]}
                found.append(TrustRow(modality, site, label, **means))
    return found


def _answered(study: Study, run: str, modality: str, site: str) -> dict[str, float]:
    folder = study.folder / "runs" / run
    units = read_json(folder / "confidence.json").get(modality, {}).get("units", {})
    if "image" not in units:
        return {}
    table = read_table(folder / "predictions.parquet").filter(
        pl.col("part") == "test", site=site, modality=modality
    )
    table = table.filter(pl.col("malignant").is_not_nan())
    p = _familiar(read_table(folder / "familiarity.parquet"), table)
    labels = table["malignant"].to_numpy() == 1
    settled = units["image"]
    probability = expit(table["logit"].to_numpy() / _number(settled["temperature"], 1.0))
    cut = ConformalCut(_number(settled["negative"]), _number(settled["positive"]))
    said, _ = answers(conformal_sets(cut, probability), unfamiliar(p, error=FAMILIAR_ERROR))
    given = said != ANSWERS[2]
    called = probability >= _number(settled["threshold"], 0.5)
    wrong = (said == ANSWERS[1]) != labels
    return {
        "unfamiliar": math.nan if np.isnan(p).all() else float(unfamiliar(p, error=FAMILIAR_ERROR).mean()),
        "insufficient": float((~given).mean()) if len(given) else math.nan,
        "wrong": float(wrong[given].mean()) if given.any() else math.nan,
        "wrong_all": float((called != labels).mean()) if len(labels) else math.nan,
    }


def _familiar(known: pl.DataFrame, table: pl.DataFrame) -> np.ndarray:
    if not known.height:
        return np.full(table.height, np.nan)
    joined = table.select("image_id").join(
        known.select("image_id", "familiar_p"), on="image_id", how="left", maintain_order="left"
    )
    return joined["familiar_p"].fill_null(float("nan")).to_numpy()


def _number(value: float | str | None, missing: float = math.inf) -> float:
    if value is None:
        return missing
    return math.inf if value == "infinite" else float(value)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan
