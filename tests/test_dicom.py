"""DICOM mammograms of every syntax come in the right way round; everything else has one error."""

import io
import os

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi, apply_windowing
from pydicom.uid import UID

from mammopath.errors import ImageReadError
from mammopath.images.codecs import CODECS, NATIVE, decoder_name
from mammopath.images.dicom import is_dicom, read_dicom, read_dicom_header
from mammopath.images.read import Header, read_header, read_image
from mammopath.images.tones import Table, Window
from mammopath.types import Spacing

MG = "1.2.840.10008.5.1.4.1.1.1.2"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip
RLE = "1.2.840.10008.1.2.5"
ENCODERS = {
    ".57": (imagecodecs.ljpeg_encode, {}),
    ".70": (imagecodecs.ljpeg_encode, {}),
    ".80": (imagecodecs.jpegls_encode, {}),
    ".81": (imagecodecs.jpegls_encode, {}),
    ".90": (imagecodecs.jpeg2k_encode, {"level": 0}),
    ".91": (imagecodecs.jpeg2k_encode, {"level": 0}),
}
RNG = np.random.default_rng(0)


def _film(bits=12, shape=(20, 14)):
    return RNG.integers(0, 1 << bits, shape, dtype=np.uint16)


def _dataset(pixels, *, syntax=EXPLICIT, bits=12, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(MG)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3")
    data.Modality, data.PhotometricInterpretation = "MG", "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, bits, bits - 1
    data.PixelRepresentation = 0
    if syntax in NATIVE:
        data.PixelData = pixels.astype(">u2" if syntax == BIG else "<u2").tobytes()
        data["PixelData"].VR = "OW"
    elif syntax == RLE:
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        data.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        data.compress(UID(RLE))
    else:
        encode, options = ENCODERS[syntax[-3:]]
        data.PixelData = encapsulate([encode(pixels, **options)])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def _write(path, pixels, **options):
    _save(path, _dataset(pixels, **options))


def _save(path, data):
    syntax = data.file_meta.TransferSyntaxUID
    data.save_as(
        path, enforce_file_format=True, little_endian=str(syntax) != BIG, implicit_vr=str(syntax) == IMPLICIT
    )


LOSSLESS = [
    IMPLICIT,
    EXPLICIT,
    BIG,
    DEFLATED,
    RLE,
    *(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70, 80, 81, 90, 91)),
]


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_bit_comes_back(tmp_path, syntax):
    pixels = _film()
    _write(tmp_path / "a.dcm", pixels, syntax=syntax)
    image = read_dicom(tmp_path / "a.dcm")
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, pixels)
    assert image.header == read_dicom_header(tmp_path / "a.dcm")
    assert image.header.decoder == decoder_name(syntax) != ""


def test_8_and_12_bit_jpeg_are_near(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(24)).astype(np.uint16)
    data = _dataset(smooth, bits=8)
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.50")
    data.BitsAllocated = 8
    data.PixelData = encapsulate([imagecodecs.jpeg8_encode(smooth.astype(np.uint8), level=98)])
    data["PixelData"].is_undefined_length = True
    _save(tmp_path / "a.dcm", data)
    assert np.abs(read_dicom(tmp_path / "a.dcm").pixels.astype(int) - smooth).max() <= 3


def test_no_gdcm_decodes():
    assert not [codec.name for codec in CODECS.values() if "gdcm" in codec.name.lower()]
    assert decoder_name("1.2.3") == ""


@pytest.mark.parametrize("intent", ["", "FOR PROCESSING", "FOR PRESENTATION"])
def test_monochrome1_is_turned_over(tmp_path, intent):
    pixels = _film()
    _write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", PresentationIntentType=intent)
    assert np.array_equal(read_dicom(tmp_path / "a.dcm").pixels, 4095 - pixels)


def test_overlay_bits_above_the_stored_ones_are_cleared(tmp_path):
    pixels = _film()
    _write(tmp_path / "a.dcm", pixels | 0xF000)
    assert np.array_equal(read_dicom(tmp_path / "a.dcm").pixels, pixels)


def test_signed_and_shifted_values(tmp_path):
    values = RNG.integers(-2048, 2048, (9, 8)).astype(np.int32)
    stored = (values & 0xFFF).astype(np.uint16)
    _write(tmp_path / "a.dcm", stored, PixelRepresentation=1)
    assert np.array_equal(read_dicom(tmp_path / "a.dcm").pixels, values)
    _write(tmp_path / "b.dcm", stored << 4, HighBit=15)
    assert np.array_equal(read_dicom(tmp_path / "b.dcm").pixels, stored)


def test_rescaling_is_applied_whatever_the_intent(tmp_path):
    pixels = _film()
    _write(tmp_path / "a.dcm", pixels, RescaleSlope="0.5", RescaleIntercept="-100")
    assert np.allclose(read_dicom(tmp_path / "a.dcm").pixels, pixels * 0.5 - 100)


MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"
WINDOW = {"WindowCenter": "1500", "WindowWidth": "800"}


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(tmp_path, shape):
    pixels = _film()
    data = _dataset(pixels, PresentationIntentType="FOR PRESENTATION", VOILUTFunction=shape, **WINDOW)
    _save(tmp_path / "a.dcm", data)
    assert np.allclose(read_dicom(tmp_path / "a.dcm").pixels, apply_windowing(pixels, data), atol=0.02)


def test_windows_wait_for_presentation(tmp_path):
    pixels = _film()
    _write(tmp_path / "a.dcm", pixels, PresentationIntentType="FOR PROCESSING", **WINDOW)
    assert np.array_equal(read_dicom(tmp_path / "a.dcm").pixels, pixels)


def test_a_turned_over_window(tmp_path):
    pixels = _film()
    options = {"PresentationIntentType": "FOR PRESENTATION", **WINDOW}
    _write(tmp_path / "a.dcm", pixels, **options)
    _write(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1", **options)
    a, b = read_dicom(tmp_path / "a.dcm").pixels, read_dicom(tmp_path / "b.dcm").pixels
    assert np.allclose(a + b, 4095)


def test_the_first_table_wins_over_windows(tmp_path):
    pixels = _film()
    table = Dataset()
    table.LUTDescriptor = [3000, 500, 12]
    table.LUTData = np.linspace(0, 4095, 3000).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    other = Dataset()
    other.LUTDescriptor, other.LUTData = [2, 0, 12], b"\0\0\xff\x0f"
    other["LUTDescriptor"].VR, other["LUTData"].VR = "US", "OW"
    data = _dataset(pixels, PresentationIntentType="FOR PRESENTATION", **WINDOW)
    data.VOILUTSequence = [table, other]
    _save(tmp_path / "a.dcm", data)
    assert np.allclose(read_dicom(tmp_path / "a.dcm").pixels, apply_voi(pixels, data), atol=0.01)


SENSELESS = [("nan", "100"), ("100", "0"), ("100", "-5"), ("1e400", "100"), ("9000", "100"), ("2000", "1e9")]


@pytest.mark.parametrize("window", SENSELESS)
@pytest.mark.filterwarnings("ignore")
def test_senseless_windows_are_taken_as_absent_and_told(tmp_path, window):
    pixels = _film()
    tags = dict(zip(("WindowCenter", "WindowWidth"), window, strict=True))
    _write(tmp_path / "a.dcm", pixels, PresentationIntentType="FOR PRESENTATION", **tags)
    image = read_dicom(tmp_path / "a.dcm")
    assert np.array_equal(image.pixels, pixels)
    assert image.header.warnings == ("window",)


def test_tones_at_their_ends():
    values = np.array([[-1e9, 99.0, 100.0, 101.0, 1e9]], dtype=np.float32)
    assert Window(100.0, 1.0).apply(values).tolist() == [[0, 0, 1, 1, 1]]
    assert Window(100.0, 4.0, "SIGMOID").apply(values)[0, [0, 2, 4]] == pytest.approx([0, 0.5, 1])
    assert Table(np.array([0, 0.5, 1], np.float32), 99).apply(values).tolist() == [[0, 0, 0.5, 1, 1]]


@pytest.mark.parametrize(("tags", "spacing"), [
    ({}, None),
    ({"ImagerPixelSpacing": ["0.1", "0.07"]}, Spacing(70.0, 100.0)),
    ({"ImagerPixelSpacing": ["0.1", "0.1"], MAGNIFICATION: "1.25"}, Spacing(80.0, 80.0)),
    ({"ImagerPixelSpacing": ["0.1", "0.1"], MAGNIFICATION: "0"}, Spacing(100.0, 100.0)),
    ({"ImagerPixelSpacing": ["0.1", "0.1"], "PixelSpacing": ["0.05", "0.05"]}, Spacing(50.0, 50.0)),
    ({"PixelSpacing": ["0", "0"], "NominalScannedPixelSpacing": ["0.05", "0.05"]}, Spacing(50.0, 50.0)),
    ({"ImagerPixelSpacing": ["1000", "1000"]}, None),
])  # fmt: skip
def test_spacing_is_what_is_sensible(tmp_path, tags, spacing):
    _write(tmp_path / "a.dcm", _film(), **tags)
    found = read_dicom_header(tmp_path / "a.dcm").spacing
    if spacing is None:
        assert found is None
    else:
        assert (found.um_x, found.um_y) == pytest.approx((spacing.um_x, spacing.um_y))


def test_side_and_view(tmp_path):
    _write(tmp_path / "a.dcm", _film(), ImageLaterality="R", Laterality="L", ViewPosition="MLO")
    header = read_dicom_header(tmp_path / "a.dcm")
    assert (header.laterality, header.view) == ("R", "MLO")
    code = Dataset()
    code.CodeValue = "399162004"
    _write(tmp_path / "b.dcm", _film(), Laterality="L", ViewCodeSequence=[code])
    header = read_dicom_header(tmp_path / "b.dcm")
    assert (header.laterality, header.view) == ("L", "CC")
    _write(tmp_path / "c.dcm", _film(), Laterality="B")
    assert read_dicom_header(tmp_path / "c.dcm").laterality == ""


BAD = {
    "ct": ({"Modality": "CT"}, "unsupported", "modality CT"),
    "frames": ({"NumberOfFrames": "25"}, "unsupported", "25 frames"),
    "colour": ({"PhotometricInterpretation": "RGB"}, "unsupported", "RGB"),
    "deep": ({"BitsAllocated": 32}, "unsupported", "32 bits"),
    "bits": ({"BitsStored": 17}, "pixels", "17 bits"),
    "high bit": ({"HighBit": 10}, "pixels", "bit 10"),
    "higher bit": ({"HighBit": 16}, "pixels", "bit 16"),
    "no frames": ({"NumberOfFrames": "0"}, "unsupported", "0 frames"),
    "a little more": ({"PixelData": b"\0" * (20 * 14 * 2 + 2)}, "pixels", "more pixels than"),
    "tall": ({"Rows": 21}, "truncated", "ends before|needs"),
    "small": ({"Rows": 9}, "pixels", "more pixels than"),
    "flat": ({"Rows": 0}, "pixels", "size of 14 x 0"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "too_large", "65535 x 65535"),
    "none": ({"PixelData": b""}, "pixels", "no pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mammogram_has_a_reason(tmp_path, name):
    tags, code, why = BAD[name]
    _write(tmp_path / "a.dcm", _film(), **tags)
    with pytest.raises(ImageReadError, match=why) as caught:
        read_dicom(tmp_path / "a.dcm")
    assert caught.value.code == code


def test_other_files_and_syntaxes(tmp_path):
    (tmp_path / "text.dcm").write_text("hello " * 100)
    (tmp_path / "zero.dcm").touch()
    for path, code in (
        (tmp_path / "text.dcm", "format"),
        (tmp_path / "zero.dcm", "empty"),
        (tmp_path / "no", "missing"),
    ):
        with pytest.raises(ImageReadError) as caught:
            read_dicom(path)
        assert caught.value.code == code
    data = _dataset(_film(), syntax="1.2.840.10008.1.2.4.70")
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    _save(tmp_path / "video.dcm", data)
    with pytest.raises(ImageReadError, match="MPEG-4"):
        read_dicom(tmp_path / "video.dcm")


@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s in CODECS])
def test_a_cut_frame_is_truncated_not_filled_in(tmp_path, syntax):
    data = _dataset(_film(shape=(64, 64)), syntax=syntax)
    frame = next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1))
    data.PixelData = encapsulate([frame[: len(frame) // 2]])
    data["PixelData"].is_undefined_length = True
    _save(tmp_path / "a.dcm", data)
    with pytest.raises(ImageReadError) as caught:
        read_dicom(tmp_path / "a.dcm")
    assert caught.value.code == "truncated"


def test_a_frame_of_another_size_is_refused(tmp_path):
    _write(tmp_path / "a.dcm", _film(), syntax="1.2.840.10008.1.2.4.80", Rows=14, Columns=20)
    with pytest.raises(ImageReadError, match="header says"):
        read_dicom(tmp_path / "a.dcm")


def test_content_decides_how_an_image_is_read(tmp_path):
    pixels = _film()
    _write(tmp_path / "odd-name", pixels, ImageLaterality="L", ImagerPixelSpacing=["0.1", "0.1"])
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(pixels))
    assert np.array_equal(read_image(tmp_path / "odd-name").pixels, pixels)
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, pixels)
    assert read_header(tmp_path / "odd-name") == Header(
        20, 14, Spacing(100.0, 100.0), "L", decoder=decoder_name(EXPLICIT), spacing_tag="ImagerPixelSpacing"
    )
    assert read_header(tmp_path / "b.png") == read_image(tmp_path / "b.png").header == Header(20, 14)
    assert is_dicom((tmp_path / "odd-name").read_bytes()[:132])


def _bytes(**options):
    file = io.BytesIO()
    _save(file, _dataset(_film(), **options))
    return file.getvalue()


SEEDS = [_bytes(syntax=s, PresentationIntentType="FOR PRESENTATION", **WINDOW) for s in LOSSLESS]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(range(len(SEEDS))),
    keep=st.floats(0.3, 1),
    changes=st.lists(st.tuples(st.integers(132, 4000), st.integers(0, 255)), max_size=8),
)
@pytest.mark.filterwarnings("ignore")
def test_mutants_are_read_or_refused(tmp_path_factory, which, keep, changes):
    data = bytearray(SEEDS[which])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / f"mutant-{os.getpid()}.dcm"
    path.write_bytes(data[: int(keep * len(data))])
    try:
        image = read_dicom(path)
    except ImageReadError:
        return
    assert image.pixels.shape == (image.header.height, image.header.width)
    assert np.isfinite(image.pixels).all()


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_real_mammograms(shared_data):
    for name, shape, side, view, spacing in (
        ("GH133.dcm", (3062, 2394), "R", "MLO", 94.1),
        ("OutOfBoundsOverlay.dcm", (788, 1318), "L", "CC", 81.5),
        ("MG_Explicit_Little.dcm", (512, 512), "R", "CC", 250),
        ("cbis_ddsm/1-282.dcm", (4688, 2592), "R", "", None),
    ):
        image = read_dicom(shared_data / "mammogram_dicom" / name)
        assert image.pixels.shape == shape
        assert (image.header.laterality, image.header.view) == (side, view)
        assert (image.header.spacing.um_x if image.header.spacing else None) == pytest.approx(
            spacing, abs=0.1
        )
