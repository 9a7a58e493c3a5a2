"""AUC within groups of cases: view, density, age band, vendor, lesion; small groups keep counts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mammopath.evaluate import Unit, by_unit
from mammopath.metrics.auc import auc_by_group
from mammopath.report.study import KEYS, Study, read_table

GROUPS = {"view": "view", "density": "density", "age": "age band", "vendor": "vendor", "lesion": "lesion"}
"""Column of a case -> what it is called."""

MINIMUM = 10
"""Least number of malignant and of other cases in a cell."""


@dataclass(frozen=True, slots=True)
class SubgroupRow:
    """One group of one held-out site, of the reference method, mean logit over seeds.

    Attributes:
        positives, negatives: cases; their AUC with limits is NaN where either is below ``MINIMUM``.
    """

    modality: str
    site: str
    by: str
    group: str
    positives: int
    negatives: int
    auc: float
    low: float
    high: float


def subgroup_rows(study: Study, label: str, *, draws: int = 1000) -> list[SubgroupRow]:
    """Every group of every site that has at least two; the lesion splits malignant cases and others alike."""
    cases = read_table(study.folder / "cases.parquet")
    units = (study.config.get("data") or {}).get("units") or {}
    sites: dict[tuple[str, str], list[str]] = {}
    for j in study.judged:
        if j.label == label:
            sites.setdefault((j.line["modality"], j.line["site"]), []).append(j.line["run"])
    found = []
    for (modality, site), runs in sorted(sites.items()):
        unit: Unit = next(j.line.get("unit", "image") for j in study.judged if j.line["run"] == runs[0])
        table = _mean_over_seeds(study, runs, modality, site, unit, units)
        told = _groups(study, runs[0], cases, unit)
        table = table.join(told, on=KEYS.get(unit, ["image_id"]), how="left") if told.height else table
        for column, name in GROUPS.items():
            if column in table.columns:
                found += _rows(table, column, (modality, site, name), draws)
    return found


def _rows(table: pl.DataFrame, column: str, place: tuple[str, str, str], draws: int) -> list[SubgroupRow]:
    known = table.filter(pl.col(column).fill_null("") != "")
    names = known[column].to_numpy()
    if len(set(names)) < 2:
        return []
    labels, logits = known["malignant"].to_numpy().astype(float), known["logit"].to_numpy().astype(float)
    parts = auc_by_group(names, labels, logits, known["patient"].to_numpy(), minimum=MINIMUM, draws=draws)
    return [
        SubgroupRow(*place, p.name, p.positives, p.negatives, p.auc.value, p.auc.low, p.auc.high)
        for p in parts
    ]


def _mean_over_seeds(
    study: Study, runs: Sequence[str], modality: str, site: str, unit: Unit, units: Mapping[str, Unit]
) -> pl.DataFrame:
    keys = KEYS.get(unit, ["image_id"])
    tables = []
    for run in runs:
        table = by_unit(read_table(study.folder / "runs" / run / "predictions.parquet"), unit, units)
        tables.append(table.filter(part="test", site=site, modality=modality))
    columns = list(dict.fromkeys([*keys, "patient", "malignant", "logit"]))
    stacked = pl.concat([t.select(columns) for t in tables])
    return (
        stacked.group_by(list(dict.fromkeys([*keys, "patient"])), maintain_order=True)
        .agg(pl.col("malignant").first(), pl.col("logit").mean())
        .sort(keys)
    )


def _groups(study: Study, run: str, cases: pl.DataFrame, unit: Unit) -> pl.DataFrame:
    """The group of each unit; of several images with different ones, ``several``."""
    images = read_table(study.folder / "runs" / run / "predictions.parquet")
    if not cases.height:
        cases = images.select("image_id", "view")
    columns = [c for c in GROUPS if c in cases.columns]
    joined = images.select("image_id", "patient", "laterality").join(
        cases.select("image_id", *columns), on="image_id", how="left"
    )
    keys = KEYS.get(unit, ["image_id"])
    one = [
        pl.when(pl.col(c).n_unique() == 1).then(pl.col(c).first()).otherwise(pl.lit("several")).alias(c)
        for c in columns
    ]
    return joined.group_by(keys, maintain_order=True).agg(one)
