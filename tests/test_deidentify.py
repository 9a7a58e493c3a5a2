"""De-identified mammograms: nothing of the patient is left, pixels and geometry are as before."""

import io
import re

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from typer.testing import CliRunner

from exam_tree import breast, exam, mammogram, save
from mammopath.cli.app import app
from mammopath.errors import ImageReadError
from mammopath.images.deidentify import deidentified, deidentify_folder
from mammopath.images.deidentify_table import action_of
from mammopath.images.dicom import read_dicom
from mammopath.sources import exams
from mammopath.sources.source import by_site
from mammopath.types import Skipped
from source_trees import split

KEY = b"k" * 32


SECRETS = (
    b"DOE", b"JANE", b"Jane", b"4711", b"19600102", b"98765", b"HOUSE", b"SMITH", b"Main Str", b"SN-1234",
    b"064Y", b"20240101", b"101500", b"ACME", b"North", b"MG1", b"1.2.3.4",
)  # fmt: skip


def told(**tags):
    data = mammogram(
        PatientBirthDate="19600102", OtherPatientIDs="XYZ-98765", ReferringPhysicianName="HOUSE^GREGORY",
        OperatorsName="SMITH^ANN", InstitutionAddress="1 Main Street", DeviceSerialNumber="SN-1234",
        SeriesInstanceUID=UID("1.2.3.5"), StudyDescription="Jane's screening", PatientAge="064Y", **tags,
    )  # fmt: skip
    inner = Dataset()
    inner.PatientID, inner.ReferencedSOPInstanceUID = "4711", UID("1.2.3.4")
    data.ReferencedImageSequence = [inner]
    data.private_block(0x0099, "ACME", create=True).add_new(1, "LO", "DOE^JANE")
    data.add_new(0x60003000, "OW", b"\1\0")
    return data


def test_nothing_of_the_patient_is_left(tmp_path):
    path = save(tmp_path / "a.dcm", told())
    data = deidentified(path, key=KEY)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    for secret in SECRETS:
        assert secret not in file.getvalue(), secret
    assert data.PatientIdentityRemoved == "YES"
    assert data.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert str(data.PatientID).startswith("P")
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
    assert data.ReferencedImageSequence[0].ReferencedSOPInstanceUID == data.SOPInstanceUID
    assert (data.Manufacturer, data.ViewPosition, data.ImageLaterality) == ("Acme", "CC", "L")


def test_pixels_and_geometry_stay(tmp_path):
    path = save(tmp_path / "a.dcm", told())
    after = save(tmp_path / "b.dcm", deidentified(path, key=KEY))
    before, kept = read_dicom(path), read_dicom(after)
    assert np.array_equal(before.pixels, kept.pixels)
    assert (before.header.spacing, before.header.laterality, before.header.view) == (
        kept.header.spacing, kept.header.laterality, kept.header.view,
    )  # fmt: skip


def test_one_key_one_pseudonym(tmp_path):
    a = save(tmp_path / "a.dcm", told())
    b = save(tmp_path / "b.dcm", told())
    c = save(tmp_path / "c.dcm", told(PatientID="4712"))
    one, two, three = (deidentified(path, key=KEY) for path in (a, b, c))
    assert one.PatientID == two.PatientID != three.PatientID
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert len(one.StudyInstanceUID) <= 64
    assert deidentified(a, key=b"other" * 8).PatientID != one.PatientID


@pytest.mark.parametrize(
    ("tags", "why", "code"),
    [({"BurnedInAnnotation": "YES"}, "burned into", "unsupported"),
     ({"Modality": "SR"}, "modality SR", "unsupported"),
     ({"ManufacturerModelName": "bought for Jane"}, "still tells", "annotation"),
     ({"SOPClassUID": UID("1.2.840.10008.5.1.4.1.1.7")}, "secondary capture", "unsupported"),
     ({"StudyInstanceUID": None}, "does not say", "annotation"),
     ({"DetectorID": "DET-77", "FilterType": "DET-77"}, "still tells", "annotation"),
     ({"DeviceSerialNumber": "SN 12", "ManufacturerModelName": "Unit SN 12"}, "still tells", "annotation")],
)  # fmt: skip
def test_what_cannot_be_made_safe_is_not_written(tmp_path, tags, why, code):
    path = save(tmp_path / "a.dcm", mammogram(**tags))
    with pytest.raises(ImageReadError, match=why) as caught:
        deidentified(path, key=KEY)
    assert caught.value.code == code


def overlaid(bits, **tags):
    """A mammogram with an overlay in a bit of its pixels and words about it, as old files have it."""
    data = mammogram(breast() | bits, **tags)
    for element, vr, value in (
        (0x0010, "US", 96), (0x0011, "US", 64), (0x0022, "LO", "seen by Dr Watson"), (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]), (0x0100, "US", 16), (0x0102, "US", 15), (0x1500, "LO", "label"),
    ):  # fmt: skip
        data.add_new(0x60000000 + element, vr, value)
    return data


@pytest.mark.parametrize(
    ("syntax", "order"),
    [("1.2.840.10008.1.2", "<"), ("1.2.840.10008.1.2.1", "<"), ("1.2.840.10008.1.2.2", ">"),
     ("1.2.840.10008.1.2.1.99", "<")],
)  # fmt: skip
@pytest.mark.parametrize("tags", [{}, {"PixelRepresentation": 1, "BitsStored": 13, "HighBit": 12}])
def test_overlays_go_with_their_bits_and_words(tmp_path, syntax, order, tags):
    data = overlaid(0x8000, **tags)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = (breast() | 0x8000).astype(f"{order}u2").tobytes()
    data.save_as(
        tmp_path / "a.dcm",
        enforce_file_format=True,
        implicit_vr=syntax == "1.2.840.10008.1.2",
        little_endian=order == "<",
    )
    after = deidentified(tmp_path / "a.dcm", key=KEY)
    assert not [element for element in after if element.tag.group == 0x6000]
    stored = np.frombuffer(after.PixelData, dtype=f"{order}u2").reshape(96, 64)
    assert np.array_equal(stored, breast())
    after.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.array_equal(read_dicom(tmp_path / "b.dcm").pixels, read_dicom(tmp_path / "a.dcm").pixels)


def test_bits_beside_compressed_pixels_are_not_written(tmp_path):
    data = overlaid(0x8000, BitsStored=16, HighBit=15)
    data.compress(UID("1.2.840.10008.1.2.5"), encoding_plugin="pydicom")
    data.BitsStored, data.HighBit = 12, 11
    with pytest.raises(ImageReadError, match="12 bits"):
        deidentified(save(tmp_path / "a.dcm", data), key=KEY)


def test_comments_of_code_streams_are_searched(tmp_path):
    data = mammogram()
    frame = imagecodecs.ljpeg_encode(breast())
    said = b"\xff\xfe\x00\x0aDOE JANE"
    for before, is_kept in ((frame, True), (frame[:2] + said + frame[2:], False)):
        data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.70")
        data.PixelData = encapsulate([before])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        path = save(tmp_path / "a.dcm", data)
        if is_kept:
            assert deidentified(path, key=KEY).PatientIdentityRemoved == "YES"
        else:
            with pytest.raises(ImageReadError, match="still tells"):
                deidentified(path, key=KEY)


def test_a_model_may_share_a_word_with_a_detector(tmp_path):
    data = mammogram(DetectorID="Acme 77", DetectorDescription="Acme 77", ManufacturerModelName="Acme One")
    after = deidentified(save(tmp_path / "a.dcm", data), key=KEY)
    assert (after.ManufacturerModelName, "DetectorDescription" in after) == ("Acme One", False)


def test_people_without_number_are_not_one_person(tmp_path):
    found = []
    for study, patient in (("1.2.1", ""), ("1.2.2", ""), ("1.2.1", " ")):
        path = save(tmp_path / "a.dcm", mammogram(PatientID=patient, StudyInstanceUID=UID(study)))
        found.append(deidentified(path, key=KEY).PatientID)
    assert found[0] == found[2] != found[1]
    assert all(name.startswith("U") for name in found)


def test_two_images_with_one_name_are_not_laid_over_each_other(tmp_path):
    save(tmp_path / "in" / "a.dcm", mammogram())
    save(tmp_path / "in" / "b.dcm", mammogram(breast("R"), PatientID="4712"))
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    one, two = deidentify_folder(tmp_path / "in", tmp_path / "out", key=KEY)
    assert np.array_equal(read_dicom(one.path).pixels, breast())
    assert (two.code, two.where) == ("annotation", str(tmp_path / "in" / "b.dcm"))
    assert "a.dcm" in two.why


TABLE = """patient,accession,date,side,label,birads,pair,attr_age
4711,,2024-01-01,L,malignant,5,4711-A1,61
4711,,2021-05-05,,benign,2,,58
,A9,,,benign,,,
,A1,,R,benign,,,seen with DOE
"""


def test_a_table_goes_with_the_images(tmp_path):
    root = exam(exam(tmp_path / "in"), study="1.2.7", StudyDate="20210505", StationName="MG2")
    (tmp_path / "labels.csv").write_text(TABLE)
    arguments = [
        str(tmp_path / "out"),
        "--key",
        str(tmp_path / "key"),
        "--table",
        str(tmp_path / "labels.csv"),
    ]
    result = CliRunner().invoke(app, ["deidentify", str(root), *arguments])
    assert result.exit_code == 0, result.output
    assert "2 rows -> " in result.output
    assert "row 4 (annotation): no image" in result.output
    assert "row 5 (annotation): column attr_age still tells" in result.output
    text = (tmp_path / "out" / "exams.csv").read_text()
    told = re.sub(r"2\.25\.\d+|\b[A-Z][0-9a-f]{16}\b", "", text)  # random pseudonyms hold any four digits
    for secret in ("4711", "A1", "DOE", "2024", "2021", "North", "MG1", "1.2.7"):
        assert secret not in told
    assert text.startswith(
        "patient,study,side,label,birads,pair,attr_age,attr_visit,attr_institution,attr_station\n"
    )
    records, skipped = split(exams.index(tmp_path / "out"))
    assert not skipped
    by_visit = {}
    for record in records:
        by_visit.setdefault(record.attributes.get("visit"), []).append(record)
    assert {visit: len(group) for visit, group in by_visit.items()} == {"1": 4, "2": 2, None: 2}
    assert {r.malignant for r in by_visit["1"]} == {0.0}
    assert {(r.malignant, r.laterality, r.attributes["birads"]) for r in by_visit["2"]} == {(1.0, "L", "5")}
    labelled = [*by_visit["1"], *by_visit["2"]]
    assert len({r.patient for r in records}) == len({r.domain for r in labelled}) == 1
    assert labelled[0].domain.startswith("I")
    assert len({r.domain for r in by_site(labelled, "station")}) == 2


def test_a_secret_is_long(tmp_path):
    (tmp_path / "key").write_text("short")
    arguments = ["deidentify", str(tmp_path), str(tmp_path.parent / "out"), "--key", str(tmp_path / "key")]
    assert "5 bytes" in str(CliRunner().invoke(app, arguments).exception)


@pytest.mark.parametrize("said", ["for 山田", "for Tarou", "for YAMADA"])
def test_names_in_several_scripts_are_searched_for_word_by_word(tmp_path, said):
    data = mammogram(PatientName="Yamada^Tarou=山田^太郎", ManufacturerModelName=said)
    data.SpecificCharacterSet = "ISO_IR 192"
    with pytest.raises(ImageReadError, match="still tells"):
        deidentified(save(tmp_path / "a.dcm", data), key=KEY)


def test_words_of_our_own_are_no_leak(tmp_path):
    """The pseudonym and the method are written after the search: somebody may be called Basic or Face."""
    path = save(tmp_path / "a.dcm", mammogram(PatientName="BASIC^FACE^PROFILE"))
    assert deidentified(path, key=KEY).PatientIdentityRemoved == "YES"


def test_a_table_that_is_there_is_not_written_over(tmp_path):
    root = exam(tmp_path / "in")
    (tmp_path / "labels.csv").write_text("patient,label\n4711,benign\n")
    arguments = ["deidentify", str(root), str(tmp_path / "out"), "--table", str(tmp_path / "labels.csv")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "is there already" in str(CliRunner().invoke(app, arguments).exception)


def test_actions_of_the_table():
    for keyword_tag, action in (
        (0x00100010, "empty"), (0x00080018, "uid"), (0x00080014, "uid"), (0x00101010, "remove"),
        (0x00080081, "remove"), (0x00280010, "keep"), (0x00185101, "keep"), (0x60023000, "remove"),
        (0x50100010, "remove"), (0x0018700A, "replace"), (0x00181000, "empty"), (0x60000022, "remove"),
        (0x60041500, "remove"), (0x60000102, "remove"), (0x00187006, "remove"),
    ):  # fmt: skip
        from pydicom.tag import Tag

        found = action_of(Tag(keyword_tag))
        assert found == action, f"{keyword_tag:08x}: {found}"


def test_a_folder_goes_in_and_exams_come_out(tmp_path):
    exam(tmp_path / "in" / "DOE_JANE")
    save(tmp_path / "in" / "burned.dcm", mammogram(BurnedInAnnotation="YES", SOPInstanceUID=UID("1.9")))
    (tmp_path / "in" / "report.txt").write_text("Jane Doe")
    arguments = ["deidentify", str(tmp_path / "in"), str(tmp_path / "out"), "--key", str(tmp_path / "key")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 mammograms" in result.output
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.dcm"))
    assert len(written) == 4
    assert not any("DOE" in str(path) or "1.2.3" in str(path) for path in written)
    pseudonym = written[0].parts[0]
    (tmp_path / "out" / "exams.csv").write_text(f"patient,label\n{pseudonym},benign\n")
    records, skipped = split(exams.index(tmp_path / "out"))
    assert not skipped
    assert {(r.patient, r.malignant, r.domain) for r in records} == {(pseudonym, 0.0, "hospital")}
    again = list(deidentify_folder(tmp_path / "in", tmp_path / "two", key=(tmp_path / "key").read_bytes()))
    assert {w.path.name for w in again if not isinstance(w, Skipped)} == {p.name for p in written}
    inside = CliRunner().invoke(app, ["deidentify", str(tmp_path / "in"), str(tmp_path / "in" / "x")])
    assert "lies in" in str(inside.exception)


def test_a_breast_is_painted_on_its_side():
    assert breast("L")[48, 0] > 1000 > breast("L")[48, -1]
