"""CBIS-DDSM in all four layouts: files found, masks told from crops, labels pooled, leaks seen."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from cbis_tree import CROP, FILM, LAYOUTS, MASS, TABLES, build, dicom, mask, row
from mammopath.cohort.rules import check_table
from mammopath.cohort.splits import fold
from mammopath.errors import DataError
from mammopath.images.geometry import Frame, paint
from mammopath.sources import cbis_ddsm
from mammopath.sources.cbis_ddsm_masks import as_mask, read_lesion
from mammopath.sources.cbis_ddsm_tables import find_tables, read_rois
from mammopath.sources.source import count
from source_trees import split


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(tmp_path, layout):
    records, skipped = split(cbis_ddsm.index(build(tmp_path, layout, TABLES)))
    by_name = {r.attributes["film"]: r for r in records}
    assert not skipped
    assert sorted(by_name) == [
        "Calc-Test_P_00002_RIGHT_CC", "Calc-Test_P_00038_LEFT_CC", "Mass-Training_P_00001_LEFT_CC",
        "Mass-Training_P_00001_LEFT_MLO", "Mass-Training_P_00002_RIGHT_CC", "Mass-Training_P_00003_RIGHT_CC",
    ]  # fmt: skip
    assert all(r.path.is_file() and r.attributes["annotated"] == "yes" for r in records)
    first = by_name["Mass-Training_P_00001_LEFT_CC"]
    assert (first.patient, first.laterality, first.view, first.malignant) == ("P_00001", "L", "CC", 1)
    assert [f.malignant for f in first.findings] == [1, 0]
    assert first.attributes["flags"] == "mixed_labels"
    assert (first.attributes["birads"], first.attributes["density"]) == ("4", "3")
    other_view = by_name["Mass-Training_P_00001_LEFT_MLO"]
    assert (other_view.malignant, other_view.severity) == (0, 1)
    assert (other_view.attributes["breast"], other_view.attributes["patient"]) == ("malignant", "malignant")
    for r in records:
        for found in r.findings:
            assert np.mean(paint([found], Frame(), FILM.shape) != (mask() > 0)) < 0.02


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_film_under_masses_and_calcifications_is_one_record_with_both(tmp_path, layout):
    records, _ = split(cbis_ddsm.index(build(tmp_path, layout, TABLES)))
    film = next(r for r in records if r.patient == "P_00003")
    assert film.attributes["abnormality"] == "calcification+mass"
    assert (film.malignant, film.attributes["flags"]) == (1, "mixed_labels")
    assert [(f.name, f.malignant) for f in film.findings] == [("mass", 0), ("calcification", 1)]
    assert (film.attributes["mass_shape"], film.attributes["calc_type"]) == ("ROUND", "AMORPHOUS")


def test_the_leak_of_the_pooled_split_is_found_and_kept_from_training(tmp_path):
    records, _ = split(cbis_ddsm.index(build(tmp_path, "kaggle", TABLES)))
    (leak,) = [f for f in check_table(records) if f.code == "patient_in_both_splits"]
    assert (leak.count, leak.where) == (1, ("P_00002",))
    drawn = fold(records, held_out=None, validation=0.4, test_share=0.3, seed=0)
    trained = {records[i].patient for i in (*drawn.train, *drawn.val)}
    assert trained == {"P_00001", "P_00003"}
    assert [records[i].attributes["film"] for i in drawn.dropped] == ["Mass-Training_P_00002_RIGHT_CC"]


def test_a_mask_of_another_size_is_rescaled_and_told(tmp_path):
    name = "Mass-Training_P_00001_LEFT_CC_1"
    records, _ = split(cbis_ddsm.index(build(tmp_path, "classic", TABLES, masks={name: mask(120, 78)})))
    film = next(r for r in records if r.attributes["film"].endswith("P_00001_LEFT_CC"))
    assert film.attributes["flags"] == "mask_rescaled+mixed_labels"
    left, top, right, bottom = film.findings[0].box()
    assert (left, right) == pytest.approx((19 * 40 / 78, 39 * 40 / 78), abs=0.6)
    assert (top, bottom) == pytest.approx((20, 30), abs=0.6)


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (mask(60, 90), "does not fit"),
        (np.zeros((60, 40), np.uint8), "empty"),
        (FILM, "no file of the lesion is a mask"),
    ],
)
def test_a_mask_that_is_none_is_told_and_its_film_kept(tmp_path, picture, why):
    name = "Calc-Test_P_00038_LEFT_CC_1"
    records, skipped = split(cbis_ddsm.index(build(tmp_path, "idc", TABLES, masks={name: picture})))
    film = next(r for r in records if r.patient == "P_00038")
    assert not film.findings
    assert "annotated" not in film.attributes
    assert [(s.where, s.code) for s in skipped] == [(name, "annotation")]
    assert why in skipped[0].why


def test_broken_patient_ids_and_no_metadata(tmp_path):
    """As 246 images of the test set are: without description, their PatientID a file name."""
    root = build(tmp_path, "descriptive", TABLES)
    (root / "manifest-1" / "metadata.csv").unlink()
    for path in root.rglob("*.dcm"):
        path.unlink()
    roi = read_rois(root / "calc_case_description_test_set.csv")[0][1]
    folder = root / "manifest-1" / "CBIS-DDSM"
    (folder / "a").mkdir()
    (folder / "a" / "1-1.dcm").write_bytes(dicom(FILM, series=roi.image, patient="P_00038_LEFT_CC.dcm"))
    (folder / "a" / "1-2.dcm").write_bytes(dicom(CROP, series=roi.masks[0], patient="P_00038_LEFT_CC.dcm"))
    (folder / "a" / "1-3.dcm").write_bytes(dicom(mask(), series=roi.masks[0]))
    (folder / "a" / "1-4.dcm").write_bytes(b"")
    records, skipped = split(cbis_ddsm.index(root))
    assert [(r.patient, len(r.findings)) for r in records] == [("P_00038", 1)]
    assert Counter(s.code for s in skipped) == {"missing": 5}


def test_tables_that_are_none(tmp_path):
    with pytest.raises(DataError, match="mass_case_description_train_set"):
        find_tables(tmp_path)
    path = tmp_path / "mass_case_description_train_set.csv"
    path.write_text("patient_id,pathology\nP_00001,MALIGNANT\n")
    with pytest.raises(DataError, match="ROI mask file path"):
        list(cbis_ddsm.index(tmp_path))
    good = row("mass", "train", 1, "LEFT", "CC", 1, "MALIGNANT")
    path.write_text(MASS + good + good.replace("P_00001,", "1,").replace("MALIGNANT", "PERHAPS"))
    rois, bad = read_rois(path)
    assert (len(rois), len(bad), bad[0].code) == (1, 1, "annotation")
    with pytest.raises(DataError, match=r"no \.dcm or \.jpg"):
        list(cbis_ddsm.index(tmp_path))


def test_a_mask_is_two_valued_even_after_jpeg():
    noisy = mask().astype(int)
    noisy[:, 3] = 9
    noisy[0, 0] = 120
    assert np.array_equal(as_mask(noisy.clip(0, 255).astype(np.uint8)), mask() > 0)
    assert as_mask(CROP) is None
    assert read_lesion([], (60, 40), malignant=1.0, name="mass") == "no file of the lesion was found"


REAL = {
    "calc_case_description_test_set.csv": (326, 284, 151, 129),
    "calc_case_description_train_set.csv": (1546, 1227, 602, 544),
    "mass_case_description_test_set.csv": (378, 361, 201, 147),
    "mass_case_description_train_set.csv": (1318, 1231, 691, 637),
}
"""Rows, images, patients and malignant rows of the tables as published."""


@pytest.mark.data
def test_the_published_tables_have_the_known_counts(shared_data):
    rois = []
    for path in find_tables(shared_data / "formats" / "cbis_ddsm"):
        read, bad = read_rois(path)
        rois += read
        found = (
            len(read), len({r.image for r in read}), len({r.patient for r in read}),
            sum(r.malignant == 1 for r in read),
        )  # fmt: skip
        assert (found, bad) == (REAL[path.name], [])
    parts = {part: {r.patient for r in rois if r.part == part} for part in ("train", "test")}
    films = {part: {r.film for r in rois if r.part == part} for part in ("train", "test")}
    assert len(parts["train"] & parts["test"]) == 31
    assert len(films["train"] & films["test"]) == 29
    assert len(parts["train"] | parts["test"]) == 1566
    assert (len({r.image for r in rois}), len({r.film for r in rois})) == (3103, 3032)
    labels = defaultdict(set)
    for r in rois:
        labels[r.film].add(r.malignant)
    assert sum(len(found) > 1 for found in labels.values()) == 33


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_published_tables_in_each_layout(shared_data, tmp_path, layout):
    tables = {path.name: path.read_text() for path in find_tables(shared_data / "formats" / "cbis_ddsm")}
    records, skipped = split(cbis_ddsm.index(build(tmp_path, layout, tables)))
    assert not skipped
    assert count(records) == {**cbis_ddsm.SOURCE.editions["published"], "benign": 1695}
    assert sum(len(r.findings) for r in records) == 3568
    assert len({r.patient + r.laterality + r.view for r in records}) == 3032
    assert len({(r.patient, r.laterality, r.view) for r in records if "flags" in r.attributes}) == 33
    (leak,) = [f for f in check_table(records) if f.code == "patient_in_both_splits"]
    assert leak.count == 31
    drawn = fold(records, held_out=None, validation=0.2, test_share=0.3, seed=0)
    trained, tested = ({records[i].patient for i in rows} for rows in (drawn.train + drawn.val, drawn.test))
    assert not trained & tested


@pytest.mark.data
def test_a_folder_as_downloaded(shared_data):
    """Two crops of the real layout, whose description calls them masks; no full image is there."""
    root = shared_data / "formats" / "cbis_ddsm"
    assert all(Path(p).name == "1-1.dcm" for p in root.rglob("*.dcm"))
    records, skipped = split(cbis_ddsm.index(root))
    assert not records
    assert Counter(s.code for s in skipped) == {"missing": 3061}
