"""Rows of the tables of a study, as pure functions of its results lines."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean, stdev
from typing import Any

from mammopath import RESEARCH_USE_ONLY

Line = Mapping[str, Any]
"""One line of results.jsonl."""

MEASURES = (
    *("auc", "auc_low", "auc_high", "auc_test_split", "source_val_auc", "average_precision"),
    *("average_precision_low", "average_precision_high"),
    *("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"),
    *("sensitivity", "sensitivity_low", "sensitivity_high"),
    *("specificity", "specificity_low", "specificity_high"),
    *("sensitivity_at_90", "sensitivity_at_90_low", "sensitivity_at_90_high", "specificity_at_90"),
    *("ece", "ece_low", "ece_high", "brier", "nll"),
    *("severity_cases", "qwk", "qwk_low", "qwk_high", "severity_off"),
)
"""Keys of a line whose mean over seeds is a field of a row."""


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One method on one held-out site, over its seeds; NaN where not known.

    Attributes:
        seeds: number of runs; every measure is their mean.
        sensitivity_at_90: sensitivity at the threshold whose specificity is 0.9 on source validation;
            specificity_at_90: what that specificity became at the site.
        severity_cases: with a known severity category; qwk: quadratically weighted kappa on them;
            severity_off: mean distance in categories.
        auc_low: mean over seeds of the lower limit, for sampling error alone; auc_high likewise.
        seed_sd: standard deviation of the AUC over seeds, apart from sampling error; NaN for one seed.
        in_domain_auc: on the site's test split, trained with the site's own training split.
        gap_in_domain: in-domain minus held-out AUC, both on that test split.
        gap_source: AUC on source validation minus AUC on the site.
    """

    modality: str
    site: str
    method: str
    adaptation: str
    select: str
    unit: str
    n: int
    patients: int
    positives: int
    seeds: int
    auc: float
    auc_low: float
    auc_high: float
    interval: str
    seed_sd: float
    auc_test_split: float
    in_domain_auc: float
    gap_in_domain: float
    source_val_auc: float
    gap_source: float
    average_precision: float
    average_precision_low: float
    average_precision_high: float
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    specificity_low: float
    specificity_high: float
    sensitivity_at_90: float
    sensitivity_at_90_low: float
    sensitivity_at_90_high: float
    specificity_at_90: float
    ece: float
    ece_low: float
    ece_high: float
    brier: float
    nll: float
    severity_cases: float
    qwk: float
    qwk_low: float
    qwk_high: float
    severity_off: float

    @property
    def label(self) -> str:
        """Name of the row's method in tables and legends."""
        return method_label(self.method, self.adaptation, self.select)


@dataclass(frozen=True, slots=True)
class MeanRow:
    """One method over the held-out sites of a modality, or over all.

    Attributes:
        scope: a modality, or ``all``.
        sites: how many sites the means are over.
    """

    scope: str
    label: str
    sites: int
    mean_auc: float
    worst_site: str
    worst_auc: float
    mean_in_domain_auc: float
    mean_gap_in_domain: float
    mean_gap_source: float


def method_label(method: str, adaptation: str, select: str) -> str:
    """Name of a method with its adaptation; the oracle rule is named, as it is an upper bound only."""
    name = method if adaptation in ("", "none") else f"{method} + {adaptation}"
    return f"{name} (oracle selection)" if select == "oracle" else name


def summarise(lines: Sequence[Line]) -> list[SiteRow]:
    """One row per modality, held-out site and method, by modality, then in the order of the lines.

    Lines with an empty ``held_out`` are the in-domain references of their site.
    """
    outside: dict[tuple[str, ...], dict[int, Line]] = {}
    inside: dict[tuple[str, ...], dict[int, Line]] = {}
    for line in lines:
        kind = inside if not line["held_out"] else outside
        if line["held_out"] in ("", line["site"]):
            kind.setdefault(_key(line), {})[line["seed"]] = line
    rows = [_site_row(seeds, _reference(key, inside)) for key, seeds in outside.items()]
    sites = list(dict.fromkeys((r.modality, r.site) for r in rows))
    return sorted(rows, key=lambda r: (r.modality, sites.index((r.modality, r.site))))


def means(rows: Sequence[SiteRow]) -> list[MeanRow]:
    """Each method's mean and worst site, per modality and (where there are several) over all."""
    modalities = list(dict.fromkeys(r.modality for r in rows))
    scopes = {m: [r for r in rows if r.modality == m] for m in modalities}
    if len(modalities) > 1:
        scopes["all"] = list(rows)
    labels = dict.fromkeys(r.label for r in rows)
    found = [
        (s, label, [r for r in group if r.label == label]) for s, group in scopes.items() for label in labels
    ]
    return [_mean_row(scope, label, group) for scope, label, group in found if group]


def markdown_table(rows: Sequence[SiteRow]) -> str:
    """The headline table in Markdown, as it stands in docs/results."""
    head = (
        *("site", "modality", "method", "images (malignant)", "AUC [95 %]", "seed SD", "in-domain AUC"),
        *("gap, in-domain", "gap, source", "balanced accuracy", "ECE"),
    )
    cells = [
        (
            row.site,
            row.modality,
            row.label,
            f"{row.n} ({row.positives})",
            with_limits(row.auc, row.auc_low, row.auc_high),
            number(row.seed_sd, 3),
            number(row.in_domain_auc),
            signed(row.gap_in_domain),
            signed(row.gap_source),
            number(row.balanced_accuracy),
            number(row.ece),
        )
        for row in rows
    ]
    return markdown_rows(head, cells)


def markdown_means(rows: Sequence[MeanRow]) -> str:
    """Mean and worst site of each method in Markdown."""
    head = (
        "over",
        "method",
        "sites",
        "mean AUC",
        "worst AUC (site)",
        "mean gap, in-domain",
        "mean gap, source",
    )
    cells = [
        (
            row.scope,
            row.label,
            str(row.sites),
            number(row.mean_auc),
            f"{number(row.worst_auc)} ({row.worst_site})",
            signed(row.mean_gap_in_domain),
            signed(row.mean_gap_source),
        )
        for row in rows
    ]
    return markdown_rows(head, cells)


def grouped(rows: Sequence[Any], by: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """Rows that lie together and have the same key, with that key."""
    return [(key, list(group)) for key, group in groupby(rows, by)]


def csv_text(rows: Sequence[Any], *, stamp: str = "") -> str:
    """Dataclass rows as CSV with a header; NaN is an empty cell. Nothing for no rows.

    Args:
        rows: of one dataclass.
        stamp: what a reader of any single row must know (synthetic data, a leak); the last column but the
            one that says that this is for research use only.
    """
    plain = [asdict(row) | {"stamp": stamp, "notice": RESEARCH_USE_ONLY} for row in rows]
    if not plain:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, plain[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _is_nan(v) else v for k, v in row.items()} for row in plain)
    return out.getvalue()


def number(value: float, digits: int = 2) -> str:
    """A number for people; an en dash where it is not known."""
    return "–" if _is_nan(value) else f"{value:.{digits}f}"


def p_value(value: float) -> str:
    """A p-value for people; small ones as a bound."""
    return "< 0.001" if value < 0.001 else number(value, 3)


def signed(value: float, digits: int = 2) -> str:
    """A difference for people, with its sign; zero has none."""
    if _is_nan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def with_limits(value: float, low: float, high: float) -> str:
    """A value with its limits in brackets; says so where they cannot be estimated."""
    if _is_nan(value):
        return "–"
    return f"{value:.2f} " + ("[no interval]" if _is_nan(low) else f"[{low:.2f}, {high:.2f}]")


def signed_limits(value: float, low: float, high: float) -> str:
    """A difference with its limits in brackets; alone where they cannot be estimated."""
    if _is_nan(value) or _is_nan(low):
        return signed(value)
    return f"{signed(value)} [{signed(low)}, {signed(high)}]"


def _key(line: Line) -> tuple[str, ...]:
    names = ("modality", "site", "unit", "method", "adaptation", "select")
    return tuple(str(line.get(name) or "") for name in names)


def _reference(
    key: tuple[str, ...], inside: Mapping[tuple[str, ...], Mapping[int, Line]]
) -> Mapping[int, Line]:
    """In-domain lines of a method: with the same adaptation, else without any."""
    *place, _, select = key
    return inside.get(key) or inside.get((*place, "none", select)) or {}


def _site_row(seeds: Mapping[int, Line], reference: Mapping[int, Line]) -> SiteRow:
    lines = list(seeds.values())
    texts = ("modality", "site", "method", "adaptation", "select", "unit", "interval")
    values: dict[str, Any] = {name: str(lines[-1].get(name) or "") for name in texts}
    values |= {name: int(lines[-1].get(name) or 0) for name in ("n", "patients", "positives")}
    values |= {name: _mean([_value(line, name) for line in lines]) for name in MEASURES}
    aucs = [a for a in (_value(line, "auc") for line in lines) if not math.isnan(a)]
    inside = {seed: _test_split_auc(line) for seed, line in reference.items()}
    gaps = [inside[s] - _value(line, "auc_test_split") for s, line in seeds.items() if s in inside]
    return SiteRow(
        **values,
        seeds=len(seeds),
        seed_sd=stdev(aucs) if len(aucs) > 1 else math.nan,
        in_domain_auc=_mean(list(inside.values())),
        gap_in_domain=_mean(gaps),
        gap_source=values["source_val_auc"] - values["auc"],
    )


def _mean_row(scope: str, label: str, rows: Sequence[SiteRow]) -> MeanRow:
    judged = [r for r in rows if not math.isnan(r.auc)]
    worst = min(judged, key=lambda r: r.auc, default=None)
    return MeanRow(
        scope=scope,
        label=label,
        sites=len(judged),
        mean_auc=_mean([r.auc for r in rows]),
        worst_site=worst.site if worst else "",
        worst_auc=worst.auc if worst else math.nan,
        mean_in_domain_auc=_mean([r.in_domain_auc for r in rows]),
        mean_gap_in_domain=_mean([r.gap_in_domain for r in rows]),
        mean_gap_source=_mean([r.gap_source for r in rows]),
    )


def _test_split_auc(line: Line) -> float:
    """An in-domain run is tested on nothing but the test split, so its AUC is the one there."""
    value = _value(line, "auc_test_split")
    return _value(line, "auc") if math.isnan(value) else value


def _value(line: Line, name: str) -> float:
    value = line.get(name)
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def markdown_rows(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *cells]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
