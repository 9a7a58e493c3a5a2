"""Is a map to be believed: does it point at lesions, at what the network uses, and at this network at all.

Every map is an array of values with NaN where there is no image; more is more important.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.stats import rankdata

Heat = Float[np.ndarray, "_ _"]
"""Grids are not bound: the maps of several images may be of several sizes."""

SAME = 0.5
"""Rank correlation with the map of a network of shuffled weights from which a map counts as blind to it."""

ALIKE = 0.95
"""Mean rank correlation of the maps of different images from which they count as one map."""

FLAT = 1e-6
"""Spread relative to the largest value below which a map counts as constant."""

LEAST = 4
"""Maps that can be compared, with each other and with those of shuffled weights, without which there is no
verdict: fewer say nothing for or against a method."""

UNTESTED = "not tested"
"""Beginning of the verdict where there is no evidence."""


@dataclass(frozen=True, slots=True)
class Sanity:
    """What speaks for or against a map method, over some images.

    Attributes:
        images: looked at.
        compared: images whose maps with true and with shuffled weights can be compared: neither is constant.
        constant: share of images whose map is constant; NaN without images.
        alike: mean rank correlation of the maps of different images; NaN where none can be compared.
        shuffled: median rank correlation with maps of the same network with shuffled weights, likewise.
    """

    images: int
    compared: int
    constant: float
    alike: float
    shuffled: float

    @property
    def verdict(self) -> str:
        """``passed``, ``failed`` with the first reason, or ``not tested`` with too little evidence."""
        if self.images < LEAST:
            return f"{UNTESTED}: {self.images} images, {LEAST} are needed"
        if self.constant > 0.5:
            return f"failed: constant in {100 * self.constant:.0f} % of images"
        if self.alike >= ALIKE:
            return f"failed: the same for every image (rank correlation {self.alike:.2f})"
        if self.compared < LEAST or np.isnan(self.alike):
            return f"{UNTESTED}: {self.compared} maps can be compared, {LEAST} are needed"
        if self.shuffled >= SAME:
            return f"failed: the same for shuffled weights (rank correlation {self.shuffled:.2f})"
        return "passed"


def sanity(maps: Sequence[Heat], shuffled: Sequence[Heat]) -> Sanity:
    """Judge a method by its maps of several images, with true and with shuffled weights.

    Args:
        maps: of each image.
        shuffled: of the same images, by a network with shuffled weights (Adebayo et al. 2018, NeurIPS).
    """
    kept = [abs(rank_correlation(a, b)) for a, b in zip(maps, shuffled, strict=True)]
    kept = [k for k in kept if not np.isnan(k)]
    flat = float(np.mean([is_constant(m) for m in maps])) if maps else np.nan
    return Sanity(len(maps), len(kept), flat, alike(maps), float(np.median(kept)) if kept else np.nan)


def is_constant(heat: Heat) -> bool:
    """Whether a map says the same everywhere, up to rounding."""
    values = heat[~np.isnan(heat)]
    if not len(values):
        return True
    return bool(values.max() - values.min() <= FLAT * max(abs(values).max(), 1e-30))


def alike(maps: Sequence[Heat], *, pairs: int = 60) -> float:
    """Mean rank correlation of neighbouring maps in the list on the grid of the first, ``pairs`` at most."""
    found = [rank_correlation(a, on_grid_of(a, b)) for a, b in pairwise(maps[: pairs + 1])]
    found = [f for f in found if not np.isnan(f)]
    return float(np.mean(found)) if found else np.nan


def on_grid_of(one: Heat, other: Heat) -> Heat:
    """The other map at the places of the first: each takes the value that lies at its share of the sides."""
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(one.shape, other.shape, strict=True)
    )
    return other[np.ix_(rows, columns)]


def rank_correlation(one: Float[np.ndarray, "rows cols"], other: Float[np.ndarray, "rows cols"]) -> float:
    """Spearman's correlation over places that both maps have; NaN where either is constant there."""
    both = ~np.isnan(one) & ~np.isnan(other)
    if both.sum() < 3:
        return np.nan
    a, b = (rankdata(m[both]) for m in (one, other))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else np.nan


# ---------------------------------------------------------------- faithfulness


def order(heat: Heat) -> Int[np.ndarray, " n"]:
    """Flat places of a map from the most important to the least; of equal values the first one first."""
    flat = heat.ravel()
    return np.flatnonzero(~np.isnan(flat))[np.argsort(-flat[~np.isnan(flat)], kind="stable")]


def steps(heat: Heat, count: int) -> list[Int[np.ndarray, " k"]]:
    """The most important 0, 1/count, ... of all places, as nested prefixes of ``order``."""
    places = order(heat)
    return [places[: round(len(places) * k / count)] for k in range(count + 1)]


def area(scores: Float[np.ndarray, " k"]) -> float:
    """Mean height of a curve over equally spaced steps (trapezoids)."""
    return float((scores[:-1] + scores[1:]).mean() / 2)


def edge_map(image: Float[np.ndarray, "h w"], cell: int) -> Heat:
    """Control that knows nothing of any network: strength of edges (Sobel), averaged over each token."""
    strength = np.hypot(ndimage.sobel(image, axis=0), ndimage.sobel(image, axis=1))
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    cut = strength[: rows * cell, : columns * cell]
    return cut.reshape(rows, cell, columns, cell).mean(axis=(1, 3)).astype(float)


# ---------------------------------------------------------------- lesions


def iou(heat: Float[np.ndarray, "rows cols"], lesion: Bool[np.ndarray, "rows cols"]) -> float:
    """Overlap of a lesion and as many of the map's highest places, intersection over union; NaN without."""
    size = int((lesion & ~np.isnan(heat)).sum())
    if not size:
        return np.nan
    chosen = np.zeros(heat.size, dtype=bool)
    chosen[order(heat)[:size]] = True
    inside = chosen.reshape(heat.shape)
    return float((inside & lesion).sum() / (inside | lesion).sum())


def expected_hits(pull: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, top: int = 5) -> float:
    """Share of the ``top`` largest weights that are on right places, over all orders of equal weights.

    Places without weight are not pointed to, so fewer than ``top`` may count; a link without any weight
    points anywhere, and its share is that of a random place.

    Args:
        pull: weight of each place, at least 0.
        right: which places are right.
        top: places that count.

    Returns:
        From 0 to 1; NaN without places.
    """
    if not len(pull):
        return np.nan
    if not (pull > 0).any():
        return float(right.mean())
    kept, ours = pull[pull > 0], right[pull > 0]
    count = min(top, len(kept))
    least = np.sort(kept)[-count]
    sure, tied = kept > least, kept == least
    return float((ours[sure].sum() + (count - sure.sum()) * ours[tied].mean()) / count)
