"""Figures of a report as small SVG strings: system fonts, no scripts, readable in print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

COLOURS = ("#0072B2", "#D55E00", "#00795A", "#AA3377", "#1A1A1A", "#3A86C8", "#8C6510", "#7A4FA3")
"""After Okabe and Ito, darkened to at least 3:1 on white; told apart without colour by ``DASHES``."""

OTHERS = "#5b6570"
"""Of methods that no curve draws."""

DASHES = ("", "6 3", "2 2.5", "9 3 2 3")

WIDTH, HEIGHT = 250, 224
"""Of a panel in its own units; the page scales it."""

LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 40
"""Margins of a panel: room for tick labels and axis titles."""


@dataclass(frozen=True)
class Axis:
    """A linear axis with its ticks and title."""

    low: float
    high: float
    ticks: Sequence[float]
    title: str = ""

    def place(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; values beyond stay at the edge."""
        span = (self.high - self.low) or 1.0
        return min(1.0, max(0.0, (value - self.low) / span))


@dataclass(frozen=True)
class Series:
    """A line of points in the style of its ``index``."""

    points: Sequence[Point]
    index: int
    faint: bool = False
    dots: bool = False


def share_axis(title: str) -> Axis:
    """From 0 to 1."""
    return Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), title)


def fitted_axis(values: Sequence[float], title: str, *, count: int = 5) -> Axis:
    """Round ticks around finite values."""
    finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    rough = ((high - low) or abs(high) or 1.0) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return Axis(first * step, last * step, [k * step for k in range(first, last + 1)], title)


def panel(label: str, x: Axis, y: Axis, series: Sequence[Series], *, diagonal: bool = False) -> str:
    """A framed panel of lines.

    Args:
        label: what the figure shows, for those who do not see it.
        x: across.
        y: upwards.
        series: drawn in order.
        diagonal: draw the line from corner to corner (chance, or perfect calibration).
    """
    parts = [_grid(x, y)]
    if diagonal:
        corners = f'x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{TOP}"'
        parts.append(f'<line {corners} class="diagonal"/>')
    parts += [_line(x, y, s) for s in series if s.points]
    return _svg(WIDTH, HEIGHT, label, "".join(parts), "panel")


def forest_axis(values: Sequence[float]) -> Axis:
    """Axis of AUCs for a whole table: in tenths, with chance always on it."""
    finite = [v for v in (*values, 0.5) if math.isfinite(v)]
    low = max(0, math.floor(min(finite) * 10 + 1e-9))
    high = min(10, max(math.ceil(max(finite) * 10 - 1e-9), low + 2))
    step = 1 if high - low <= 5 else 2
    return Axis(low / 10, high / 10, [k / 10 for k in range(low, high + 1, step)])


FOREST_WIDTH, FOREST_EDGE = 220, 12


def forest_head(axis: Axis) -> str:
    """Tick labels above the rows of a forest plot."""
    ticks = "".join(
        f'<text x="{_across(axis, t):.1f}" y="13" class="tick middle">{t:.1f}</text>'
        f'<line x1="{_across(axis, t):.1f}" y1="17" x2="{_across(axis, t):.1f}" y2="21" class="axis"/>'
        for t in axis.ticks
    )
    return _svg(FOREST_WIDTH, 21, "AUC axis", ticks, "forest")


def forest_row(axis: Axis, value: float, low: float, high: float, *, reference: float, index: int) -> str:
    """One row: a dot with its limits, a hollow diamond at the in-domain AUC, a dashed line at chance."""
    half = _across(axis, 0.5)
    parts = [f'<line x1="{half:.1f}" y1="0" x2="{half:.1f}" y2="24" class="diagonal"/>']
    colour = COLOURS[index] if index < len(COLOURS) else OTHERS
    if math.isfinite(low) and math.isfinite(high):
        ends = f'x1="{_across(axis, low):.1f}" x2="{_across(axis, high):.1f}" y1="12" y2="12"'
        parts.append(f'<line {ends} stroke="{colour}" stroke-width="2.5"/>')
    if math.isfinite(reference):
        x = _across(axis, reference)
        parts.append(f'<path d="M{x:.1f} 5.5l5 6.5-5 6.5-5-6.5z" class="hollow"/>')
    if math.isfinite(value):
        parts.append(f'<circle cx="{_across(axis, value):.1f}" cy="12" r="4.5" fill="{colour}"/>')
    told = f"AUC {value:.2f}, limits {low:.2f} to {high:.2f}, in-domain {reference:.2f}".replace(
        "nan", "unknown"
    )
    return _svg(FOREST_WIDTH, 24, told, "".join(parts), "forest")


def swatch(index: int) -> str:
    """The line style of a series, for a legend."""
    return _svg(30, 10, "", f'<line x1="1" y1="5" x2="29" y2="5" {_stroke(index)}/>', "swatch")


def _across(axis: Axis, value: float) -> float:
    return FOREST_EDGE + axis.place(value) * (FOREST_WIDTH - 2 * FOREST_EDGE)


def _at(x: Axis, y: Axis, point: Point) -> Point:
    across = LEFT + x.place(point[0]) * (WIDTH - LEFT - RIGHT)
    return across, HEIGHT - BOTTOM - y.place(point[1]) * (HEIGHT - TOP - BOTTOM)


def _line(x: Axis, y: Axis, series: Series) -> str:
    places = [_at(x, y, p) for p in series.points if math.isfinite(p[0]) and math.isfinite(p[1])]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    opacity = ' opacity="0.65"' if series.faint else ""
    drawn = f'<polyline points="{path}" fill="none" {_stroke(series.index)}{opacity}/>'
    colour = COLOURS[series.index % len(COLOURS)]
    dots = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{colour}"/>' for a, b in places)
    return drawn + ("".join(dots) if series.dots else "")


def _stroke(index: int) -> str:
    dash = DASHES[(index + index // len(COLOURS)) % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="2"{dashed}'


def _grid(x: Axis, y: Axis) -> str:
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for t in x.ticks:
        a, _ = _at(x, y, (t, y.low))
        parts.append(f'<line x1="{a:.1f}" y1="{TOP}" x2="{a:.1f}" y2="{floor}" class="grid"/>')
        parts.append(f'<text x="{a:.1f}" y="{floor + 15}" class="tick middle">{_tick(t)}</text>')
    for t in y.ticks:
        _, b = _at(x, y, (x.low, t))
        parts.append(f'<line x1="{LEFT}" y1="{b:.1f}" x2="{wall}" y2="{b:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{b + 4:.1f}" class="tick end">{_tick(t)}</text>')
    middle, centre = (LEFT + wall) / 2, (TOP + floor) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" class="title middle">{escape(x.title)}</text>')
    turned = f'transform="translate(9 {centre}) rotate(-90)"'
    parts.append(f'<text {turned} class="title middle">{escape(y.title)}</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"


def _svg(width: int, height: int, label: str, inside: str, kind: str) -> str:
    told = f'role="img" aria-label="{escape(label, quote=True)}"' if label else 'aria-hidden="true"'
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" {told}>{inside}</svg>'
