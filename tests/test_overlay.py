"""Overlays lie where the map says: checked with values, colours and geometry that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammopath.images.geometry import Frame
from mammopath.maps.overlay import BEYOND, LONGEST, crop, heat, overlay, picture, sheet
from mammopath.maps.values import AttentionMap
from mammopath.types import Spacing


def one_hot(frame: Frame, *, shape: tuple[int, int] = (8, 6), at: tuple[int, int] = (5, 1)) -> AttentionMap:
    values = np.zeros(shape)
    values[at] = 0.8
    return AttentionMap("lesion", "probability", values, cell=10, frame=frame, image_id="i")


@settings(max_examples=25)
@given(
    mirrored=st.booleans(),
    left=st.integers(0, 200),
    top=st.integers(0, 200),
    scale=st.floats(0.05, 0.2),
    row=st.integers(1, 6),
    column=st.integers(1, 4),
)
def test_the_hottest_pixel_of_the_picture_lies_in_the_hottest_token_on_level_0(
    mirrored: bool, left: int, top: int, scale: float, row: int, column: int
) -> None:
    frame = Frame().cropped(left, top).scaled(scale, scale)
    found = one_hot(frame.mirrored(60) if mirrored else frame, at=(row, column))
    seen = picture(np.zeros((1000, 850), np.uint16), spacing=None, mark="")
    assert max(seen.pixels.shape) == LONGEST
    box = found.box(row, column)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    values = heat(found, seen)
    inside = 0 <= middle[0] < 850 and 0 <= middle[1] < 1000
    if inside:
        y, x = np.unravel_index(values.argmax(), values.shape)
        there = seen.frame.inverse().point(x + 0.5, y + 0.5)
        assert abs(there[0] - middle[0]) < (box[2] - box[0]) / 4 + 4
        assert abs(there[1] - middle[1]) < (box[3] - box[1]) / 4 + 4


def test_nothing_is_coloured_beside_the_map_and_where_it_is_zero() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (400, 300)).astype(np.uint16)
    seen = picture(pixels, spacing=None, mark="")
    found = one_hot(Frame().cropped(100, 100))
    drawn = overlay(found, seen)
    changed = (drawn != seen.pixels).any(-1)
    rows, columns = np.nonzero(changed)
    left, top, right, bottom = found.box(5, 1)
    assert rows.min() >= top - 10
    assert rows.max() < bottom + 10
    assert columns.min() >= left - 10
    assert columns.max() < right + 10
    assert changed[int(top + 5), int(left + 5)]


def test_a_constant_zero_map_leaves_the_picture_alone() -> None:
    seen = picture(np.full((50, 40), 7, np.uint16), spacing=None, mark="")
    found = AttentionMap("lesion", "p", np.zeros((5, 4)), cell=10, frame=Frame(), image_id="i")
    np.testing.assert_array_equal(overlay(found, seen), seen.pixels)


@pytest.mark.parametrize(("um", "dtype"), [(50.0, np.uint16), (0.5, np.uint8)])
def test_a_sheet_carries_bars_and_marks_around_the_image(um: float, dtype: type) -> None:
    pixels = np.zeros((300, 400, 3), dtype) if dtype == np.uint8 else np.zeros((300, 400), dtype)
    seen = picture(pixels, spacing=Spacing.square(um), mark="R MLO")
    page = np.asarray(sheet(one_hot(Frame()), seen, boxes=((10.0, 50.0, 60.0, 90.0),)))
    assert page.shape == (300 + 46, 400 + 96, 3)
    assert (page[4:30, 4:90].max(-1) > 200).any(), "side and view"
    assert (page[286:294, 8:30].min(-1) > 200).any(), "scale bar"
    assert len(np.unique(page[30:270, 412:420].reshape(-1, 3), axis=0)) > 100, "colour bar"
    assert (page[305:, 8:300].max(-1) > 200).any(), "method and notice"


def test_a_crop_is_centred_on_its_box_and_goes_on_in_grey_beyond_the_image() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[40:60, 40:60] = 255
    cut = crop(pixels, (40.0, 40.0, 60.0, 60.0), side=80)
    assert cut.shape == (80, 80, 3)
    assert cut[40, 40].min() == 255
    assert cut[2, 2].max() == 0
    edge = crop(pixels, (-10.0, -10.0, 4.0, 4.0))
    assert edge.shape == (160, 160, 3)
    assert tuple(edge[2, 2]) == BEYOND
    assert edge[-2, -2].max() == 0
