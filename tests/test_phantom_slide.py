"""Phantom slides: a pyramid any reader opens, tumours where their outlines say, XML that is read back."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from mammopath.images.annotations import read_drawing
from mammopath.images.geometry import Frame, paint
from mammopath.images.slide import open_slide
from mammopath.phantom.sites import SITES
from mammopath.phantom.slide import write_asap, write_slide
from mammopath.phantom.texture import KINDS, paint_texture
from mammopath.prepare.overview import overview
from mammopath.types import Finding
from slide_cases import TUMOUR_AT, small_plan, small_slide


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("phantom") / "a.tif")


def test_a_phantom_slide_is_a_pyramid_that_says_what_it_is(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        assert slide.kind == "tiles:generic-tiff"
        assert [level.width for level in slide.levels] == [2048, 1024, 512, 256]
        assert slide.spacing.um_x == pytest.approx(1.0, rel=1e-4)
        assert slide.spacing_source == "header"
    with tifffile.TiffFile(slide_path) as tiff:
        assert "SYNTHETIC PHANTOM" in tiff.pages[0].description
        assert all(page.is_tiled and page.compression == 7 for page in tiff.pages)


def test_levels_are_reductions_of_the_first(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        whole = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
        for level in (1, 2, 3):
            small = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")
            wanted = np.asarray(whole.reduce(1 << level)).astype(float)
            assert np.abs(np.asarray(small) - wanted).mean() < 6


def test_tumours_are_where_their_outlines_say(slide_path: Path) -> None:
    """Tumour is darker than the lymph node around it: told by colour alone, it overlaps its outline."""
    shown = overview(open_slide(slide_path), 16.0).astype(float)
    truth = paint([Finding("polygon", small_plan().tumours[0])], Frame(1 / 16, 1 / 16), shown.shape[:2])
    near = paint([Finding("circle", (TUMOUR_AT,), 360.0)], Frame(1 / 16, 1 / 16), shown.shape[:2])
    dark = shown.sum(axis=2)
    assert dark[truth].mean() + 15 < dark[near & ~truth].mean()


def test_the_same_plan_gives_the_same_bytes_of_pixels(tmp_path: Path) -> None:
    paths = [small_slide(tmp_path / f"{name}.tif", side=512) for name in "ab"]
    one, other = (open_slide(path).read(0, 0, size=(512, 512), um=1.0) for path in paths)
    assert np.array_equal(one, other)


def test_laboratories_differ_in_colour(tmp_path: Path) -> None:
    means = [
        overview(open_slide(small_slide(tmp_path / f"{site}.tif", side=512, site=site, radius=0)), 16.0)
        .mean(axis=(0, 1))
        for site in SITES
    ]  # fmt: skip
    gaps = [np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i]]
    assert min(gaps) > 2


@pytest.mark.parametrize("kind", range(KINDS))
def test_textures_have_no_seam(kind: int) -> None:
    """Where the texture meets its repetition, neighbours differ no more than anywhere else."""
    texture = paint_texture(kind, SITES["site_a"].tissue, side=128, um=0.5, rng=np.random.default_rng(1))
    green = texture[..., 1].astype(float)
    inside = np.abs(np.diff(green, axis=1)).mean()
    seam = np.abs(green[:, 0] - green[:, -1]).mean()
    assert seam < 1.5 * inside + 1


def test_xml_of_a_phantom_is_read_back(tmp_path: Path) -> None:
    outlines = small_plan().tumours
    write_asap(tmp_path / "a.xml", outlines, group='a "strange" & <odd> name')
    drawing = read_drawing(tmp_path / "a.xml")
    assert [o.group for o in drawing.outlines] == ['a "strange" & <odd> name']
    assert np.allclose(drawing.outlines[0].points, outlines[0], atol=1e-3)


def test_nothing_is_left_behind_when_painting_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("imagecodecs.jpeg8_encode", fail)
    with pytest.raises(MemoryError):
        write_slide(tmp_path / "a.tif", small_plan(side=256))
    assert list(tmp_path.iterdir()) == []
