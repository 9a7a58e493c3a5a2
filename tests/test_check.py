"""The leak guard finds planted leaks and faults, and nothing where nothing is."""

import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from exam_tree import breast, mammogram, save
from mammopath.cohort import manifest as mf
from mammopath.cohort.check import check, check_records
from mammopath.cohort.duplicates import look, nearly_same, same
from mammopath.cohort.rules import check_table, cramers_v
from mammopath.types import UNKNOWN, Finding, Record, Spacing

RNG = np.random.default_rng(0)


def _picture(seed, shape=(96, 80)):
    """Smooth random structure, as images have it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(0, 255, (7, 6)).astype(np.float32))
    return np.clip(np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)), 0, 255).astype(np.uint8)


def _cohort(folder: Path, sites=("north", "south"), patients=4) -> list[Record]:
    records = []
    for s, site in enumerate(sites):
        for p in range(patients):
            path = folder / f"{site}{p}.png"
            path.write_bytes(imagecodecs.png_encode(_picture(100 * s + p)))
            records.append(
                Record(
                    f"x/{path.name}",
                    path,
                    f"{site}-{p}",
                    site,
                    "mammogram",
                    malignant=float(p % 2),
                    spacing=Spacing.square(100.0),
                    spacing_source="header",
                )
            )
    return records


def _codes(report):
    return {f.code: f for f in report.findings}


def test_a_clean_cohort_has_no_findings(tmp_path):
    report = check_records(_cohort(tmp_path))
    assert report.findings == ()
    assert (report.images, report.read, report.has_leaks) == (8, 8, False)


def test_a_patient_at_two_sites_is_a_leak(tmp_path):
    records = _cohort(tmp_path)
    records[5] = replace(records[5], patient="north-1")
    found = _codes(check_records(records))["patient_at_several_sites"]
    assert (found.severity, found.count, found.where) == ("leak", 1, ("north-1",))
    records = _cohort(tmp_path)
    records[0], records[4] = (replace(records[i], pair_key="k") for i in (0, 4))
    assert check_records(records).has_leaks


@pytest.mark.parametrize(("patient", "site", "code", "severity"), [
    ("south-9", "south", "same_pixels", "leak"), ("north-9", "north", "same_pixels", "leak"),
    ("north-0", "north", "double_image", "warning"),
])  # fmt: skip
def test_the_same_pixels_under_another_name(tmp_path, patient, site, code, severity):
    records = _cohort(tmp_path)
    copy = tmp_path / "copy.tif"
    Image.fromarray(_picture(0)).save(copy)
    records.append(replace(records[0], image_id="x/copy.tif", path=copy, patient=patient, domain=site))
    report = check_records(records)
    found = _codes(report)[code]
    assert (found.severity, found.where) == (severity, ("x/north0.png = x/copy.tif",))
    assert report.has_leaks == (severity == "leak")


def test_the_same_pixels_with_another_label_are_an_error(tmp_path):
    records = _cohort(tmp_path)
    records.append(replace(records[0], image_id="x/again.png", malignant=1.0))
    assert _codes(check_records(records))["same_pixels_other_label"].severity == "error"


def _again(kind, pixels):
    if kind == "jpeg":
        return imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=85))
    if kind == "smaller":
        return np.asarray(Image.fromarray(pixels).resize((60, 72), Image.Resampling.BILINEAR))
    if kind == "deeper":
        return pixels.astype(np.uint16) * 257
    return np.clip(pixels * 0.8 + 20, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["jpeg", "smaller", "deeper", "greyer"])
def test_the_same_picture_again_is_found_and_others_are_not(kind):
    pictures = [_picture(seed) for seed in range(60)]
    looks = [look(p) for p in pictures] + [look(_again(kind, pictures[17]))]
    assert list(nearly_same(looks)) == [(17, 60)]
    assert same(looks) == []


def test_the_same_picture_of_another_patient_is_a_leak_also_when_it_was_encoded_again(tmp_path):
    records = _cohort(tmp_path)
    copy = tmp_path / "copy.png"
    Image.fromarray(_again("jpeg", _picture(0))).save(copy)
    stranger = replace(records[0], image_id="x/copy.png", path=copy, patient="stranger", domain="south")
    report = check_records([*records, stranger])
    assert _codes(report)["similar_images"].severity == "leak"
    assert report.has_leaks
    same_person = replace(stranger, patient=records[0].patient, domain=records[0].domain)
    assert not check_records([*records, same_person]).has_leaks


def test_flat_images_are_no_duplicates_but_told(tmp_path):
    records = _cohort(tmp_path)
    for i in (0, 5):
        records[i].path.write_bytes(imagecodecs.png_encode(np.full((50, 40), 255, np.uint8)))
    report = check_records(records)
    assert _codes(report).keys() == {"flat"}
    assert _codes(report)["flat"].count == 2


def test_looks_agree_on_colour_and_depth():
    grey = _picture(3)
    assert look(grey).perceptual == look(np.repeat(grey[..., None], 3, axis=2)).perceptual
    assert look(grey).exact != look(grey.astype(np.uint16)).exact
    assert look(grey).exact == look(grey.copy()).exact
    assert look(np.zeros((9, 9), np.float32)).is_flat


def test_unreadable_files_are_listed_and_the_rest_goes_on(tmp_path):
    records = _cohort(tmp_path)
    records[0].path.write_bytes(b"")
    records[1].path.unlink()
    records[2].path.write_bytes(records[2].path.read_bytes()[:-30])
    report = check_records(records)
    found = _codes(report)["unreadable"]
    assert found.count == 3
    assert [text.split("(")[1].split(")")[0] for text in found.where] == ["empty", "missing", "truncated"]
    assert report.read == 5


def test_findings_outside_and_beyond_the_edge(tmp_path):
    records = _cohort(tmp_path)
    records[0] = replace(records[0], findings=(Finding("circle", ((500.0, 10.0),), radius=5.0),))
    records[1] = replace(records[1], findings=(Finding("box", ((-6.2, 10.0), (30.0, 20.0))),))
    records[2] = replace(records[2], findings=(Finding("box", ((-0.5, 10.0), (30.0, 20.0))),))
    codes = _codes(check_records(records))
    assert codes["finding_outside"].where == ("x/north0.png",)
    assert codes["finding_beyond_edge"].where == ("x/north1.png",)


def _table(*sites):
    """Records of sites given as (name, labels)."""
    return [
        Record(f"x/{s}{i}", Path("x"), f"{s}{i}", s, "mammogram", malignant=y, spacing=Spacing.square(100.0))
        for s, labels in sites
        for i, y in enumerate(labels)
    ]


def test_a_label_that_is_the_site_is_an_error():
    codes = {f.code: f for f in check_table(_table(("a", [0.0] * 9), ("b", [1.0] * 9)))}
    assert codes["label_tied_to_site"].severity == "error"
    assert "a 0%, b 100%" in codes["label_tied_to_site"].what
    mixed = {f.code: f for f in check_table(_table(("a", [0.0] * 9 + [1.0]), ("b", [1.0] * 9 + [0.0])))}
    assert mixed["label_tied_to_site"].severity == "error", "nine of ten give the label away as well"
    assert not check_table(_table(("a", [0.0, 0.0, 1.0]), ("b", [1.0, 1.0, 0.0])))


def test_one_class_no_labels_and_missing_labels():
    found = check_table(
        _table(("a", [0.0, 1.0, UNKNOWN]), ("b", [1.0, 1.0, 0.0]), ("c", [UNKNOWN]), ("d", [1.0]))
    )
    assert {(f.severity, f.code) for f in found} == {
        ("info", "missing_labels"), ("warning", "no_labels"), ("warning", "one_class_site"),
    }  # fmt: skip


def test_a_severity_of_one_site_and_a_single_site():
    records = _table(("a", [0.0, 1.0]), ("b", [0.0, 1.0]))
    records[0] = replace(records[0], severity=0.0)
    assert next(f.what for f in check_table(records)).startswith("normal mammogram images come from a only")
    assert "single_site" in {f.code for f in check_table(_table(("a", [0.0, 1.0])))}


@pytest.mark.parametrize(("modality", "spacing", "code"), [
    ("mammogram", None, "spacing_missing"), ("mammogram", (0.07, 0.07), "spacing_absurd"),
    ("pathology", (1000.0, 1000.0), "spacing_absurd"), ("mammogram", (50.0, 400.0), "spacing_absurd"),
    ("mammogram", (175.0, 300.0), None), ("pathology", (0.25, 0.25), None),
])  # fmt: skip
def test_spacing_missing_or_absurd(modality, spacing, code):
    records = [
        replace(r, modality=modality, spacing=spacing and Spacing(*spacing))
        for r in _table(("a", [0.0, 1.0]), ("b", [0.0, 1.0]))
    ]
    assert {f.code for f in check_table(records)} == ({code} if code else set())


def test_unknown_patients_and_shared_published_splits():
    records = _table(("a", [0.0, 1.0, 0.0]), ("b", [0.0, 1.0]))
    records[0] = replace(records[0], patient_known=False)
    records[1] = replace(records[1], official_split="train")
    records[2] = replace(records[2], official_split="test", patient=records[1].patient)
    assert {f.code for f in check_table(records)} == {"patient_unknown", "patient_in_both_splits"}


def test_cramers_v_is_that_of_the_chi_square_statistic():
    pairs = [("a", 0.0)] * 30 + [("a", 1.0)] * 10 + [("b", 0.0)] * 20 + [("b", 1.0)] * 40 + [("c", 1.0)] * 7
    table = np.array([[30, 10], [20, 40], [0, 7]], float)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert cramers_v(pairs) == pytest.approx(np.sqrt(chi2 / table.sum()))
    assert cramers_v([("a", 1.0), ("a", 0.0)]) == 0


def test_manifests_are_checked_together_and_said_in_json(tmp_path):
    records = _cohort(tmp_path)
    records[5] = replace(records[5], patient="north-1")
    halves = [mf.collect(part, source="s", root=tmp_path) for part in (records[:4], records[4:])]
    seen = []

    def track(items, label, total):
        for item in items:
            seen.append((item, label, total))
            yield item

    report = check(halves, track=track)
    assert [s[0] for s in seen] == list(range(8))
    assert json.loads(json.dumps(report.to_json()))["findings"][0]["code"] == "patient_at_several_sites"
    assert check_records(records, pixels=False).read == 0


@pytest.mark.data
def test_real_sites_do_not_drown_in_false_alarms(shared_data):
    from mammopath.sources import SOURCES

    records = []
    for name, root, count in (("mias", "mias", 60), ("bach", "bach", 40), ("idc", "idc", 150)):
        listed = list(SOURCES[name].index(shared_data / root))
        records += listed[:: max(1, len(listed) // count)]
    report = check_records(records)
    assert not report.has_leaks
    assert (
        not {"similar_images", "unreadable", "flat", "finding_outside", "spacing_absurd"}
        & _codes(report).keys()
    )


def test_what_decoding_alone_shows_of_a_file_is_counted(tmp_path):
    records = _cohort(tmp_path)
    path = save(tmp_path / "overlay.dcm", mammogram(breast() | 0x8000))
    records[0] = replace(records[0], path=path)
    found = _codes(check_records(records))["flag_bits_cleared"]
    assert (found.severity, found.count, found.where) == ("warning", 1, (records[0].image_id,))
    known = replace(records[0], attributes={"flags": "bits_cleared"})
    assert _codes(check_records([known, *records[1:]]))["flag_bits_cleared"].count == 1
    assert "flag_bits_cleared" not in _codes(check_records(records, pixels=False))
