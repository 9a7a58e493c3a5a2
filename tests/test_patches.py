"""Patches: where the grid lies, what it leaves out, and a painted square that every reader gives back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammopath.errors import ConfigError
from mammopath.images.geometry import Frame
from mammopath.images.slide import Slide, open_slide
from mammopath.images.slide_field import FieldReader
from mammopath.images.slide_openslide import OpenSlideReader
from mammopath.images.slide_reader import Level
from mammopath.images.tiles import TileReader
from mammopath.prepare.patches import patch_grid, stream, tissue_share
from mammopath.prepare.tissue import Tissue, find_tissue
from mammopath.types import Spacing
from slide_cases import damage, dicom_slide, philips, small_slide, smooth, tiled
from test_slide import pyramid


def everywhere(slide: Slide, um: float = 8.0) -> Tissue:
    """All of the slide is tissue."""
    size = (
        max(1, round(slide.height * slide.spacing.um_y / um)),
        max(1, round(slide.width * slide.spacing.um_x / um)),
    )
    return tissue_of(np.ones(size, bool), slide, um)


def tissue_of(mask: np.ndarray, slide: Slide, um: float) -> Tissue:
    frame = Frame(slide.spacing.um_x / um, slide.spacing.um_y / um)
    shown = np.zeros((*mask.shape, 3), np.uint8)
    return Tissue(mask, frame, um, shown, "good", float(mask.mean()), 0.0, 1.0, 12)


def flat(width: int, height: int, um: float, levels: int = 3) -> Slide:
    """A slide that is only its geometry."""
    found = tuple(Level(max(1, width >> i), max(1, height >> i), 2.0**i, 2.0**i) for i in range(levels))
    return Slide(Path("x.tif"), found, Spacing.square(um), "header", (0, 0, width, height), "openslide:x")


@given(
    st.integers(200, 9000), st.integers(200, 9000), st.sampled_from([0.25, 0.5, 0.3]),
    st.sampled_from([0.5, 1.0, 0.7]), st.integers(16, 300), st.sampled_from([0.0, 0.25, 0.5]),
)  # fmt: skip
def test_a_grid_covers_the_slide_and_stays_inside(
    width: int, height: int, um0: float, um: float, side: int, overlap: float
) -> None:
    slide = flat(width, height, um0)
    grid = patch_grid(slide, everywhere(slide), side=side, um=um, overlap=overlap)
    across, down = grid.span
    step, scale = grid.step / um0, slide.levels[slide.level_for(um)].scale_x
    assert len({tuple(c) for c in grid.corners.tolist()}) == len(grid)
    assert (grid.corners >= 0).all()
    if width >= across and height >= down:
        assert (grid.corners[:, 0] + across).max() <= width + scale
        assert width - (grid.corners[:, 0] + across).max() < step + scale
        assert height - (grid.corners[:, 1] + down).max() < step + scale
    assert (grid.corners % scale == 0).all()
    xs = np.unique(grid.corners[:, 0])
    assert (np.abs(np.diff(xs) - step) <= scale).all()


@given(st.integers(0, 2**32 - 1))
def test_the_share_of_tissue_is_that_of_a_plain_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slide = flat(640, 480, 1.0)
    mask = rng.random((60, 80)) > 0.5
    corners = np.stack([rng.integers(0, 600, 20), rng.integers(0, 440, 20)], axis=1)
    found = tissue_share(tissue_of(mask, slide, 8.0), corners, (48.0, 40.0))
    for (x, y), share in zip(corners.tolist(), found, strict=True):
        x0, y0 = min(79, round(x / 8)), min(59, round(y / 8))
        x1, y1 = max(x0 + 1, min(80, round((x + 48) / 8))), max(y0 + 1, min(60, round((y + 40) / 8)))
        assert share == pytest.approx(mask[y0:y1, x0:x1].mean())


@pytest.mark.parametrize("reader", ["tiles", "openslide", "field", "jpeg2000", "philips", "dicom"])
@pytest.mark.parametrize("um", [0.5, 0.8, 1.0, 2.0])
def test_a_painted_square_survives_to_level_0_coordinates(tmp_path: Path, reader: str, um: float) -> None:
    """Slide to patches to heat map and back: the square is found again to within a pixel of a patch."""
    rgb = np.full((560, 650, 3), (230, 180, 210), np.uint8)
    rgb[160:320, 224:416] = (90, 40, 130)
    slide = slide_of(tmp_path, rgb, reader)
    grid = patch_grid(slide, everywhere(slide), side=32, um=um, overlap=0.5)
    dark: list[float] = []
    for batch in stream(slide, grid, batch=50):
        dark += (200 - batch.pixels[..., 0].astype(float)).clip(0).mean(axis=(1, 2)).tolist()
    heat, middle = np.array(dark), grid.corners + np.array(grid.span) / 2
    found = (heat[:, None] * middle).sum(axis=0) / heat.sum()
    assert np.abs(found - (320, 240)).max() <= um / 0.5
    area = heat.sum() / 110 * (grid.step / 0.5) ** 2
    assert area == pytest.approx(160 * 192, rel=0.03)


def slide_of(folder: Path, rgb: np.ndarray, reader: str) -> Slide:
    """A slide of this picture that a certain reader opens, or that is in a certain format."""
    if reader in ("jpeg2000", "philips", "dicom"):
        whole = np.full((576, 704, 3), rgb[0, 0])
        whole[: rgb.shape[0], : rgb.shape[1]] = rgb
        path = {
            "jpeg2000": lambda: tiled(folder / "a.svs", rgb, "jpeg2000", levels=3),
            "philips": lambda: philips(folder / "a.tiff", whole, levels=3, um=0.5),
            "dicom": lambda: dicom_slide(folder / "dicom", rgb),
        }[reader]()
        slide = open_slide(path)
        kind = {"jpeg2000": "tiles:aperio", "philips": "tiles:philips", "dicom": "openslide:dicom"}
        assert (slide.kind, len(slide.levels), slide.spacing.um_x) == (kind[reader], 3, pytest.approx(0.5))
        return slide
    path = pyramid(folder / "a.tif", rgb, levels=1 if reader == "field" else 3)
    classes = {"tiles": TileReader, "openslide": OpenSlideReader, "field": FieldReader}
    return read_by(path, classes[reader])


def read_by(path: Path, reader: type) -> Slide:
    found = reader(path).found()
    kind = {TileReader: "tiles", OpenSlideReader: "openslide", FieldReader: "field"}[reader]
    return Slide(path, found.levels, Spacing.square(0.5), "override", found.bounds, kind)


def test_patches_lie_on_tissue_only(tmp_path: Path) -> None:
    slide = open_slide(small_slide(tmp_path / "a.tif"))
    tissue = find_tissue(slide)
    grid = patch_grid(slide, tissue, side=64, um=1.0, least=0.5)
    shares = tissue_share(tissue, grid.corners, grid.span)
    assert np.array_equal(shares, grid.tissue)
    assert shares.min() >= 0.5
    everything = patch_grid(slide, tissue, side=64, um=1.0, least=0.0)
    assert len(grid) == (everything.tissue >= 0.5).sum()
    assert everything.tissue.min() > 0


def test_damage_costs_patches_and_is_counted(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif", smooth(512, 512), "jpeg444", levels=1)
    damage(path, 18)
    slide = open_slide(path)
    batches = list(stream(slide, patch_grid(slide, everywhere(slide), side=64, um=0.5), batch=7))
    assert sum(len(b.rows) for b in batches) == 63
    assert [s.where for b in batches for s in b.skipped] == ["a.tif at 128,128"]
    assert all(len(b.pixels) == len(b.rows) for b in batches)


def test_a_slide_smaller_than_a_patch_is_one_patch(tmp_path: Path) -> None:
    slide = open_slide(tiled(tmp_path / "a.tif", smooth(40, 30), "none", levels=1))
    grid = patch_grid(slide, everywhere(slide), side=64, um=0.5)
    assert grid.corners.tolist() == [[0, 0]]
    assert next(iter(stream(slide, grid))).pixels.shape == (1, 64, 64, 3)


def test_bands_keep_rows_short_on_wide_slides() -> None:
    slide = flat(100_000, 4000, 0.5, levels=1)
    grid = patch_grid(slide, everywhere(slide), side=224, um=0.5)
    jumps = np.flatnonzero(np.diff(grid.corners[:, 1]) < 0)
    assert len(jumps) == 100_000 // 16_384
    widths = [np.ptp(part[:, 0]) for part in np.split(grid.corners, jumps + 1)]
    assert max(widths) <= 16_384


@pytest.mark.parametrize("options", [{"side": 0}, {"um": 0.0}, {"overlap": 1.0}, {"overlap": -0.1}])
def test_impossible_grids_are_refused(options: dict[str, float]) -> None:
    slide = flat(1000, 1000, 0.5)
    with pytest.raises(ConfigError, match="patches need"):
        patch_grid(slide, everywhere(slide), **options)  # type: ignore[arg-type]
