"""Textures of phantom slides: kinds of tissue that repeat without a seam, as one laboratory stains them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from mammopath.phantom.sites import TissueStyle

Plane = Float[np.ndarray, "h w"]

GLASS, STROMA, LYMPH, TUMOUR = range(4)
"""Kinds of ground, by their number in a slide's label map."""

KINDS = 4


@dataclass(frozen=True)
class Ground:
    """How a kind of tissue looks.

    Attributes:
        per_mm2: nuclei, in thousands per square millimetre. um: their mean diameter.
        variation: relative spread of diameters. darkness: amount of haematoxylin in a nucleus.
        eosin: amount of eosin between nuclei.
    """

    per_mm2: float
    um: float
    variation: float
    darkness: float
    eosin: float


GROUNDS = (
    Ground(0.0, 5.0, 0.0, 0.0, 0.0),
    Ground(1.2, 5.0, 0.1, 0.7, 0.45),
    Ground(14.0, 5.6, 0.1, 0.85, 0.22),
    Ground(7.0, 9.5, 0.3, 1.05, 0.40),
)
"""Glass, stroma, lymph node, tumour."""


def paint_texture(
    kind: int, style: TissueStyle, *, side: int, um: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """A square of one kind of tissue; its left edge goes on where its right edge ends, and so up and down.

    Args:
        kind: ``GLASS`` to ``TUMOUR``.
        style: stains and scanner.
        side: in pixels.
        um: side of a pixel in micrometres.
        rng: draws nuclei and noise.
    """
    ground = GROUNDS[kind]
    blue = _nuclei(ground, side, um, rng)
    fibres = ndimage.gaussian_filter(
        rng.standard_normal((side, side), np.float32), (1.0 / um, 5.0 / um), mode="wrap"
    )
    pink = ground.eosin * np.clip(1 + 0.25 * fibres / max(float(fibres.std()), 1e-6), 0, None)
    return _scanned(blue, pink * (1 - 0.6 * np.clip(blue, 0, 1)), style, um, rng)


def _nuclei(ground: Ground, side: int, um: float, rng: np.random.Generator) -> Plane:
    """Amount of haematoxylin: discs of three sizes at random places, by convolution around the edges."""
    count = ground.per_mm2 * 1e-3 * (side * um) ** 2
    blue = np.zeros((side, side), np.float32)
    for size in (-1.0, 0.0, 1.0):
        marks = np.zeros((side, side), np.float32)
        places = rng.integers(0, side, (2, rng.poisson(count / 3)))
        marks[tuple(places)] = np.clip(1 + 0.15 * rng.standard_normal(places.shape[1]), 0.5, 1.5)
        disc = _disc(side, ground.um * (1 + ground.variation * size) / 2 / um)
        blue = np.maximum(blue, np.fft.irfft2(np.fft.rfft2(marks) * np.fft.rfft2(disc), (side, side)))
    return np.asarray(ground.darkness * np.clip(blue, 0, 1.2) + (0.04 if ground.eosin else 0), np.float32)


def _disc(side: int, radius: float) -> Plane:
    """A disc around pixel (0, 0), wrapped, with an edge of one pixel."""
    far = np.minimum(np.arange(side), side - np.arange(side))
    return np.clip(radius + 0.5 - np.hypot(far[:, None], far), 0, 1).astype(np.float32)


def _scanned(
    blue: Plane, pink: Plane, style: TissueStyle, um: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    density = blue[..., None] * style.strength[0] * np.array(style.haematoxylin, np.float32)
    density = density + pink[..., None] * style.strength[1] * np.array(style.eosin, np.float32)
    rgb = 0.96 * np.exp(-density) ** style.gamma * np.array(style.gain, np.float32)
    rgb = ndimage.gaussian_filter(rgb, (style.blur / um, style.blur / um, 0), mode="wrap")
    rgb = rgb + style.noise * rng.standard_normal(rgb.shape, np.float32)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
