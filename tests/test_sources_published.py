"""MIAS, BACH and IDC as they are published, with the faults that copies have."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammopath.errors import DataError
from mammopath.sources import bach, idc, mias
from mammopath.sources.columns import read_cells
from mammopath.sources.source import count
from mammopath.types import Finding
from source_trees import bach_tree, idc_tree, mias_tree, pgm, put, split


def test_mias_as_published(tmp_path):
    records, skipped = split(mias.index(mias_tree(tmp_path)))
    by_name = {r.path.stem: r for r in records}
    assert not skipped
    assert [(r.patient, r.laterality) for r in records] == [
        ("mias_001", "L"), ("mias_001", "R"), ("mias_002", "L"), ("mias_002", "R"), ("mias_003", "R"),
    ]  # fmt: skip
    assert [(r.malignant, r.severity) for r in records[:2]] == [(0, 1), (0, 0)]
    assert (by_name["mdb003"].malignant, by_name["mdb004"].malignant) == (1, 1)
    assert math.isnan(by_name["mdb003"].severity)
    assert by_name["mdb001"].findings == (Finding("circle", ((32.0, 48.0),), 6.25, 0.0, "CIRC"),)
    assert [f.malignant for f in by_name["mdb003"].findings] == [0.0, 1.0]
    annotated = [r.attributes.get("annotated") for r in records]
    assert annotated == ["yes", "yes", "yes", None, None]
    assert by_name["mdb001"].spacing.um_x == 3200


def test_mias_rows_and_files_that_do_not_meet(tmp_path):
    root = mias_tree(tmp_path)
    with (root / "Info.txt").open("a") as file:
        file.write("mdb005 G NORM\nmdb007 Q NORM\nmdb008 G NORM B\n")
    put(root / "mdb322.pgm", pgm())
    _, skipped = split(mias.index(root))
    assert {(Path(s.where).name, s.code) for s in skipped} == {
        ("mdb005", "missing"), ("Info.txt:13", "annotation"), ("Info.txt:14", "annotation"),
        ("mdb322.pgm", "annotation"),
    }  # fmt: skip
    (root / "Info.txt").unlink()
    with pytest.raises(DataError, match=r"no Info\.txt"):
        list(mias.index(root))


_LESION = st.tuples(
    st.sampled_from(["CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM"]),
    st.sampled_from("BM"),
    st.none() | st.tuples(*[st.integers(0, 1023)] * 3),
)


@settings(max_examples=40)
@given(
    lesions=st.lists(_LESION, max_size=4),
    tissue=st.sampled_from("FGD"),
    space=st.sampled_from([" ", "  ", "\t"]),
)
def test_mias_rows_come_back(tmp_path_factory, lesions, tissue, space):
    path = tmp_path_factory.mktemp("info") / "Info.txt"
    rows = [
        ["mdb001", tissue, kind, severity, *(map(str, place) if place else ["*NOTE 3*"])]
        for kind, severity, place in lesions
    ] or [["mdb001", tissue, "NORM"]]
    path.write_text("mdb is a prefix\n" + "".join(space.join(row) + " \n" for row in rows))
    read, bad = mias.read_info(path)
    placed = list(dict.fromkeys(lesion for lesion in lesions if lesion[2]))
    found = [(r.kind, "M" if r.malignant else "B", r.circle) for r in read["mdb001"] if r.circle]
    assert found == placed
    assert len(bad) == 1
    assert {r.tissue for r in read["mdb001"]} == {tissue}


@settings(max_examples=40)
@given(text=st.text(max_size=200))
def test_mias_survives_any_text(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("info") / "Info.txt"
    path.write_text("mdb" + text, encoding="utf-8")
    rows, bad = mias.read_info(path)
    assert len(rows) + len(bad) >= 1


def test_bach_as_published(tmp_path):
    records, skipped = split(bach.index(bach_tree(tmp_path)))
    assert not skipped
    assert count(records) == {
        "images": 8, "patients": 8, "malignant": 4, "not malignant": 4,
        "normal": 2, "benign": 2, "in situ": 2, "invasive": 2,
    }  # fmt: skip
    assert not any(r.patient_known for r in records)
    assert records[0].spacing.um_x == pytest.approx(2048 * 0.42 / 50)


def test_bach_truth_that_does_not_meet_the_folders(tmp_path):
    root = bach_tree(tmp_path)
    with (root / "Photos" / "microscopy_ground_truth.csv").open("a") as file:
        file.write("n001.png,Invasive\niv099.png,Invasive\nnonsense\n")
    records, skipped = split(bach.index(root))
    assert len(records) == 7
    assert {(Path(s.where).name, s.code) for s in skipped} == {
        ("n001.png", "annotation"),
        ("iv099.png", "missing"),
    }
    (root / "Photos" / "microscopy_ground_truth.csv").unlink()
    assert len(split(bach.index(root / "Photos"))[0]) == 8


def test_idc_as_published(tmp_path):
    records, skipped = split(idc.index(idc_tree(tmp_path / "IDC_regular_ps50_idx5")))
    assert not skipped
    assert {r.patient for r in records} == {"idc_8863", "idc_10253"}
    assert sorted(r.malignant for r in records) == [0, 0, 1, 1]
    assert all(r.spacing_source == "nominal" for r in records)
    assert len(split(idc.index(tmp_path))[0]) == 4


@pytest.mark.parametrize(
    "name", ["8863/0/8863_idx5_x1_y1_class1.png", "8863/1/9_idx5_x1_y1_class1.png", "8863/1/x.png"]
)
def test_idc_names_that_contradict_their_folders(tmp_path, name):
    put(idc_tree(tmp_path) / name)
    records, skipped = split(idc.index(tmp_path))
    assert len(records) == 4
    assert [s.code for s in skipped] == ["annotation"]


@pytest.mark.data
def test_real_mias_lesions_are_those_of_itstable_tree(shared_data):
    """The reduced form's own table was made apart from our reading of Info.txt."""
    records, _ = split(mias.index(shared_data / "mias"))
    table_of = {row["file"]: row for row in read_cells(shared_data / "mias" / "labels.csv")}
    for record in records:
        row = table_of[f"images/{record.path.name}"]
        assert (record.laterality, record.patient) == (row["laterality"], row["patient_id"])
        assert record.malignant == (row["label"] == "malignant")
        if row["lesion_x"]:
            told = np.array([float(row[c]) for c in ("lesion_x", "lesion_y", "lesion_radius_or_mask")])
            found = [[*f.points[0], f.radius] for f in record.findings]
            assert min(np.abs(told - f).max() for f in np.array(found)) < 0.06
