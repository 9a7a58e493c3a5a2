"""A manifest comes back as it was, and says the same on every machine."""

import json
import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammopath.cohort import manifest as mf
from mammopath.errors import DataError
from mammopath.types import UNKNOWN, Finding, Record, Skipped, Spacing

_NUMBER = st.floats(-1e6, 1e6)
_LABEL = st.sampled_from([0.0, 1.0, UNKNOWN])
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_FINDING = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["box", "polygon", "circle", "point"]),
        "points": st.lists(st.tuples(_NUMBER, _NUMBER), min_size=1, max_size=3).map(tuple),
        "radius": st.floats(0, 1e3),
        "malignant": _LABEL,
        "name": _TEXT,
    }
)
_UM = st.floats(0.01, 1e4)
_RECORD = st.fixed_dictionaries(
    {
        "image_id": st.integers(0, 10**6).map(lambda n: f"set/{n}.png"),
        "path": st.integers(0, 99).map(lambda n: Path("images") / f"{n}.png"),
        "patient": _TEXT.filter(bool),
        "domain": _TEXT.filter(bool),
        "modality": st.sampled_from(["mammogram", "pathology"]),
        "malignant": _LABEL,
        "severity": st.sampled_from([0.0, 1.0, 2.0, 3.0, UNKNOWN]),
        "patient_known": st.booleans(),
        "laterality": st.sampled_from(["", "L", "R"]),
        "view": st.sampled_from(["", "CC", "MLO"]),
        "spacing": st.none() | st.tuples(_UM, _UM),
        "spacing_source": st.sampled_from(["header", "nominal", "unknown"]),
        "findings": st.lists(_FINDING, max_size=3),
        "pair_key": _TEXT,
        "official_split": st.sampled_from(["", "train", "test"]),
        "attributes": st.dictionaries(_TEXT, _TEXT, max_size=3).map(lambda d: dict(sorted(d.items()))),
    }
)


def _build(values: dict, root: Path) -> Record:
    spacing = values["spacing"] and Spacing(*values["spacing"])
    findings = tuple(Finding(**finding) for finding in values["findings"])
    return Record(**values | {"path": root / values["path"], "spacing": spacing, "findings": findings})


def _plain(record: Record) -> str:
    """NaN is not equal to NaN, but it prints the same."""
    return repr(record)


def _example(root: Path, number: int = 3) -> mf.Manifest:
    for n in range(number):
        (root / f"{n}.png").write_bytes(b"x" * n)
    entries = [
        Record(f"set/{n}.png", root / f"{n}.png", f"p{n}", "site", "mammogram", malignant=float(n % 2))
        for n in range(number)
    ]
    return mf.collect(
        [*entries, Skipped("bad.png", "empty", "the file has no bytes")], source="set", root=root
    )


@settings(max_examples=40)
@given(drawn=st.lists(_RECORD, min_size=1, max_size=4, unique_by=lambda values: values["image_id"]))
def test_everything_comes_back(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("m")
    records = [_build(values, root) for values in drawn]
    manifest = mf.collect(records, source="set", root=root)
    mf.write(manifest, root / "m.parquet")
    again = mf.read(root / "m.parquet")
    assert [_plain(r) for r in again.records] == [_plain(r) for r in records]
    assert again.fingerprint == manifest.fingerprint
    assert (again.sizes, again.root, again.sources, again.created) == (
        manifest.sizes, root, ("set",), manifest.created,
    )  # fmt: skip


def test_skipped_files_and_sizes_are_kept(tmp_path):
    manifest = _example(tmp_path)
    mf.write(manifest, tmp_path / "m.parquet")
    again = mf.read(tmp_path / "m.parquet")
    assert again.skipped == (Skipped("bad.png", "empty", "the file has no bytes"),)
    assert again.sizes == (0, 1, 2)
    assert again.domains == ("site",)
    assert math.isnan(again.records[0].severity)


def test_the_fingerprint_knows_content_and_not_place(tmp_path):
    here, there = tmp_path / "a", tmp_path / "b" / "c"
    here.mkdir()
    there.mkdir(parents=True)
    one, two = _example(here), _example(there)
    assert one.fingerprint == two.fingerprint
    turned = replace(one, records=one.records[::-1], sizes=one.sizes[::-1])
    assert turned.fingerprint == one.fingerprint
    swapped = replace(one, records=one.records[::-1])
    assert swapped.fingerprint != one.fingerprint
    for change in (
        {"patient": "q"},
        {"malignant": UNKNOWN},
        {"spacing": Spacing.square(50.0)},
        {"view": "CC"},
    ):
        records = (replace(one.records[0], **change), *one.records[1:])
        assert replace(one, records=records).fingerprint != one.fingerprint


def test_moved_data_is_found_under_another_root(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    mf.write(_example(old), tmp_path / "m.parquet")
    old.rename(new)
    assert [r.path.read_bytes() for r in mf.read(tmp_path / "m.parquet", root=new).records] == [
        b"",
        b"x",
        b"xx",
    ]


def test_concatenating_keeps_order_and_refuses_the_same_image_twice(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    a = _example(tmp_path / "a")
    with pytest.raises(DataError, match=r"set/0\.png is in two manifests"):
        mf.concat([a, _example(tmp_path / "b", 1)])
    records = _example(tmp_path / "b", 2).records
    b = mf.collect(records, source="other", root=tmp_path / "b", domain="elsewhere")
    both = mf.concat([a, b])
    assert [r.image_id for r in both.records] == [
        "set/0.png", "set/1.png", "set/2.png", "elsewhere/0.png", "elsewhere/1.png",
    ]  # fmt: skip
    assert both.sources == ("set", "other")
    assert both.root == tmp_path
    mf.write(both, tmp_path / "both.parquet")
    assert mf.read(tmp_path / "both.parquet").records[4].path == tmp_path / "b" / "1.png"
    with pytest.raises(DataError, match="no manifest"):
        mf.concat([])


def test_a_second_record_of_an_image_is_skipped(tmp_path):
    records = _example(tmp_path).records
    manifest = mf.collect([*records, records[0]], source="set", root=tmp_path)
    assert len(manifest) == 3
    assert [s.code for s in manifest.skipped] == ["annotation"]


def test_an_image_that_is_its_own_patient_stays_so_at_another_site(tmp_path):
    record = replace(_example(tmp_path).records[0], patient="set/0.png", patient_known=False)
    (moved,) = mf.collect([record], source="set", root=tmp_path, domain="east").records
    assert (moved.image_id, moved.patient, moved.domain) == ("east/0.png", "east/0.png", "east")


def test_nothing_found_is_an_error_with_the_first_reason(tmp_path):
    with pytest.raises(DataError, match=r"right folder.*zero bytes"):
        mf.collect([Skipped("a.png", "empty", "zero bytes")], source="set", root=tmp_path)


def test_what_is_no_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such manifest"):
        mf.read(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a manifest"):
        mf.read(tmp_path / "text.parquet")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not a manifest"):
        mf.read(tmp_path / "other.parquet")
    path = tmp_path / "m.parquet"
    mf.write(_example(tmp_path), path)
    table, facts = pl.read_parquet(path), pl.read_parquet_metadata(path)["mammopath"]
    table.drop("view", "bytes").write_parquet(path, metadata={"mammopath": facts})
    with pytest.raises(DataError, match="columns bytes, view are missing"):
        mf.read(path)
    changed = table.with_columns(patient=pl.lit("someone else"))
    changed.write_parquet(path, metadata={"mammopath": facts})
    with pytest.raises(DataError, match="fingerprint"):
        mf.read(path)


def test_an_image_outside_the_root_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    manifest = replace(_example(tmp_path), root=inside)
    with pytest.raises(DataError, match="outside the root"):
        mf.write(manifest, tmp_path / "m.parquet")


def test_unknown_is_null_for_other_tools(tmp_path):
    manifest = _example(tmp_path)
    finding = Finding("circle", ((3.0, 4.0),), radius=2.0, name="mass")
    records = (replace(manifest.records[0], findings=(finding,)), *manifest.records[1:])
    mf.write(replace(manifest, records=records), tmp_path / "m.parquet")
    table = pl.read_parquet(tmp_path / "m.parquet")
    assert table["severity"].null_count() == 3
    assert json.loads(table["findings"][0]) == [
        {"kind": "circle", "points": [[3.0, 4.0]], "radius": 2.0, "malignant": None, "name": "mass"}
    ]
