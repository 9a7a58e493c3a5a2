"""Tissue of slides: real and phantom; ink, glass and blur; Otsu against its definition."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mammopath.errors import ImageReadError
from mammopath.images.geometry import paint
from mammopath.images.slide import open_slide
from mammopath.phantom.slide import SlidePlan, write_slide
from mammopath.prepare.overview import overview
from mammopath.prepare.tissue import find_tissue, otsu, pen_marks, sharpness, stained
from mammopath.types import Finding, Spacing
from slide_cases import damage, small_plan, small_slide, smooth, tiled
from test_slide import CMU, TUMOR, noise, pyramid


@given(st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(lambda c: sum(v > 0 for v in c) > 1))
def test_otsu_maximises_the_variance_between_its_classes(counts: list[int]) -> None:
    values = np.repeat(np.arange(len(counts)), counts).astype(float)

    def between(threshold: int) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        if len(low) == 0 or len(high) == 0:
            return 0.0
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2)

    best = max(between(t) for t in range(len(counts)))
    assert between(otsu(np.array(counts, float))) == pytest.approx(best, rel=1e-9)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("tissue") / "a.tif")


def test_tissue_of_a_phantom_is_what_was_painted(small: Path) -> None:
    tissue = find_tissue(open_slide(small))
    truth = paint([Finding("polygon", small_plan().areas[0].outline)], tissue.frame, tissue.mask.shape)
    assert (tissue.mask & truth).sum() / (tissue.mask | truth).sum() > 0.97
    assert tissue.verdict == "good"
    assert tissue.share == pytest.approx(truth.mean(), abs=0.02)
    assert tissue.thumbnail.shape == (*tissue.mask.shape, 3)


@pytest.mark.data
def test_real_slides_have_the_tissue_one_sees(shared_data: Path) -> None:
    tissue = find_tissue(open_slide(shared_data / CMU))
    assert tissue.verdict == "good"
    assert 0.30 < tissue.share < 0.37  # by eye on the thumbnail
    tissue = find_tissue(open_slide(shared_data / TUMOR, Spacing.square(7.776)))
    assert tissue.verdict == "good"
    assert 0.05 < tissue.share < 0.10
    assert not tissue.mask[:400].any()  # the black crosses and the slide's edge above the tissue


def test_glass_is_empty_and_says_so(tmp_path: Path) -> None:
    glass = np.clip(noise(600, 600) % 6 + 238, 0, 255).astype(np.uint8)
    tissue = find_tissue(open_slide(pyramid(tmp_path / "a.tif", glass, um=2.0)))
    assert tissue.verdict == "empty"
    assert np.isnan(tissue.sharpness)
    assert not tissue.mask.any()


def test_ink_is_no_tissue(tmp_path: Path, small: Path) -> None:
    rgb = open_slide(small).read(0, 0, size=(2048, 2048), um=1.0)
    rgb[:300, 100:1900] = (40, 150, 90)
    rgb[1700:2000, 100:1900] = (30, 60, 190)
    tissue = find_tissue(open_slide(pyramid(tmp_path / "a.tif", rgb, um=1.0, tile=256)))
    assert tissue.verdict == "pen"
    assert tissue.pen == pytest.approx(2 * 300 * 1800 / 2048**2, rel=0.15)
    assert not tissue.mask[:36].any()


def test_stains_are_not_ink(small: Path) -> None:
    assert pen_marks(overview(open_slide(small), 8.0)).mean() < 0.002


def test_blur_is_told(tmp_path: Path, small: Path) -> None:
    rgb = open_slide(small).read(0, 0, size=(2048, 2048), um=1.0)
    blurred = ndimage.gaussian_filter(rgb, (9, 9, 0))
    assert (
        find_tissue(open_slide(pyramid(tmp_path / "a.tif", blurred, um=1.0, tile=256))).verdict == "blurred"
    )


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    rng = np.random.default_rng(0)
    sharp = ndimage.gaussian_filter(rng.normal(128, 60, (256, 256)), 1)
    soft = ndimage.gaussian_filter(sharp, 3)
    assert sharpness(soft) < sharpness(sharp) / 10
    assert sharpness(sharp / 2) == pytest.approx(sharpness(sharp))
    assert sharpness(np.full((64, 64), 200.0)) == 0


def test_a_threshold_too_low_to_be_stain_finds_nothing() -> None:
    grey = np.full((40, 40, 3), 200, np.uint8)
    grey[10:20, 10:20] = (205, 200, 200)
    mask, threshold = stained(grey, np.ones((40, 40), bool))
    assert not mask.any()
    assert threshold == 12


def test_only_the_scanned_part_counts(small: Path) -> None:
    slide = open_slide(small)
    part = type(slide)(**{**vars(slide), "bounds": (512, 512, 1536, 1536), "_open": []})
    tissue = find_tissue(part)
    assert not tissue.mask[:60].any()
    assert tissue.mask[64:192, 64:192].mean() == pytest.approx(tissue.share, abs=0.02)


def test_an_overview_is_the_same_in_pieces(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = open_slide(small)
    whole = overview(slide, 3.0)
    monkeypatch.setattr("mammopath.prepare.overview.PIECE", 200)
    pieces = overview(slide, 3.0)
    assert pieces.shape == whole.shape == (683, 683, 3)
    assert np.abs(pieces.astype(int) - whole).mean() < 1.0


def test_a_slide_without_a_pyramid_is_seen_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    plan = small_plan()
    write_slide(path, SlidePlan(plan.side, plan.um, plan.areas, plan.style, levels=1))
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    assert find_tissue(open_slide(path)).share == pytest.approx(np.pi * 0.42**2, abs=0.02)


def test_the_mask_of_a_huge_slide_stays_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammopath.prepare.tissue.MOST", 100)
    tissue = find_tissue(open_slide(small))
    assert tissue.mask.shape == (100, 100)
    assert tissue.um == pytest.approx(20.48, rel=1e-4)
    assert tissue.frame.scale_x == pytest.approx(100 / 2048, rel=1e-4)


def test_a_damaged_tile_is_a_white_place_and_many_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiled(tmp_path / "a.tif", smooth(1024, 1024), "jpeg444", levels=1)
    damage(path, 100)
    slide = open_slide(path)
    shown = overview(slide, 4.0)
    white = (shown == 255).all(axis=2)
    assert 8 * 8 <= white.sum() <= 32 * 32
    assert white[52:54, 36:38].all()
    monkeypatch.setattr("mammopath.prepare.overview.MOST_DAMAGE", 0)
    with pytest.raises(ImageReadError):
        overview(slide, 4.0)


@pytest.mark.data
def test_published_lesions_of_tumor_001_lie_on_its_tissue(shared_data: Path) -> None:
    """Outlines of CAMELYON16 (level 0, 0.243 um) on the slide at 1/32 lie on what we call tissue."""
    told = json.loads((shared_data / "formats/camelyon16/polygons_json/Tumor_001.json").read_text())
    outlines = [np.array(one["vertices"]) / 32 for one in told["positive"]]
    tissue = find_tissue(open_slide(shared_data / TUMOR, Spacing.square(0.243 * 32)), 16.0)
    findings = [Finding("polygon", tuple((float(x), float(y)) for x, y in outline)) for outline in outlines]
    painted = paint(findings, tissue.frame, tissue.mask.shape)
    assert painted.sum() > 100
    assert tissue.mask[painted].mean() > 0.95
    assert tissue.mask.mean() < 0.1  # so it is not by chance
