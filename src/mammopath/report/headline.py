"""What a reader sees first: counts, means with limits, the forest of each site."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any

from markupsafe import Markup

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.report.charts import gap_chart, key, rank_chart
from mammopath.report.comparisons import MeanInterval
from mammopath.report.figures import forest_axis, forest_head, forest_row
from mammopath.report.gaps import GapRow, gaps_of
from mammopath.report.overview import Overview, order_by_effect
from mammopath.report.study import Study
from mammopath.report.tables import MeanRow, SiteRow, number, signed, signed_limits, with_limits


@dataclass(frozen=True)
class Head:
    """Name of the study, what a reader must know of all of it, and its counts.

    Attributes:
        phantom: it is synthetic. stamps: leaks and errors that the checks found.
        cards: name and value of each count.
        reference: the method that others are compared with.
    """

    notice: str
    version: str
    name: str
    phantom: bool
    stamps: Sequence[Mapping[str, Any]]
    cards: Sequence[tuple[str, str]]
    reference: str


@dataclass(frozen=True)
class Results:
    """Section Results: the shaded table, means with limits, ranks, gaps.

    Attributes:
        heat: methods by sites. means: of each scope.
        rank_chart, gap_chart: SVG, empty where there is nothing to draw. marks: of the sites in it.
        adapted: adapted rows have a section of their own.
    """

    heat: Overview
    means: Sequence[tuple[str, list[dict[str, Any]]]]
    rank_chart: str
    gap_chart: str
    marks: Sequence[tuple[Markup, str]]
    adapted: bool


@dataclass(frozen=True)
class Sites:
    """Section Held-out sites: the forest, and what its numbers are.

    Attributes:
        intervals: how limits were found. selections: how steps were chosen.
        severity: rows of methods that learn the severity category.
    """

    forest: Mapping[str, Any]
    intervals: Sequence[str]
    selections: Sequence[str]
    severity: Sequence[SiteRow]


def head(study: Study, rows: Sequence[SiteRow], reference: str) -> Head:
    """The top of the page."""
    return Head(
        notice=RESEARCH_USE_ONLY,
        version=__version__,
        name=study.config.get("name") or study.folder.name,
        phantom=bool(study.data.get("phantom")),
        stamps=[f for f in study.data.get("check", []) if f["severity"] in ("leak", "error")],
        cards=cards(study, rows),
        reference=reference,
    )


def results(seen: Overview, rows: Sequence[SiteRow], tables: Mapping[str, Sequence[Any]]) -> Results:
    """Section Results, from the shaded table, the site rows in it, and all tables by their names."""
    return Results(
        heat=seen,
        means=mean_blocks(tables["means"], tables["mean_limits"], tables["gaps"]),
        rank_chart=rank_chart(seen),
        gap_chart=gap_chart(rows, [r.label for r in seen.rows]),
        marks=[(Markup(key(k)), site) for k, site in enumerate(seen.names)],  # noqa: S704 - our own SVG
        adapted=bool(tables["effects"]),
    )


def sites(rows: Sequence[SiteRow], styles: Mapping[str, int], gaps: Sequence[GapRow]) -> Sites:
    """Section Held-out sites."""
    return Sites(
        forest=forest(rows, styles, gaps),
        intervals=list(dict.fromkeys(r.interval for r in rows if r.interval)),
        selections=list(dict.fromkeys(r.select for r in rows if r.select)),
        severity=[r for r in rows if not math.isnan(r.qwk)],
    )


def cards(study: Study, rows: Sequence[SiteRow]) -> list[tuple[str, str]]:
    """Counts of the study."""
    told = study.data.get("sites", [])
    patients = [s.get("patients") for s in told]
    known = [p for p in patients if p is not None]
    return [
        ("sites", str(len({r.site for r in rows}))),
        ("images", f"{sum(s['images'] for s in told):,}" if told else "–"),
        ("patients", f"{sum(known):,}" + ("" if len(known) == len(patients) else "+") if known else "–"),
        ("methods", str(len({r.label for r in rows}))),
        ("seeds", str(max((r.seeds for r in rows), default=0))),
        ("runs", str(len(study.runs))),
    ]


def mean_blocks(
    rows: Sequence[MeanRow], limits: Sequence[MeanInterval], gaps: Sequence[GapRow]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Means of each scope with their limits, by falling mean; incomplete methods last."""
    found = {(i.scope, i.label): i for i in limits}
    lost = {(g.scope, g.modality, g.label): g for g in gaps}
    blocks = []
    for scope, group in groupby(rows, lambda r: r.scope):
        members = list(group)
        most = max(r.sites for r in members)
        members.sort(key=lambda r: (r.sites < most, -r.mean_auc if r.mean_auc == r.mean_auc else 1.0))
        told = [_mean(r, found.get((scope, r.label)), most) for r in members]
        for row, kind in product(told, ("mean", "worst")):
            row[f"gap_{kind}"] = _gap(lost.get((kind, scope, row["label"])), row["mean_gap_in_domain"], kind)
        blocks.append((scope, told))
    return blocks


def _gap(found: GapRow | None, value: float, kind: str) -> str:
    if found is None:
        return signed(value) if kind == "mean" else "–"
    return signed_limits(found.gap, found.low, found.high) + (f" ({found.site})" if kind == "worst" else "")


def forest(rows: Sequence[SiteRow], styles: Mapping[str, int], gaps: Sequence[GapRow] = ()) -> dict[str, Any]:
    """Rows of each site by falling AUC, each with its bar."""
    lost = gaps_of(gaps)
    axis = forest_axis([v for r in rows for v in (r.auc, r.auc_low, r.auc_high, r.in_domain_auc)])
    groups = []
    for (modality, site), group in groupby(order_by_effect(rows), lambda r: (r.modality, r.site)):
        lines = [
            asdict(r)
            | {
                "label": r.label,
                "text": with_limits(r.auc, r.auc_low, r.auc_high),
                "gap": _gap(lost.get((r.modality, r.site, r.label)), r.gap_in_domain, "mean"),
                "bar": Markup(  # noqa: S704 - our own SVG
                    forest_row(
                        axis, r.auc, r.auc_low, r.auc_high, reference=r.in_domain_auc, index=styles[r.label]
                    )
                ),
            }
            for r in group
        ]
        groups.append({"modality": modality, "site": site, "rows": lines})
    return {"head": Markup(forest_head(axis)), "groups": groups}  # noqa: S704


def _mean(row: MeanRow, limit: MeanInterval | None, most: int) -> dict[str, Any]:
    auc = with_limits(row.mean_auc, limit.low, limit.high) if limit else number(row.mean_auc)
    return asdict(row) | {"auc": auc, "of": most}
