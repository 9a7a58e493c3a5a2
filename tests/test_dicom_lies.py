"""What a DICOM header says and cannot be true is refused or told, and never changes an image unseen."""

import struct
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from exam_tree import breast, mammogram, save
from mammopath.errors import ImageReadError
from mammopath.images.deidentify import deidentified
from mammopath.images.dicom import WARNINGS, read_dicom, read_dicom_header
from mammopath.images.dicom_facts import flags_of_facts, flags_of_warnings, read_facts
from mammopath.images.read import read_header, read_image
from mammopath.images.tones import Window
from mammopath.sources.flags import FLAGS

MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"
WINDOW = {"WindowCenter": "1500", "WindowWidth": "800"}
LOSSLESS = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    "1.2.840.10008.1.2.4.90": lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
}

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom grumbles at values that are wrong on purpose


def compressed(frames, syntax, **tags):
    data = mammogram(**tags)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return data


def refused(path, read=read_dicom):
    with pytest.raises(ImageReadError) as caught:
        read(path)
    return caught.value.code, caught.value.why


CODES = {
    "CranioCaudal": "CC", "MedioLateralObliqueProjection": "MLO", "MedioLateralProjection": "ML",
    "LateroMedial": "LM", "LateroMedialOblique": "LMO", "CranioCaudalExaggeratedLaterally": "XCCL",
    "CranioCaudalExaggeratedMedially": "XCCM", "CaudoCranial": "FB",
    "SuperolateralToInferomedialOblique": "SIO", "InferomedialToSuperolateralOblique": "ISO",
    "TissueSpecimenFromBreast": "SPECIMEN",
}  # fmt: skip


def table():
    """A look-up table whose descriptor has one number in place of three."""
    item = Dataset()
    item.LUTDescriptor, item.LUTData = 4, bytes(8)
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def code(value):
    item = Dataset()
    item.CodeValue = value
    return item


def test_every_code_of_the_context_group_is_a_view(tmp_path):
    assert set(codes.cid4014.dir()) == CODES.keys()
    for name, view in CODES.items():
        sequence = [code(getattr(codes.cid4014, name).value)]
        path = save(tmp_path / "a.dcm", mammogram(ViewPosition=None, ViewCodeSequence=sequence))
        assert read_dicom_header(path).view == view, name
    path = save(tmp_path / "a.dcm", mammogram(ViewPosition=None, ViewCodeSequence=[code("399348003")]))
    assert read_dicom_header(path).view == ""  # antero-posterior: no view of a breast


@pytest.mark.parametrize(
    ("tags", "warning"),
    [({"ViewPosition": "MLO", "ViewCodeSequence": [code("399162004")]}, "view"),
     ({"Laterality": "R"}, "side"),
     ({"PresentationIntentType": "FOR PROCESSING"}, "intent"),
     ({"PresentationLUTShape": "INVERSE"}, "photometric"),
     ({"PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME1"}, "photometric"),
     ({MAGNIFICATION: "0"}, "magnification"), ({MAGNIFICATION: "-1.5"}, "magnification"),
     ({MAGNIFICATION: "30"}, "magnification"),
     ({"VOILUTFunction": "SIGMOIDAL", **WINDOW}, "function"),
     ({"VOILUTSequence": [Dataset()], **WINDOW}, "table"),
     ({"VOILUTSequence": [Dataset()]}, "window"), ({"VOILUTSequence": [table()], **WINDOW}, "table"),
     ({"ImagerPixelSpacing": ["1", "1"], "Rows": 500, "Columns": 500, "PixelData": b"\1" * 500_000},
      "spacing")],
)  # fmt: skip
def test_what_contradicts_or_makes_no_sense_is_told(tmp_path, tags, warning):
    path = save(tmp_path / "a.dcm", mammogram(**tags))
    image = read_dicom(path)
    assert image.header.warnings == (warning,)
    assert read_facts(path).warnings == read_header(path).warnings == read_image(path).header.warnings
    assert flags_of_warnings([warning]) <= flags_of_facts(read_facts(path))
    bits = 4095 - breast() if tags.get("PhotometricInterpretation") == "MONOCHROME1" else breast()
    if not WINDOW.keys() & tags.keys() and "Rows" not in tags:
        assert np.array_equal(image.pixels, bits)


def test_every_warning_has_a_flag_that_is_explained():
    assert len(flags_of_warnings(WARNINGS)) == len(WARNINGS)
    assert flags_of_warnings(WARNINGS) <= FLAGS.keys()


def test_facts_have_flags(tmp_path):
    tags = {"ViewPosition": None, "ImageLaterality": "B", "BurnedInAnnotation": "YES", MAGNIFICATION: "1.8"}
    path = save(tmp_path / "a.dcm", mammogram(breast(), **tags))
    assert flags_of_facts(read_facts(path)) == {"special_view", "view_unknown", "side_unknown", "burned_in"}
    assert flags_of_facts(read_facts(save(path, mammogram()))) == set()


@pytest.mark.parametrize("tags", [
    {"RescaleSlope": "nan"}, {"RescaleSlope": "1e39"}, {"RescaleSlope": "0"}, {"RescaleIntercept": "inf"},
    {"RescaleSlope": ["1", "2"]},
])  # fmt: skip
def test_values_that_cannot_be_rescaled_are_refused(tmp_path, tags):
    path = save(tmp_path / "a.dcm", mammogram(**tags))
    for read in (read_dicom, read_dicom_header, read_facts):
        told, why = refused(path, read)
        assert told == "pixels"
        assert "Rescale" in why or "slope" in why


def test_an_empty_slope_says_nothing(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(RescaleSlope="", RescaleIntercept=""))
    assert np.array_equal(read_dicom(path).pixels, breast())


@pytest.mark.parametrize(("tags", "um", "tag"), [
    ({"PixelSpacing": ["0.1", "0.1"], MAGNIFICATION: "1.25"}, 80, "PixelSpacing / " + MAGNIFICATION),
    ({"PixelSpacing": ["0.08", "0.08"], MAGNIFICATION: "1.25"}, 80, "PixelSpacing"),
    ({"PixelSpacing": ["0.1", "0.1"], "PixelSpacingCalibrationType": "FIDUCIAL", MAGNIFICATION: "1.25"}, 100,
     "PixelSpacing"),
    ({MAGNIFICATION: "1.25"}, 80, "ImagerPixelSpacing / " + MAGNIFICATION),
    ({}, 100, "ImagerPixelSpacing"),
    ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": ["0.05", "0.05"]}, 50,
     "NominalScannedPixelSpacing"),
])  # fmt: skip
def test_spacing_says_where_it_is_from(tmp_path, tags, um, tag):
    header = read_dicom_header(save(tmp_path / "a.dcm", mammogram(**tags)))
    assert header.spacing.um_x == pytest.approx(um)
    assert header.spacing_tag == tag


@pytest.mark.parametrize("shape", ["sigmoid", "Linear_Exact", "linear "])
def test_small_letters_are_the_same_word(tmp_path, shape):
    a = read_dicom(save(tmp_path / "a.dcm", mammogram(VOILUTFunction=shape.strip().upper(), **WINDOW)))
    b = read_dicom(save(tmp_path / "b.dcm", mammogram(VOILUTFunction=shape, **WINDOW)))
    assert np.array_equal(a.pixels, b.pixels)
    assert b.header.warnings == ()


def test_no_window_turns_an_image_over(tmp_path):
    tags = {"VOILUTFunction": "UNKNOWN", "WindowCenter": "2300", "WindowWidth": "0.5"}
    image = read_dicom(save(tmp_path / "a.dcm", mammogram(**tags)))
    assert np.array_equal(image.pixels, breast())
    assert image.header.warnings == ("window",)
    for width, shape in ((0.5, "LINEAR"), (0.0, "SIGMOID"), (float("nan"), "LINEAR_EXACT")):
        with pytest.raises(ValueError, match="window"):
            Window(10.0, width, shape)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, WINDOW])
def test_padding_is_dark(tmp_path, photometric, window):
    pixels = breast()
    pixels[:8], pixels[-8:] = 4000, 3990
    tags = {
        "PixelPaddingValue": 4000,
        "PixelPaddingRangeLimit": 3990,
        "PhotometricInterpretation": photometric,
    }
    padded = read_dicom(save(tmp_path / "a.dcm", mammogram(pixels, **tags, **window))).pixels
    plain = read_dicom(save(tmp_path / "b.dcm", mammogram(PhotometricInterpretation=photometric, **window)))
    assert np.array_equal(padded[8:-8], plain.pixels[8:-8])
    assert set(padded[:8].ravel()) == set(padded[-8:].ravel()) == {plain.pixels[8:-8].min()}


@pytest.mark.parametrize("tags", [
    {"PixelPaddingRangeLimit": 20}, {"PixelPaddingValue": 4095},
    {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095},
])  # fmt: skip
def test_padding_that_is_none_changes_nothing(tmp_path, tags):
    assert np.array_equal(read_dicom(save(tmp_path / "a.dcm", mammogram(**tags))).pixels, breast())


def test_signed_padding_by_either_representation(tmp_path):
    pixels = breast()
    pixels[:8] = 65536 - 2000
    data = mammogram(pixels, PixelRepresentation=1, BitsStored=16, HighBit=15)
    for vr, value in (("SS", -2000), ("US", 63536)):
        data.add_new(0x00280120, vr, value)
        assert set(read_dicom(save(tmp_path / "a.dcm", data)).pixels[:8].ravel()) == {20.0}


def test_intent_by_class_where_no_word_tells_it(tmp_path):
    for uid, intent in (("1.2", "presentation"), ("1.2.1", "processing"), ("1.1.1", "processing")):
        data = mammogram(PresentationIntentType=None, SOPClassUID=UID(f"1.2.840.10008.5.1.4.1.1.{uid}"))
        assert read_dicom_header(save(tmp_path / "a.dcm", data)).intent == intent


@pytest.mark.parametrize("uid", ["13.1.3", "13.1.4", "13.1.5"])
def test_tomosynthesis_of_one_frame_is_refused_by_its_class(tmp_path, uid):
    path = save(tmp_path / "a.dcm", mammogram(SOPClassUID=UID(f"1.2.840.10008.5.1.4.1.1.{uid}")))
    assert refused(path) == ("unsupported", "is tomosynthesis or a projection of it, by its class")
    path = save(path, mammogram(NumberOfFrames="60"))
    assert refused(path) == ("unsupported", "holds 60 frames, as tomosynthesis does")


def test_secondary_captures_are_no_exams_but_may_be_films(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.7")))
    assert read_dicom(path).pixels.shape == (96, 64)
    assert refused(path, read_facts)[0] == "unsupported"


@pytest.mark.parametrize("syntax", [*LOSSLESS, "1.2.840.10008.1.2.5"])
def test_a_stream_deeper_than_the_header_says_is_refused(tmp_path, syntax):
    deep = breast() * 16
    if syntax in LOSSLESS:
        data = compressed([LOSSLESS[syntax](deep)], syntax)
    else:
        data = mammogram(deep, BitsStored=16, HighBit=15)
        data.compress(UID(syntax), encoding_plugin="pydicom")
        data.BitsStored, data.HighBit = 12, 11
    code, why = refused(save(tmp_path / "a.dcm", data))
    assert (code, "12 bits" in why) == ("pixels", True)
    data.BitsStored, data.HighBit = 16, 15
    assert np.array_equal(read_dicom(save(tmp_path / "a.dcm", data)).pixels, deep)


def test_lossy_values_beyond_the_stored_ones_are_brought_back(tmp_path):
    """Where only their lowest bits were left, they would be black in the brightest place."""
    bright = np.full((96, 64), 1000, np.uint16)
    bright[40:60] = 1030
    syntax = "1.2.840.10008.1.2.4.51"
    frame = imagecodecs.jpeg8_encode(bright, level=99, bitspersample=12)
    assert imagecodecs.jpeg8_decode(frame).max() > 1023
    path = save(tmp_path / "a.dcm", compressed([frame], syntax, BitsStored=10, HighBit=9))
    pixels = read_dicom(path).pixels
    assert pixels.max() == 1023
    assert pixels.min() > 990
    path = save(path, compressed([frame], syntax, BitsStored=9, HighBit=8))
    assert "9 bits" in refused(path)[1]


def test_a_stream_of_another_sign_is_refused(tmp_path):
    signed = imagecodecs.jpeg2k_encode(breast().astype(np.int16), level=0)
    path = save(tmp_path / "a.dcm", compressed([signed], "1.2.840.10008.1.2.4.90"))
    assert "another sign" in refused(path)[1]
    unsigned = imagecodecs.jpeg2k_encode(breast(), level=0)
    path = save(path, compressed([unsigned], "1.2.840.10008.1.2.4.90", PixelRepresentation=1))
    assert "another sign" in refused(path)[1]


def test_signed_values_in_streams_that_know_no_signs(tmp_path):
    values = breast().astype(np.int32) - 2000
    for stored in (values & 0xFFF, values & 0xFFFF):
        frame = imagecodecs.ljpeg_encode(stored.astype(np.uint16))
        data = compressed([frame], "1.2.840.10008.1.2.4.70", PixelRepresentation=1)
        image = read_dicom(save(tmp_path / "a.dcm", data))
        assert np.array_equal(image.pixels, values)
        assert image.header.warnings == ()


def test_bits_beside_the_stored_ones_are_told(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(breast() | 0x8000))
    image = read_dicom(path)
    assert np.array_equal(image.pixels, breast())
    assert image.header.warnings == ("bits",)
    low = save(tmp_path / "b.dcm", mammogram(breast() << 4 | 3, HighBit=15))
    assert read_dicom(low).header.warnings == ("bits",)
    plain = save(tmp_path / "c.dcm", mammogram((breast().astype(np.int16) - 2000), PixelRepresentation=1))
    assert read_dicom(plain).header.warnings == ()


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("joined", [True, False])
def test_a_second_frame_is_not_hidden(tmp_path, syntax, joined):
    one, two = LOSSLESS[syntax](breast()), LOSSLESS[syntax](breast("R"))
    path = save(tmp_path / "a.dcm", compressed([one + two] if joined else [one, two], syntax))
    code, why = refused(path)
    assert (code, "more frames" in why) == ("pixels", True)


def test_claims_of_code_streams_are_looked_at_before_they_are_decoded(tmp_path):
    for syntax, at in (("1.2.840.10008.1.2.4.80", b"\xff\xf7"), ("1.2.840.10008.1.2.4.70", b"\xff\xc3")):
        frame = bytearray(LOSSLESS[syntax](breast()))
        place = frame.index(at) + 5
        frame[place : place + 4] = struct.pack(">HH", 65000, 65000)
        assert "65000 x 65000" in refused(save(tmp_path / "a.dcm", compressed([bytes(frame)], syntax)))[1]
    frame = bytearray(LOSSLESS["1.2.840.10008.1.2.4.90"](breast()))
    frame[8:16] = struct.pack(">II", 65000, 65000)
    data = compressed([bytes(frame)], "1.2.840.10008.1.2.4.90")
    assert "65000 x 65000" in refused(save(tmp_path / "a.dcm", data))[1]


def deflated(path, *, zeros):
    """A mammogram with a private element of so many zeros in front of its pixels."""
    data = mammogram()
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    data.private_block(0x0099, "ACME", create=True).add_new(1, "OB", bytes(zeros))
    return save(path, data)


def test_deflated_files_are_inflated_to_a_limit(tmp_path, monkeypatch):
    path = deflated(tmp_path / "a.dcm", zeros=1_000_000)
    assert np.array_equal(read_dicom(path).pixels, breast())
    assert pydicom.dcmread(path).PatientID == read_dicom_header(path).patient == "4711"
    monkeypatch.setattr("mammopath.images.dicom_file.MAX_INFLATED", 500_000)
    for read in (read_dicom, read_dicom_header, read_facts):
        assert refused(path, read)[0] == "too_large"
    cut = path.read_bytes()[:-200]
    path.write_bytes(cut)
    monkeypatch.undo()
    assert refused(path)[0] == "truncated"


def test_a_bomb_takes_little_memory(tmp_path):
    path = tmp_path / "bomb.dcm"
    deflated(path, zeros=0)
    start = path.read_bytes()
    head = 144 + pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    element = b"\x09\x00\x10\x00UN\0\0" + struct.pack("<I", 600_000_000)
    body = deflate.compress(element) + b"".join(deflate.compress(bytes(10**6)) for _ in range(600))
    path.write_bytes(start[:head] + body + deflate.flush())
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from mammopath.errors import ImageReadError\nfrom mammopath.images.dicom import read_dicom_header\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_dicom_header(Path(sys.argv[1]))\n"
        "except ImageReadError as error: print(error.code)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    told, kilobytes = done.stdout.split()
    assert told == "too_large"
    assert int(kilobytes) < 300_000


def test_each_file_is_parsed_once(tmp_path, monkeypatch):
    path, parse, times = save(tmp_path / "a.dcm", mammogram()), pydicom.dcmread, []
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: times.append(a) or parse(*a, **k))
    read_facts(path)
    assert len(times) == 1
    deidentified(path, key=b"k" * 16)
    assert len(times) == 2
