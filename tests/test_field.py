"""Histology fields: sizes in whole multiples, aspect or scale kept, borders off, places kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8

from mammopath.prepare.field import prepare_field
from mammopath.settings import PathologySettings
from mammopath.types import Spacing


def tissue(height: int, width: int, seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    rng = np.random.default_rng(seed)
    return rng.integers(90, 220, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "largest", "size"),
    [
        ((336, 448), (336, 448), (336, 448)),  # BACH as it is
        ((336, 448), (224, 224), (168, 224)),  # BACH fitted: 168 is 12 patches of 14
        ((50, 50), (224, 224), (224, 224)),  # IDC grows
        ((224, 224), (224, 224), (224, 224)),
        ((448, 336), (224, 448), (224, 168)),
    ],
)
def test_sizes(shape: tuple[int, int], largest: tuple[int, int], size: tuple[int, int]) -> None:
    chosen = PathologySettings(height=largest[0], width=largest[1])
    made = prepare_field(tissue(*shape), spacing=None, settings=chosen, multiple=14)
    assert made.image.shape == (3, *size)
    assert made.valid.all()


def test_a_field_of_the_right_size_keeps_its_pixels() -> None:
    rgb = tissue(56, 84)
    made = prepare_field(rgb, spacing=None, settings=PathologySettings(height=56, width=84), multiple=14)
    np.testing.assert_allclose(made.image, rgb.transpose(2, 0, 1) / 255, atol=1e-6)


@given(
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    multiple=st.sampled_from([14, 16, 28]),
    um=st.sampled_from([0.0, 0.5, 1.5]),
)
@settings(max_examples=40, deadline=None)
def test_promises_of_the_canvas(height: int, width: int, multiple: int, um: float) -> None:
    chosen = PathologySettings(height=112, width=140, um=um)
    made = prepare_field(
        tissue(height, width), spacing=Spacing.square(0.7), settings=chosen, multiple=multiple
    )
    assert made.image.shape[1] % multiple == made.image.shape[2] % multiple == 0
    assert made.image.shape[1] <= 112
    assert made.image.shape[2] <= 140
    assert made.image.min() >= 0
    assert made.image.max() <= 1
    assert made.valid[0, 0]
    assert (made.image[:, ~made.valid] == 0).all()
    rows, columns = made.valid.any(1).sum(), made.valid.any(0).sum()
    assert min(made.image.shape[1] - rows, made.image.shape[2] - columns) < multiple, (
        "less than a square of padding"
    )
    assert made.frame.scale_x / made.frame.scale_y == pytest.approx(1, abs=0.2)


def test_a_scale_in_micrometres_is_kept_and_the_rest_cut_off_around_the_middle() -> None:
    chosen = PathologySettings(height=112, width=112, um=1.0)
    made = prepare_field(tissue(400, 600), spacing=Spacing(0.5, 0.5), settings=chosen, multiple=14)
    assert made.image.shape == (3, 112, 112)
    assert made.frame.scale_x == pytest.approx(0.5, rel=0.01)
    assert made.frame.scale_y == pytest.approx(0.5, rel=0.01)
    assert made.frame.point(300, 200) == pytest.approx((56, 56), abs=1)


def test_without_spacing_the_field_is_fitted() -> None:
    chosen = PathologySettings(um=1.0)
    assert prepare_field(tissue(50, 50), spacing=None, settings=chosen, multiple=14).image.shape == (
        3,
        224,
        224,
    )


@pytest.mark.parametrize("shade", [255, 0])
def test_flat_borders_are_cut_off(shade: int) -> None:
    rgb = np.full((260, 260, 3), shade, dtype=np.uint8)
    rgb[15:239, 20:244] = tissue(224, 224)
    made = prepare_field(rgb, spacing=None, settings=PathologySettings(), multiple=14)
    np.testing.assert_allclose(made.image, tissue(224, 224).transpose(2, 0, 1) / 255, atol=1e-6)
    assert made.frame.point(20, 15) == (0, 0)


def test_mostly_blank_glass_is_kept_whole() -> None:
    rgb = np.full((224, 224, 3), 245, dtype=np.uint8)
    rgb[100:120, 100:120] = tissue(20, 20)
    made = prepare_field(rgb, spacing=None, settings=PathologySettings(), multiple=14)
    assert made.frame.point(0, 0) == (0, 0)
    assert made.image.shape == (3, 224, 224)


@given(row=st.integers(20, 300), column=st.integers(20, 400))
@settings(max_examples=15, deadline=None)
def test_a_painted_marker_is_where_the_frame_says(row: int, column: int) -> None:
    rgb = tissue(336, 448) // 2
    rgb[row - 4 : row + 4, column - 4 : column + 4] = (250, 250, 250)
    made = prepare_field(rgb, spacing=None, settings=PathologySettings(), multiple=28)
    y, x = np.nonzero(made.image.min(0) > 0.8)
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx(made.frame.point(column, row), abs=1)
