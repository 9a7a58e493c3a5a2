"""Free-response ROC of lesion detection, by the rules of CAMELYON16 and for mammograms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from mammopath.errors import DataError
from mammopath.metrics.intervals import Statistic
from mammopath.metrics.ranking import divided

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which CAMELYON16 reads the sensitivity."""

MARGIN_UM = 75.0
"""CAMELYON16: regions closer than this merge (about five tumour cells); each grows by half of it."""

ISOLATED_UM = 275.0
"""CAMELYON16: a grown region with a shorter major axis is isolated tumour cells (200 um plus margin)."""


@dataclass(frozen=True)
class Regions:
    """The lesions of one image, on the grid on which they are judged.

    Attributes:
        label: 0 outside, 1..k inside lesion k.
        ignored: which of the k count neither as lesion nor as false positive when hit.
        scale: level-0 pixels per pixel of this grid.
    """

    label: Int[np.ndarray, "h w"]
    ignored: Bool[np.ndarray, " k"]
    scale: float = 1.0


@dataclass(frozen=True)
class Marks:
    """The detections of one image after comparison with its lesions.

    Attributes:
        false_positives: scores of detections outside every lesion.
        hits: best score on each lesion that counts; 0 for a missed one.
    """

    false_positives: Float[np.ndarray, " f"]
    hits: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class Froc:
    """Sensitivity against false positives per image, from the laxest threshold to the strictest.

    Attributes:
        false_positives: per image, falling to 0.
        sensitivity: share of lesions found, falling to 0.
        at: sensitivity at each rate of false positives, by linear interpolation.
        score: mean of ``at``; NaN without lesions.
    """

    false_positives: Float[np.ndarray, " t"]
    sensitivity: Float[np.ndarray, " t"]
    at: Float[np.ndarray, " r"]
    score: float


def camelyon16_regions(tumour: Bool[np.ndarray, "h w"], *, um: float = 0.243, level: int = 5) -> Regions:
    """Lesions of a slide by the CAMELYON16 rule.

    Args:
        tumour: annotated tumour at ``level`` of a pyramid of factor 2.
        um: micrometres per pixel at level 0.
        level: the official evaluation uses 5.
    """
    scale, label = 2.0**level, np.zeros(tumour.shape, np.int32)
    # the official script measures on 255 - mask: without any tumour every distance is infinite for it
    if not tumour.any():
        return Regions(label, np.zeros(0, bool), scale)
    reach = MARGIN_UM / (um * scale * 2)
    part = _around(tumour, math.ceil(reach) + 1)
    near = ndimage.distance_transform_edt(~tumour[part]) < reach
    label[part], count = ndimage.label(ndimage.binary_fill_holes(near), structure=np.ones((3, 3)))
    places = ndimage.find_objects(label, count)
    axes = np.array([_major_axis(label[place] == k) for k, place in enumerate(places, start=1)])
    return Regions(label, axes < ISOLATED_UM / (um * scale), scale)


def mammogram_regions(lesions: Sequence[Bool[np.ndarray, "h w"]], *, tolerance: float = 0.0) -> Regions:
    """Lesions of a mammogram, each grown by ``tolerance`` pixels; where two overlap the later one counts."""
    if not lesions:
        raise DataError("mammogram_regions needs the image's grid: pass at least one (possibly empty) mask")
    label = np.zeros(lesions[0].shape, int)
    for k, lesion in enumerate(lesions, start=1):
        if lesion.any():
            label[ndimage.distance_transform_edt(~lesion) <= tolerance] = k
    return Regions(label, np.array([not (label == k).any() for k in range(1, len(lesions) + 1)]))


def mark(detections: Float[np.ndarray, "n 3"], regions: Regions | None) -> Marks:
    """Compare detections with the lesions of their image.

    Several hits on one lesion count once with the best score; a hit on an ignored region counts as
    nothing; any other detection, and every one on an image without lesions, is a false positive.

    Args:
        detections: rows of score (above 0), x, y in level-0 pixels.
        regions: None for an image without lesions.

    Raises:
        DataError: a detection lies outside the image, by more than the part of a cell that a level of a
            pyramid leaves over at its right and lower edge.
    """
    if regions is None:
        return Marks(detections[:, 0], np.empty(0))
    hit = _labels_at(regions, detections)
    best = np.zeros(len(regions.ignored) + 1)
    np.maximum.at(best, hit, detections[:, 0])
    return Marks(detections[hit == 0, 0], best[1:][~regions.ignored])


def froc(images: Sequence[Marks], *, rates: Sequence[float] = RATES) -> Froc:
    """The curve over all images, lesion-free ones included, read at ``rates`` false positives per image.

    Thresholds are all scores above 0, and a final point at no detections. The official CAMELYON16 script
    drops the lowest score instead, which is the same wherever a lesion is missed or isolated (score 0).
    """
    thresholds = _thresholds(images)
    alarms, hits, lesions = _counts(images, thresholds)
    per_image, found = alarms.sum(axis=1) / len(images), hits.sum(axis=1)
    sensitivity = found / lesions.sum() if lesions.sum() else np.full(len(found), np.nan)
    at = np.interp(rates, per_image[::-1], sensitivity[::-1])
    return Froc(per_image, sensitivity, at, float(at.mean()))


def froc_statistic(images: Sequence[Marks], *, rates: Sequence[float] = RATES) -> Statistic:
    """FROC score as a function of image weights, for a bootstrap over slides."""
    alarms, hits, lesions = _counts(images, _thresholds(images))

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        per_image = divided(weights @ alarms.T, np.repeat(weights.sum(axis=1)[:, None], len(alarms), axis=1))
        total = np.repeat((weights @ lesions)[:, None], len(hits), axis=1)
        sensitivity = divided(weights @ hits.T, total)
        pairs = zip(per_image[:, ::-1], sensitivity[:, ::-1], strict=True)
        return np.array([np.interp(rates, x, y).mean() for x, y in pairs])

    return statistic


def pointing_hit(
    heat: Float[np.ndarray, "h w"], lesion: Bool[np.ndarray, "h w"], *, tolerance: float = 0.0
) -> float:
    """Pointing game (Zhang et al. 2018): 1 if the hottest pixel lies on a lesion, or this near to one.

    Args:
        heat: localisation map; NaN where there is no tissue. Of equal maxima, their first.
        lesion: True inside annotated lesions.
        tolerance: in pixels of the map (the paper's 15 at its image size).

    Returns:
        1.0 or 0.0; NaN where there is no lesion, no heat, or a constant map, which points nowhere.
    """
    values = heat[~np.isnan(heat)]
    if not lesion.any() or not len(values) or values.min() == values.max():
        return np.nan
    peak = np.unravel_index(np.nanargmax(heat), heat.shape)
    return float(ndimage.distance_transform_edt(~lesion)[peak] <= tolerance)


def _labels_at(regions: Regions, detections: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    columns, rows = np.floor(detections[:, 1:] / regions.scale).astype(int).T
    height, width = regions.label.shape
    outside = (rows < 0) | (rows > height) | (columns < 0) | (columns > width)
    if outside.any():
        x, y = detections[np.argmax(outside), 1:]
        raise DataError(
            f"detection at x={x:g}, y={y:g} lies outside the image of "
            f"{width * regions.scale:g} x {height * regions.scale:g} level-0 pixels; check units and order"
        )
    return regions.label[np.minimum(rows, height - 1), np.minimum(columns, width - 1)]


def _around(mask: Bool[np.ndarray, "h w"], margin: int) -> tuple[slice, slice]:
    """The part of a mask that holds all of it, and a margin: on whole slides, a small one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _thresholds(images: Sequence[Marks]) -> Float[np.ndarray, " t"]:
    every = [scores for image in images for scores in (image.false_positives, image.hits)]
    return np.append(np.unique(np.concatenate([np.zeros(1), *every]))[1:], np.inf)


def _counts(
    images: Sequence[Marks], thresholds: Float[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, "t n"], Float[np.ndarray, "t n"], Float[np.ndarray, " n"]]:
    """False positives and found lesions per threshold and image; lesions per image."""
    alarms = np.stack([_at_least(image.false_positives, thresholds) for image in images], axis=1)
    hits = np.stack([_at_least(image.hits, thresholds) for image in images], axis=1)
    return alarms, hits, np.array([float(len(image.hits)) for image in images])


def _at_least(
    scores: Float[np.ndarray, " n"], thresholds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    return (len(scores) - np.searchsorted(np.sort(scores), thresholds)).astype(float)


def _major_axis(region: Bool[np.ndarray, "h w"]) -> float:
    """Length in pixels of the major axis of the ellipse of equal second moments (as scikit-image)."""
    points = np.argwhere(region).astype(float)
    return float(4 * np.sqrt(np.linalg.eigvalsh(np.cov(points.T, bias=True))[-1])) if len(points) > 1 else 0.0
