"""Curves of each held-out site, a panel a site: ROC, precision, calibration, risk over coverage, FROC."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from scipy.special import expit

from mammopath.metrics.abstention import risk_coverage
from mammopath.metrics.calibration import reliability
from mammopath.metrics.ranking import Curve, roc_curve
from mammopath.report.figures import Axis, Point, Series, fitted_axis, panel, share_axis, swatch
from mammopath.report.knowledge import MapRow
from mammopath.report.study import Judged, by_label, by_site

MOST_LINES = 8
"""Methods in one panel; more cannot be told apart."""

GRID = np.linspace(0, 1, 101)
"""Places at which curves of several seeds are averaged."""

RATES = (0.5, 1.0, 2.0, 4.0)
"""False positives per image at which sensitivity is told."""

Drawn = Callable[[Sequence[Judged], int], Series | None]
"""Runs of one method on one site, and its line style, to a line."""


@dataclass(frozen=True, slots=True)
class Figure:
    """An SVG with its caption."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Curves:
    """Figures with a panel for each site; ``hidden`` methods are in none, ``legend`` names the others."""

    legend: Sequence[tuple[Markup, str]]
    hidden: int
    roc: Sequence[Figure]
    precision: Sequence[Figure]
    reliability: Sequence[Figure]
    risk: Sequence[Figure]
    froc: Sequence[Figure]


def curves(every: Sequence[Judged], maps: Sequence[MapRow], styles: Mapping[str, int]) -> Curves:
    """All figures of the methods that have a style."""
    judged = [j for j in every if j.label in styles]
    legend = [(Markup(swatch(k)), label) for label, k in styles.items() if k < MOST_LINES]  # noqa: S704
    return Curves(
        legend=legend,
        hidden=len(styles) - len(legend),
        roc=roc_figures(judged, styles),
        precision=precision_figures(judged, styles),
        reliability=reliability_figures(judged, styles),
        risk=risk_figures(judged, styles),
        froc=froc_figures(maps, styles),
    )


def roc_figures(judged: Sequence[Judged], styles: Mapping[str, int]) -> list[Figure]:
    """Mean ROC over seeds of each method."""
    axes = share_axis("1 − specificity"), share_axis("sensitivity")
    return _figures("ROC curves", judged, styles, axes, _roc, diagonal=True)


def precision_figures(judged: Sequence[Judged], styles: Mapping[str, int]) -> list[Figure]:
    """Precision over sensitivity, mean over seeds."""
    return _figures(
        "Precision", judged, styles, (share_axis("sensitivity"), share_axis("precision")), _precision
    )


def reliability_figures(judged: Sequence[Judged], styles: Mapping[str, int]) -> list[Figure]:
    """Predicted probability against the share of malignant cases, seeds pooled."""
    axes = share_axis("predicted probability"), share_axis("share malignant")
    return _figures("Calibration", judged, styles, axes, _calibration, diagonal=True)


def risk_figures(judged: Sequence[Judged], styles: Mapping[str, int]) -> list[Figure]:
    """Share of errors when only the most confident cases are answered, mean over seeds."""
    axes = share_axis("share answered"), share_axis("share wrong")
    return _figures("Risk over coverage", judged, styles, axes, _risk)


def froc_figures(rows: Sequence[MapRow], styles: Mapping[str, int]) -> list[Figure]:
    """Sensitivity for lesions at some false positives per image: the best map that each method has."""
    found: dict[str, list[Series]] = {}
    for row in rows:
        first = "lesion" if any(r.label == row.label and r.map == "lesion" for r in rows) else "attention"
        style = styles.get(row.label, MOST_LINES)
        if row.target == "malignant" and row.map == first and row.froc_at and style < MOST_LINES:
            points = list(zip(RATES, row.froc_at, strict=True))
            found.setdefault(row.site, []).append(Series(points, style, dots=True))
    axes = fitted_axis([0.0, 4.0], "false positives per image"), share_axis("sensitivity for lesions")
    return [Figure(site, panel(f"FROC on {site}", *axes, series)) for site, series in found.items()]


def _figures(
    what: str,
    judged: Sequence[Judged],
    styles: Mapping[str, int],
    axes: tuple[Axis, Axis],
    draw: Drawn,
    *,
    diagonal: bool = False,
) -> list[Figure]:
    found = []
    for (modality, site), group in by_site(judged).items():
        lines = [draw(runs, style) for style, runs in _shown(group, styles)]
        series = [line for line in lines if line is not None]
        found.append(
            Figure(f"{site}, {modality}", panel(f"{what} on {site}", *axes, series, diagonal=diagonal))
        )
    return found


def _shown(judged: Sequence[Judged], styles: Mapping[str, int]) -> Iterator[tuple[int, list[Judged]]]:
    groups = [(styles.get(label, MOST_LINES), runs) for label, runs in by_label(judged).items()]
    yield from sorted(((s, runs) for s, runs in groups if s < MOST_LINES), key=lambda pair: -pair[0])


def _roc(runs: Sequence[Judged], style: int) -> Series | None:
    curves = _curves(runs)
    if not curves:
        return None
    mean = np.mean([np.interp(GRID, c.false_positive, c.sensitivity) for c in curves], axis=0)
    return Series([(0.0, 0.0), *_points(GRID, mean)], style)


def _precision(runs: Sequence[Judged], style: int) -> Series | None:
    found = []
    for run, curve in zip(runs, [roc_curve(j.test.labels, j.test.logits) for j in runs], strict=True):
        if len(curve.threshold):
            positives = run.test.labels.sum()
            hits = curve.sensitivity * positives
            alarms = curve.false_positive * (len(run.test.labels) - positives)
            # the least precision among thresholds that reach a sensitivity is the honest one to join
            place = np.searchsorted(curve.sensitivity, np.maximum(GRID, 1 / max(positives, 1)) - 1e-12)
            found.append((hits / np.maximum(hits + alarms, 1e-12))[np.minimum(place, len(hits) - 1)])
    return Series(_points(GRID, np.mean(found, axis=0)), style) if found else None


def _calibration(runs: Sequence[Judged], style: int) -> Series | None:
    labels = np.concatenate([j.test.labels for j in runs])
    parts = reliability(labels, expit(np.concatenate([j.test.logits for j in runs])), bins=10)
    return Series(_points(parts.predicted, parts.observed), style, dots=True)


def _risk(runs: Sequence[Judged], style: int) -> Series | None:
    found = []
    for j in runs:
        at = j.line.get("threshold")
        threshold = 0.5 if at is None else float(at)
        curve = risk_coverage(j.test.labels, expit(j.test.logits), threshold=threshold)
        if len(curve.coverage):
            found.append(np.interp(GRID[5:], curve.coverage, curve.risk))
    return Series(_points(GRID[5:], np.mean(found, axis=0)), style) if found else None


def _curves(runs: Sequence[Judged]) -> list[Curve]:
    found = (roc_curve(j.test.labels, j.test.logits) for j in runs)
    return [c for c in found if len(c.threshold)]


def _points(x: np.ndarray, y: np.ndarray) -> list[Point]:
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
