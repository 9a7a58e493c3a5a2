"""Dot charts with a row for each method: gaps at every site, ranks with the reach of Nemenyi's test."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from mammopath.report.figures import COLOURS, Axis, fitted_axis
from mammopath.report.overview import Overview
from mammopath.report.tables import SiteRow

LABELS, WIDTH, ROW, HEAD, FOOT = 190, 700, 18, 8, 40
"""Room for method names, whole width, height of a row, room above and below, in units of the drawing."""

SHAPES = (
    '<circle r="4"/>',
    '<rect x="-3.6" y="-3.6" width="7.2" height="7.2"/>',
    '<path d="M0 -4.8L4.6 3.6H-4.6z"/>',
    '<path d="M0 -5L5 0 0 5-5 0z"/>',
    '<path d="M0 4.8L4.6 -3.6H-4.6z"/>',
    '<circle r="3.6" class="open"/>',
    '<rect x="-3.4" y="-3.4" width="6.8" height="6.8" class="open"/>',
    '<path d="M0 -4.8L4.6 3.6H-4.6z" class="open"/>',
)
"""Sites are told apart by shape, and by colour beside it."""


def marker(index: int, x: float = 0.0, y: float = 0.0) -> str:
    """The mark of the site of that number at a place."""
    colour = COLOURS[index % len(COLOURS)]
    shape = SHAPES[index % len(SHAPES)]
    return f'<g transform="translate({x:.1f} {y:.1f})" fill="{colour}" stroke="{colour}">{shape}</g>'


def key(index: int) -> str:
    """The mark alone, for a legend."""
    return f'<svg class="mark" viewBox="-7 -7 14 14" aria-hidden="true">{marker(index)}</svg>'


def gap_chart(rows: Sequence[SiteRow], order: Sequence[str]) -> str:
    """In-domain gap of every method at every site; empty where no gap is known."""
    sites = list(dict.fromkeys((r.modality, r.site) for r in rows))
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if not math.isnan(row.gap_in_domain):
            found.setdefault(row.label, []).append((sites.index((row.modality, row.site)), row.gap_in_domain))
    labels = [label for label in order if label in found]
    if not labels:
        return ""
    axis = fitted_axis(
        [0.0, *(v for dots in found.values() for _, v in dots)], "in-domain minus held-out AUC"
    )
    return dot_chart("Domain gap of every method at every site", labels, axis, found, line=0.0)


def rank_chart(seen: Overview) -> str:
    """Mean rank of every method, its range over sites, the critical difference; empty without ranks."""
    if seen.ranking is None:
        return ""
    ranks = seen.ranking
    order = sorted(range(len(seen.ranked)), key=lambda i: float(ranks.mean[i]))
    labels = [seen.ranked[i] for i in order]
    bars = {seen.ranked[i]: (float(ranks.best[i]), float(ranks.worst[i])) for i in order}
    dots = {seen.ranked[i]: [(0, float(ranks.mean[i]))] for i in order}
    best = float(ranks.mean[order[0]])
    band = (best, best + ranks.critical) if ranks.critical == ranks.critical else None
    axis = fitted_axis([1.0, float(len(labels))], "rank over sites, 1 is best")
    return dot_chart("Mean rank of every method", labels, axis, dots, bars=bars, band=band)


def dot_chart(
    told: str,
    labels: Sequence[str],
    axis: Axis,
    dots: Mapping[str, Sequence[tuple[int, float]]],
    *,
    line: float | None = None,
    bars: Mapping[str, tuple[float, float]] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """A row for each label, marks at values.

    Args:
        told: what the figure shows, for those who do not see it.
        labels: of the rows, from the top.
        axis: across.
        dots: index of the mark and value, by label.
        line: a vertical line here.
        bars: from and to, by label.
        band: a shaded range.
    """
    height = HEAD + ROW * len(labels) + FOOT
    parts = [_band(axis, band, len(labels))] if band else []
    parts.append(_grid(axis, len(labels)))
    if line is not None:
        parts.append(_vertical(axis, line, len(labels), "zero"))
    for number, label in enumerate(labels):
        y = HEAD + ROW * (number + 0.5)
        parts.append(f'<text x="{LABELS - 8}" y="{y + 4:.1f}" class="tick end">{escape(label)}</text>')
        if bars and label in bars:
            low, high = (_across(axis, v) for v in bars[label])
            parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="range"/>')
        parts += [marker(index, _across(axis, value), y) for index, value in dots.get(label, ())]
    middle = (LABELS + WIDTH - 14) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" class="title middle">{escape(axis.title)}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(told, quote=True)}">{"".join(parts)}</svg>'
    )


def _across(axis: Axis, value: float) -> float:
    return LABELS + axis.place(value) * (WIDTH - 14 - LABELS)


def _vertical(axis: Axis, value: float, rows: int, kind: str) -> str:
    x = _across(axis, value)
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD}" y2="{HEAD + ROW * rows}" class="{kind}"/>'


def _band(axis: Axis, band: tuple[float, float], rows: int) -> str:
    low, high = (_across(axis, v) for v in band)
    return f'<rect x="{low:.1f}" y="{HEAD}" width="{high - low:.1f}" height="{ROW * rows}" class="band"/>'


def _grid(axis: Axis, rows: int) -> str:
    floor = HEAD + ROW * rows
    ticks = "".join(
        f'<text x="{_across(axis, t):.1f}" y="{floor + 15}" class="tick middle">{t:g}</text>'
        for t in axis.ticks
    )
    return "".join(_vertical(axis, t, rows, "grid") for t in axis.ticks) + ticks
