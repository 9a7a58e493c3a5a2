"""Many methods on a few sites at a glance: a table shaded by AUC, ranks, gaps, what so few sites can tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from mammopath.metrics.ranks import Ranking, detectable, rank_methods, smallest_sign_p
from mammopath.report.tables import SiteRow


@dataclass(frozen=True)
class HeatCell:
    """One AUC of the shaded table; ``shade`` is 0 (the least of the table) to 8 (the best)."""

    text: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """One method over all sites; NaN where it has no row.

    Attributes:
        cells: of the sites, in their order.
        readings: mean within each modality (reading A), then over all sites (reading B).
        worst: least AUC; gap: mean in-domain gap; rank: mean rank over the sites where all methods are.
    """

    label: str
    cells: Sequence[HeatCell]
    readings: Sequence[HeatCell]
    worst: float
    gap: float
    gap_source: float
    rank: float


@dataclass(frozen=True)
class Power:
    """What the number of sites allows one to say.

    Attributes:
        sites: compared. spread: median over methods of the standard deviation over sites of the difference
            to the reference. detectable: mean difference found with 80 % power; ten: with ten sites.
        sign: the smallest p that a sign test over these sites can give.
    """

    sites: int
    spread: float
    detectable: float
    ten: float
    sign: float


@dataclass(frozen=True)
class Overview:
    """The shaded table, by falling mean AUC, with what belongs to it."""

    sites: Sequence[tuple[str, str]]
    readings: Sequence[str]
    rows: Sequence[HeatRow]
    ranking: Ranking | None
    ranked: Sequence[str]
    power: Power | None

    @property
    def names(self) -> list[str]:
        """Of the sites; with the modality where a site has both."""
        alone = [site for _, site in self.sites]
        return [s if alone.count(s) == 1 else f"{s} ({m})" for m, s in self.sites]


def overview(rows: Sequence[SiteRow], reference: str) -> Overview:
    """Arrange site rows as a table of methods by sites.

    Args:
        rows: of methods as trained.
        reference: the method that differences are to.
    """
    table = {(r.label, r.modality, r.site): r for r in rows}
    sites = list(dict.fromkeys((r.modality, r.site) for r in rows))
    labels = list(dict.fromkeys(r.label for r in rows))
    modalities = list(dict.fromkeys(m for m, _ in sites))
    scopes = [*modalities, "all"] if len(modalities) > 1 else modalities
    full = [x for x in labels if all(_known(table, x, s) for s in sites)]
    values = np.array([[table[x, *s].auc for x in full] for s in sites]).reshape(len(sites), len(full))
    ranking = rank_methods(values) if len(full) > 1 and len(sites) > 1 else None
    seen = [r.auc for r in rows if not math.isnan(r.auc)]
    low, high = (min(seen), max(seen)) if seen else (0.5, 1.0)
    found = [_row(table, x, sites, scopes, (low, high)) for x in labels]
    if ranking is not None:
        ranks = dict(zip(full, ranking.mean.tolist(), strict=True))
        found = [_with_rank(row, ranks.get(row.label, math.nan)) for row in found]
    found.sort(key=lambda r: _sort_key(table, r.label, sites))
    return Overview(sites, scopes, found, ranking, full, _power(table, full, sites, reference))


def order_by_effect(rows: Sequence[SiteRow]) -> list[SiteRow]:
    """Rows of each site by falling AUC, sites in their order; unknown AUCs last."""
    sites = list(dict.fromkeys((r.modality, r.site) for r in rows))
    place = {site: i for i, site in enumerate(sites)}
    return sorted(
        rows, key=lambda r: (place[r.modality, r.site], math.isnan(r.auc), -r.auc if r.auc == r.auc else 0.0)
    )


def prominent(rows: Sequence[SiteRow], reference: str, most: int) -> list[str]:
    """Labels in the order in which figures draw them: the reference, then by mean AUC over all their sites.

    A method that lacks a site comes after those that have them all, or a mean over easy sites would win.
    """
    labels = list(dict.fromkeys(r.label for r in rows))
    sites = {(r.modality, r.site) for r in rows}
    aucs = {x: [r.auc for r in rows if r.label == x and not math.isnan(r.auc)] for x in labels}

    def place(label: str) -> tuple[bool, int, float]:
        mean = fmean(aucs[label]) if aucs[label] else 0.0
        return label != reference, len(sites) - len(aucs[label]), -mean

    ordered = sorted(labels, key=place)
    return ordered[:most] + [x for x in labels if x not in ordered[:most]]


def _known(table: Mapping[tuple[str, str, str], SiteRow], label: str, site: tuple[str, str]) -> bool:
    row = table.get((label, *site))
    return row is not None and not math.isnan(row.auc)


def _row(
    table: Mapping[tuple[str, str, str], SiteRow],
    label: str,
    sites: Sequence[tuple[str, str]],
    scopes: Sequence[str],
    limits: tuple[float, float],
) -> HeatRow:
    mine = {s: table[label, *s] for s in sites if (label, *s) in table}
    means = []
    for scope in scopes:
        wanted = [s for s in sites if scope in ("all", s[0])]
        values = [mine[s].auc for s in wanted if s in mine and not math.isnan(mine[s].auc)]
        means.append(_cell(fmean(values) if len(values) == len(wanted) else math.nan, limits))
    aucs = [r.auc for r in mine.values() if not math.isnan(r.auc)]
    return HeatRow(
        label=label,
        cells=[_cell(mine[s].auc if s in mine else math.nan, limits) for s in sites],
        readings=means,
        worst=min(aucs, default=math.nan),
        gap=_mean([r.gap_in_domain for r in mine.values()]),
        gap_source=_mean([r.gap_source for r in mine.values()]),
        rank=math.nan,
    )


def _cell(value: float, limits: tuple[float, float]) -> HeatCell:
    if math.isnan(value):
        return HeatCell("–", -1)
    span = max(limits[1] - limits[0], 1e-9)
    return HeatCell(f"{value:.2f}", round(8 * (value - limits[0]) / span))


def _with_rank(row: HeatRow, rank: float) -> HeatRow:
    return HeatRow(row.label, row.cells, row.readings, row.worst, row.gap, row.gap_source, rank)


def _sort_key(
    table: Mapping[tuple[str, str, str], SiteRow], label: str, sites: Sequence[tuple[str, str]]
) -> tuple[int, float]:
    aucs = [table[label, *s].auc for s in sites if _known(table, label, s)]
    return len(sites) - len(aucs), -fmean(aucs) if aucs else 0.0


def _power(
    table: Mapping[tuple[str, str, str], SiteRow],
    labels: Sequence[str],
    sites: Sequence[tuple[str, str]],
    reference: str,
) -> Power | None:
    if reference not in labels or len(labels) < 2 or len(sites) < 2:
        return None
    spreads = [
        stdev(table[x, *s].auc - table[reference, *s].auc for s in sites) for x in labels if x != reference
    ]
    spread = float(np.median(spreads))
    count = len(sites)
    return Power(count, spread, detectable(count, spread), detectable(10, spread), smallest_sign_p(count))


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan
