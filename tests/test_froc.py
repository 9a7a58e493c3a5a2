"""FROC against the official script's numbers, a literal second implementation and hand-made images."""

import numpy as np
import pytest
from scipy import ndimage

from mammopath.errors import DataError
from mammopath.metrics.froc import (
    RATES,
    Marks,
    camelyon16_regions,
    froc,
    froc_statistic,
    mammogram_regions,
    mark,
    pointing_hit,
)
from mammopath.metrics.intervals import bootstrap

DISCS = [(2000, 2000, 900), (6000, 2500, 500), (3000, 6500, 120), (6500, 6500, 1100)]
"""x, y, radius at level 0 of a mask of 8192 x 8192; the third is isolated tumour cells."""

DETECTIONS = {
    "tumor_001": [
        [0.99, 2000, 2000], [0.9, 2200, 2100], [0.8, 6000, 2500], [0.7, 3000, 6500],
        [0.6, 100, 100], [0.5, 7900, 300], [0.3, 6500, 6500],
    ],
    "normal_001": [[0.95, 100, 200], [0.4, 300, 400]],
    "normal_002": [[0.2, 50, 50]],
}  # fmt: skip

# Returned by the authors' script (Camelyon16/Python/Evaluation_FROC.py) on the mask and detections above.
OFFICIAL_FALSE_POSITIVES = [5 / 3, 4 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 1 / 3, 0, 0]
OFFICIAL_SENSITIVITY = [1, 1, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0]
OFFICIAL_AT = [1 / 3, 2 / 3, 2 / 3, 1, 1, 1]


@pytest.fixture(scope="module")
def regions():
    y, x = np.mgrid[:256, :256] * 32.0
    tumour = np.zeros((256, 256), bool)
    for cx, cy, radius in DISCS:
        tumour |= (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
    return camelyon16_regions(tumour)


def _marks(regions):
    found = {k: np.array(v, float) for k, v in DETECTIONS.items()}
    return [mark(d, regions if name.startswith("tumor") else None) for name, d in found.items()]


def test_golden_camelyon16(regions):
    assert list(np.flatnonzero(regions.ignored) + 1) == [4]
    curve = froc(_marks(regions))
    np.testing.assert_allclose(curve.false_positives, OFFICIAL_FALSE_POSITIVES)
    np.testing.assert_allclose(curve.sensitivity, OFFICIAL_SENSITIVITY)
    np.testing.assert_allclose(curve.at, OFFICIAL_AT)
    assert curve.score == pytest.approx(7 / 9)


def test_margin_merges_near_regions_and_fills_holes():
    tumour = np.zeros((100, 100), bool)
    tumour[10:40, 10:40] = True
    tumour[20:30, 20:30] = False  # a hole
    tumour[10:40, 46:80] = True  # 6 pixels of 7.8 um further on: under 75 um
    tumour[70:74, 10:14] = True
    regions = camelyon16_regions(tumour)
    assert regions.label.max() == 2
    assert regions.label[25, 25] == regions.label[25, 60] == regions.label[25, 43] == 1
    np.testing.assert_array_equal(regions.ignored, [False, True])
    assert camelyon16_regions(np.zeros((5, 5), bool)).ignored.shape == (0,)


def _literal_froc(images):
    """The published rule, threshold by threshold."""
    false = [s for image in images for s in image.false_positives]
    true = [s for image in images for s in image.hits]
    points = [
        (sum(s >= t for s in false) / len(images), sum(s >= t for s in true) / len(true))
        for t in sorted({*false, *true, 0.0})[1:]
    ] + [(0.0, 0.0)]
    x, y = np.array(points)[::-1].T
    return points, np.interp(RATES, x, y).mean()


@pytest.mark.parametrize("seed", range(5))
def test_a_literal_second_implementation_agrees(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(8):
        hits = np.round(rng.random(rng.integers(0, 4)), 1) * (rng.random() < 0.8)
        images.append(Marks(np.round(rng.random(rng.integers(0, 12)), 1) + 0.05, hits))
    images.append(Marks(np.array([0.5]), np.array([0.0, 0.7])))
    points, score = _literal_froc(images)
    curve = froc(images)
    np.testing.assert_allclose(np.stack([curve.false_positives, curve.sensitivity], axis=1), points)
    assert curve.score == pytest.approx(score)
    weights = rng.integers(0, 3, (6, 9)).astype(float)
    weights[:, -1] = 1
    thresholds_kept = froc_statistic(images)(weights)
    for value, weight in zip(thresholds_kept, weights.astype(int), strict=True):
        again = [image for image, w in zip(images, weight, strict=True) for _ in range(w)]
        assert value == pytest.approx(_at_all_thresholds(again, images))


def _at_all_thresholds(images, reference):
    false = np.concatenate([i.false_positives for i in images])
    true = np.concatenate([i.hits for i in images])
    every = np.unique(
        np.concatenate([[0.0], *(np.concatenate([i.false_positives, i.hits]) for i in reference)])
    )[1:]
    points = [((false >= t).sum() / len(images), (true >= t).mean()) for t in [*every, np.inf]]
    x, y = np.array(points)[::-1].T
    return np.interp(RATES, x, y).mean()


def test_lesions_are_those_of_the_whole_grid_though_only_a_part_of_it_is_measured():
    """Rings and specks, also at the edges, where a hole is open to the outside of the slide."""
    y, x = np.mgrid[:90, :120]
    for cx, cy in ((60, 45), (3, 3), (118, 45), (60, 88), (30, 60)):
        tumour = np.abs(np.hypot(x - cx, y - cy) - 8) < 1.5
        tumour |= (np.abs(x - 75) < 2) & (np.abs(y - 45) < 2)
        found = camelyon16_regions(tumour)
        near = ndimage.distance_transform_edt(~tumour) < 75 / (0.243 * 64)
        whole, count = ndimage.label(ndimage.binary_fill_holes(near), structure=np.ones((3, 3)))
        np.testing.assert_array_equal(found.label, whole)
        assert len(found.ignored) == count


def test_bootstrap_over_slides(regions):
    images = _marks(regions) * 6
    interval = bootstrap([froc_statistic(images)], np.arange(len(images)), draws=200).interval()
    assert interval.value == pytest.approx(froc(images).score)
    assert interval.low <= interval.value <= interval.high


def test_no_lesions_is_nan_and_a_point_outside_is_an_error(regions):
    assert np.isnan(froc([Marks(np.array([0.5]), np.empty(0))]).score)
    assert np.isnan(froc([Marks(np.empty(0), np.empty(0))]).score)
    with pytest.raises(DataError, match="outside the image"):
        mark(np.array([[0.5, 9000.0, 10.0]]), regions)


def test_a_detection_in_the_part_of_a_cell_that_a_level_leaves_over_counts_in_the_last_cell():
    """Level 5 of a slide of 3,220 pixels has 100 cells of 32; the last 20 pixels are in none."""
    tumour = np.zeros((100, 100), bool)
    tumour[20:80, 40:] = True
    regions = camelyon16_regions(tumour)
    found = mark(np.array([[0.9, 3219.0, 1600.0], [0.4, 10.0, 3219.0]]), regions)
    assert (found.hits.tolist(), found.false_positives.tolist()) == ([0.9], [0.4])
    for x, y in ((3232.0, 1600.0), (10.0, 3232.0), (-1.0, 10.0), (10.0, -1.0)):
        with pytest.raises(DataError, match="outside the image"):
            mark(np.array([[0.5, x, y]]), regions)


def test_mammogram_marks_grow_by_the_tolerance():
    lesion = np.zeros((40, 40), bool)
    lesion[10:20, 10:20] = True
    detections = np.array([[0.9, 21.0, 15.0], [0.8, 15.0, 15.0], [0.7, 35.0, 35.0]])
    strict, loose = (mark(detections, mammogram_regions([lesion], tolerance=t)) for t in (0.0, 2.0))
    assert list(strict.false_positives) == [0.9, 0.7]
    assert list(strict.hits) == [0.8]
    assert list(loose.false_positives) == [0.7]
    assert list(loose.hits) == [0.9]
    with pytest.raises(DataError, match="at least one"):
        mammogram_regions([])


def test_pointing_game():
    heat = np.zeros((30, 30))
    heat[5, 5] = 1.0
    lesion = np.zeros((30, 30), bool)
    lesion[5, 8:12] = True
    assert pointing_hit(heat, lesion) == 0.0
    assert pointing_hit(heat, lesion, tolerance=3.0) == 1.0
    heat[9, 9] = np.nan
    assert pointing_hit(heat, ndimage.binary_dilation(lesion, iterations=3)) == 1.0
    assert np.isnan(pointing_hit(heat, np.zeros((30, 30), bool)))
    assert np.isnan(pointing_hit(np.ones((30, 30)), lesion))
    assert np.isnan(pointing_hit(np.full((30, 30), np.nan), lesion))
