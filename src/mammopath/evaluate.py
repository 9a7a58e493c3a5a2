"""From a table of predictions to result lines: one per site and modality, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl

from mammopath.metrics.auc import auc_interval
from mammopath.metrics.calibration import brier, expected_calibration_error, log_loss
from mammopath.metrics.operating import operating_point, youden_threshold
from mammopath.metrics.ranking import auc, average_precision, sensitivity_at
from mammopath.settings import DataSettings, Unit

__all__ = ["Unit", "Units", "by_unit", "result_lines", "source_val_auc", "stamp", "units_of"]

SINGLE: tuple[Unit, ...] = ("image", "slide")
"""Units that are one record each; which of them it is, the source's card says."""

SPECIFICITY = 0.9
"""At which sensitivity is told beside the carried threshold."""


@dataclass(frozen=True)
class Units:
    """What one label and one score stand for, at each site.

    Attributes:
        every: unit of every site that ``of_sites`` does not name.
        of_sites: of single sites, by name or pattern (``camelyon17_*``).
    """

    every: Unit = "image"
    of_sites: Mapping[str, Unit] = field(default_factory=dict)

    def of(self, site: str) -> Unit:
        """The unit of a site: of the first name or pattern that fits it."""
        fitting = (unit for pattern, unit in self.of_sites.items() if fnmatchcase(site, pattern))
        return next(fitting, self.every)


def units_of(data: DataSettings) -> Units:
    """As the keys ``data.unit`` and ``data.units`` say."""
    return Units(data.unit, data.units)


def by_unit(table: pl.DataFrame, units: Units) -> pl.DataFrame:
    """Predictions per unit of evaluation, known labels only.

    A breast's logit is the mean over its images; a patient's is the network's own pooling of all of
    the patient's images. A unit is malignant where any of its images is.
    """
    sites: dict[Unit, list[str]] = {}
    for site in table["site"].unique(maintain_order=True).to_list():
        sites.setdefault(units.of(site), []).append(site)
    parts = [_of_one_unit(table.filter(pl.col("site").is_in(own)), unit) for unit, own in sites.items()]
    return pl.concat([p for p in parts if p.height] or [_of_one_unit(table, units.every)], how="diagonal")


def _of_one_unit(table: pl.DataFrame, unit: Unit) -> pl.DataFrame:
    known = table.filter(pl.col("malignant").is_not_nan())
    if unit in SINGLE:
        return known
    keys = ["site", "modality", "part", "patient"] + (["laterality"] if unit == "breast" else [])
    logit = pl.col("logit" if unit == "breast" else "patient_logit").mean().alias("logit")
    return (
        known.group_by(keys, maintain_order=True)
        .agg(logit, pl.col("malignant").max(), pl.col("in_test_split").any())
        .with_columns(score=1 / (1 + (-pl.col("logit")).exp()))
    )


def result_lines(
    table: pl.DataFrame,
    facts: Mapping[str, Any],
    *,
    units: Units,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Result lines of one run: the test part of its table, one line per site and modality.

    Args:
        table: predictions of validation and test images (``predict.prediction_table``).
        facts: what every line starts with (held_out, method, seed, ...).
        units: of evaluation.
        draws: of the patient-cluster bootstrap.
        seed: of the bootstrap.
    """
    rows = by_unit(table, units)
    lines = []
    for (modality, site), test in sorted(rows.filter(part="test").group_by("modality", "site")):
        val = rows.filter(pl.col("part") == "val", pl.col("modality") == modality)
        line = {"site": site, "modality": modality, "unit": units.of(str(site))} | _sizes(test)
        line |= _ranking(test, draws=draws, seed=seed) | _decisions(val, test)
        lines.append(dict(facts) | {k: _plain(v) for k, v in line.items()})
    return lines


def stamp(data: Mapping[str, Any]) -> str:
    """What a reader of any single output must know: a synthetic cohort, a leak, an error; empty for none."""
    phantom = ["synthetic phantom: not clinical"] if data.get("phantom") else []
    leaks = [f for f in data.get("check", []) if f["severity"] in ("leak", "error")]
    return "; ".join([*phantom, *(f"{f['severity']}: {f['what']}" for f in leaks)])


def source_val_auc(table: pl.DataFrame, units: Units, modality: str | None = None) -> float:
    """Mean AUC over the validation parts of the training sites that hold both classes."""
    val = by_unit(table, units).filter(part="val")
    if modality:
        val = val.filter(pl.col("modality") == modality)
    scores = [_auc(group) for _, group in sorted(val.group_by("modality", "site"), key=lambda g: g[0])]
    known = [s for s in scores if not math.isnan(s)]
    return float(np.mean(known)) if known else math.nan


def _sizes(test: pl.DataFrame) -> dict[str, Any]:
    positives = int(test["malignant"].sum())
    return {"n": test.height, "patients": test["patient"].n_unique(), "positives": positives}


def _ranking(test: pl.DataFrame, *, draws: int, seed: int) -> dict[str, Any]:
    split = test.filter(pl.col("in_test_split"))
    interval = auc_interval(*_arrays(test), test["patient"].to_numpy(), draws=draws, seed=seed)
    return {
        "auc": interval.value,
        "auc_low": interval.low,
        "auc_high": interval.high,
        "interval": interval.method,
        "auc_test_split": _auc(split),
        "average_precision": average_precision(*_arrays(test)),
    }


def _decisions(val: pl.DataFrame, test: pl.DataFrame) -> dict[str, Any]:
    threshold = youden_threshold(*_arrays(val, "score")) if val.height else math.nan
    labels, scores = _arrays(test, "score")
    at = operating_point(labels, scores, threshold)
    return {
        "threshold": threshold,
        "balanced_accuracy": at.balanced_accuracy,
        "sensitivity": at.sensitivity,
        "specificity": at.specificity,
        "sensitivity_at_90": sensitivity_at(labels, scores, specificity=SPECIFICITY),
        "ece": expected_calibration_error(labels, scores),
        "brier": brier(labels, scores),
        "nll": log_loss(labels, scores),
    }


def _auc(table: pl.DataFrame) -> float:
    return float(auc(*_arrays(table)))


def _arrays(table: pl.DataFrame, column: str = "logit") -> tuple[np.ndarray, np.ndarray]:
    return table["malignant"].to_numpy().astype(np.int64), table[column].to_numpy().astype(float)


def _plain(value: Any) -> Any:
    """JSON has no NaN; numbers keep six decimals, far below their noise."""
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 6)
    return value
