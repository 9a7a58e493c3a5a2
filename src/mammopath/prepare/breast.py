"""Where the breast is in a mammogram, and on which side its chest wall lies.

Everything is decided on a coarse copy of about 200 pixels. A film holds more than the breast: labels,
white borders where the film ends, tape, scratches, fog. The breast is what remains of the foreground
after thin bright structures at the frame are taken away and narrow bridges are opened: its largest part
that is not plain white.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from scipy import ndimage

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

COARSE = 192
"""The coarse copy's longer side is at least this where the image allows it, and less than twice this."""

WHITE = 0.97
"""From this share of the range on, film is bare or lettered, not tissue."""

FOG = 0.5
"""The breast's edge lies this share of the way from film fog to the threshold between dark and bright."""

NEAR = 4
"""Dim specks within so many coarse pixels of the breast are taken for its skin line, not for marks."""

UNSURE = 0.15
"""Evidence for a side below this is no evidence: the breast fills the frame."""


@dataclass(frozen=True)
class Breast:
    """The breast in one mammogram.

    Attributes:
        box: around the breast, in pixels of the image.
        mask: the breast in the coarse copy.
        marks: labels, tape and borders in the coarse copy.
        wall: evidence for the chest wall on the left (to 1) or right (to -1); 0 is none.
    """

    box: Box
    mask: Bool[np.ndarray, "h w"]
    marks: Bool[np.ndarray, "h w"]
    wall: float


def find_breast(pixels: Shaped[np.ndarray, "rows columns"]) -> Breast:
    """Find the breast; the whole image where there is nothing to tell it by."""
    coarse = coarse_copy(pixels)
    grey = _stretched(coarse)
    front, white = _foreground(grey), grey > WHITE
    tissue = front & ~_borders(white)
    mask = _largest_part(tissue, white)
    near = ndimage.binary_dilation(mask, iterations=NEAR)
    marks = front & ~mask & (~near | (grey > np.median(grey[mask])))
    marks = ndimage.binary_dilation(marks, iterations=2) & ~mask
    wall = _wall(mask)
    return Breast(_box(mask, wall, pixels.shape), mask, marks, wall)


def wall_on_left(breast: Breast, laterality: str) -> bool:
    """Whether the chest wall lies on the left of the image.

    The pixels decide, since films are digitised either way round (mini-MIAS shows left breasts with the
    chest wall on the right; CBIS-DDSM mixes both). Only where they do not tell, laterality does, by the
    usual way of display: the chest wall of a left breast on the left.
    """
    if abs(breast.wall) >= UNSURE:
        return breast.wall > 0
    return laterality != "R"


def coarse_copy(pixels: Shaped[np.ndarray, "rows columns"]) -> Float[np.ndarray, "h w"]:
    """A box-averaged copy; of large images every k-th pixel is enough to begin with."""
    step = max(1, max(pixels.shape) // (2 * COARSE))
    thin = np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32)
    return np.asarray(Image.fromarray(thin).reduce(max(1, max(thin.shape) // COARSE)))


def _stretched(coarse: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    low, high = np.quantile(coarse, (0.01, 0.999))
    return np.clip((coarse - low) / max(high - low, 1e-6), 0, 1)


def _foreground(grey: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What is brighter than film fog. Square roots, since fat at the skin line is dark."""
    root = np.sqrt(grey)
    between = root[(root > 0.05) & (root < np.sqrt(WHITE))]
    threshold = _otsu(between) if between.size else 0.5
    dark = root[root < threshold]
    fog = np.quantile(dark, 0.3) if dark.size else 0.0
    return root > fog + FOG * (threshold - fog)


def _otsu(values: Float[np.ndarray, " n"]) -> float:
    """Threshold of the largest variance between two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 128)
    middle = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middle)
    apart = (sums[-1] * below - sums * below[-1]) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(middle[np.argmax(apart)])


def _borders(white: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Long thin white structures at the frame: film edges and tape."""
    reach, width = max(2, max(white.shape) // 12), max(white.shape) // 14 | 1
    frame = np.ones_like(white)
    frame[reach:-reach, reach:-reach] = False
    if not (white & frame).any():
        return white & frame
    thick = ndimage.grey_opening(white.view(np.uint8), width, mode="constant").astype(bool)
    parts, count = ndimage.label(white & frame & ~thick, np.ones((3, 3)))
    shortest = max(white.shape) // 4
    long = [max(s.stop - s.start for s in place) > shortest for place in ndimage.find_objects(parts, count)]
    return np.array([False, *long])[parts]


def _largest_part(tissue: Bool[np.ndarray, "h w"], white: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    bridge = max(2, max(tissue.shape) // 64)
    parts, count = ndimage.label(ndimage.binary_opening(tissue, iterations=bridge))
    if count == 0:
        return np.ones_like(tissue)
    areas = np.bincount(parts.ravel())[1:]
    whites = np.bincount(parts.ravel(), white.ravel())[1:]
    best = 1 + np.argmax(np.where(whites > 0.9 * areas, 0.05, 1.0) * areas)
    return ndimage.binary_dilation(parts == best, iterations=bridge) & tissue


def _wall(mask: Bool[np.ndarray, "h w"]) -> float:
    """How much taller the breast stands at the left end of its box than at the right."""
    columns = np.flatnonzero(mask.any(axis=0))
    heights = mask.sum(axis=0)[columns[0] : columns[-1] + 1].astype(float)
    end = max(1, len(heights) // 8)
    left, right = heights[:end].mean(), heights[-end:].mean()
    return float((left - right) / (left + right))


def _box(mask: Bool[np.ndarray, "h w"], wall: float, shape: tuple[int, ...]) -> Box:
    """Box in image pixels with a margin for the skin line, but none behind the chest wall."""
    scale = (shape[0] / mask.shape[0], shape[1] / mask.shape[1])
    margin = 0.015 * max(shape)
    (top, bottom), (left, right) = (
        (s * hits[0], s * (hits[-1] + 1))
        for s, hits in zip(scale, (np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))), strict=True)
    )
    return (
        round(max(0, left - margin * (wall < UNSURE))),
        round(max(0, top - margin)),
        round(min(shape[1], right + margin * (wall > -UNSURE))),
        round(min(shape[0], bottom + margin)),
    )
