"""A hospital's own table: what it may say, and what is told of every mistake in it."""

import csv
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exam_tree import mammogram, save
from mammopath.errors import DataError
from mammopath.sources import labels_csv, table, words
from mammopath.sources.columns import COLUMNS, REQUIRED, read_cells
from mammopath.sources.source import count
from mammopath.types import UNKNOWN, Finding, Record, Skipped
from source_trees import GREY, put, split, table_tree

CARD = Path(__file__).parent.parent / "docs" / "datasets" / "table.md"


def _write(root: Path, rows, name="t.csv") -> Path:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (root / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return root / name


def _row(image="a.png", **more):
    return {"image": image, "patient": "p", "domain": "d", "modality": "mammogram", "label": "benign"} | more


def _one(tmp_path, **cells) -> Record | Skipped:
    put(tmp_path / "a.png", GREY)
    (entry,) = table.index(_write(tmp_path, [_row(**cells)]))
    return entry


def test_a_table_of_our_own_columns(tmp_path):
    records, skipped = split(table.index(table_tree(tmp_path)))
    assert not skipped
    a, b = records
    assert (a.image_id, a.malignant, a.laterality, a.view) == ("north/images/a.png", 1.0, "L", "MLO")
    assert a.findings == (Finding("box", ((1.0, 2.0), (30.0, 40.0)), malignant=1.0),)
    assert a.attributes == {"density": "3", "annotated": "yes"}
    assert (a.spacing.um_x, a.spacing_source, a.official_split) == (70.0, "override", "train")
    assert (b.malignant, b.severity, b.pair_key, b.path.name) == (1.0, 2.0, a.pair_key, "b.png")


def test_parquet_says_the_same(tmp_path):
    rows = [
        _row(malignant=0, severity=1.0, spacing_um=None, label=None),
        _row("b.png", malignant=None, label="nan"),
    ]
    for name in ("a.png", "b.png"):
        put(tmp_path / name, GREY)
    pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
    a, b = table.index(tmp_path / "t.parquet")
    assert (a.malignant, a.severity, a.spacing) == (0.0, 1.0, None)
    assert math.isnan(b.malignant)


def test_an_unknown_label_names_row_text_and_allowed_words(tmp_path):
    path = _write(tmp_path, [_row(), _row("b.png", label="cancr")])
    with pytest.raises(
        DataError, match=r"t\.csv: row 3: label 'cancr' is none of: normal, benign, .*malignant"
    ):
        list(table.index(path))


@pytest.mark.parametrize("cells", [{"malignant": "2"}, {"severity": "4"}, {"severity": "high"}])
def test_an_unknown_code_is_as_bad_as_an_unknown_word(tmp_path, cells):
    with pytest.raises(DataError, match=rf"t\.csv: row 2: {next(iter(cells))} '.*' is"):
        _one(tmp_path, **cells)


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(tmp_path, column):
    row = _row()
    del row[column]
    with pytest.raises(DataError, match=f"column {column} is missing"):
        list(table.index(_write(tmp_path, [row])))


def test_columns_that_are_unknown_or_not_enough(tmp_path):
    with pytest.raises(DataError, match=r"unknown column 'malignat'; did you mean 'malignant'\?"):
        list(table.index(_write(tmp_path, [_row(malignat="1")])))
    row = _row()
    del row["label"]
    with pytest.raises(DataError, match="no column label, malignant or severity"):
        list(table.index(_write(tmp_path, [row])))


@pytest.mark.parametrize(("content", "why"), [
    (None, "no such table"), (b"", "no rows"), (b"image,patient\n", "no rows"),
    (b"\xff\xfe\x00bad", "not a readable"),
])  # fmt: skip
def test_what_is_notable_tree(tmp_path, content, why):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=why):
        list(table.index(tmp_path / "t.csv"))


@pytest.mark.parametrize(("cells", "why"), [
    ({"modality": "ultrasound"}, "modality 'ultrasound' is none of: mammogram, pathology"),
    ({"domain": ""}, "column domain is empty"),
    ({"laterality": "both"}, "laterality 'both'"),
    ({"spacing_um": "-3"}, "spacing_um '-3' must be finite and above 0"),
    ({"spacing_um": "70", "spacing_source": "guess"}, "spacing_source 'guess'"),
    ({"split": "holdout"}, "split 'holdout'"),
    ({"malignant": "1"}, "contradict"),
    ({"label": "malignant", "severity": "0"}, "contradict"),
    ({"findings": "box 1 2 3"}, "finding 'box 1 2 3' is none of"),
    ({"findings": "box 9 9 3 3"}, "LEFT < RIGHT"),
    ({"findings": "circle 1 2 3 odd"}, "label 'odd'"),
    ({"image": "../outside.png"}, "does not lie in the folder"),
    ({"image": ""}, "column image is empty"),
])  # fmt: skip
def test_a_wrong_cell_is_skipped_with_its_row(tmp_path, cells, why):
    entry = _one(tmp_path, **cells)
    assert isinstance(entry, Skipped)
    assert (entry.code, entry.where) == ("annotation", f"{tmp_path / 't.csv'}: row 2")
    assert why in entry.why


@pytest.mark.parametrize(("cells", "malignant", "severity"), [
    ({"label": "Benign"}, 0, 1), ({"label": "BENIGN_WITHOUT_CALLBACK"}, 0, 1), ({"label": "in-situ"}, 1, 2),
    ({"label": "", "malignant": "1"}, 1, None), ({"label": "", "malignant": "", "severity": "3"}, 1, 3),
    ({"label": "malignant", "severity": "2"}, 1, 2), ({"label": "unknown (lost)"}, None, None),
    ({"label": "NaN", "malignant": "NaN"}, None, None), ({"label": "not malignant"}, 0, None),
])  # fmt: skip
def test_labels_in_words_and_numbers(tmp_path, cells, malignant, severity):
    record = _one(tmp_path, **cells)
    assert [record.malignant, record.severity] == pytest.approx(
        [UNKNOWN if value is None else value for value in (malignant, severity)], nan_ok=True
    )


def test_an_unknown_patient_is_the_image(tmp_path):
    record = _one(tmp_path, patient="")
    assert (record.patient, record.patient_known) == ("d/a.png", False)


def test_rows_of_one_image(tmp_path):
    put(tmp_path / "a.png", GREY)
    rows = [
        _row(findings="circle 5 5 2"),
        _row(findings="circle 5 5 2"),
        _row(findings="box 1 1 9 9", label="malignant"),
        _row(findings="box 1 1 9 9", patient="q"),
        _row(findings="circle 5 5 2", label="malignant"),
    ]
    records, skipped = split(table.index(_write(tmp_path, rows)))
    (record,) = records
    assert record.malignant == 1
    assert [(f.kind, f.malignant) for f in record.findings] == [("circle", 0.0), ("box", 1.0)]
    assert [s.why for s in skipped] == [
        "repeats row 2", "contradicts row 2 in: patient, findings", "contradicts row 2 in: label",
    ]  # fmt: skip


_KINDS = st.sampled_from(["box", "circle", "point", "polygon"])
_SIX = st.lists(st.integers(1, 500), min_size=6, max_size=6)
_SAID = st.sampled_from(["", "malignant", "benign", "unknown"])


@settings(max_examples=40)
@given(findings=st.lists(st.tuples(_KINDS, _SIX, _SAID), max_size=4))
def test_findings_in_words_come_back(findings):
    said, meant = [], []
    for kind, n, label in findings:
        numbers = {
            "box": [n[0], n[1], n[0] + n[2], n[1] + n[3]],
            "circle": n[:3],
            "point": n[:2],
            "polygon": n,
        }[kind]
        said.append(" ".join([kind, *map(str, numbers), label]))
        points = tuple((float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=False))
        unsaid = 1.0 if len(findings) == 1 else UNKNOWN
        malignant = {"": unsaid, "malignant": 1.0, "benign": 0.0, "unknown": UNKNOWN}[label]
        meant.append(repr(Finding(kind, points, float(n[2]) if kind == "circle" else 0.0, malignant)))
    assert [repr(f) for f in words.read_findings("; ".join(said), 1.0)] == meant


@given(text=st.text(max_size=40))
def test_findings_survive_any_text(text):
    try:
        found = words.read_findings(text, 0.0)
    except ValueError:
        return
    assert all(math.isfinite(value) for finding in found for point in finding.points for value in point)


_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)


@given(cells=st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=4))
def test_cells_come_back_from_csv(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["a", "b"], *cells])
    expected = [{"a": a.strip(), "b": b.strip()} for a, b in cells]
    assert read_cells(path) == expected


def test_labels_csv_with_its_lesions(tmp_path):
    put(tmp_path / "a.png", GREY)
    head = ",".join(labels_csv.RADIOLOGY) + "\n"
    start = "cbis_ddsm_mass_800,a.png,P_1,R,CC"
    (tmp_path / "labels.csv").write_text(
        head + start + ",malignant,5,6,bbox_xywh=1/2/3/4,split=test; density=2\n"
    )
    (record,) = table.index(tmp_path)
    assert (record.domain, record.official_split, record.attributes["density"]) == ("cbis_ddsm", "test", "2")
    assert record.findings == (Finding("box", ((1.0, 2.0), (4.0, 6.0)), malignant=1.0),)
    assert (record.spacing.um_x, record.spacing.um_y, record.spacing_source) == (175.0, 300.0, "nominal")
    lesions = [f"{start},benign,,,bbox_xywh=1/2/3/4,\n", f'{start},"unknown (mixed, two)",7,8,2.5,\n']
    (tmp_path / "lesions.csv").write_text(head + "".join(lesions))
    (record,) = table.index(tmp_path / "labels.csv")
    assert [(f.kind, str(f.malignant)) for f in record.findings] == [("box", "0.0"), ("circle", "nan")]


@pytest.mark.parametrize("shape", ["bbox_xywh=1/2/3", "bbox_xywh=a/b/c/d", "polygon=3"])
def test_a_lesion_that_cannot_be_read_is_skipped_with_its_row(tmp_path, shape):
    put(tmp_path / "a.png", GREY)
    head = ",".join(labels_csv.RADIOLOGY)
    (tmp_path / "labels.csv").write_text(f"{head}\nown,a.png,P_1,R,CC,malignant,5,6,{shape},\n")
    (entry,) = table.index(tmp_path)
    assert isinstance(entry, Skipped)
    assert shape in entry.why
    (tmp_path / "lesions.csv").write_text("file,x\na.png,3\n")
    with pytest.raises(DataError, match=r"lesions\.csv: its columns are not source"):
        list(table.index(tmp_path))


def test_every_column_is_told_in_the_card():
    card = CARD.read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in card] == []


@pytest.mark.data
def test_real_cbis_ddsm_masses(shared_data):
    records, skipped = split(table.index(shared_data / "cbis_ddsm_mass" / "labels.csv"))
    assert not skipped
    assert count(records) == {
        "images": 1592, "patients": 892, "malignant": 747, "not malignant": 845, "benign": 845,
    }  # fmt: skip
    assert sum(len(r.findings) for r in records) == 1696
    assert sum(math.isnan(f.malignant) for r in records for f in r.findings) == 18
    parts = [{r.patient for r in records if r.official_split == name} for name in ("train", "test")]
    assert [len(part) for part in parts] == [691, 201]
    assert parts[0].isdisjoint(parts[1])
    _demand_aspect(records)


def _demand_aspect(records):
    """Masses have no preferred direction: the median aspect of their boxes tells how films were squashed."""
    boxes = np.array([f.box() for r in records for f in r.findings])
    aspect = np.exp(np.median(np.log((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1]))))
    assert aspect == pytest.approx(records[0].spacing.um_y / records[0].spacing.um_x, rel=0.01)


N = math.nan


@pytest.mark.parametrize(("labels", "together"), [
    ([], (N, N)), ([(N, N)], (N, N)), ([(N, N), (0, 1)], (0, 1)), ([(0, 0), (0, 1)], (0, 1)),
    ([(0, 1), (1, N)], (1, N)), ([(0, 1), (1, 2)], (1, 2)), ([(1, 2), (1, N)], (1, N)),
    ([(1, 3), (1, N)], (1, 3)), ([(0, 0), (0, N)], (0, N)), ([(0, 1), (0, N)], (0, 1)),
])  # fmt: skip
def test_the_worst_of_several_labels_claims_no_severity_that_may_be_too_low(labels, together):
    for order in (labels, labels[::-1]):
        found = table.worst([(float(m), float(s)) for m, s in order])
        assert str(found) == str((float(together[0]), float(together[1])))


def test_malignant_and_benign_rows_of_one_image_leave_the_severity_open(tmp_path):
    rows = [_row(label="benign", findings="box 1 2 3 4"), _row(label="malignant", findings="box 5 6 7 8")]
    put(tmp_path / "a.png", GREY)
    (record,) = table.index(_write(tmp_path, rows))
    assert record.malignant == 1
    assert math.isnan(record.severity)


@pytest.mark.filterwarnings("ignore")
def test_headers_that_cannot_be_true_or_contradict_the_table_are_flagged(tmp_path):
    save(tmp_path / "a.dcm", mammogram(WindowCenter="1", WindowWidth="0", ImagerPixelSpacing=["0", "0"]))
    rows = [
        _row("a.dcm", laterality="R", spacing_um="70"), _row("a.dcm", laterality="L", attr_flags="retake"),
        _row("a.dcm", attr_flags="blurred"),
    ]  # fmt: skip
    one, two, three = (next(iter(table.index(_write(tmp_path, [row])))) for row in rows)
    assert one.attributes["flags"] == "side_differs+window_ignored"
    assert two.attributes["flags"] == "no_spacing+retake+window_ignored"
    assert "flag 'blurred' is none of" in three.why


def test_semicolons_separate_and_a_column_twice_is_refused(tmp_path):
    put(tmp_path / "a.png", GREY)
    head, cells = "image;patient;domain;modality;label;findings", "a.png;p;d;mammogram;benign;"
    (tmp_path / "t.csv").write_text(f'{head}\n{cells}"box 1 2 3 4; point 5 6"\n')
    (record,) = table.index(tmp_path / "t.csv")
    assert (record.malignant, len(record.findings)) == (0, 2)
    (tmp_path / "t.csv").write_text(f"{head};label\n{cells};malignant\n")
    with pytest.raises(DataError, match="column label is there twice"):
        list(table.index(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("told", "tag"),
    [("", "ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor"), ("70", "")],
)
def test_a_spacing_of_a_header_names_its_elements_and_one_of_the_table_does_not(tmp_path, told, tag):
    save(tmp_path / "a.dcm", mammogram(EstimatedRadiographicMagnificationFactor="1.25"))
    (record,) = table.index(_write(tmp_path, [_row("a.dcm", spacing_um=told)]))
    assert record.spacing.um_x == (70.0 if told else 80.0)
    assert record.attributes.get("spacing_tag", "") == tag
