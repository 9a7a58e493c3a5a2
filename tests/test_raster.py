"""Rasters come in at their stored depth; whatever is wrong has one error and a reason code."""

import io
import os
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mammopath.errors import ImageReadError
from mammopath.images import guard, headers
from mammopath.images.raster import is_raster, read_raster, read_size

RNG = np.random.default_rng(0)


def _noise(dtype, *shape):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def _png(pixels):
    return imagecodecs.png_encode(pixels)


def _tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _pgm(pixels, top=None):
    top = top or np.iinfo(pixels.dtype).max
    head = f"P5\n# a comment\n{pixels.shape[1]} {pixels.shape[0]}\n{top}\n".encode()
    return head + pixels.astype(">u2" if top > 255 else "u1").tobytes()


def _jpeg(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


LOSSLESS = {
    "a.png": (_png, ((np.uint8, 13, 7), (np.uint16, 13, 7), (np.uint8, 13, 7, 3), (np.uint16, 13, 7, 3))),
    "a.tif": (_tiff, ((np.uint8, 13, 7), (np.uint16, 13, 7), (np.uint8, 13, 7, 3), (np.uint16, 13, 7, 3))),
    "a.pgm": (_pgm, ((np.uint8, 13, 7), (np.uint16, 13, 7))),
}
CASES = [(name, encode, case) for name, (encode, cases) in LOSSLESS.items() for case in cases]


@pytest.mark.parametrize(("name", "encode", "case"), CASES)
def test_every_bit_comes_back(tmp_path, name, encode, case):
    pixels = _noise(*case)
    (tmp_path / name).write_bytes(encode(pixels))
    read = read_raster(tmp_path / name)
    assert read.dtype == pixels.dtype
    assert np.array_equal(read, pixels)
    assert read_size(tmp_path / name) == pixels.shape[:2]


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_jpeg_is_what_libjpeg_decodes(tmp_path, shape):
    smooth = np.broadcast_to(
        np.linspace(0, 255, 24, dtype=np.uint8).reshape(1, 24, *[1] * (len(shape) - 2)), shape
    )
    (tmp_path / "a.jpeg").write_bytes(_jpeg(np.ascontiguousarray(smooth)))
    read = read_raster(tmp_path / "a.jpeg")
    assert read.shape == shape
    assert np.abs(read.astype(int) - smooth).max() <= 6
    assert read_size(tmp_path / "a.jpeg") == (16, 24)


def test_the_name_may_lack_a_suffix(tmp_path):
    pixels = _noise(np.uint16, 5, 4)
    (tmp_path / "IM0001").write_bytes(_png(pixels))
    assert np.array_equal(read_raster(tmp_path / "IM0001"), pixels)
    assert is_raster((tmp_path / "IM0001").read_bytes()[:16])
    assert not is_raster(b"\0" * 16)


def test_a_12_bit_pgm_keeps_its_values(tmp_path):
    pixels = _noise(np.uint16, 5, 4) >> 4
    (tmp_path / "a.pgm").write_bytes(_pgm(pixels, top=4095))
    assert np.array_equal(read_raster(tmp_path / "a.pgm"), pixels)


def test_white_is_bright_in_every_tiff(tmp_path):
    pixels = _noise(np.uint8, 6, 5)
    (tmp_path / "a.tif").write_bytes(_tiff(255 - pixels, photometric="miniswhite"))
    assert np.array_equal(read_raster(tmp_path / "a.tif"), pixels)
    bits = pixels > 99
    (tmp_path / "b.tif").write_bytes(_tiff(bits, photometric="minisblack"))
    assert np.array_equal(read_raster(tmp_path / "b.tif"), bits * np.uint8(255))


@pytest.mark.parametrize("options", [
    {"planarconfig": "separate"}, {"tile": (16, 16)}, {"compression": "deflate", "predictor": True},
    {"bigtiff": True},
])  # fmt: skip
def test_tiffs_of_many_kinds(tmp_path, options):
    pixels = _noise(np.uint8, 40, 30, 3)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    (tmp_path / "a.tif").write_bytes(_tiff(stored, photometric="rgb", **options))
    assert np.array_equal(read_raster(tmp_path / "a.tif"), pixels)
    assert read_size(tmp_path / "a.tif") == (40, 30)


def test_a_pyramid_is_read_at_its_base(tmp_path):
    pixels = _noise(np.uint8, 64, 48, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, tile=(16, 16), photometric="rgb")
        tiff.write(pixels[::2, ::2], tile=(16, 16), photometric="rgb", subfiletype=1)
    assert np.array_equal(read_raster(tmp_path / "a.tif"), pixels)


def test_opaque_alpha_is_dropped_and_other_refused(tmp_path):
    pixels = _noise(np.uint8, 6, 5, 4)
    pixels[..., 3] = 255
    (tmp_path / "a.png").write_bytes(_png(pixels))
    assert np.array_equal(read_raster(tmp_path / "a.png"), pixels[..., :3])
    pixels[2, 2, 3] = 200
    (tmp_path / "a.png").write_bytes(_png(pixels))
    with pytest.raises(ImageReadError, match="transparent") as caught:
        read_raster(tmp_path / "a.png")
    assert caught.value.code == "unsupported"


def _bomb():
    """A PNG header that claims 100,000 x 100,000 pixels."""
    head = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    chunk = (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\0\0\0\0" + b"\0\0\0\0IEND\xaeB`\x82"


def _several_pages():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(_noise(np.uint8, 5, 4))
        tiff.write(_noise(np.uint8, 6, 4))
    return file.getvalue()


def _animated():
    frames = [PIL.Image.fromarray(_noise(np.uint8, 5, 4)) for _ in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _cmyk():
    file = io.BytesIO()
    PIL.Image.new("CMYK", (4, 5)).save(file, "JPEG")
    return file.getvalue()


def _broken():
    data = bytearray(_png(_noise(np.uint8, 50, 50)))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


BAD = {
    "zero.png": (b"", "empty", "no bytes"),
    "text.png": (b"hello, I am a text", "format", "none of PNG, JPEG, TIFF, PGM"),
    "gif.png": (b"GIF89a" + bytes(40), "format", "none of"),
    "jpeg.png": (_jpeg(_noise(np.uint8, 9, 9)), "format", r"named \.png, but its content is JPEG"),
    "cut.png": (_png(_noise(np.uint8, 50, 50))[:-40], "truncated", "too early"),
    "cut.jpg": (_jpeg(_noise(np.uint8, 50, 50))[:-40], "truncated", "too early"),
    "head.jpg": (_jpeg(_noise(np.uint8, 9, 9))[:12], "truncated", "frame header"),
    "cut.tif": (_tiff(_noise(np.uint8, 50, 50))[:-40], "truncated", "before its pixels do"),
    "cut.pgm": (_pgm(_noise(np.uint8, 50, 50))[:-1], "truncated", "before its pixels do"),
    "two.pgm": (_pgm(_noise(np.uint8, 5, 5)) * 2, "unsupported", "more than one image"),
    "top.pgm": (b"P5 3 3 70000 " + bytes(18), "format", "largest value"),
    "head.pgm": (b"P5 3 three 255 " + bytes(9), "format", "header"),
    "none.pgm": (b"P5 0 3 255 ", "pixels", "size of 0 x 3"),
    "bomb.png": (_bomb(), "too_large", "100000 x 100000"),
    "broken.png": (_broken(), "pixels", "cannot be decoded"),
    "animated.png": (_animated(), "unsupported", "animated"),
    "pages.tif": (_several_pages(), "unsupported", "2 pages"),
    "float.tif": (_tiff(np.zeros((4, 4), np.float32)), "unsupported", "float32"),
    "cmyk.jpg": (_cmyk(), "unsupported", "CMYK"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_a_reason(tmp_path, name):
    data, code, why = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageReadError, match=why) as caught:
        read_raster(tmp_path / name)
    assert caught.value.code == code
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"two.pgm", "broken.png", "float.tif", "cmyk.jpg"}))
def test_the_header_tells_most_of_it(tmp_path, name):
    data, code, _ = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageReadError) as caught:
        read_size(tmp_path / name)
    assert caught.value.code == code


def test_missing_files_folders_and_giants(tmp_path, monkeypatch):
    for path, code in ((tmp_path / "absent.png", "missing"), (tmp_path, "format")):
        with pytest.raises(ImageReadError) as caught:
            read_raster(path)
        assert caught.value.code == code
    monkeypatch.setattr(guard, "MAX_BYTES", 10)
    (tmp_path / "a.png").write_bytes(_png(_noise(np.uint8, 9, 9)))
    with pytest.raises(ImageReadError, match="more than 10") as caught:
        read_size(tmp_path / "a.png")
    assert caught.value.code == "too_large"


def test_a_chain_of_pages_without_end_is_left(tmp_path):
    data = bytearray(_tiff(_noise(np.uint8, 4, 4)))
    start = int.from_bytes(data[4:8], "little")
    following = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[following : following + 4] = start.to_bytes(4, "little")
    with pytest.raises(ImageReadError, match="32 pages"):
        headers.tiff_size(io.BytesIO(bytes(data)), tmp_path / "a.tif")


class _Panic(BaseException):
    pass


@pytest.mark.parametrize(("thrown", "code"), [
    (_Panic("index out of bounds"), "pixels"), (MemoryError(), "too_large"), (ZeroDivisionError(), "pixels"),
    (OSError("image file is truncated"), "truncated"), (FileNotFoundError(), "missing"),
])  # fmt: skip
def test_whatever_a_decoder_throws_is_one_error(thrown, code):
    with pytest.raises(ImageReadError) as caught, guard.decoding(Path("a.png")):
        raise thrown
    assert caught.value.code == code


def test_a_request_to_stop_passes_through():
    with pytest.raises(KeyboardInterrupt), guard.decoding(Path("a.png")):
        raise KeyboardInterrupt


SEEDS = [
    _png(_noise(np.uint8, 9, 8)), _png(_noise(np.uint16, 9, 8, 3)), _jpeg(_noise(np.uint8, 9, 8)),
    _tiff(_noise(np.uint16, 9, 8)), _tiff(_noise(np.uint8, 9, 8, 3), compression="lzw"),
    _pgm(_noise(np.uint8, 9, 8)),
]  # fmt: skip


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(range(len(SEEDS))),
    keep=st.floats(0.05, 1),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
)
@pytest.mark.filterwarnings("ignore")
def test_mutants_are_read_or_refused(tmp_path_factory, which, keep, changes):
    data = bytearray(SEEDS[which])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / f"mutant-{os.getpid()}"
    path.write_bytes(data[: int(keep * len(data))])
    try:
        size, pixels = read_size(path), read_raster(path)
    except ImageReadError:
        return
    assert pixels.shape[:2] == size
    assert pixels.dtype in (np.uint8, np.uint16)


@pytest.mark.data
def test_real_images_of_every_kind(shared_data):
    for name, shape, dtype in (
        ("mias/images/mdb001.png", (640, 640), np.uint8),
        ("mias/original/mdb001.pgm", (1024, 1024), np.uint8),
        ("cbis_ddsm_mass/train/00001_LEFT_CC.jpg", (800, 800), np.uint8),
        ("bach/images/b000.jpg", (336, 448, 3), np.uint8),
        ("idc/patches/10253/0/10253_idx5_x1051_y751_class0.png", (50, 50, 3), np.uint8),
    ):
        pixels = read_raster(shared_data / name)
        assert (pixels.shape, pixels.dtype) == (shape, dtype)
        assert read_size(shared_data / name) == shape[:2]
