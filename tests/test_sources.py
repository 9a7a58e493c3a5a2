"""Every source keeps the contract: lists its layout, skips what is bad with a reason, counts."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from mammopath.cohort import manifest as mf
from mammopath.errors import DataError
from mammopath.images.packed import is_packed
from mammopath.sources import SOURCES
from mammopath.sources.source import Counts, check_counts, count
from mammopath.types import MODALITIES, Record, Skipped
from slide_trees import TREES as SLIDE_TREES
from source_trees import TREES as IMAGE_TREES
from source_trees import split

TREES = IMAGE_TREES | SLIDE_TREES

DOCS = Path(__file__).parent.parent / "docs" / "datasets"


@pytest.fixture(scope="module", params=sorted(SOURCES))
def listed(request, tmp_path_factory):
    root = TREES[request.param](tmp_path_factory.mktemp(request.param))
    return request.param, root, list(SOURCES[request.param].index(root))


def test_every_source_has_a_tree_and_a_card():
    assert TREES.keys() == SOURCES.keys()
    for name in SOURCES.keys() - {"phantom"}:
        text = (DOCS / f"{name}.md").read_text()
        assert all(
            f"## {part}" in text for part in ("Files", "Labels", "Spacing", "Split", "Traps", "Licence")
        ), name


def test_records_keep_the_contract(listed):
    _, root, entries = listed
    records, _ = split(entries)
    assert records
    folder = root if root.is_dir() else root.parent
    assert len({r.image_id for r in records}) == len(records)
    for record in records:
        assert record.path.is_file() or is_packed(record.path)
        assert record.image_id.endswith(record.path.relative_to(folder).as_posix())
        assert record.modality in MODALITIES
        assert (record.spacing is None) == (record.spacing_source == "unknown")
        if not math.isnan(record.severity) and not math.isnan(record.malignant):
            assert record.malignant == (record.severity >= 2)
        assert record.laterality in ("", "L", "R")


def test_indexing_again_gives_the_same_and_it_fits_a_manifest(listed, tmp_path):
    name, root, entries = listed
    one = mf.collect(entries, source=name, root=root)
    assert mf.collect(SOURCES[name].index(root), source=name, root=root).fingerprint == one.fingerprint
    mf.write(one, tmp_path / "m.parquet")
    assert mf.read(tmp_path / "m.parquet").fingerprint == one.fingerprint


def test_an_empty_folder_is_an_error_that_says_what_is_looked_for(listed, tmp_path):
    name, _, _ = listed
    with pytest.raises(DataError, match=str(tmp_path)):
        list(SOURCES[name].index(tmp_path))


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"phantom", "pcam"}))
@pytest.mark.parametrize(
    ("damage", "codes"), [(lambda data: b"", {"empty"}), (lambda data: data[:40], {"truncated", "pixels"})]
)
def test_bad_files_are_skipped_and_the_rest_goes_on(tmp_path, name, damage, codes):
    root = TREES[name](tmp_path)
    before, _ = split(SOURCES[name].index(root))
    victim = before[0].path
    victim.write_bytes(damage(victim.read_bytes()))
    records, skipped = split(SOURCES[name].index(root))
    assert [r.image_id for r in records] == [r.image_id for r in before[1:]]
    (told,) = [s for s in skipped if s.where == str(victim)]
    assert told.code in codes


def _counted(n, **more):
    labels = [
        Record(f"x/{i}", Path("x"), f"p{i}", "d", "mammogram", malignant=float(i % 2)) for i in range(n)
    ]
    return [replace(r, **more) for r in labels]


def test_counts_found_and_expected():
    source = replace(
        SOURCES["mias"],
        editions={"whole": {"images": 10, "malignant": 5}, "half": {"images": 4, "malignant": 2}},
    )
    assert check_counts(source, _counted(10), [], root=Path("r")).edition == "whole"
    assert check_counts(source, _counted(4), [], root=Path("r")).wrong == {}
    with pytest.raises(
        DataError, match=r"found/expected differ \(whole\): images 9/10, malignant 4/5\. Unpack"
    ):
        check_counts(source, _counted(9), [], root=Path("r"))
    bad, missing = Skipped("a", "truncated", ""), Skipped("a", "missing", "")
    assert check_counts(source, _counted(9), [bad], root=Path("r")).wrong == {
        "images": "9/10",
        "malignant": "4/5",
    }
    with pytest.raises(DataError, match="9/10"):
        check_counts(source, _counted(9), [missing], root=Path("r"))
    assert check_counts(SOURCES["table"], _counted(3), [], root=Path("r")) == Counts(count(_counted(3)))


@pytest.mark.data
@pytest.mark.parametrize("name", ["mias", "bach", "idc"])
def test_real_counts(shared_data, name):
    records, skipped = split(SOURCES[name].index(shared_data / name))
    assert check_counts(SOURCES[name], records, skipped, root=shared_data / name).wrong == {}
    assert not skipped
