"""INbreast: patients from file names, radiologists' scores as labels, outlines from OsiriX lists."""

import math
import zipfile

import pytest

from exam_tree import mammogram, save
from mammopath.errors import DataError
from mammopath.sources import inbreast
from mammopath.sources.inbreast_xml import read_regions
from mammopath.sources.sheets import read_sheet
from mammopath.types import ORDINALS, Finding, Spacing
from source_trees import OSIRIX, inbreast_tree, split


def test_labels_sides_views_and_outlines(tmp_path):
    records, skipped = split(inbreast.index(inbreast_tree(tmp_path)))
    assert not skipped
    assert [(r.patient, r.laterality, r.view) for r in records] == [
        ("inbreast_61b13c59bcba149e", "R", "CC"), ("inbreast_61b13c59bcba149e", "L", "MLO"),
        ("inbreast_0a", "R", "CC"), ("inbreast_0a", "L", "MLO"),
    ]  # fmt: skip
    assert [r.malignant for r in records if not math.isnan(r.malignant)] == [1, 0, 0]
    assert math.isnan(records[2].malignant)
    assert [r.severity for r in (records[1], records[3])] == [0, 1]
    assert [(r.attributes["birads"], r.attributes["birads_detail"]) for r in records[:2]] == [
        ("4", "4a"), ("1", "1"),
    ]  # fmt: skip
    assert [ORDINALS["mammogram"].level(r.attributes) for r in records] == [3, 0, 2, 1]
    assert "density" not in records[1].attributes
    assert records[3].attributes["flags"] == "side_differs"
    assert all("radiologist" in r.attributes["label"] for r in records)
    polygon, point = records[0].findings
    assert polygon == Finding("polygon", ((10.5, 20.0), (20.5, 20.0), (15.0, 30.25)), name="mass") or (
        math.isnan(polygon.malignant) and polygon.name == "mass" and len(polygon.points) == 3
    )
    assert (point.kind, point.points, point.name) == ("point", ((5.0, 6.0),), "calcification")


def test_convention_b_counts_3_as_negative(tmp_path):
    records, _ = split(inbreast.index(inbreast_tree(tmp_path), convention="b"))
    assert [r.malignant for r in records] == [1, 0, 0, 0]
    assert "convention B" in records[0].attributes["label"]


def test_what_is_missing_or_broken_is_told(tmp_path):
    root = inbreast_tree(tmp_path)
    (root / "AllXML" / "20000000.xml").write_text("<plist><dict>")
    next(root.glob("AllDICOMs/20000001*")).unlink()
    next(root.glob("AllDICOMs/20000002*")).rename(root / "AllDICOMs" / "x.dcm")
    records, skipped = split(inbreast.index(root))
    assert sorted(s.code for s in skipped) == ["annotation", "annotation", "missing", "missing"]
    broken = next(r for r in records if "20000000" in r.image_id)
    assert "annotated" not in broken.attributes
    assert not broken.findings


def test_spacing_is_the_published_one_where_the_header_has_none(tmp_path):
    root = inbreast_tree(tmp_path)
    assert {r.spacing for r in split(inbreast.index(root))[0]} == {Spacing.square(100.0)}
    from exam_tree import mammogram, save

    for path in root.glob("AllDICOMs/*.dcm"):
        save(path, mammogram(ImagerPixelSpacing=None))
    records, _ = split(inbreast.index(root))
    assert {(r.spacing, r.spacing_source) for r in records} == {(inbreast.SPACING, "published")}


@pytest.mark.parametrize(
    "text",
    [
        "", "<plist/>", OSIRIX.replace("(5, 6)", "(five, 6)"), OSIRIX.replace("Point_px", "Points"),
        '<!DOCTYPE a [<!ENTITY b "c">]>' + OSIRIX.partition("?>")[2],
    ],
)  # fmt: skip
def test_lists_that_are_none(tmp_path, text):
    path = tmp_path / "1.xml"
    path.write_text(text)
    with pytest.raises(DataError, match="OsiriX"):
        read_regions(path)


def test_points_on_a_line_and_pairs_of_points(tmp_path):
    path = tmp_path / "1.xml"
    line = OSIRIX.replace("(15.0, 30.25)", "(30.5, 20.0)")
    path.write_text(line.replace("<string>(5, 6)</string>", "<string>(5, 6)</string><string>(7, 8)</string>"))
    box, first, second = read_regions(path, malignant=0.0)
    assert (box.kind, box.points) == ("box", ((10.5, 20.0), (31.5, 21.0)))
    assert (first.points, second.points) == (((5.0, 6.0),), ((7.0, 8.0),))
    assert {f.malignant for f in (box, first, second)} == {0.0}


XL = "http://schemas.openxmlformats.org"
CELL = '<c r="{}" t="inlineStr"><is><t>{}</t></is></c>'
ROWS = (
    f'<row r="1">{CELL.format("A1", "File Name")}{CELL.format("B1", "Bi-Rads")}</row>'
    f'<row r="2"><c r="A2"><v>20000000</v></c>{CELL.format("B2", "4a")}</row>'
)
RELATION = '<Relationship Id="b" Type="{}/officeDocument/2006/relationships/{}" Target="{}"/>'
RELATIONS = f'<Relationships xmlns="{XL}/package/2006/relationships">{RELATION}</Relationships>'
PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{XL}/package/2006/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
    "_rels/.rels": RELATIONS.format(XL, "officeDocument", "xl/workbook.xml"),
    "xl/workbook.xml": f'<workbook xmlns="{XL}/spreadsheetml/2006/main" xmlns:r="{XL}/officeDocument/2006/'
    'relationships"><sheets><sheet name="a" sheetId="1" r:id="b"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": RELATIONS.format(XL, "worksheet", "worksheets/sheet1.xml"),
    "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{XL}/spreadsheetml/2006/main"><sheetData>{ROWS}'
    "</sheetData></worksheet>",
}


def test_a_spreadsheet_reads_like_a_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as file:
        for name, text in PARTS.items():
            file.writestr(name, text)
    assert read_sheet(tmp_path / "a.xlsx") == [{"File Name": "20000000", "Bi-Rads": "4a"}]
    (tmp_path / "a.csv").write_text("File Name;Bi-Rads\n20000000 ; 4a\n;\n")
    assert read_sheet(tmp_path / "a.csv", separator=";") == read_sheet(tmp_path / "a.xlsx")
    (tmp_path / "b.xls").write_bytes(b"no")
    for name in ("b.xls", "none.csv"):
        with pytest.raises(DataError, match=name):
            read_sheet(tmp_path / name)


@pytest.mark.data
def test_the_published_outlines_and_rows(shared_data):
    root = shared_data / "formats" / "inbreast"
    (mass,) = read_regions(root / "AllXML" / "22580244.xml")
    assert (mass.kind, mass.name, len(mass.points)) == ("polygon", "mass", 45)
    assert mass.points[:2] == ((1368.699951, 1680.73999), (1373.160034, 1668.459961))
    assert [(f.kind, f.name) for f in read_regions(root / "AllXML" / "20587148.xml")] == [
        ("point", "calcification"), ("polygon", "calcification"), ("polygon", "calcification"),
    ]  # fmt: skip
    rows = read_sheet(root / "INbreast_excerpt.csv", separator=";")
    assert {row["Laterality"] for row in rows} == {"L", "R"}
    assert {row["Bi-Rads"][:1] for row in rows} <= set("123456")


@pytest.mark.filterwarnings("ignore")
def test_odd_headers_are_flagged(tmp_path):
    root = inbreast_tree(tmp_path)
    odd = mammogram(WindowCenter="100", WindowWidth="0", ImagerPixelSpacing=["0", "0"])
    save(next(root.glob("AllDICOMs/20000000*")), odd)
    first, *others = split(inbreast.index(root))[0]
    assert first.attributes["flags"] == "window_ignored"
    assert first.spacing == inbreast.SPACING
    assert not any("window" in r.attributes.get("flags", "") for r in others)
