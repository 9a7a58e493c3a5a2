"""De-identified mammograms: nothing of the patient is left, pixels and geometry are as before."""

import io

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner

from exam_tree import breast, exam, mammogram, save
from mammopath.cli.app import app
from mammopath.errors import ImageReadError
from mammopath.images.deidentify import deidentified, deidentify_folder
from mammopath.images.deidentify_table import action_of
from mammopath.images.dicom import read_dicom
from mammopath.sources import exams
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
     ({"ManufacturerModelName": "bought for Jane"}, "still tells", "annotation")],
)  # fmt: skip
def test_what_cannot_be_made_safe_is_not_written(tmp_path, tags, why, code):
    path = save(tmp_path / "a.dcm", mammogram(**tags))
    with pytest.raises(ImageReadError, match=why) as caught:
        deidentified(path, key=KEY)
    assert caught.value.code == code


def test_actions_of_the_table():
    for keyword_tag, action in (
        (0x00100010, "empty"), (0x00080018, "uid"), (0x00080014, "uid"), (0x00101010, "remove"),
        (0x00080081, "remove"), (0x00280010, "keep"), (0x00185101, "keep"), (0x60023000, "remove"),
        (0x50100010, "remove"), (0x0018700A, "replace"), (0x00181000, "empty"),
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
    assert {p.name for p in again if not isinstance(p, Skipped)} == {p.name for p in written}
    inside = CliRunner().invoke(app, ["deidentify", str(tmp_path / "in"), str(tmp_path / "in" / "x")])
    assert "lies in" in str(inside.exception)


def test_a_breast_is_painted_on_its_side():
    assert breast("L")[48, 0] > 1000 > breast("L")[48, -1]
