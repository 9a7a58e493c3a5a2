"""Annotation files of three tools: what they draw, what is refused, and what the outlines come to mean."""

import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammopath.errors import DataError
from mammopath.images import annotations
from mammopath.images.annotations import read_drawing
from mammopath.images.geometry import Frame, paint
from mammopath.images.outlines import Drawing, Meaning, Outline, closed, interpret
from mammopath.types import Skipped
from slide_trees import aperio, asap

SQUARE = ((1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0))
ISLAND = ((3.0, 3.0), (6.0, 3.0), (6.0, 6.0), (3.0, 6.0))


def read(tmp_path: Path, text: str | bytes, name: str = "a.xml") -> Drawing:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_drawing(path)


def meaning(outline):
    return {
        "Tumor": Meaning("tumour", 1.0),
        "normal": Meaning(use="hole"),
        "Layer 1": Meaning("tumour", 1.0),
    }.get(outline.group)


def painted(reading, size=(12, 12)):
    return paint(reading.findings, Frame(), size)


def test_asap_groups_corners_and_holes(tmp_path):
    drawing = read(tmp_path, asap(("Tumor", SQUARE), ("normal", ISLAND)))
    assert [(o.name, o.group, o.points) for o in drawing.outlines] == [
        ("A 0", "Tumor", SQUARE), ("A 1", "normal", ISLAND),
    ]  # fmt: skip
    reading = interpret(drawing, meaning, where="a.xml", size=(12, 12))
    (finding,) = reading.findings
    assert (finding.name, finding.malignant, finding.holes) == ("tumour", 1.0, (ISLAND,))
    assert painted(reading).sum() == 64 - 9
    assert not painted(reading)[4, 4]
    assert reading.is_complete


def test_corners_follow_their_order_and_not_the_file(tmp_path):
    text = asap(("Tumor", SQUARE)).replace('Order="1"', 'Order="9"')
    (outline,) = read(tmp_path, text).outlines
    assert outline.points == (SQUARE[0], SQUARE[2], SQUARE[3], SQUARE[1])


def test_a_closed_ring_loses_its_last_corner_and_doubles_count_once():
    assert closed([*SQUARE, SQUARE[0], SQUARE[0]]) == SQUARE
    assert closed([SQUARE[0], *SQUARE]) == SQUARE


@pytest.mark.parametrize(
    "corners",
    [
        [], [(1, 1)], [(1, 1), (5, 5)], [(1, 1), (5, 5), (1, 1), (5, 5)], [(0, 0), (1, 1), (5, 5), (2, 2)],
        [(0, 0), (1, "nan"), (5, 0)], [(0, 0), (1, "inf"), (5, 0)], [(0, 0), (1, "1,5"), (5, 0)],
        [(0, 0), (1, ""), (5, 0)],
    ],
)  # fmt: skip
def test_what_encloses_nothing_is_listed_and_the_rest_is_kept(tmp_path, corners):
    drawing = read(tmp_path, asap(("Tumor", corners), ("Tumor", SQUARE)))
    assert [o.points for o in drawing.outlines] == [SQUARE]
    (skipped,) = drawing.skipped
    assert (skipped.code, "A 0" in skipped.why) == ("annotation", True)
    assert not interpret(drawing, meaning, where="a.xml").is_complete


@pytest.mark.parametrize("kind", ["Dot", "PointSet", "Measurement"])
def test_asap_drawings_that_are_no_outlines(tmp_path, kind):
    drawing = read(tmp_path, asap(("Tumor", SQUARE), kind=kind))
    assert (drawing.outlines, len(drawing.skipped)) == ((), 1)


def test_aperio_labels_layers_shapes_and_cut_outs(tmp_path):
    drawing = read(
        tmp_path,
        aperio(
            ('Id="1" Type="0" Text="Benign" NegativeROA="0"', "<Attributes/>", SQUARE),
            ('Id="2" Text=""', '<Attributes><Attribute Name="x" Value="In situ"/></Attributes>', SQUARE),
            ('Id="3" Type="1" NegativeROA="1"', "", [(3, 3), (6, 6)]),
            ('Id="4" Type="2" Text="round"', "", [(0, 0), (10, 10)]),
            ('Id="5" Type="4" Text="ruler"', "", [(0, 0), (10, 10)]),
            ('Id="6" Type="0" Text="line"', "", [(0, 0), (10, 10)]),
        ),
    )
    assert [o.name for o in drawing.outlines] == ["Benign", "In situ", "", "round"]
    assert {o.group for o in drawing.outlines} == {"Layer 1"}
    assert drawing.um == 0.467
    assert [s.why.split(" ")[1] for s in drawing.skipped] == ["5", "6"]
    first, second, round_one = interpret(drawing, meaning, where="a.xml").findings
    assert first.holes == second.holes == round_one.holes == (ISLAND,)
    area = paint([round_one], Frame(20, 20), (220, 220)).sum() / 400
    assert area == pytest.approx(np.pi * 25 - 9, rel=0.01)


def feature(kind, coordinates, **facts):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": facts}


def ring(points):
    return [list(p) for p in (*points, points[0])]


def test_geojson_as_qupath_writes_it(tmp_path):
    features = [
        feature("Polygon", [ring(SQUARE), ring(ISLAND)], classification={"name": "Tumor"}, name="n"),
        feature("MultiPolygon", [[ring(SQUARE)], [ring(ISLAND)]], classification="Tumor"),
        feature("Point", [1, 2]),
        feature("Polygon", [[[0, 0], [1, 1]]]),
        feature("Polygon", []),
    ]
    forms = (features, {"type": "FeatureCollection", "features": features})
    one, other = (read(tmp_path, json.dumps(form), "a.geojson") for form in forms)
    assert one == other
    told = [(o.group, o.name, len(o.holes)) for o in one.outlines]
    assert told == [("Tumor", "n", 1), ("Tumor", "", 0), ("Tumor", "", 0)]
    assert [s.why[:9] for s in one.skipped] == ["feature 2", "feature 3", "feature 4"]
    assert painted(interpret(one, meaning, where="")).sum() == 64
    alone = read(tmp_path, json.dumps(features[0]), "a.json")
    assert alone.outlines == one.outlines[:1]
    assert painted(interpret(alone, meaning, where="")).sum() == 64 - 9


BOMB = (
    '<!DOCTYPE z [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><ASAP_Annotations>&b;</ASAP_Annotations>'
)
OUTSIDE = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><ASAP_Annotations>&x;</ASAP_Annotations>'
REMOTE = '<!DOCTYPE r SYSTEM "http://127.0.0.1/x.dtd"><ASAP_Annotations/>'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (REMOTE, "document type"),
        ("", "0 bytes"),
        ("no markup", "not a readable"),
        (asap(("Tumor", SQUARE))[:-30], "not a readable"),
        ("<html/>", "its root is <html>"),
        ('<?xml version="1.0" encoding="klingon"?><ASAP_Annotations/>', "not a readable"),
        ("[1, 2]", "not a GeoJSON"),
        ('{"features": 3}', "not a GeoJSON"),
        ('{"type": "Feature", "geometry": null}', "not a GeoJSON"),
        ("[" * 100_000, "nested too deeply"),
        ("<ASAP_Annotations>" + "<a>" * 100_000, "nested too deeply"),
        ('{"a":', "not a readable"),
        (b"\xff\xfe\x00", "not a readable"),
    ],
)
def test_what_is_no_annotation_file_is_one_kind_of_error_that_names_it(tmp_path, text, why):
    with pytest.raises(DataError, match=rf"a\.xml.*{why}"):
        read(tmp_path, text)


def test_missing_large_and_differently_encoded_files(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.xml: cannot be read"):
        read_drawing(tmp_path / "none.xml")
    with pytest.raises(DataError, match="cannot be read"):
        read_drawing(tmp_path)
    text = asap(("Tumor", SQUARE))
    assert read(tmp_path, text.encode("utf-8-sig")).outlines[0].points == SQUARE
    wide = text.replace('version="1.0"', 'version="1.0" encoding="UTF-16"').encode("utf-16")
    assert read(tmp_path, wide).outlines[0].points == SQUARE
    monkeypatch.setattr(annotations, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="not 1 to 100"):
        read(tmp_path, text)


def test_an_unknown_group_is_told_and_leaves_the_slide_incomplete(tmp_path):
    drawing = read(tmp_path, asap(("Tumor", SQUARE), ("metastaes", ISLAND), ("metastaes", ISLAND)))
    reading = interpret(drawing, meaning, where="a.xml")
    assert len(reading.findings) == 1
    assert [s.why for s in reading.skipped] == ["outlines called 'metastaes' have no known meaning"]


def test_a_cut_out_without_a_name_needs_no_meaning(tmp_path):
    """ImageScope numbers negative regions and seldom names them."""
    regions = [
        ('Id="1" Type="0" Text="tumour" NegativeROA="0"', "", SQUARE),
        ('Id="2" Type="0" Text="" NegativeROA="1"', "", ISLAND),
    ]
    drawing = read(tmp_path, aperio(*regions))
    reading = interpret(drawing, lambda o: Meaning("tumour", 1.0) if o.name else None, where="a.xml")
    assert reading.is_complete
    assert painted(reading).sum() == painted(interpret(drawing, meaning, where="a.xml")).sum() == 64 - 9


def test_a_drawing_of_another_slide_still_tells_what_was_skipped_before():
    far = tuple((x + 100, y) for x, y in SQUARE)
    before = Skipped("a.xml", "annotation", "has 2 different corners that enclose nothing")
    reading = interpret(Drawing((Outline(far),), (before,)), meaning, where="a.xml", size=(12, 12))
    assert reading.skipped[0] == before
    assert len(reading.skipped) == 2


def test_a_drawing_of_another_slide_is_not_used_and_one_over_the_edge_is(tmp_path):
    far = tuple((x + 100, y) for x, y in SQUARE)
    drawing = read(tmp_path, asap(("Tumor", SQUARE), ("Tumor", far)))
    reading = interpret(drawing, meaning, where="a.xml", size=(12, 100))
    assert reading.findings == ()
    assert "1 of 2 outlines lie outside the slide of 100 x 12" in reading.skipped[0].why
    assert len(interpret(drawing, meaning, where="a.xml", size=(12, 105)).findings) == 2
    assert len(interpret(drawing, meaning, where="a.xml").findings) == 2


def test_a_self_crossing_outline_fills_both_its_loops():
    bow = Drawing((Outline(((0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)), group="Tumor"),))
    mask = painted(interpret(bow, meaning, where=""), (10, 10))
    assert mask[5, 1]
    assert mask[5, 8]
    assert not mask[1, 5]
    assert not mask[8, 5]


_CORNER = st.tuples(st.integers(0, 10), st.integers(0, 10))
_SHAPE = st.lists(_CORNER, min_size=3, max_size=6, unique=True)


def _even_odd(corners, x, y):
    """Crossings of a ray to the right, one edge at a time."""
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


@settings(max_examples=25)
@given(tumours=st.lists(_SHAPE, min_size=1, max_size=3), normals=st.lists(_SHAPE, max_size=3))
def test_holes_count_as_if_painted_after_every_tumour(tmp_path_factory, tumours, normals):
    shapes = [("normal", s) for s in normals] + [("Tumor", s) for s in tumours]
    drawing = read(tmp_path_factory.mktemp("a"), asap(*shapes))
    grid = Frame(4, 4, -0.01, 0)  # no centre on an edge, nothing too small to hold one
    mask = paint(interpret(drawing, meaning, where="").findings, grid, (40, 40))
    tumour, normal = ([list(o.points) for o in drawing.outlines if o.group == g] for g in ("Tumor", "normal"))
    for row, column in np.ndindex(40, 40):
        x, y = (column + 0.51) / 4, (row + 0.5) / 4
        expected = any(_even_odd(c, x, y) for c in tumour) and not any(_even_odd(c, x, y) for c in normal)
        assert mask[row, column] == expected


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path_factory, data):
    whole = data.draw(
        st.sampled_from(
            [
                asap(("Tumor", SQUARE), ("normal", ISLAND)),
                aperio(('Id="1" Text="x"', "<Attributes/>", SQUARE)),
                json.dumps([feature("Polygon", [ring(SQUARE), ring(ISLAND)], name="n")]),
            ]
        )
    ).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 4)) :]
    try:
        drawing = read(tmp_path_factory.mktemp("a"), damaged)
    except DataError:
        return
    assert all(len(set(o.points)) >= 3 for o in drawing.outlines)


@pytest.mark.data
def test_real_slide_annotations_of_bach(shared_data):
    folder = shared_data / "formats" / "bach_wsi_xml"
    a02 = read_drawing(folder / "HossamBalaha_updated" / "A02.xml")
    assert Counter(o.name for o in a02.outlines) == {
        "Carcinoma in situ": 8, "Benign": 6, "Carcinoma invasive": 3, "Normal": 1,
    }  # fmt: skip
    assert a02.um == pytest.approx(0.4667, abs=1e-4)
    groups = Counter(o.group for o in read_drawing(folder / "cremecho_own" / "A08.xml").outlines)
    assert groups == {"metastases_org": 91, "newmeta": 36, "benign": 1}
    for path in sorted(folder.rglob("*.xml")):
        drawing = read_drawing(path)
        assert drawing.outlines
        assert not drawing.skipped


CORPUS = """
import resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, 2_500_000_000))
from mammopath.errors import MammopathError
from mammopath.images.annotations import read_drawing
accepted = refused = 0
slowest = 0.0
for path in sorted(Path(sys.argv[1]).rglob("*")):
    if path.is_file():
        begin = time.monotonic()
        try:
            read_drawing(path)
            accepted += 1
        except MammopathError:
            refused += 1
        slowest = max(slowest, time.monotonic() - begin)
print(accepted, refused, slowest)
"""


@pytest.mark.data
def test_a_corpus_of_malformed_files_ends_in_one_kind_of_error_quickly(shared_data, tmp_path):
    with tarfile.open(shared_data / "badinputs.tar.xz") as archive:
        wanted = [m for m in archive if m.isfile() and m.name.split("/")[-2] in ("xml", "json", "blns")]
        archive.extractall(tmp_path, members=wanted, filter="data")
    run = [sys.executable, "-c", CORPUS, str(tmp_path)]
    result = subprocess.run(run, capture_output=True, text=True, check=True, timeout=240)
    accepted, refused, slowest = result.stdout.split()
    assert int(accepted) + int(refused) == len(wanted) > 600
    assert int(accepted) < 10
    assert float(slowest) < 25


@pytest.mark.data
def test_real_lesions_of_camelyon16_lie_on_the_tissue_that_they_outline(shared_data, tmp_path):
    """The slide at 1/32, and the published corners, written as the challenge's XML and read back."""
    told = json.loads((shared_data / "formats/camelyon16/polygons_json/Tumor_001.json").read_text())
    shapes = [("Tumor", shape["vertices"]) for shape in told["positive"]]
    drawing = read(tmp_path, asap(*shapes))
    slide = PIL.Image.open(shared_data / "slides/camelyon16_tumor_001_level5/tumor_001aaf.tif")
    reading = interpret(drawing, meaning, where="", size=(slide.height * 32, slide.width * 32))
    assert reading.is_complete
    mask = paint(reading.findings, Frame(1 / 32, 1 / 32), (slide.height, slide.width))
    other = PIL.Image.new("1", slide.size)
    for _, corners in shapes:
        PIL.ImageDraw.Draw(other).polygon([(x / 32, y / 32) for x, y in corners], fill=1)
    assert (mask & np.array(other)).sum() / (mask | np.array(other)).sum() > 0.9
    saturation = np.array(slide.convert("HSV"))[..., 1]
    assert (saturation[mask] > 30).mean() > 0.95
    assert (saturation > 30).mean() < 0.5
    assert "outside the slide" in interpret(drawing, meaning, where="", size=slide.size[::-1]).skipped[0].why
