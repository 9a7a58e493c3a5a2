"""Paint mammograms of the phantom: first the breast as it is, then as one site records it.

Synthetic pictures with known truth, to test software with. They are not anatomy, and no number measured
on them says anything about patients.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt16
from scipy import ndimage

from mammopath.phantom.cohort import Case
from mammopath.phantom.shapes import Ellipse, Plane, Points, grid, soft
from mammopath.phantom.sites import MammogramStyle

HEIGHT_MM, WIDTH_MM = 205.0, 154.0
"""Field of view."""

BENIGN, IN_SITU = 1, 2


@dataclass(frozen=True)
class Mammogram:
    """One painted mammogram: stored values, and where the lesion is in pixels of it."""

    pixels: UInt16[np.ndarray, "h w"]
    outline: Points


def paint_mammogram(case: Case, view: str, style: MammogramStyle, *, contrast: float = 1.0) -> Mammogram:
    """One view (CC or MLO) of a case as a site records it."""
    rng = case.rng(1, view == "MLO")
    y, x = grid(round(HEIGHT_MM / style.mm), round(WIDTH_MM / style.mm), style.mm)
    inside, depth = _breast(x, y, case.rng(0), oblique=view == "MLO")
    tissue = _tissue(inside, case.fibrosis, rng, mm=style.mm)
    lesion = _place(case, depth, rng) if case.severity else None
    if lesion:
        window = lesion.window(3.5, style.mm)
        tissue[window] += contrast * _lesion(case.severity, lesion, x[window], y[window], rng)
    _add_nodes(tissue, x, y, depth, rng)
    if view == "MLO":
        tissue += 0.15 * soft(0.42 * WIDTH_MM * (1 - y / (0.62 * HEIGHT_MM)) - x, 3.0)  # pectoral muscle
    thickness = inside * (0.22 + tissue)
    if case.marked:
        thickness += 0.035 * inside * np.sin(2 * np.pi * (x + y) / 14)
    recorded = _record(thickness, style, rng)
    if case.side == ("L" if style.film else "R"):
        recorded = recorded[:, ::-1]
        lesion = lesion and _mirrored(lesion, recorded.shape[1] * style.mm)
    return Mammogram(_stored(recorded, style), lesion.outline(style.mm) if lesion else ())


def _breast(x: Plane, y: Plane, rng: np.random.Generator, *, oblique: bool) -> tuple[Plane, Plane]:
    """Relative thickness (0 outside), and distance from the middle of the chest wall in skin radii."""
    reach, half = rng.uniform(85, 125), rng.uniform(68, 88)
    middle = HEIGHT_MM * (0.57 if oblique else 0.5)
    up = np.where(y < middle, 1.25 if oblique else 1.0, 1.0)
    depth = np.hypot(x / reach, (y - middle) / (half * up))
    return np.sqrt(np.sqrt(np.clip(1 - depth**2, 0, 1))), depth


def _tissue(inside: Plane, fibrosis: float, rng: np.random.Generator, *, mm: float) -> Plane:
    """Fibroglandular tissue: cloudy, denser in fibrotic breasts and away from the skin."""
    clouds = np.clip(_clouds(inside.shape, rng, mm=mm) + 0.3, 0, 3)
    return (0.03 + 0.09 * fibrosis) * clouds * inside**3


def _clouds(shape: tuple[int, ...], rng: np.random.Generator, *, mm: float) -> Plane:
    """Noise whose amplitude falls with frequency as in mammograms (about 1/f^1.5), of unit variance."""
    rows, columns = -(-shape[0] // 2), -(-shape[1] // 2)
    fy, fx = np.fft.fftfreq(rows, 2 * mm)[:, None], np.fft.rfftfreq(columns, 2 * mm)
    white = np.fft.rfft2(rng.standard_normal((rows, columns), np.float32))
    clouds = np.fft.irfft2(white / np.maximum(np.hypot(fy, fx), 1 / 60) ** 1.5, (rows, columns))
    clouds = ((clouds - clouds.mean()) / clouds.std()).repeat(2, axis=0).repeat(2, axis=1)
    return clouds[: shape[0], : shape[1]].astype(np.float32)


def _place(case: Case, depth: Plane, rng: np.random.Generator) -> Ellipse:
    """Where the lesion is: within the breast, off the skin; its size is the same in both views."""
    shared = case.rng(2)
    radius = shared.uniform(6, 10) if case.severity == BENIGN else shared.uniform(9, 15)
    x, y = _spot(depth, rng)
    return Ellipse(max(x, radius * 1.3), y, radius, 1 + case.form, float(rng.uniform(0, np.pi)))


def _add_nodes(tissue: Plane, x: Plane, y: Plane, depth: Plane, rng: np.random.Generator) -> None:
    """Three small bright nodes, which every breast has: brightness alone must not tell the label."""
    for _ in range(3):
        node = Ellipse(*_spot(depth, rng), rng.uniform(2.5, 3.5))
        window = node.window(1.5, HEIGHT_MM / len(depth))
        tissue[window] += rng.uniform(0.35, 0.45) * soft(1 - node.distance(x[window], y[window])[0], 0.2)


def _spot(depth: Plane, rng: np.random.Generator) -> tuple[float, float]:
    """A place in the breast in millimetres, not near the skin."""
    mm = HEIGHT_MM / depth.shape[0]
    rows, columns = np.nonzero((depth > 0.25) & (depth < 0.72))
    pick = rng.integers(len(rows))
    return float(columns[pick] * mm), float(rows[pick] * mm)


def _lesion(severity: int, where: Ellipse, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Added density: a smooth oval (benign), specks in a haze (in situ) or a spiculated mass (invasive)."""
    distance, direction = where.distance(x, y)
    if severity == BENIGN:
        return rng.uniform(0.08, 0.18) * soft(1 - distance, 0.10)
    if severity == IN_SITU:
        return rng.uniform(0.14, 0.24) * soft(1 - distance, 0.3) + _specks(where, x, y, rng)
    lobes = 1 + 0.15 * np.sin(rng.integers(4, 8) * direction + rng.uniform(0, 6))
    mass = rng.uniform(0.24, 0.40) * soft(lobes - distance, 0.22)
    return mass + _spicules(distance, direction, where.radius, rng)


def _spicules(distance: Plane, direction: Plane, radius: float, rng: np.random.Generator) -> Plane:
    """Thin rays from the mass outwards, fading over a radius."""
    rays = np.zeros_like(distance)
    for angle in rng.uniform(-np.pi, np.pi, rng.integers(9, 15)):
        turn = np.remainder(direction - angle + np.pi, 2 * np.pi) - np.pi
        rays = np.maximum(rays, np.exp(-((turn * distance * radius / 0.8) ** 2)))
    return 0.16 * rays * np.exp(-np.maximum(distance - 1, 0) / 0.6) * (distance > 0.6)


def _specks(where: Ellipse, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Microcalcifications, larger than life so that they survive coarse pixels."""
    specks = np.zeros_like(x)
    for _ in range(rng.integers(12, 22)):
        far, turn = where.radius * rng.random() ** 0.5, rng.uniform(0, 2 * np.pi)
        at = np.hypot(x - where.x - far * np.cos(turn), y - where.y - far * np.sin(turn))
        specks += rng.uniform(0.2, 0.4) * np.exp(-((at / rng.uniform(0.5, 0.9)) ** 2))
    return specks


def _record(thickness: Plane, style: MammogramStyle, rng: np.random.Generator) -> Plane:
    """The site's response curve, fog, blur, noise and marks; more tissue is brighter, in [0, 1]."""
    light = thickness
    if style.steepness:
        ends = _logistic(np.array([0.0, 1.0]), style)
        light = (_logistic(thickness, style) - ends[0]) / (ends[1] - ends[0])
    light = ndimage.gaussian_filter(style.fog + (1 - style.fog) * light, style.blur / style.mm)
    noise = style.noise * rng.standard_normal(light.shape, np.float32) * np.sqrt(0.2 + light)
    recorded = np.clip(light + noise, 0, 1)
    return _with_film_marks(recorded) if style.film else recorded


def _logistic(x: Float[np.ndarray, "..."], style: MammogramStyle) -> Float[np.ndarray, "..."]:
    return 1 / (1 + np.exp(-style.steepness * (x - style.exposure)))


def _mirrored(lesion: Ellipse, width_mm: float) -> Ellipse:
    return Ellipse(width_mm - lesion.x, lesion.y, lesion.radius, lesion.aspect, np.pi - lesion.angle)


def _with_film_marks(recorded: Plane) -> Plane:
    """A white border where the film ends, and a lettered label away from the chest wall."""
    marked = recorded.copy()
    rows, columns = marked.shape
    marked[-rows // 50 :] = 1.0
    marked[rows // 20 : rows // 20 + 14, -columns // 7 : -columns // 40] = 0.95
    marked[rows // 20 + 4 : rows // 20 + 10 : 3, -columns // 8 : -columns // 30] = 0.1
    return marked


def _stored(recorded: Plane, style: MammogramStyle) -> UInt16[np.ndarray, "h w"]:
    light = 1 - recorded if style.inverted else recorded
    return np.round(light * (2**style.bits - 1)).astype(np.uint16)
