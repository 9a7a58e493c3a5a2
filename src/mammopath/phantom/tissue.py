"""Paint histology fields of the phantom: amounts of stain first, then colours as one laboratory scans them.

Synthetic pictures with known truth, to test software with. They are not tissue, and no number measured
on them says anything about patients.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from mammopath.phantom.cohort import Case
from mammopath.phantom.shapes import Ellipse, Plane, Points, grid, soft
from mammopath.phantom.sites import TissueStyle

FIELD_UM = 112.0
"""Side of a field."""

Nucleus = tuple[Ellipse, float]
"""Where it is, in micrometres, and its amount of haematoxylin."""


@dataclass(frozen=True)
class Pattern:
    """How nuclei look and lie in a kind of tissue.

    Attributes:
        per_mm2: mean density of nuclei, in thousands per square millimetre.
        um: mean diameter. variation: relative spread of diameters.
        darkness: mean amount of haematoxylin.
        ducts: nuclei lie in this many round nests (0: scattered).
        hollow: the nests have a lumen and nuclei around it.
    """

    per_mm2: float
    um: float
    variation: float
    darkness: float
    ducts: int
    hollow: bool = False


PATTERNS = (
    Pattern(13.0, 5.8, 0.08, 0.80, ducts=2, hollow=True),
    Pattern(19.0, 6.2, 0.10, 0.84, ducts=3, hollow=True),
    Pattern(20.0, 7.1, 0.20, 0.98, ducts=3),
    Pattern(9.0, 8.3, 0.30, 1.04, ducts=0),
)
"""Normal, benign, in situ, invasive."""

STROMA = Pattern(1.4, 5.0, 0.10, 0.7, ducts=0)
"""Sparse spindle nuclei between everything."""


Nest = tuple[Ellipse, Pattern]


@dataclass(frozen=True)
class Tissue:
    """One painted field: colours, and where its lesion is in pixels of it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    outline: Points


def paint_field(case: Case, number: int, style: TissueStyle) -> Tissue:
    """One field of a case as a laboratory stains and scans it."""
    rng = case.rng(3, number)
    lesion = _place(case, rng)
    nests = [*_bystander(lesion, rng), *_nests(lesion, PATTERNS[case.severity], rng)]
    nuclei = _scattered(replace(STROMA, per_mm2=rng.uniform(0.4, 2.4)), _everywhere(), case, rng)
    for nest, pattern in nests:
        nuclei = [n for n in nuclei if np.hypot(n[0].x - nest.x, n[0].y - nest.y) > nest.radius]
        nuclei += _scattered(pattern, nest, case, rng)
    side = round(FIELD_UM / style.um)
    blue = _haematoxylin(nuclei, side, style.um, rng) * rng.uniform(0.75, 1.25)
    pink = _eosin(nests, case, side, style.um, rng)
    rgb = _scan(blue, pink * (1 - 0.6 * np.clip(blue, 0, 1)), style, rng, marked=case.marked)
    return Tissue(rgb, lesion.outline(style.um) if case.severity else ())


def _bystander(lesion: Ellipse, rng: np.random.Generator) -> list[Nest]:
    """A normal duct away from the lesion, in two of three fields: a lumen alone must not tell the label."""
    if rng.random() > 0.67:
        return []
    turn = np.arctan2(FIELD_UM / 2 - lesion.y, FIELD_UM / 2 - lesion.x) + rng.uniform(-0.8, 0.8)
    far = lesion.radius * 1.1 + 14
    duct = Ellipse(
        lesion.x + far * float(np.cos(turn)), lesion.y + far * float(np.sin(turn)), rng.uniform(13, 18)
    )
    return [(duct, PATTERNS[0])]


def _everywhere() -> Ellipse:
    return Ellipse(FIELD_UM / 2, FIELD_UM / 2, FIELD_UM * 0.75)


def _place(case: Case, rng: np.random.Generator) -> Ellipse:
    """Where the changed tissue is; normal ducts lie in such a place too, but it is no lesion."""
    x, y = rng.uniform(0.35 * FIELD_UM, 0.65 * FIELD_UM, 2)
    return Ellipse(float(x), float(y), rng.uniform(32, 44), 1 + 0.3 * case.form, float(rng.uniform(0, np.pi)))


def _nests(lesion: Ellipse, pattern: Pattern, rng: np.random.Generator) -> list[Nest]:
    """Round nests side by side within the lesion, or the lesion itself where nuclei are scattered."""
    if not pattern.ducts:
        return [(lesion, pattern)]
    radius = 0.85 * lesion.radius / pattern.ducts**0.5
    far, start = lesion.radius - radius, rng.uniform(0, 2 * np.pi)
    nests = []
    collapsed = replace(pattern, hollow=False, per_mm2=0.65 * pattern.per_mm2)
    for turn in start + np.arange(pattern.ducts) * 2 * np.pi / pattern.ducts:
        x, y = lesion.x + far * float(np.cos(turn)), lesion.y + far * float(np.sin(turn))
        is_open = pattern.hollow and rng.random() < 0.7
        nests.append((Ellipse(x, y, radius * rng.uniform(0.8, 1)), pattern if is_open else collapsed))
    return nests


def _scattered(pattern: Pattern, nest: Ellipse, case: Case, rng: np.random.Generator) -> list[Nucleus]:
    """Nuclei of a pattern in a nest: all over it, or around its lumen."""
    inner = 0.6 if pattern.hollow else 0.0
    crowding = np.exp(0.25 * rng.standard_normal())
    area = np.pi * nest.radius**2 * (1 - inner**2)
    count = rng.poisson(crowding * pattern.per_mm2 * 1e-3 * area)
    far = np.sqrt(rng.uniform(inner**2, 1, count))
    turn = rng.uniform(0, 2 * np.pi, count)
    cos, sin = np.cos(nest.angle), np.sin(nest.angle)
    u = nest.radius * nest.aspect**0.5 * far * np.cos(turn)
    v = nest.radius / nest.aspect**0.5 * far * np.sin(turn)
    radii = pattern.um / 2 * np.clip(1 + pattern.variation * rng.standard_normal(count), 0.5, 2)
    darkness = pattern.darkness * np.clip(1 + 0.15 * rng.standard_normal(count), 0.5, 2)
    angles = rng.uniform(0, np.pi, count)
    aspect = 1 + 0.9 * case.form
    return [
        (Ellipse(float(x), float(y), float(r), aspect, float(a)), float(d))
        for x, y, r, a, d in zip(
            nest.x + u * cos - v * sin, nest.y + u * sin + v * cos, radii, angles, darkness, strict=True
        )
    ]


def _haematoxylin(nuclei: list[Nucleus], side: int, um: float, rng: np.random.Generator) -> Plane:
    """Amount of haematoxylin: nuclei with some chromatin texture over a faint rest."""
    y, x = grid(side, side, um)
    blue = np.full((side, side), 0.06, np.float32)
    for nucleus, darkness in nuclei:
        window = nucleus.window(1.3, um)
        distance, _ = nucleus.distance(x[window], y[window])
        blue[window] = np.maximum(blue[window], darkness * soft(1 - distance, 0.35))
    return blue * (
        1 + 0.15 * ndimage.gaussian_filter(rng.standard_normal(blue.shape, np.float32), 0.6 / um) * 1.5 / um
    )


def _eosin(nests: list[Nest], case: Case, side: int, um: float, rng: np.random.Generator) -> Plane:
    """Amount of eosin: fibres, more and coarser in fibrotic tissue; pale nests, empty lumina."""
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side), np.float32), (1.0 / um, 6.0 / um))
    pink = 0.30 + 0.15 * case.fibrosis + (0.05 + 0.10 * case.fibrosis) * noise / noise.std()
    y, x = grid(side, side, um)
    for nest, pattern in nests:
        distance, _ = nest.distance(x, y)
        pink += (0.32 - pink) * soft(1.05 - distance, 0.15)
        if pattern.hollow:
            pink *= 1 - 0.95 * soft(0.45 - distance, 0.1)
    return np.clip(pink, 0, None)


def _scan(
    blue: Plane, pink: Plane, style: TissueStyle, rng: np.random.Generator, *, marked: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """The laboratory's stains and the scanner's colours, blur and noise."""
    amounts = blue[..., None] * style.strength[0], pink[..., None] * style.strength[1]
    density = amounts[0] * np.array(style.haematoxylin, np.float32) + amounts[1] * np.array(
        style.eosin, np.float32
    )
    rgb = np.exp(-density) ** style.gamma * np.array(style.gain, np.float32)
    if marked:
        rgb = rgb * np.array((0.95, 1.0, 0.99), np.float32)
    rgb = ndimage.gaussian_filter(rgb, (style.blur / style.um, style.blur / style.um, 0))
    rgb = rgb + style.noise * rng.standard_normal(rgb.shape, np.float32)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
