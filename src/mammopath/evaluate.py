"""From a table of predictions to result lines: one per site and modality, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped

from mammopath.metrics.auc import auc_interval
from mammopath.metrics.calibration import brier, calibration_error_statistic, log_loss
from mammopath.metrics.intervals import IntervalKind, Statistic, bootstrap
from mammopath.metrics.operating import (
    balanced_accuracy_statistic,
    sensitivity_statistic,
    specificity_statistic,
    specificity_threshold,
    youden_threshold,
)
from mammopath.metrics.ordinal import mean_absolute_error, quadratic_kappa_statistic
from mammopath.metrics.ranking import auc, average_precision_statistic
from mammopath.settings import DataSettings, Unit
from mammopath.types import SEVERITIES

__all__ = [
    "Resampling",
    "Unit",
    "Units",
    "by_unit",
    "result_lines",
    "source_val_auc",
    "stamp",
    "units_of",
]

SINGLE: tuple[Unit, ...] = ("image", "slide")
"""Units that are one record each; which of them it is, the source's card says."""

SPECIFICITY = 0.9
"""Of the second threshold: the lowest with this specificity on source validation. What it gives at the
held-out site is told for sensitivity and specificity alike."""

MOST_WEIGHTS = 40_000_000
"""Weights of cases that the limits of one line may compute; larger sites get fewer draws, never under 200."""

MOST_JACKKNIFED = 6_000
"""Cases beyond which BCa, which leaves out each patient in turn, gives way to quantiles."""


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
    the patient's images. A unit is malignant where any of its images is, and as severe
    as the worst of them, in truth and as predicted.
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
    worst = [pl.col(c).max() for c in ("severity", "severity_level") if c in known.columns]
    return (
        known.group_by(keys, maintain_order=True)
        .agg(logit, pl.col("malignant").max(), pl.col("in_test_split").any(), *worst)
        .with_columns(score=1 / (1 + (-pl.col("logit")).exp()))
    )


@dataclass(frozen=True)
class Resampling:
    """How limits are found: draws of the patient bootstrap, its seed, and the kind of its limits."""

    draws: int = 2000
    seed: int = 0
    kind: IntervalKind = "percentile"

    def of(self, cases: int) -> "Resampling":
        """Fewer draws, and no BCa, for so many cases that a line of results would take minutes."""
        kind = self.kind if cases <= MOST_JACKKNIFED else "percentile"
        return Resampling(min(self.draws, max(200, MOST_WEIGHTS // max(1, cases))), self.seed, kind)


def result_lines(
    table: pl.DataFrame, facts: Mapping[str, Any], *, units: Units, resampling: Resampling
) -> list[dict[str, Any]]:
    """Result lines of one run: the test part of its table, one line per site and modality.

    Args:
        table: predictions of validation and test images (``predict.prediction_table``).
        facts: what every line starts with (held_out, method, seed, ...).
        units: of evaluation.
        resampling: of patients, for the limits.
    """
    rows = by_unit(table, units)
    lines = []
    for (modality, site), test in sorted(rows.filter(part="test").group_by("modality", "site")):
        val = rows.filter(pl.col("part") == "val", pl.col("modality") == modality)
        how = resampling.of(test.height)
        line = {"site": site, "modality": modality, "unit": units.of(str(site))} | _sizes(test)
        line |= _ranking(test, how) | _decisions(val, test, how) | _severity(test, how)
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
    sick = test.filter(pl.col("malignant") == 1)
    return {
        "n": test.height,
        "patients": test["patient"].n_unique(),
        "positives": sick.height,
        "patients_positive": sick["patient"].n_unique(),
    }


def _ranking(test: pl.DataFrame, how: Resampling) -> dict[str, Any]:
    split, patients = test.filter(pl.col("in_test_split")), test["patient"].to_numpy()
    own = auc_interval(*_arrays(test), patients, draws=how.draws, seed=how.seed, kind=how.kind)
    return {
        "auc": own.value,
        "auc_low": own.low,
        "auc_high": own.high,
        "interval": own.method,
        "auc_test_split": _auc(split),
    }


def _decisions(val: pl.DataFrame, test: pl.DataFrame, how: Resampling) -> dict[str, Any]:
    """Measures at thresholds of the training sites' validation cases, with limits, and calibration."""
    old = _arrays(val, "score")
    best = youden_threshold(*old) if val.height else math.nan
    strict = specificity_threshold(*old, specificity=SPECIFICITY) if val.height else math.nan
    labels, scores = _arrays(test, "score")
    measures = {
        "average_precision": average_precision_statistic(*_arrays(test)),
        "balanced_accuracy": balanced_accuracy_statistic(labels, scores, best),
        "sensitivity": sensitivity_statistic(labels, scores, best),
        "specificity": specificity_statistic(labels, scores, best),
        "sensitivity_at_90": sensitivity_statistic(labels, scores, strict),
        "specificity_at_90": specificity_statistic(labels, scores, strict),
        "ece": calibration_error_statistic(labels, scores),
    }
    told = {"threshold": best, "threshold_at_90": strict}
    told |= {"brier": brier(labels, scores), "nll": log_loss(labels, scores)}
    return told | _with_limits(measures, test["patient"].to_numpy(), how)


def _severity(test: pl.DataFrame, how: Resampling) -> dict[str, Any]:
    """Agreement on the severity category; nothing where no case has both the truth and a prediction."""
    if "severity_level" not in test.columns:
        return {}
    known = test.filter(pl.col("severity").is_not_nan(), pl.col("severity_level").is_not_nan())
    if not known.height:
        return {}
    truth, level = known["severity"].to_numpy(), known["severity_level"].to_numpy()
    measures = {"qwk": quadratic_kappa_statistic(truth, level, categories=len(SEVERITIES))}
    told = {"severity_cases": known.height, "severity_off": mean_absolute_error(truth, level)}
    return told | _with_limits(measures, known["patient"].to_numpy(), how)


def _with_limits(
    measures: Mapping[str, Statistic], patients: Shaped[np.ndarray, " n"], how: Resampling
) -> dict[str, Any]:
    """Each measure with ``_low`` and ``_high``, all under the same draws of patients."""
    statistics, jackknife = list(measures.values()), how.kind == "bca"
    drawn = bootstrap(statistics, patients, draws=how.draws, seed=how.seed, jackknife=jackknife)
    found = {name: drawn.interval(which, kind=how.kind) for which, name in enumerate(measures)}
    limits = {f"{name}_low": i.low for name, i in found.items()}
    limits |= {f"{name}_high": i.high for name, i in found.items()}
    return {name: i.value for name, i in found.items()} | limits


def _auc(table: pl.DataFrame) -> float:
    return float(auc(*_arrays(table)))


def _arrays(table: pl.DataFrame, column: str = "logit") -> tuple[np.ndarray, np.ndarray]:
    return table["malignant"].to_numpy().astype(np.int64), table[column].to_numpy().astype(float)


def _plain(value: Any) -> Any:
    """JSON has no NaN; numbers keep six decimals, far below their noise."""
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 6)
    return value
