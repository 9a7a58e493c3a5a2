"""CAMELYON16, CAMELYON17 and the slides of BACH in each published layout, with their known bad cases."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.cohort.check import check_records
from mammopath.errors import ConfigError, DataError
from mammopath.images.annotations import read_drawing
from mammopath.images.geometry import Frame, paint, paint_classes
from mammopath.images.outlines import interpret
from mammopath.images.slide import open_slide
from mammopath.sources import SOURCES, bach_wsi, camelyon16, camelyon17, hospital
from mammopath.sources.camelyon_tables import Reference, read_reference, read_stages
from mammopath.sources.slides import Header, read_outlines
from mammopath.sources.source import check_counts, count
from mammopath.types import ORDINALS, SEVERITIES, Finding, Skipped, Spacing
from slide_trees import (
    C16,
    ISLAND,
    STAGES,
    TUMOUR,
    aperio,
    asap,
    bach_wsi_tree,
    camelyon16_archive,
    camelyon16_tree,
    camelyon17_archive,
    camelyon17_tree,
    hospital_tree,
    slide,
    slide_of,
    stage_table,
    tcga_tree,
)
from source_trees import put, split


def listed(source, root):
    records, skipped = split(source.index(root))
    return {r.path.stem.lower(): r for r in records}, skipped


@pytest.mark.parametrize("tree", [camelyon16_tree, camelyon16_archive])
def test_camelyon16_in_both_layouts(tmp_path, tree):
    records, skipped = listed(camelyon16, tree(tmp_path))
    assert records.keys() == C16.keys() - {"test_049"}
    assert [(Path(s.where).stem, s.code) for s in skipped] == [("test_049", "annotation")]
    labels = {name: record.malignant for name, record in records.items()}
    assert {n for n, label in labels.items() if label == 1} == {
        "normal_086", "tumor_001", "tumor_010", "tumor_071", "test_001", "test_114",
    }  # fmt: skip
    assert {n for n, label in labels.items() if math.isnan(label)} == {"test_003"}
    assert all(math.isnan(record.severity) and not record.patient_known for record in records.values())
    assert Counter(r.domain for r in records.values()) == {"camelyon16_radboud": 7, "camelyon16_utrecht": 3}
    assert {r.official_split for n, r in records.items() if n.startswith("test")} == {"test"}
    assert len({r.patient for r in records.values()}) == len(records)
    assert records["test_001"].attributes["node"] == "macro"
    assert records["test_002"].attributes["cancer"] == "DCIS"
    assert records["tumor_001"].spacing_source == "header"


def test_camelyon16_says_where_everything_is_outlined_and_never_that_no_xml_is_negative(tmp_path):
    records, _ = listed(camelyon16, camelyon16_tree(tmp_path))
    annotated = {name: record.attributes.get("annotated") for name, record in records.items()}
    assert annotated == {
        "normal_001": "yes", "normal_101": "yes", "test_002": "yes",  # nothing to outline
        "tumor_001": "yes", "test_001": "yes",
        "tumor_010": "partly", "test_114": "partly",  # by the README
        "tumor_071": None, "normal_086": None, "test_003": None,  # not outlined
    }  # fmt: skip
    (finding,) = records["tumor_001"].findings
    assert (finding.name, finding.malignant, finding.points, finding.holes) == (
        "metastasis", 1.0, TUMOUR, (ISLAND,),
    )  # fmt: skip
    assert paint([finding], Frame(), (128, 192)).sum() == 80 * 70 - 20 * 20


def test_camelyon16_renamed_slide_counts_once(tmp_path):
    root = camelyon16_tree(tmp_path)
    put(root / "training" / "tumor" / "tumor_111.tif", slide())
    records, skipped = listed(camelyon16, root)
    assert "normal_086" not in records
    assert records["tumor_111"].malignant == 1
    assert any("it is tumor_111" in s.why for s in skipped)


def test_camelyon16_without_reference_knows_test_slides_by_their_outlines_alone(tmp_path):
    root = camelyon16_tree(tmp_path)
    (root / "testing" / "reference.csv").unlink()
    records, skipped = listed(camelyon16, root)
    assert records["test_001"].malignant == 1
    assert math.isnan(records["test_002"].malignant)
    assert "annotated" not in records["test_002"].attributes
    assert [s.code for s in skipped] == ["missing", "annotation"]


@pytest.mark.parametrize(
    ("drawing", "why"),
    [
        (b"<ASAP_Annotations><Annotations><Annotation", "not a readable"),
        (b"", "0 bytes"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><ASAP_Annotations>&b;</ASAP_Annotations>', "document type"),
        (asap(("_0", [(x + 500, y) for x, y in TUMOUR])).encode(), "drawn on another slide"),
        (asap(("_7", TUMOUR)).encode(), "'_7' have no known meaning"),
        (asap(("_0", TUMOUR), ("_0", TUMOUR[:2])).encode(), "2 different corners"),
        (asap().encode(), None),
    ],
)  # fmt: skip
def test_a_bad_drawing_leaves_its_slide_a_tumour_slide_that_is_not_outlined(tmp_path, drawing, why):
    root = camelyon16_tree(tmp_path)
    (root / "training" / "lesion_annotations" / "tumor_001.xml").write_bytes(drawing)
    records, skipped = listed(camelyon16, root)
    assert records["tumor_001"].malignant == 1
    assert "annotated" not in records["tumor_001"].attributes
    told = [s.why for s in skipped if s.where.endswith("tumor_001.xml")]
    assert len(told) == (1 if why else 0)
    assert why is None or why in told[0]


def test_packed_annotations_and_doubled_slides_are_told(tmp_path):
    root = camelyon16_tree(tmp_path)
    for path in root.rglob("*.xml"):
        path.unlink()
    put(root / "training" / "lesion_annotations.zip", b"PK")
    put(root / "copy" / "tumor_001.tif", slide())
    _, skipped = listed(camelyon16, root)
    assert any("still packed" in s.why for s in skipped)
    assert any("same name as" in s.why for s in skipped)


def test_reference_with_and_without_header(tmp_path):
    rows = "Test_001,Tumor,IDC,Macro\ntest_002,normal,DCIS,None\n"
    expected = {"test_001": Reference(True, "IDC", "macro"), "test_002": Reference(False, "DCIS", "negative")}
    texts = {
        rows: 0, "\ufeff" + rows: 0, "NAME,LABEL,TYPE,SIZE\n" + rows: 0, rows + "\nnonsense\n": 1,
        "label,image\nTumor,test_001.tif\nNormal,test_002\n": 0, rows + "test_003,Maybe,IDC,Macro\n": 1,
    }  # fmt: skip
    for text, bad in texts.items():
        found, skipped = read_reference(put(tmp_path / "reference.csv", text.encode()))
        assert found.keys() == expected.keys()
        assert [r.tumour for r in found.values()] == [True, False]
        assert len(skipped) == bad
        if text.startswith("Test"):
            assert found == expected
    for text in ("", "a,b\nc,d\n", "name,label\n", b"\xff\xfe\xfa".decode("latin-1") * 3):
        with pytest.raises(DataError, match=r"reference\.csv"):
            read_reference(put(tmp_path / "reference.csv", text.encode("latin-1")))


@pytest.mark.data
def test_real_reference_of_camelyon16(shared_data):
    found, skipped = read_reference(shared_data / "formats" / "camelyon16" / "test_reference_GT.csv")
    assert (len(found), len(skipped)) == (130, 0)
    assert Counter(r.node for r in found.values()) == {"negative": 80, "micro": 28, "macro": 22}
    assert all(r.tumour == (r.node != "negative") for r in found.values())
    expected = camelyon16.SOURCE.editions["published"]
    tumours = sum(r.tumour for name, r in found.items() if name != camelyon16.DUPLICATE)
    assert expected["malignant"] == 111 + tumours
    assert expected["images"] == 159 + 111 + len(found) - 1


@pytest.mark.parametrize("tree", [camelyon17_tree, camelyon17_archive])
def test_camelyon17_in_both_layouts(tmp_path, tree):
    records, skipped = listed(camelyon17, tree(tmp_path))
    missing = [Path(s.where).stem for s in skipped if s.code == "missing"]
    assert missing == (["patient_000_node_4"] if tree is camelyon17_tree else [])
    trained = {n: r for n, r in records.items() if r.official_split == "train"}
    assert {r.domain for r in trained.values()} == {f"camelyon17_centre_{i}" for i in range(3)}
    assert {(r.patient, r.domain) for r in trained.values()} == {
        ("camelyon17_patient_000", "camelyon17_centre_0"),
        ("camelyon17_patient_020", "camelyon17_centre_1"),
        ("camelyon17_patient_041", "camelyon17_centre_2"),
    }
    for name, record in trained.items():
        stage, nodes = STAGES[name[:11]]
        node = nodes[int(name[-1])]
        assert (record.attributes["pn"], record.attributes["node"]) == (stage, node)
        assert record.malignant == float(node != "negative")
        level = ORDINALS["pathology"].level(record.attributes)
        assert ORDINALS["pathology"].levels[int(level)] == stage
    assert {n: r.attributes.get("annotated") for n, r in trained.items() if r.malignant} == {
        "patient_020_node_1": "partly",  # isolated tumour cells are not outlined exhaustively
        "patient_020_node_2": "yes",
        "patient_020_node_3": None,  # positive without an XML: not outlined, and not negative
        "patient_041_node_0": None,
    }
    assert all(r.attributes["annotated"] == "yes" for r in trained.values() if not r.malignant)


def test_camelyon17_test_patients_have_no_label(tmp_path):
    records, _ = listed(camelyon17, camelyon17_tree(tmp_path))
    record = records["patient_100_node_0"]
    assert (record.official_split, record.domain) == ("test", "camelyon17_centre_unknown")
    assert math.isnan(record.malignant)
    assert {"pn", "node", "annotated"}.isdisjoint(record.attributes)
    assert math.isnan(ORDINALS["pathology"].level(record.attributes))


def test_camelyon17_without_table_knows_no_label_even_where_there_are_outlines(tmp_path):
    root = camelyon17_tree(tmp_path)
    (root / "training" / "stage_labels.csv").unlink()
    records, skipped = listed(camelyon17, root)
    assert all(math.isnan(r.malignant) for r in records.values())
    assert [s.code for s in skipped] == ["missing"]
    assert records["patient_041_node_0"].domain == "camelyon17_centre_2"


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("centres", [True, False])
def test_stages_with_and_without_header_and_centres(tmp_path, header, centres):
    path = put(tmp_path / "stages.csv", stage_table(centres=centres, header=header) + b"\npatient_1,pN9\n")
    found = read_stages(path)
    assert found.patients == {name: stage for name, (stage, _) in STAGES.items()}
    assert len(found.nodes) == 15
    assert found.centres == ({"patient_000": "0", "patient_020": "1", "patient_041": "2"} if centres else {})
    assert [s.where.rpartition(":")[2] for s in found.skipped] == [str(18 + header + 1)]
    with pytest.raises(DataError, match="has no row such as"):
        read_stages(put(tmp_path / "stages.csv", b"patient,stage\n"))


def test_words_of_stages_may_be_in_capitals_and_a_bad_first_row_is_told(tmp_path):
    rows = b"patent_000.zip,pN0\npatient_001.zip,PN0(I+)\npatient_001_node_0.tif,ITC\n"
    rows += b"Patient_001_Node_1.tif,Macro\n"
    found = read_stages(put(tmp_path / "stages.csv", rows))
    assert found.patients == {"patient_001": "pN0(i+)"}
    assert found.nodes == {"patient_001_node_0": "itc", "patient_001_node_1": "macro"}
    assert [s.where.rpartition(":")[2] for s in found.skipped] == ["1"]


def test_pixels_that_are_not_square_agree_with_a_drawing_between_their_sides(tmp_path):
    path = put(tmp_path / "a.xml", aperio(('Type="0" Text="Benign"', "", TUMOUR), um="0.5").encode())
    for sides, skipped in (((0.4, 0.6), 0), ((0.5, 0.5), 0), ((0.25, 0.25), 1), ((0.6, 0.7), 1)):
        reading = read_outlines(path, bach_wsi.meaning, Header((200, 200), Spacing(*sides), "override"))
        assert len(reading.skipped) == skipped


@pytest.mark.data
def test_real_stages_of_camelyon17_are_what_the_source_expects(shared_data):
    found = read_stages(shared_data / "formats" / "camelyon17" / "stage_labels.csv")
    assert (len(found.patients), len(found.nodes), found.skipped) == (100, 500, ())
    counts = Counter(node != "negative" for node in found.nodes.values())
    expected = camelyon17.SOURCE.editions["training part"]
    assert (expected["malignant"], expected["not malignant"]) == (counts[True], counts[False])


@pytest.mark.parametrize("source", [camelyon16, camelyon17])
def test_counts_of_a_part_are_told_from_those_of_the_whole(tmp_path, source):
    tree = {camelyon16: camelyon16_tree, camelyon17: camelyon17_tree}[source]
    records, skipped = listed(source, tree(tmp_path))
    assert count(records.values())["images"] == len(records)
    with pytest.raises(DataError, match="found/expected differ"):
        check_counts(source.SOURCE, records.values(), skipped, root=tmp_path)


def test_bach_slides_and_their_regions_in_regions(tmp_path):
    records, skipped = listed(bach_wsi, bach_wsi_tree(tmp_path))
    assert not skipped
    assert {n: (r.severity, r.malignant) for n, r in records.items() if n != "01"} == {
        "a01": (2.0, 1.0), "a02": (1.0, 0.0),
    }  # fmt: skip
    assert math.isnan(records["01"].malignant)
    assert {r.domain for r in records.values()} == {"bach"}
    first = records["a01"]
    assert [f.name for f in first.findings] == ["in situ", "benign"]
    classes = paint_classes(
        first.findings, [SEVERITIES.index(f.name) for f in first.findings], Frame(), (128, 192)
    )
    assert Counter(classes.ravel().tolist())[1] == 400
    assert classes[50, 50] == 1
    assert classes[30, 30] == 2
    assert classes[5, 5] == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('0.467"', '0.25"'), "drawn on pixels of 0.25 um, the slide has 0.467"),
        (("Benign", "Fat"), "'Layer 1'"),
    ],
)
def test_bach_drawings_that_do_not_fit_leave_the_slide_without_label(tmp_path, change, why):
    root = bach_wsi_tree(tmp_path)
    path = root / "WSI" / "A01.xml"
    path.write_text(path.read_text().replace(*change))
    records, skipped = listed(bach_wsi, root)
    assert math.isnan(records["a01"].malignant)
    assert "annotated" not in records["a01"].attributes
    assert why in skipped[0].why


@pytest.mark.data
def test_real_regions_of_bach_are_all_understood(shared_data):
    total = Counter()
    for path in sorted((shared_data / "formats/bach_wsi_xml/HossamBalaha_updated").glob("*.xml")):
        reading = interpret(read_drawing(path), bach_wsi.meaning, where=str(path))
        assert reading.is_complete
        total.update(f.name for f in reading.findings)
    assert total == {"benign": 29, "in situ": 56, "invasive": 101}


@pytest.mark.data
def test_real_slide_of_camelyon16_through_the_source(shared_data, tmp_path):
    """The slide at 1/128 under its own name, with its published corners brought to the same scale."""
    told = json.loads((shared_data / "formats/camelyon16/polygons_json/Tumor_001.json").read_text())
    shapes = [("_0", [(x / 128, y / 128) for x, y in shape["vertices"]]) for shape in told["positive"]]
    whole = tifffile.imread(shared_data / "slides/camelyon16_tumor_001_level5/tumor_001aaf.tif")
    path = tmp_path / "training" / "tumor" / "tumor_001.tif"
    put(path.parents[1] / "lesion_annotations" / "tumor_001.xml", asap(*shapes).encode())
    put(path, slide_of(np.ascontiguousarray(whole[::4, ::4, :3])))
    (record,) = list(camelyon16.index(tmp_path))
    assert (record.domain, record.attributes["annotated"]) == ("camelyon16_radboud", "yes")
    assert len(record.findings) == 2
    with open_slide(path) as opened:
        mask = paint(record.findings, Frame(), (opened.height, opened.width))
        pixels = opened.pixels(0, (0, 0, opened.width, opened.height)).astype(int)
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    assert (colour[mask] > 25).mean() > 0.95
    assert (colour > 25).mean() < 0.5
    moved = [replace(f, points=tuple((x + 150, y) for x, y in f.points)) for f in record.findings]
    assert np.median(colour[paint(moved, Frame(), mask.shape)]) < np.median(colour[mask])


@pytest.mark.data
def test_a_slide_without_a_spacing_is_left_out_with_the_reason(shared_data, tmp_path):
    source = shared_data / "slides/camelyon16_tumor_001_level5/tumor_001aaf.tif"
    put(tmp_path / "tumor" / "tumor_001.tif", source.read_bytes())
    (skipped,) = list(camelyon16.index(tmp_path))
    assert (skipped.code, "does not say how large" in skipped.why) == ("geometry", True)
    assert "--spacings" in skipped.why


def test_spacings_reach_every_source_that_reads_headers(tmp_path):
    trees = {
        "camelyon16": camelyon16_tree, "camelyon17": camelyon17_tree, "bach_wsi": bach_wsi_tree,
        "tcga_brca": tcga_tree, "hospital": hospital_tree,
    }  # fmt: skip
    assert {name for name, source in SOURCES.items() if source.index_spaced} == set(trees)
    for name, tree in trees.items():
        root, source = tree(tmp_path / name), SOURCES[name]
        record = next(r for r in source.index(root) if not isinstance(r, Skipped))
        assert record.spacing_source == "header"
        entries = source.index_spaced(root, {record.path.stem: Spacing(0.2, 0.21)})
        found = {r.path: r for r in entries if not isinstance(r, Skipped)}
        assert (found[record.path].spacing, found[record.path].spacing_source) == (
            Spacing(0.2, 0.21),
            "override",
        )
        assert sum(r.spacing_source == "override" for r in found.values()) <= 1 + (name == "hospital")


def test_a_row_of_a_laboratory_goes_before_the_table_of_spacings(tmp_path):
    root = hospital_tree(tmp_path)
    told = {"c3": Spacing.square(0.7), "b2": Spacing.square(0.8)}
    found = {r.path.stem: r for r in hospital.index(root, told) if not isinstance(r, Skipped)}
    assert (found["c3"].spacing, found["b2"].spacing) == (Spacing.square(0.25), Spacing.square(0.8))


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "file", "name", "um"),
    [
        ("camelyon16", "camelyon16_tumor_001_level5/tumor_001aaf.tif", "tumor_001.tif", 7.776),
        ("tcga_brca", "histolab_tcga-cr-7395-01a-01-ts1.svs", "TCGA-CR-7395-01A-01-TS1.svs", 0.5),
    ],
)
def test_real_slides_without_a_spacing_are_indexed_with_a_table(
    shared_data, tmp_path, source, file, name, um
):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / name).symlink_to(shared_data / "slides" / file)
    table = put(tmp_path / "spacings.csv", f"slide,um\n{name},{um}\nanother,0.5\n".encode())
    out = tmp_path / "m.parquet"
    command = ["index", source, str(tmp_path / "slides"), "--out", str(out), "--partial"]
    told = CliRunner().invoke(app, command)
    assert isinstance(told.exception, DataError)
    assert "option --spacings" in str(told.exception)
    told = CliRunner().invoke(app, [*command, "--spacings", str(table)])
    assert told.exit_code == 0, told.output
    assert "no slide is called another" in told.output
    (record,) = manifest.read(out).records
    assert (record.spacing, record.spacing_source) == (Spacing.square(um), "override")


def test_spacings_for_a_source_without_headers_are_refused(tmp_path):
    table = put(tmp_path / "s.csv", b"slide,um\na,1\n")
    told = CliRunner().invoke(
        app, ["index", "mias", str(tmp_path), "--out", str(tmp_path / "m"), "--spacings", str(table)]
    )
    assert isinstance(told.exception, ConfigError)
    assert "--spacings is for" in str(told.exception)


def test_check_looks_at_slides_through_their_overview(tmp_path):
    records, _ = listed(camelyon16, camelyon16_tree(tmp_path))
    far = Finding("polygon", ((500.0, 0.0), (600.0, 0.0), (600.0, 90.0)), malignant=1.0)
    chosen = [records["tumor_001"], replace(records["normal_001"], findings=(far,)), records["normal_101"]]
    chosen[2].path.write_bytes(chosen[2].path.read_bytes()[:900])
    report = check_records(chosen)
    found = {f.code: (f.severity, f.count) for f in report.findings}
    assert report.read == 2
    assert found["unreadable"] == ("error", 1)
    assert found["finding_outside"] == ("error", 1)
    assert found["same_pixels"] == ("leak", 1)
