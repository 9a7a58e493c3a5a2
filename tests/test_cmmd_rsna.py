"""CMMD and RSNA 2022: labels by breast, what the tables leave open stays open, odd images are flagged."""

import math

import pytest

from exam_tree import mammogram, save
from mammopath.errors import DataError
from mammopath.sources import cmmd, rsna
from source_trees import cmmd_tree, rsna_tree, split


def test_labels_of_cmmd_are_of_a_breast_and_not_of_the_other(tmp_path):
    records, skipped = split(cmmd.index(cmmd_tree(tmp_path)))
    assert [(s.where, s.code) for s in skipped] == [("D2-0002 R", "missing")]
    found = {(r.patient, r.laterality): (r.malignant, r.severity) for r in records}
    assert found["cmmd_D1-0001", "R"] == (0, 1)
    assert found["cmmd_D2-0001", "L"][0] == 1
    assert math.isnan(found["cmmd_D2-0001", "L"][1])
    assert math.isnan(found["cmmd_D2-0001", "R"][0])
    assert {r.view for r in records} == {"CC", "MLO"}
    left = next(r for r in records if r.malignant == 1).attributes
    assert (left["abnormality"], left["subtype"], left["age"]) == ("calcification+mass", "Luminal A", "61")
    assert (left["part"], left["label"]) == ("D2", "biopsy")
    assert "label" not in next(r for r in records if math.isnan(r.malignant)).attributes


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [("Benign,", "Perhaps,", "row 2: 'R', 'Perhaps'"), ("D1-0001,R", "D1-0001,B", "'B', 'Benign'"),
     ("classification", "class", "classification are missing")],
)  # fmt: skip
def test_a_table_of_cmmd_that_cannot_be_meant(tmp_path, old, new, why):
    table = cmmd_tree(tmp_path) / "CMMD_clinicaldata_revision.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=why):
        list(cmmd.index(tmp_path))
    table.unlink()
    with pytest.raises(DataError, match=r"CMMD_clinicaldata_revision\.xlsx"):
        list(cmmd.index(tmp_path))


def test_labels_sites_and_flags_of_rsna(tmp_path):
    records, skipped = split(rsna.index(rsna_tree(tmp_path)))
    assert not skipped
    assert [r.domain for r in records] == ["rsna_2"] * 2 + ["rsna_1"] * 3
    assert [r.malignant for r in records] == [0, 0, 1, 1, 0]
    assert math.isnan(records[0].severity)
    assert [r.severity for r in records[1:]] == [1, 3, 2, 0]
    assert [r.attributes["flags"] for r in records[2:4]] == ["no_spacing", "no_spacing+special_view"]
    assert [r.attributes.get("rating", "") for r in records] == ["", "", "0", "0", "1"]
    assert [(r.attributes.get("implant"), r.attributes.get("difficult")) for r in records[3:]] == [
        ("yes", None), (None, "yes"),
    ]  # fmt: skip
    assert not any("birads" in r.attributes for r in records)


def test_rows_and_files_of_rsna_that_cannot_be_used(tmp_path):
    root = rsna_tree(tmp_path)
    table = root / rsna.TABLE
    table.write_text(table.read_text().replace("L,CC,61.0,0,", "L,CC,61.0,maybe,"))
    save(root / "train_images" / "10011" / "220375232.dcm", mammogram(Modality=None))
    (root / "train_images" / "10011" / "541722628.dcm").unlink()
    records, skipped = split(rsna.index(root))
    assert [r.path.stem for r in records] == ["1459541791", "541722629"]
    assert [s.code for s in skipped] == ["annotation", "unsupported", "missing"]
    assert skipped[0].where == f"{table}: row 2"
    table.write_text("image_id\n1\n")
    with pytest.raises(DataError, match="cancer"):
        list(rsna.index(root))
