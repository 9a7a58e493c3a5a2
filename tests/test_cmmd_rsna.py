"""CMMD and RSNA 2022: labels by breast, what the tables leave open stays open, odd images are flagged."""

import math

import numpy as np
import pytest

from exam_tree import mammogram, save
from mammopath.case.evidence import Known
from mammopath.case.pictures import Album, _tile
from mammopath.case.values import Patch
from mammopath.cohort.check import check_records
from mammopath.errors import DataError, ImageReadError
from mammopath.images.read import assumes_mg, read_header, read_image
from mammopath.prepare.sample import load_sample
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.sources import cmmd, rsna
from mammopath.sources.flags import flags_of
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
    save(root / "train_images" / "10011" / "220375232.dcm", mammogram(Modality="CR"))
    (root / "train_images" / "10011" / "541722628.dcm").unlink()
    records, skipped = split(rsna.index(root))
    assert [r.path.stem for r in records] == ["1459541791", "541722629"]
    assert [s.code for s in skipped] == ["annotation", "unsupported", "missing"]
    assert skipped[0].where == f"{table}: row 2"
    table.write_text("image_id\n1\n")
    with pytest.raises(DataError, match="cancer"):
        list(rsna.index(root))


@pytest.mark.parametrize("modality", [None, ""])
def test_stripped_headers_of_rsna_are_read_by_their_place_and_nowhere_else(tmp_path, modality):
    root = rsna_tree(tmp_path)
    path = save(root / "train_images" / "10011" / "220375232.dcm", mammogram(Modality=modality))
    records, skipped = split(rsna.index(root))
    assert not skipped
    [record] = [r for r in records if r.path == path]
    assert "modality_untold" in flags_of(record.attributes)
    assert not any("modality_untold" in flags_of(r.attributes) for r in records if r != record)
    with pytest.raises(ImageReadError, match="modality unknown"):
        read_image(path)
    small = PrepareSettings(mammogram=MammogramSettings(height=32, width=16), draws=0)
    assert load_sample(record, small, multiple=16).sample.image.shape[-2:] == (32, 16)
    found = {f.code: f.count for f in check_records(records).findings}
    assert "unreadable" not in found
    assert found["flag_modality_untold"] == 1


def test_another_modality_is_refused_wherever_it_lies(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(Modality="US"))
    for read in (read_image, read_header):
        with pytest.raises(ImageReadError, match="modality US"):
            read(path, assume_mg=True)


def test_a_reference_case_of_such_a_file_can_be_drawn(tmp_path):
    path = save(tmp_path / "a.dcm", mammogram(Modality=None))
    record = Known("a", str(path), "patient", "site", 1.0, 0, 0).record("mammogram")
    assert read_header(record.path, assume_mg=assumes_mg(record)).width == 64
    patch = Patch("1", (0.0, 0.0, 64.0, 64.0), 1.0, (0, 0), whose="site", path=str(path))
    assert len(np.unique(_tile(patch, Album({}, {}, {})))) > 1
