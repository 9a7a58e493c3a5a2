"""Mammogram preparation: the breast survives film labels, borders and tape; what is marked stays in place."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from PIL import Image

from mammopath.errors import ConfigError, DataError
from mammopath.prepare.breast import Breast, find_breast, wall_on_left
from mammopath.prepare.mammogram import prepare_mammogram
from mammopath.prepare.resample import Canvas, resample
from mammopath.prepare.sample import load_sample
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.sources import table
from mammopath.types import Spacing

SETTINGS = MammogramSettings()
CENTRE, REACH, HALF = 300, 260, 200


def film(*, rows: int = 640, columns: int = 480, seed: int = 0) -> Float[np.ndarray, "h w"]:
    """A breast (half an ellipse at the left edge) with a darker rim, on noisy dark film."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    depth = np.hypot(x / REACH, (y - CENTRE) / HALF)
    breast = 130 * np.clip(1 - depth**2, 0, 1) ** 0.4
    return np.clip(breast + 6 + np.random.default_rng(seed).normal(0, 2, breast.shape), 0, 255)


def label(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    marked[20:70, 380:460] = 240
    marked[35:55, 395:445:8] = 20
    return marked


def border(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    marked[-14:], marked[:, -22:] = 250, 250
    return marked


def wall_border(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    marked[:, :8] = 250
    return marked


def tape(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    marked[560:600, 60:] = 245
    return marked


def scratch(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    marked[np.arange(640), np.arange(640) * 479 // 639] = 255
    marked[150, :] = 255
    return marked


def prepare(pixels: np.ndarray, laterality: str = "", spacing: Spacing | None = None) -> Canvas:
    return prepare_mammogram(pixels, spacing=spacing, laterality=laterality, settings=SETTINGS, multiple=14)


MARKS = [label, border, wall_border, tape, scratch, lambda image: label(border(image))]


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_box_is_the_breast_whatever_else_is_on_the_film(marks, mirrored: bool) -> None:
    pixels = marks(film()).astype(np.uint8)
    found = find_breast(pixels[:, ::-1] if mirrored else pixels)
    left, top, right, bottom = found.box
    if mirrored:
        left, right = 480 - right, 480 - left
    assert left <= 9
    assert abs(top - (CENTRE - HALF)) < 25
    assert abs(bottom - (CENTRE + HALF)) < 25
    assert abs(right - REACH) < 25
    assert wall_on_left(found, "") is not mirrored


@pytest.mark.parametrize("marks", MARKS)
def test_marks_are_dark_in_the_result(marks) -> None:
    plain, marked = prepare(film().astype(np.uint8)), prepare(marks(film()).astype(np.uint8))
    outside = marked.valid & (np.add.outer(np.zeros(448), np.arange(224)) > 190)
    assert marked.image[0][outside].mean() < plain.image[0][outside].mean() + 0.05


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_promises_of_the_canvas(dtype: type) -> None:
    made = prepare((film() * (200 if dtype == np.uint16 else 1)).astype(dtype))
    assert made.image.shape == (1, 448, 224)
    assert made.image.dtype == np.float32
    assert made.image.min() == 0
    assert made.image.max() == 1
    assert (made.image[0][~made.valid] == 0).all()
    assert made.valid[:, 0].any(), "the chest wall lies at the left edge"
    rows = np.flatnonzero(made.valid.any(1))
    assert abs(rows[0] - (447 - rows[-1])) <= 1, "halfway down"


def test_bit_depth_and_exposure_change_nothing() -> None:
    base = film()
    eight = prepare(base.astype(np.uint8))
    sixteen = prepare((base * 200 + 3000).astype(np.uint16))
    assert eight.valid.mean() == pytest.approx(sixteen.valid.mean(), abs=0.02)
    assert np.abs(eight.image - sixteen.image).mean() < 0.02


@given(
    row=st.integers(CENTRE - 110, CENTRE + 110),
    column=st.integers(20, 150),
    mirrored=st.booleans(),
    squash=st.sampled_from([1.0, 0.6, 1.5]),
)
@settings(max_examples=25, deadline=None)
def test_a_painted_marker_is_where_the_frame_says(
    row: int, column: int, mirrored: bool, squash: float
) -> None:
    pixels = label(film())
    pixels[row - 6 : row + 6, column - 6 : column + 6] = 255
    centre = (480 - column if mirrored else column, row)
    made = prepare_mammogram(
        pixels[:, ::-1] if mirrored else pixels,
        spacing=Spacing(100.0, 100.0 * squash),
        laterality="",
        settings=MammogramSettings(high=1.0),
    )
    y, x = np.nonzero(made.image[0] > 0.8)
    there = made.frame.point(*centre)
    assert np.median(x) + 0.5 == pytest.approx(there[0], abs=2)
    assert np.median(y) + 0.5 == pytest.approx(there[1], abs=2)


def test_both_sides_come_out_the_same_way_round() -> None:
    left, right = prepare(film().astype(np.uint8)), prepare(film()[:, ::-1].astype(np.uint8))
    assert np.abs(left.image - right.image).mean() < 0.01


def test_pixels_that_are_not_square_become_so() -> None:
    squashed = film()[::2]  # each pixel is now twice as tall as wide
    made, plain = prepare(squashed, spacing=Spacing(100.0, 200.0)), prepare(film())
    assert np.abs(made.image - plain.image).mean() < 0.04
    assert made.frame.scale_y == pytest.approx(2 * made.frame.scale_x, rel=0.03)


def test_laterality_decides_only_where_pixels_do_not() -> None:
    nothing = np.ones((2, 2), dtype=bool)
    for wall, laterality, left in [
        (0.5, "R", True),
        (-0.5, "L", False),
        (0.0, "R", False),
        (0.05, "L", True),
    ]:
        assert wall_on_left(Breast((0, 0, 2, 2), nothing, ~nothing, wall), laterality) is left


@pytest.mark.parametrize("pixels", [np.zeros((50, 40), np.uint8), np.full((3, 5), 9, np.uint16), np.eye(1)])
def test_there_is_a_result_without_a_breast(pixels: np.ndarray) -> None:
    made = prepare(pixels)
    assert np.isfinite(made.image).all()
    assert made.valid.any()


def test_without_cropping_the_whole_image_is_there() -> None:
    whole = prepare_mammogram(
        film(), spacing=None, laterality="", settings=MammogramSettings(crop=False), multiple=14
    )
    height, width = np.ptp(np.argwhere(whole.valid), axis=0) + 1
    assert width / height == pytest.approx(480 / 640, rel=0.01)


def test_a_canvas_below_one_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="448 x 224"):
        prepare_mammogram(film(), spacing=None, laterality="", settings=SETTINGS, multiple=256)


def test_resampling_does_not_alias() -> None:
    checks = np.indices((400, 300)).sum(0) % 2 * 255
    assert np.ptp(resample(checks.astype(np.uint8), (0, 0, 300, 400), (100, 75))) < 3


# ---------------------------------------------------------------- real films


def mias_circles(folder: Path) -> dict[int, list[tuple[float, float, float]]]:
    """Circles by film number, in pixels of the 640-pixel images."""
    circles: dict[int, list[tuple[float, float, float]]] = {}
    with (folder / "lesions_1024.csv").open() as file:
        for row in csv.DictReader(file):
            if row["lesion_x"]:
                values = (float(row[k]) for k in ("lesion_x", "lesion_y", "lesion_radius_or_mask"))
                x, y, radius = (0.625 * v for v in values)
                circles.setdefault(int(row["file"][10:13]), []).append((x, y, radius))
    return circles


@pytest.mark.data
def test_every_mias_film_keeps_its_lesions_and_turns_the_right_way(shared_data: Path) -> None:
    circles = mias_circles(shared_data / "mias")
    kept, turned, areas = [], 0, []
    for number in range(1, 323):
        pixels = np.asarray(Image.open(shared_data / "mias" / "images" / f"mdb{number:03d}.png").convert("L"))
        found = find_breast(pixels)
        left, top, right, bottom = found.box
        areas.append((right - left) * (bottom - top) / pixels.size)
        is_right = number % 2 == 0  # odd films are left breasts, shown with the wall on the right
        turned += wall_on_left(found, "") is is_right
        for x, y, radius in circles.get(number, []):
            # circles reach beyond the film, so count the tissue in them; two small ones lie in the dark
            circle = np.hypot(*(np.indices(pixels.shape) - [[[y]], [[x]]])) <= radius
            counted = circle & (pixels > 20) if pixels[circle].max() > 20 else circle
            kept.append(counted[top:bottom, left:right].sum() / counted.sum())
    assert len(kept) == 119
    assert min(kept) > 0.95
    assert np.mean(kept) > 0.999
    assert turned >= 320, "two films (mdb151, mdb152) are filled by the breast and show no side"
    assert np.median(areas) < 0.55


@pytest.mark.parametrize("marks", MARKS)
def test_film_beside_the_breast_is_padding_and_the_skin_line_is_not(marks) -> None:
    clean, canvas = prepare(film().astype(np.uint8)), prepare(marks(film()).astype(np.uint8))
    kept = prepare_mammogram(
        film().astype(np.uint8),
        spacing=None,
        laterality="",
        settings=SETTINGS.model_copy(update={"background": True}),
    )
    assert kept.valid.mean() > 1.2 * clean.valid.mean()
    assert (canvas.image[0][~canvas.valid] == 0).all()
    y, x = np.mgrid[:640, :480]
    inside = np.hypot(x / REACH, (y - CENTRE) / HALF) < 0.98
    rows, columns = np.nonzero(inside)
    frame = canvas.frame
    across, down = (
        frame.scale_x * (columns + 0.5) + frame.offset_x,
        frame.scale_y * (rows + 0.5) + frame.offset_y,
    )
    placed = np.floor(np.stack([across, down], axis=1)).astype(int)
    height, width = canvas.valid.shape
    within = (placed >= 0).all(1) & (placed[:, 0] < width) & (placed[:, 1] < height)
    assert canvas.valid[placed[within, 1], placed[within, 0]].mean() > 0.999


@pytest.mark.data
def test_lesions_of_cbis_ddsm_lie_in_what_is_kept_of_the_film(shared_data: Path) -> None:
    records = [r for r in table.SOURCE.index(shared_data / "cbis_ddsm_mass" / "labels.csv") if r.findings]
    covered, kept = [], []
    for record in records[::16]:
        with_film = PrepareSettings(mammogram=SETTINGS.model_copy(update={"background": True}))
        whole, cut = (
            load_sample(record, settings, multiple=28).sample for settings in (with_film, PrepareSettings())
        )
        lesion = whole.lesion.nan_to_num() > 0
        covered.append((cut.valid & lesion).sum().item() / lesion.sum().item())
        kept.append(cut.valid.float().mean().item() / whole.valid.float().mean().item())
    assert len(covered) > 90
    assert np.mean(np.array(covered) > 0.99) >= 0.98
    assert min(covered) > 0.8
    assert 0.6 < np.mean(kept) < 0.85


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("um", [60.0, 100.0, 250.0])
def test_a_fixed_scale_cuts_off_or_pads_and_keeps_the_chest_wall(um: float, mirrored: bool) -> None:
    pixels = film().astype(np.uint8)
    made = prepare_mammogram(
        pixels[:, ::-1] if mirrored else pixels,
        spacing=Spacing(100.0, 100.0),
        laterality="",
        settings=MammogramSettings(um=um),
        multiple=14,
    )
    assert made.image.shape == (1, 448, 224)
    assert abs(made.frame.scale_x) == pytest.approx(100 / um, rel=0.01)
    assert made.frame.scale_y == pytest.approx(100 / um, rel=0.01)
    assert made.valid[224, 0]
    wide = made.valid[224].sum()
    assert wide == 224 if um < 150 else wide == pytest.approx(REACH * 100 / um, abs=14)
    rows = np.flatnonzero(made.valid.any(1))
    assert abs(rows[0] - (447 - rows[-1])) <= 2, "halfway down"


def test_pixels_that_are_not_square_come_to_one_scale() -> None:
    settings = MammogramSettings(um=200.0)
    made = prepare_mammogram(
        film().astype(np.uint8), spacing=Spacing(50.0, 100.0), laterality="L", settings=settings
    )
    assert (made.frame.scale_x, made.frame.scale_y) == pytest.approx((0.25, 0.5), rel=0.01)
    with pytest.raises(DataError, match="spacing is not known"):
        prepare_mammogram(film(), spacing=None, laterality="L", settings=settings)
