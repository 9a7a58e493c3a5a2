"""A laboratory's own slides: names of files, outlines of its tools, words of its pathologists, mistakes."""

import json
import math

import pytest

from mammopath.errors import DataError
from mammopath.images.outlines import Meaning, Outline
from mammopath.sources import hospital
from mammopath.sources.hospital_words import meaning
from mammopath.types import ORDINALS
from slide_trees import ISLAND, TUMOUR, asap, hospital_tree, slide, svs
from source_trees import put, split

CORNERS = tuple((float(x), float(y)) for x, y in TUMOUR)


def listed(root):
    records, skipped = split(hospital.index(root))
    return {r.path.stem: r for r in records}, skipped


def edit(root, *change):
    table = root / "slides.csv"
    text = table.read_text()
    assert change[0] in text
    table.write_text(text.replace(*change))


def test_slides_labels_outlines_and_spacing(tmp_path):
    records, skipped = listed(hospital_tree(tmp_path))
    assert not skipped
    first, second, third = (records[name] for name in ("a 1", "b2", "c3"))
    assert [(r.image_id, r.patient, r.patient_known, r.domain) for r in (first, second, third)] == [
        ("north/slides/a 1.svs", "p1", True, "north"),
        ("north/slides/b2.tif", "p2", True, "north"),
        ("south/slides/c3.tiff", "south/slides/c3.tiff", False, "south"),
    ]
    assert (first.malignant, second.malignant, second.severity) == (1.0, 0.0, 1.0)
    assert math.isnan(third.malignant)
    (finding,) = first.findings
    assert (finding.points, finding.holes, finding.malignant) == (TUMOUR, (ISLAND,), 1.0)
    assert [(f.name, f.malignant) for f in second.findings] == [("benign", 0.0)]
    assert (first.attributes["annotated"], second.attributes["annotated"]) == ("yes", "yes")
    assert (first.attributes["node"], first.attributes["stainer"]) == ("macro", "X")
    assert ORDINALS["pathology"].level(first.attributes) == 3.0
    assert [(r.spacing.um_x, r.spacing_source) for r in (first, third)] == [
        (pytest.approx(0.467), "header"), (0.25, "override"),
    ]  # fmt: skip


def test_a_table_of_another_name_and_windows_paths(tmp_path):
    root = hospital_tree(tmp_path)
    edit(root, "slides/a 1.svs", "slides\\a 1.svs")
    (root / "slides.csv").rename(root / "list.csv")
    records, _ = split(hospital.index(root / "list.csv"))
    assert len(records) == 3


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (("b2,p2", "b9,p2"), "missing", "no slide 'b9'"),
        (("b2,p2", ",p2"), "annotation", "slide is empty"),
        (("b2,p2,north", "b2,p2,"), "annotation", "site is empty"),
        (("b2,p2", "a 1,p2"), "annotation", "has an earlier row"),
        (("outlines\\b.geojson", "outlines/x.geojson"), "annotation", "no file of outlines"),
        (("outlines\\b.geojson", "../b.geojson"), "annotation", "no file of outlines"),
        (("pN1,macro", "pN9,macro"), "annotation", "pn 'pN9' is none"),
        (("pN1,macro", "pN1,large"), "annotation", "node 'large' is none"),
        (("0.25", "-1"), "annotation", "spacing_um '-1'"),
        (("0.25", ""), "geometry", "1000"),
        (("malignant,,,yes", "benign,,,yes"), "annotation", "has outlines that are"),
    ],
)
def test_mistakes_are_told_and_leave_out_one_slide(tmp_path, change, code, why):
    root = hospital_tree(tmp_path)
    edit(root, *change)
    records, skipped = listed(root)
    assert len(records) == 2
    assert code in {s.code for s in skipped if why in s.why}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("slide,patient,site", "slide,patient,sight"), "column site is missing"),
        (("attr_stainer", "stainer"), "unknown column 'stainer'.*attr_stainer"),
        (("label", "attr_label"), "no column label"),
        (("benign", "sort of benign"), "row 3: label 'sort of benign'"),
    ],
)
def test_a_table_of_another_form_stops_the_index(tmp_path, change, why):
    root = hospital_tree(tmp_path)
    edit(root, *change)
    with pytest.raises(DataError, match=why):
        list(hospital.index(root))


def test_names_that_fit_several_slides_and_slides_without_row(tmp_path):
    root = hospital_tree(tmp_path)
    put(root / "more" / "b2.tif", slide())
    put(root / "more" / "d4.svs", svs())
    records, skipped = listed(root)
    assert records.keys() == {"a 1", "c3"}
    told = {s.where.rpartition("/")[2]: s.why for s in skipped}
    assert "fits 2 slides" in told["slides.csv: row 3"]
    assert "no row in slides.csv" in told["d4.svs"]
    edit(root, "\nb2,", "\nmore/b2.tif,")
    records, _ = listed(root)
    assert records["b2"].path == root / "more" / "b2.tif"


def test_a_drawing_that_is_not_understood_is_told_and_the_slide_is_not_completely_annotated(tmp_path):
    root = hospital_tree(tmp_path)
    put(root / "annotations" / "a 1.xml", asap(("tumor", TUMOUR), ("region*", ISLAND)).encode())
    records, skipped = listed(root)
    assert records["a 1"].attributes["annotated"] == "partly"
    assert len(records["a 1"].findings) == 1
    assert ["'region*'" in s.why for s in skipped] == [True]
    (root / "annotations" / "a 1.xml").unlink()
    records, skipped = listed(root)
    assert records["a 1"].attributes["annotated"] == "partly"  # malignant, and nothing is outlined
    assert not skipped


def test_no_slides_or_no_table(tmp_path):
    with pytest.raises(DataError, match=r"slides\.csv"):
        list(hospital.index(tmp_path))
    (tmp_path / "slides.csv").write_text("slide,patient,site,label\na,p,s,benign\n")
    with pytest.raises(DataError, match="no slide"):
        list(hospital.index(tmp_path))


@pytest.mark.parametrize(
    ("group", "name", "expected"),
    [
        ("Tumor", "", Meaning("tumor", 1.0)), ("layer 1", "In_situ", Meaning("in situ", 1.0)),
        ("DCIS", "hole", Meaning("in situ", 1.0)), ("Invasive", "", Meaning("invasive", 1.0)),
        ("benign", "x", Meaning("benign", 0.0)), ("Normal", "", Meaning("normal", use="nothing")),
        ("Cut_Out", "", Meaning(use="hole")), ("not malignant", "", Meaning("not malignant", 0.0)),
        ("", "", None), ("unknown", "", None), ("region*", "Annotation 0", None),
    ],
)  # fmt: skip
def test_words_of_outlines(group, name, expected):
    assert meaning(Outline(CORNERS, name=name, group=group)) == expected


@pytest.mark.data
def test_real_slides_of_three_formats(shared_data, tmp_path):
    source = shared_data / "slides"
    put(tmp_path / "CMU-1-Small-Region.svs", (source / "CMU-1-Small-Region.svs").read_bytes())
    put(tmp_path / "c16.tif", (source / "camelyon16_tumor_001_level5" / "tumor_001aaf.tif").read_bytes())
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        put(tmp_path / "wsi" / name, (source / "openslide_python_fixtures" / name).read_bytes())
    told = json.loads((shared_data / "formats/camelyon16/polygons_json/Tumor_001.json").read_text())
    shapes = [("Tumor", [(x / 32, y / 32) for x, y in shape["vertices"]]) for shape in told["positive"]]
    put(tmp_path / "c16.xml", asap(*shapes).encode())
    (tmp_path / "slides.csv").write_text(
        "slide,patient,site,label,spacing_um,annotated\nCMU-1-Small-Region.svs,p1,cmu,,,\n"
        "c16,p2,rumc,malignant,7.776,yes\nwsi,p3,boxes,unknown,0.5,\n"
    )
    records, skipped = listed(tmp_path)
    assert not skipped
    assert len(records) == 3
    assert len(records["c16"].findings) == 2
    assert records["c16"].attributes["annotated"] == "yes"
    assert records["CMU-1-Small-Region"].spacing.um_x == pytest.approx(0.499)
