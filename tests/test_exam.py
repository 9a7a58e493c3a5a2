"""Exams are put together from any source, with views missing, doubled, special or unreadable."""

from dataclasses import replace
from pathlib import Path

from exam_tree import exam, mammogram, save
from mammopath.prepare.exam import STANDARD, group_exams, load_exam
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.sources import exams
from mammopath.types import Record
from source_trees import split

SMALL = PrepareSettings(mammogram=MammogramSettings(height=64, width=32))


def record(name, side, view, patient="p", **attributes):
    return Record(
        f"x/{name}", Path(name), patient, "x", "mammogram", laterality=side, view=view, attributes=attributes
    )


def test_views_missing_doubled_and_special():
    records = [
        record("a", "L", "CC", exam="1", flags="retake"), record("b", "L", "CC", exam="1", standard="yes"),
        record("c", "R", "MLO", exam="1"), record("d", "R", "CC", exam="1", flags="burned_in+special_view"),
        record("e", "R", "ML", exam="1"), record("f", "L", "CC", exam="2"),
        record("g", "L", "CC", patient="q"), replace(record("h", "", ""), modality="pathology"),
    ]  # fmt: skip
    first, second, third = group_exams(records)
    assert {view: r.path.name for view, r in first.views.items()} == {("L", "CC"): "b", ("R", "MLO"): "c"}
    assert first.missing == (("L", "MLO"), ("R", "CC"))
    assert [r.path.name for r in first.others] == ["a", "d", "e"]
    assert (second.name, second.patient, third.name) == ("2", "p", "q")
    assert list(second.views) == [("L", "CC")]


def test_dates_part_exams_where_no_study_is_told():
    one, two = group_exams(
        [record("a", "L", "CC", acquired="201001"), record("b", "L", "CC", acquired="200801")]
    )
    assert (one.name, two.name) == ("201001", "200801")


def test_an_exam_is_prepared_with_what_can_be_read(tmp_path):
    (tmp_path / "exams.csv").write_text("patient,label\n4711,benign\n")
    exam(tmp_path)
    save(tmp_path / "1.2.3" / "later.dcm", mammogram(SOPInstanceUID="1.2.9", AcquisitionTime="110000"))
    (found,) = group_exams(split(exams.index(tmp_path))[0])
    assert tuple(found.views) == STANDARD
    assert found.views["L", "CC"].path.name == "later.dcm"
    found.views["R", "CC"].path.write_bytes(b"")
    prepared = load_exam(found, SMALL, multiple=2)
    assert prepared.missing == (("R", "CC"),)
    assert [s.code for s in prepared.skipped] == ["empty"]
    assert {p.sample.image.shape for p in prepared.views.values()} == {(1, 64, 32)}
