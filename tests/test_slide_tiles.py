"""Tiles straight from the file: pixels as OpenSlide gives them, one decode per tile, damage told of."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mammopath.errors import ImageReadError
from mammopath.images import tiles
from mammopath.images.slide import open_slide
from mammopath.images.slide_openslide import OpenSlideReader
from mammopath.images.tiles import TileReader
from mammopath.types import Spacing
from slide_cases import aperio_ycc, damage, philips, smooth, tiled
from test_slide import BOXES, CMU, TCGA, TUMOR, by_openslide

KINDS = ("none", "lzw", "deflate", "jpeg444", "jpeg420", "jpeg-rgb", "jpeg2000")
BOXES_OF_A_LEVEL = [
    (0, 0, 64, 64), (64, 0, 128, 64), (10, 20, 40, 60), (30, 50, 200, 190), (-20, -9, 80, 70),
    (180, 120, 333, 300), (0, 0, 300, 222), (-50, 0, -10, 20), (400, 400, 420, 420),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_openslide(tmp_path: Path, kind: str) -> None:
    path = tiled(tmp_path / "a.tif", smooth(222, 300), kind)
    reader = TileReader(path)
    assert reader.found().kind == ("tiles:aperio" if kind == "jpeg2000" else "tiles:generic-tiff")
    plain = OpenSlideReader(path)
    for level in (0, 1):
        for box in BOXES_OF_A_LEVEL:
            assert np.array_equal(reader.pixels(level, box), plain.pixels(level, box)), (level, box)
    assert np.array_equal(plain.pixels(0, (3, 5, 99, 77)), by_openslide(path, 0, (3, 5, 99, 77)))


@pytest.mark.parametrize("kind", ["jpeg444", "jpeg420", "jpeg-rgb"])
def test_pixels_of_jpeg_tiles_never_begin_where_libjpeg_writes_past_the_caches(
    tmp_path: Path, kind: str
) -> None:
    reader = TileReader(tiled(tmp_path / "a.tif", smooth(256, 320), kind))
    boxes = [(x, y, x + 64, y + 64) for x in range(0, 320, 64) for y in range(0, 256, 64)]
    assert {reader.pixels(0, box).ctypes.data % 16 for box in boxes} == {8}


LOSSLESS = [
    (vendor, compression, predictor, order, big)
    for vendor in ("aperio", "generic-tiff")
    for compression in ("lzw", "adobe_deflate", "deflate")
    for predictor in (False, True)
    for order, big in (("<", False), (">", True))
]
"""Aperio and generic slides in LZW, Deflate and Deflate by its old number, with and without differencing."""


@pytest.mark.parametrize(("vendor", "compression", "predictor", "order", "big"), LOSSLESS)
def test_tiles_without_loss_are_what_openslide_and_tifffile_read_and_what_was_painted(
    tmp_path: Path, vendor: str, compression: str, predictor: bool, order: str, big: bool
) -> None:
    """Sides are no whole tiles, so the last ones are padded."""
    path, rgb = tmp_path / "a.svs", smooth(200, 300)
    about = "Aperio Image Library v11\r\n300x200 (64x64) LZW|MPP = 0.5" if vendor == "aperio" else None
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as tiff:
        for level in (0, 1):
            tiff.write(
                rgb[:: 1 << level, :: 1 << level],
                tile=(64, 64), compression=compression, predictor=predictor, photometric="rgb", metadata=None,
                resolution=(2e4 / 2**level,) * 2, resolutionunit="CENTIMETER", subfiletype=level,
                description=about,
            )  # fmt: skip
    with tifffile.TiffFile(path) as tiff:
        assert {page.compression.name for page in tiff.pages} == {compression.upper()}
        assert {page.predictor for page in tiff.pages} == {2 if predictor else 1}
        painted = [page.asarray() for page in tiff.pages]
    assert np.array_equal(painted[0], rgb)
    slide, reader, plain = open_slide(path), TileReader(path), OpenSlideReader(path)
    assert slide.kind == f"tiles:{vendor}"
    for level, image in enumerate(painted):
        height, width = image.shape[:2]
        for left, top, right, bottom in BOXES_OF_A_LEVEL:
            box = (left, top, right, bottom)
            assert np.array_equal(reader.pixels(level, box), plain.pixels(level, box)), (level, box)
        for left, top, right, bottom in ((0, 0, 64, 64), (30, 50, 131, 99), (0, 0, width, height)):
            assert np.array_equal(
                reader.pixels(level, (left, top, right, bottom)), image[top:bottom, left:right]
            )


EMPTY = {(0, 0), (0, 1), (0, 40), (0, 76), (1, 3), (2, 0)}
"""Level and number of tiles without bytes in the Philips slide of the tests."""


def test_philips_slides_as_those_of_camelyon_give_the_pixels_of_openslide(tmp_path: Path) -> None:
    """Pages padded to whole tiles, and tiles of bare glass without bytes, which are background."""
    path = philips(tmp_path / "tumor_001.tif", smooth(448, 704), empty=EMPTY)
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [(448, 704), (256, 384), (128, 192), (64, 128)]
        assert [k for k, count in enumerate(tiff.pages[0].databytecounts) if not count] == [0, 1, 40, 76]
    slide = open_slide(path)
    assert (slide.kind, slide.spacing) == ("tiles:philips", Spacing.square(0.243))
    assert [(level.width, level.height) for level in slide.levels] == [
        (704, 448), (352, 224), (176, 112), (88, 56),
    ]  # fmt: skip
    reader, plain = TileReader(path), OpenSlideReader(path)
    for level, at in enumerate(slide.levels):
        for box in (*BOXES_OF_A_LEVEL, (-20, -20, at.width + 70, at.height + 70)):
            assert np.array_equal(reader.pixels(level, box), plain.pixels(level, box)), (level, box)
    assert (reader.pixels(0, (0, 0, 128, 64)) == 255).all()
    assert np.ptp(reader.pixels(0, (128, 0, 192, 64))) > 50


def test_a_philips_slide_whose_pages_are_not_its_levels_is_left_to_openslide(tmp_path: Path) -> None:
    """Here a header that claims pixels a third as fine on the next page, so that levels are cut elsewhere."""
    path = philips(tmp_path / "a.tif", smooth(448, 704), levels=2)
    path.write_bytes(path.read_bytes().replace(b"0.000486", b"0.000729"))
    slide = open_slide(path)
    assert slide.kind == "openslide:philips"
    assert np.array_equal(slide.pixels(0, (0, 0, 64, 64)), by_openslide(path, 0, (0, 0, 64, 64)))


def test_a_sparse_slide_of_another_format_is_left_to_openslide(tmp_path: Path) -> None:
    """Aperio fills empty tiles from coarser levels, which only OpenSlide does."""
    path = philips(tmp_path / "a.tif", smooth(448, 704), empty={(0, 5)})
    path.write_bytes(path.read_bytes().replace(b"Philips DP", b"Another DP"))
    with pytest.raises(ImageReadError, match="no plain tiled page") as caught:
        TileReader(path)
    assert caught.value.code == "unsupported"


def test_jpeg_2000_in_ycbcr_gives_the_pixels_of_openslide(tmp_path: Path) -> None:
    """Every luma, and every pair of chromas at the ends where colours are cut off."""
    ycc = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    ycc[:256, :256, 1:] = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1)
    path = aperio_ycc(tmp_path / "a.svs", ycc)
    assert open_slide(path).kind == "tiles:aperio"
    box = (-3, 0, 520, 512)
    assert np.array_equal(TileReader(path).pixels(0, box), OpenSlideReader(path).pixels(0, box))


@pytest.mark.data
@pytest.mark.parametrize("name", [CMU, TCGA, BOXES, TUMOR])
def test_real_slides_give_the_pixels_of_openslide(shared_data: Path, name: str) -> None:
    reader, plain = TileReader(shared_data / name), OpenSlideReader(shared_data / name)
    rng = np.random.default_rng(0)
    level = reader.found().levels[0]
    for _ in range(12):
        left, top = int(rng.integers(-40, level.width)), int(rng.integers(-40, level.height))
        box = (left, top, left + int(rng.integers(1, 400)), top + int(rng.integers(1, 400)))
        assert np.array_equal(reader.pixels(0, box), plain.pixels(0, box)), box


def test_a_tile_is_decoded_once_however_many_patches_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = TileReader(tiled(tmp_path / "a.tif", smooth(256, 256), "jpeg444"))
    reader._kept.clear()
    decoded: list[int] = []
    plain = TileReader._decoded
    monkeypatch.setattr(
        TileReader, "_decoded", lambda self, page, n: decoded.append(n) or plain(self, page, n)
    )
    for top in range(0, 224, 16):
        for left in range(0, 224, 16):
            reader.pixels(0, (left, top, left + 32, top + 32))
    assert sorted(decoded) == list(range(16))


def test_tiles_that_are_patches_are_not_kept_until_other_patches_need_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches with half an overlap, every fourth of them a whole tile: one tile is decoded twice, no more."""
    path = tiled(tmp_path / "a.tif", smooth(256, 256), "jpeg444")
    reader, decoded = TileReader(path), list[int]()
    wanted = OpenSlideReader(path).pixels(0, (0, 0, 256, 256))
    reader._kept.clear()
    plain = TileReader._decoded
    monkeypatch.setattr(
        TileReader, "_decoded", lambda self, page, n: decoded.append(n) or plain(self, page, n)
    )
    for top in range(0, 256, 64):
        for left in range(0, 256, 64):
            patch = reader.pixels(0, (left, top, left + 64, top + 64))
            assert np.array_equal(patch, wanted[top : top + 64, left : left + 64])
    assert sorted(decoded) == list(range(16))
    assert not reader._kept
    decoded.clear()
    for top in range(0, 193, 32):
        for left in range(0, 193, 32):
            patch = reader.pixels(0, (left, top, left + 64, top + 64))
            assert np.array_equal(patch, wanted[top : top + 64, left : left + 64])
    assert sorted(decoded) == [0, *range(16)]


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "CACHE_BYTES", 3 * 64 * 64 * 3)
    reader = TileReader(tiled(tmp_path / "a.tif", smooth(256, 256), "none", levels=1))
    wanted = OpenSlideReader(reader.path).pixels(0, (0, 0, 256, 256))
    assert np.array_equal(reader.pixels(0, (0, 0, 256, 256)), wanted)
    assert reader._bytes == sum(tile.nbytes for tile in reader._kept.values()) <= 3 * 64 * 64 * 3


def test_what_comes_back_is_not_the_cache(tmp_path: Path) -> None:
    reader = TileReader(tiled(tmp_path / "a.tif", smooth(128, 128), "none", levels=1))
    before = reader.pixels(0, (0, 0, 64, 64))
    reader.pixels(0, (0, 0, 64, 64))[:] = 0
    assert np.array_equal(reader.pixels(0, (0, 0, 64, 64)), before)


@pytest.mark.parametrize("how", ["garbage", "half"])
def test_a_damaged_tile_costs_only_its_own_patches(tmp_path: Path, how: str) -> None:
    path = tiled(tmp_path / "a.tif", smooth(256, 256), "jpeg444", levels=1)
    damage(path, 6, how)
    reader = TileReader(path)
    with pytest.raises(ImageReadError, match=r"tile|decoded"):
        reader.pixels(0, (130, 66, 140, 70))
    assert reader.pixels(0, (0, 64, 128, 128)).shape == (64, 128, 3)


@pytest.mark.parametrize("kind", ["tiles", "openslide"])
def test_after_damage_the_rest_of_a_slide_is_read(tmp_path: Path, kind: str) -> None:
    path = tiled(tmp_path / "a.tif", smooth(256, 256), "deflate", levels=1)
    whole = OpenSlideReader(path).pixels(0, (0, 0, 64, 64))
    damage(path, 5)
    reader = TileReader(path) if kind == "tiles" else OpenSlideReader(path)
    with pytest.raises(ImageReadError):
        reader.pixels(0, (64, 64, 128, 128))
    assert np.array_equal(reader.pixels(0, (0, 0, 64, 64)), whole)


def test_a_file_that_decodes_otherwise_is_left_to_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiled(tmp_path / "a.tif", smooth(128, 128), "jpeg444")
    assert open_slide(path).kind == "tiles:generic-tiff"
    plain = TileReader._decoded
    monkeypatch.setattr(TileReader, "_decoded", lambda self, page, n: plain(self, page, n) ^ 1)
    assert open_slide(path).kind == "openslide:generic-tiff"


def test_a_slide_crosses_to_a_spawned_process(tmp_path: Path) -> None:
    slide = open_slide(tiled(tmp_path / "a.tif", smooth(128, 128), "jpeg444"))
    here = slide.read(5, 7, size=(50, 60), um=0.8)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(slide.read, (5, 7), {"size": (50, 60), "um": 0.8})
    assert np.array_equal(here, there)
