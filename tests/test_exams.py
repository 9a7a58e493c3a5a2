"""A hospital's exams: labels by table, standard views by rules, every injected fault refused or flagged."""

import math
import os
import warnings

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from exam_tree import breast, exam, mammogram, save
from mammopath.cohort.check import check_records
from mammopath.errors import DataError
from mammopath.images.dicom_facts import read_facts
from mammopath.sources import exams
from mammopath.sources.source import by_site
from source_trees import split

CSV = "patient,side,label,birads,attr_age\n4711,L,malignant,5,61\n4711,R,benign,2,61\n"


def folder(root, text=CSV, **tags):
    (root / "exams.csv").write_text(text)
    return exam(root, **tags)


def listed(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom grumbles at values that are wrong on purpose
        return split(exams.index(root))


def flags(record):
    return set(record.attributes.get("flags", "").split("+")) - {""}


def test_an_exam_with_its_labels(tmp_path):
    records, skipped = listed(folder(tmp_path))
    assert not skipped
    assert [(r.laterality, r.view, r.malignant) for r in records] == [
        ("L", "CC", 1), ("L", "MLO", 1), ("R", "CC", 0), ("R", "MLO", 0),
    ]  # fmt: skip
    one = records[0]
    assert {r.patient for r in records} == {one.patient}
    assert "4711" not in one.patient
    assert (one.domain, one.spacing.um_x, one.spacing_source) == ("North", 100, "header")
    assert one.attributes["spacing_tag"] == "ImagerPixelSpacing"
    assert one.attributes["exam"] == "1.2.3"
    assert [r.attributes["birads"] for r in records] == ["5", "5", "2", "2"]
    assert not any(flags(r) for r in records)
    assert {r.domain for r in by_site(records, "station")} == {"MG1"}
    assert {r.domain for r in by_site(records, "no such")} == {"North"}


def test_rows_that_meet_no_image_and_images_without_row(tmp_path):
    text = "accession,side,date,label\nA1,L,2024-01-01,malignant\nA1,L,2023-01-01,benign\nA9,,,benign\n"
    records, skipped = listed(folder(tmp_path, text))
    assert [r.malignant for r in records[:2]] == [1, 1]
    assert all(math.isnan(r.malignant) for r in records[2:])
    assert [s.where.rpartition(": ")[2] for s in skipped] == ["row 3", "row 4"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("patient\n4711\n", "label"), ("patient,label,colour\n4711,benign,red\n", "colour"),
     ("patient,label\n4711,perhaps\n", "perhaps"),
     ("patient,label,malignant\n4711,benign,1\n", "row 2: the labels contradict"),
     ("patient,label,side\n4711,benign,Q\n", "row 2: laterality 'Q'"),
     ("patient,label,split\n4711,benign,validation\n", "row 2: split 'validation'")],
)  # fmt: skip
def test_tables_that_cannot_be_meant(tmp_path, text, why):
    with pytest.raises(DataError, match=why):
        listed(folder(tmp_path, text))


def test_retakes_special_views_and_versions_for_processing(tmp_path):
    root = folder(tmp_path)
    later = mammogram(AcquisitionTime="102000", SOPInstanceUID=UID("1.2.9.1"))
    raw = mammogram(
        PresentationIntentType="FOR PROCESSING", SOPInstanceUID=UID("1.2.9.2"), AcquisitionTime="110000"
    )
    code = Dataset()
    code.CodeValue, code.ViewModifierCodeSequence = "399162004", [Dataset()]
    code.ViewModifierCodeSequence[0].CodeValue = "399055006"
    spot = mammogram(SOPInstanceUID=UID("1.2.9.3"), ViewCodeSequence=[code])
    large = mammogram(SOPInstanceUID=UID("1.2.9.4"), EstimatedRadiographicMagnificationFactor="1.8")
    for name, data in (("later", later), ("raw", raw), ("spot", spot), ("zoom", large)):
        save(root / "1.2.3" / f"{name}.dcm", data)
    records, skipped = listed(root)
    by_name = {r.path.stem: r for r in records}
    assert [s.where.rpartition("/")[2] for s in skipped] == ["raw.dcm"]
    assert flags(by_name["LCC"]) == {"retake"}
    assert flags(by_name["spot"]) == flags(by_name["zoom"]) == {"special_view"}
    assert {r.path.stem for r in records if not flags(r)} == {"later", "LMLO", "RCC", "RMLO"}


def test_of_two_takes_at_one_time_one_is_used(tmp_path):
    root = folder(tmp_path)
    save(root / "1.2.3" / "again.dcm", mammogram(SOPInstanceUID=UID("1.2.9.1")))
    records, _ = listed(root)
    assert [flags(r) for r in records if (r.laterality, r.view) == ("L", "CC")] == [{"retake"}, set()]


def test_a_malignant_row_beside_a_benign_one_leaves_the_severity_open(tmp_path):
    text = "patient,side,label\n4711,L,benign\n4711,L,malignant\n4711,R,benign\n4711,R,dcis\n"
    records, _ = listed(folder(tmp_path, text))
    assert [r.malignant for r in records] == [1, 1, 1, 1]
    assert [math.isnan(r.severity) for r in records[:2]] == [True, True]
    assert [r.severity for r in records[2:]] == [2, 2]


def test_files_that_do_not_name_themselves_are_all_listed(tmp_path):
    root = folder(tmp_path)
    for side in ("LCC", "RCC"):
        data = mammogram(ImageLaterality=side[0])
        save(root / "1.2.3" / f"{side}.dcm", data)
        without(root / "1.2.3" / f"{side}.dcm", "SOPInstanceUID")
    records, skipped = listed(root)
    assert (len(records), skipped) == (4, [])


def without(path, name):
    data = dcmread(path)
    delattr(data, name)
    data.save_as(path, enforce_file_format=False)


def test_links_that_lead_nowhere_and_pipes(tmp_path):
    root = folder(tmp_path)
    (root / "gone").symlink_to(tmp_path / "no such file")
    os.mkfifo(root / "pipe.dcm")
    records, skipped = listed(root)
    assert len(records) == 4
    assert [(s.where, s.code) for s in skipped] == [(str(root / "gone"), "missing")]


def test_one_number_with_two_names_and_a_study_without_row(tmp_path):
    root = exam(folder(tmp_path), study="1.2.4", PatientName="ROE^MARY")
    exam(root, study="1.2.5", PatientID="99", PatientName="Doe^Jane^")
    records, _ = listed(root)
    found = {study: [flags(r) for r in records if r.attributes["exam"] == study] for study in
             ("1.2.3", "1.2.4", "1.2.5")}  # fmt: skip
    assert found == {
        "1.2.3": [{"name_differs"}] * 4,
        "1.2.4": [{"name_differs"}] * 4,
        "1.2.5": [{"no_row"}] * 4,
    }


def test_images_of_a_study_without_patient_number_stay_together(tmp_path):
    records, _ = listed(folder(tmp_path, "accession,label\nA1,benign\n", PatientID=""))
    assert {(r.patient, r.patient_known) for r in records} == {("1.2.3", False)}


FLAGGED = {
    "nan window": ({"WindowCenter": "nan", "WindowWidth": "100"}, "window_ignored"),
    "no width": ({"WindowCenter": "100", "WindowWidth": "0"}, "window_ignored"),
    "no spacing": ({"ImagerPixelSpacing": None}, "no_spacing"),
    "zero spacing": ({"ImagerPixelSpacing": ["0", "0"]}, "no_spacing"),
    "spacing 1000": ({"ImagerPixelSpacing": ["1000", "1000"]}, "no_spacing"),
    "burned in": ({"BurnedInAnnotation": "YES"}, "burned_in"),
    "rows and columns": ({"Rows": 64, "Columns": 96}, "wide"),
    "no side": ({"ImageLaterality": None}, "side_unknown"),
    "no view": ({"ViewPosition": None}, "view_unknown"),
}


@pytest.mark.parametrize("fault", FLAGGED)
@pytest.mark.filterwarnings("ignore")
def test_injected_faults_are_flagged_and_told_by_check(tmp_path, fault):
    tags, flag = FLAGGED[fault]
    root = folder(tmp_path)
    save(root / "1.2.3" / "LCC.dcm", mammogram(breast("L"), SOPInstanceUID=UID("1.2.3.0"), **tags))
    records, skipped = listed(root)
    assert not skipped
    (bad,) = [r for r in records if r.path.stem == "LCC"]
    assert flags(bad) == {flag}
    assert not any(flags(r) for r in records if r is not bad)
    told = [f for f in check_records(records, pixels=False).findings if f.code == f"flag_{flag}"]
    assert [(f.severity, f.count, f.where) for f in told] == [("warning", 1, (bad.image_id,))]


REFUSED = {
    "short": ({"PixelData": b"\0" * 1000}, "truncated"),
    "not MG": ({"Modality": "CT"}, "unsupported"),
    "other patient": ({"PatientID": "4712", "PatientName": "ROE^MARY"}, "annotation"),
    "other name": ({"PatientName": "ROE^MARY"}, "annotation"),
    "same instance": ({"SOPInstanceUID": UID("1.2.3.2")}, "annotation"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_injected_faults_are_refused(tmp_path, fault):
    tags, code = REFUSED[fault]
    root = folder(tmp_path)
    save(root / "1.2.3" / "x.dcm", mammogram(**{"SOPInstanceUID": UID("1.2.3.9")} | tags))
    records, skipped = listed(root)
    assert len(records) == 4
    assert [(s.where.rpartition("/")[2], s.code) for s in skipped] == [("x.dcm", code)]


@pytest.mark.parametrize(
    ("side", "pixels", "tags", "code"),
    [("L", breast("R"), {}, "side_unlike_pixels"),
     ("R", breast("L"), {}, "side_unlike_pixels"),
     ("L", breast("L"), {"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
     ("L", 4095 - breast("L"), {}, "inverted"),
     ("R", 4095 - breast("R"), {"PhotometricInterpretation": "MONOCHROME1"}, ""),
     ("R", breast("R"), {}, "")],
)  # fmt: skip
def test_pixels_that_contradict_the_header_are_told_by_check(tmp_path, side, pixels, tags, code):
    root = folder(tmp_path)
    victim = mammogram(pixels, ImageLaterality=side, SOPInstanceUID=UID("1.2.3.8"), **tags)
    save(root / "1.2.3" / f"{side}CC.dcm", victim)
    records, _ = listed(root)
    told = {f.code: f.where for f in check_records(records).findings}
    assert told.get(code, ()) == ((f"exams/1.2.3/{side}CC.dcm",) if code else ())
    assert not (told.keys() & {"side_unlike_pixels", "inverted"}) - {code}


@pytest.mark.filterwarnings("ignore")
def test_a_directory_that_lists_what_is_not_there(tmp_path):
    root = folder(tmp_path)
    places = [["1.2.3", "LCC.DCM"], ["1.2.3", "GONE"], ["..", "elsewhere"], ["/etc/passwd"], None]
    directory = Dataset()
    directory.DirectoryRecordSequence = [Dataset() for _ in places]
    for entry, place in zip(directory.DirectoryRecordSequence, places, strict=True):
        entry.ReferencedFileID = place
    shell = mammogram()
    directory.file_meta = shell.file_meta
    directory.SOPClassUID, directory.SOPInstanceUID = shell.SOPClassUID, shell.SOPInstanceUID
    save(root / "DICOMDIR", directory)
    (root / "viewer.exe").write_bytes(b"MZ" * 100)
    records, skipped = listed(root / "DICOMDIR")
    assert len(records) == 4
    assert [(s.where, s.code) for s in skipped] == [
        (str(root / "1.2.3" / "GONE"), "missing"), (str(root / "DICOMDIR"), "annotation"),
        (str(root / "DICOMDIR"), "annotation"),
    ]  # fmt: skip
    assert records == listed(root)[0]


def test_facts_of_a_deidentified_file(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(PatientIdentityRemoved="YES"))
    facts = read_facts(path)
    assert facts.is_deidentified
    assert exams.pseudonym(facts) == "4711"
    assert facts.places == {"institution": "North", "station": "MG1", "manufacturer": "Acme"}
