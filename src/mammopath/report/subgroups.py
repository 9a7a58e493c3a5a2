"""AUC within groups of cases: view, density, age band, vendor, lesion; small groups keep counts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mammopath.evaluate import by_unit
from mammopath.metrics.auc import auc_by_group
from mammopath.report.study import KEYS, Study, read_table, units_told

GROUPS = {"view": "view", "density": "density", "age": "age band", "vendor": "vendor", "lesion": "lesion"}
"""Column of a case -> what it is called."""

SEED = "logit of seed "
"""Columns of a table of units with the logits of several runs side by side."""

MINIMUM = 10
"""Least number of malignant and of other cases in a cell."""


@dataclass(frozen=True, slots=True)
class SubgroupRow:
    """One group of one held-out site, of the reference method: mean AUC over seeds, as in the other tables.

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
    units = units_told(study.config)
    sites: dict[tuple[str, str], list[str]] = {}
    for j in study.judged:
        if j.label == label:
            sites.setdefault((j.line["modality"], j.line["site"]), []).append(j.line["run"])
    found = []
    for (modality, site), runs in sorted(sites.items()):
        keys = KEYS.get(units.of(site), ["image_id"])
        images = [
            read_table(study.folder / "runs" / run / "predictions.parquet").filter(
                part="test", site=site, modality=modality
            )
            for run in runs
        ]
        table = _side_by_side([by_unit(one, units) for one in images], keys)
        table = table.join(_groups(images[0], cases, keys), on=keys, how="left")
        for column, name in GROUPS.items():
            if column in table.columns:
                found += _rows(table, column, (modality, site, name), draws)
    return found


def _rows(table: pl.DataFrame, column: str, place: tuple[str, str, str], draws: int) -> list[SubgroupRow]:
    known = table.filter(pl.col(column).fill_null("") != "")
    names = known[column].to_numpy()
    if len(set(names)) < 2:
        return []
    logits = known.select(pl.col(f"^{SEED}.*$")).to_numpy().T.astype(float)
    labels = known["malignant"].to_numpy().astype(float)
    parts = auc_by_group(names, labels, logits, known["patient"].to_numpy(), minimum=MINIMUM, draws=draws)
    return [
        SubgroupRow(*place, p.name, p.positives, p.negatives, p.auc.value, p.auc.low, p.auc.high)
        for p in parts
    ]


def _side_by_side(tables: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """Labels of the units, and a column of logits for each seed."""
    columns = list(dict.fromkeys([*keys, "patient", "malignant"]))
    together = tables[0].select(columns)
    for seed, table in enumerate(tables):
        own = table.select(*keys, pl.col("logit").alias(f"{SEED}{seed}"))
        together = together.join(own, on=keys, how="inner", maintain_order="left")
    return together.sort(keys)


def _groups(images: pl.DataFrame, cases: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The group of each unit, of images of one site and modality; of several different ones, ``several``."""
    if not cases.height:
        cases = images.select("image_id", "view")
    columns = [c for c in GROUPS if c in cases.columns]
    joined = images.select("image_id", "patient", "laterality").join(
        cases.select("image_id", *columns), on="image_id", how="left"
    )
    one = [
        pl.when(pl.col(c).n_unique() == 1).then(pl.col(c).first()).otherwise(pl.lit("several")).alias(c)
        for c in columns
    ]
    return joined.group_by(keys, maintain_order=True).agg(one)
