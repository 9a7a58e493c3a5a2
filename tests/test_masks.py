"""Masks become outlines that paint them again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mammopath.images.geometry import Frame, paint
from mammopath.images.masks import mask_findings


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), spread=st.floats(2, 6), share=st.floats(0.05, 0.6))
def test_outlines_paint_the_mask_again(seed, spread, share):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((70, 60)), spread)
    mask = noise > np.quantile(noise, 1 - share)
    painted = paint(mask_findings(mask, name="mass"), Frame(), mask.shape)
    edge = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask, iterations=2)
    parts, number = ndimage.label(mask)
    areas = ndimage.sum(mask, parts, range(1, number + 1))
    dust = np.isin(parts, 1 + np.flatnonzero(areas < 0.05 * areas.max()))
    assert not ((painted != mask) & ~edge & ~dust).any()


def test_parts_holes_specks_and_scale():
    mask = np.zeros((100, 80), dtype=bool)
    mask[10:50, 10:50] = True
    mask[20:30, 20:30] = False
    mask[70:80, 60:75] = True
    mask[95, 3] = True
    large, small = mask_findings(mask, scale=(2.0, 0.5), malignant=1.0, name="mass")
    assert large.box() == pytest.approx((20, 5, 100, 25), abs=0.5)
    assert len(large.holes) == 1
    assert small.box() == pytest.approx((120, 35, 150, 40), abs=0.5)
    assert (small.malignant, small.name, small.kind) == (1.0, "mass", "polygon")
    assert mask_findings(np.zeros((5, 5), dtype=bool)) == ()


def test_a_mask_that_fills_its_image():
    (found,) = mask_findings(np.ones((9, 7), dtype=bool))
    assert paint([found], Frame(), (9, 7)).all()
