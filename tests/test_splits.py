"""No patient crosses a fold; the same rows in any order give the same fold."""

import itertools
import math
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mammopath.cohort.splits import Fold, fold, thin
from mammopath.errors import DataError
from mammopath.types import UNKNOWN, Record

SITES = ("north", "south", "east")


def _record(number, *, patient, site, label=0.0, **more):
    more.setdefault("modality", "mammogram")
    return Record(f"x/{number}", Path(f"{number}.png"), patient, site, malignant=label, **more)


def _site(name, patients, **more):
    """Two images of each patient, every third of whom has a malignant one."""
    return [
        _record(f"{name}{p}{v}", patient=f"{name}{p}", site=name, label=float(p % 3 == 0 and v == 1), **more)
        for p in range(patients)
        for v in range(2)
    ]


def _persons(records):
    """Brute force: merge groups that share a patient or a pair key until nothing changes."""
    groups = [({r.patient}, {r.pair_key} - {""}, {i}) for i, r in enumerate(records)]
    changed = True
    while changed:
        changed = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if groups[a][0] & groups[b][0] or groups[a][1] & groups[b][1]:
                    groups[a] = tuple(x | y for x, y in zip(groups[a], groups.pop(b), strict=True))
                    changed = True
                    break
            if changed:
                break
    return {i: min(names) for names, _, rows in groups for i in rows}


_SOLID = [
    {"patient": f"{site}{n}", "site": site, "label": float(n % 2), "pair_key": "", "official_split": ""}
    for site in SITES
    for n in range(4)
]
_ROWS = st.lists(
    st.builds(
        dict,
        patient=st.sampled_from("abcdefghijkl"),
        site=st.sampled_from(SITES),
        label=st.sampled_from([0.0, 1.0, UNKNOWN]),
        pair_key=st.sampled_from(["", "", "", "k1", "k2"]),
        official_split=st.sampled_from(["", "", "", "train", "test"]),
    ),
    max_size=40,
).map(lambda rows: [*rows, *_SOLID])


def _fold_or_skip(records, held_out, seed=0) -> Fold:
    try:
        return fold(records, held_out=held_out, validation=0.25, test_share=0.3, seed=seed)
    except DataError:
        assume(False)
        raise


@settings(max_examples=50)
@given(rows=_ROWS, held_out=st.sampled_from([None, *SITES]), seed=st.integers(0, 3))
def test_no_person_crosses_a_fold_and_no_row_is_lost(rows, held_out, seed):
    records = [_record(i, **row) for i, row in enumerate(rows)]
    made = _fold_or_skip(records, held_out, seed)
    person = _persons(records)
    parts = [{person[i] for i in part} for part in (made.train, made.val, made.test)]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
    assert sorted(made.train + made.val + made.test + made.dropped) == list(range(len(records)))
    published = {person[i] for i, r in enumerate(records) if r.official_split == "test"}
    assert not published & (parts[0] | parts[1])
    assert {person[i] for i in made.dropped} <= parts[2] | published
    assert set(made.test_split) <= set(made.test)
    if held_out:
        assert set(made.test) == {i for i, r in enumerate(records) if r.domain == held_out}
        assert held_out not in {records[i].domain for i in made.train + made.val}
    else:
        assert made.test_split == made.test


@settings(max_examples=50)
@given(rows=_ROWS, held_out=st.sampled_from([None, *SITES]), random=st.randoms(use_true_random=False))
def test_the_order_of_rows_is_of_no_influence(rows, held_out, random):
    records = [_record(i, **row) for i, row in enumerate(rows)]
    made = _fold_or_skip(records, held_out)
    order = list(range(len(records)))
    random.shuffle(order)
    again = _fold_or_skip([records[i] for i in order], held_out)
    for part in ("train", "val", "test", "test_split", "dropped"):
        assert sorted(order[i] for i in getattr(again, part)) == sorted(getattr(made, part))


@settings(max_examples=50)
@given(rows=_ROWS, seed=st.integers(1, 5))
def test_the_test_part_is_fixed(rows, seed):
    records = [_record(i, **row) for i, row in enumerate(rows)]
    everywhere = _fold_or_skip(records, None).test
    assert everywhere == _fold_or_skip(records, None, seed).test
    for site in SITES:
        assert set(_fold_or_skip(records, site, seed).test_split) == {
            i for i in everywhere if records[i].domain == site
        }


def test_shares_are_kept_in_every_site_and_label():
    records = [*_site("a", 60), *_site("b", 90)]
    made = fold(records, held_out=None, validation=0.25, test_share=0.3, seed=7)
    counts = defaultdict(set)
    for part in ("train", "val", "test"):
        for i in getattr(made, part):
            counts[part, records[i].domain, int(records[i].patient[1:]) % 3 == 0].add(records[i].patient)
    for site, n in (("a", 60), ("b", 90)):
        for malignant, m in ((True, n // 3), (False, 2 * n // 3)):
            assert len(counts["test", site, malignant]) == round(0.3 * m)
            assert len(counts["val", site, malignant]) == pytest.approx(0.25 * 0.7 * m, abs=1)


def test_seeds_change_who_validates():
    records = [*_site("a", 40), *_site("b", 40)]
    folds = [fold(records, held_out="b", validation=0.2, test_share=0.3, seed=s) for s in range(3)]
    assert len({f.val for f in folds}) == 3
    assert len({f.test for f in folds}) == 1


def test_a_person_seen_at_the_held_out_site_leaves_training():
    records = [*_site("a", 9), *_site("b", 9), _record("guest", patient="a3", site="b")]
    made = fold(records, held_out="b", validation=0.2, test_share=0.3, seed=0)
    assert [records[i].patient for i in made.dropped] == ["a3", "a3"]
    records[-1] = replace(records[-1], patient="other name", pair_key="7")
    records[6] = replace(records[6], pair_key="7")
    made = fold(records, held_out="b", validation=0.2, test_share=0.3, seed=0)
    assert [records[i].patient for i in made.dropped] == ["a3", "a3"]


def test_a_published_test_split_is_kept_and_its_patients_do_not_train():
    records = [
        replace(r, official_split="test" if int(r.patient[1:]) < 4 else "train") for r in _site("a", 12)
    ]
    records[0] = replace(records[0], official_split="train")
    records += _site("b", 12)
    made = fold(records, held_out=None, validation=0.2, test_share=0.3, seed=0)
    assert [i for i in made.test if records[i].domain == "a"] == [1, 2, 3, 4, 5, 6, 7]
    assert made.dropped == (0,)


def test_published_test_patients_neither_train_nor_select_when_another_site_is_left_out():
    records = [
        replace(r, official_split="test" if int(r.patient[1:]) < 4 else "train") for r in _site("a", 12)
    ]
    records[0] = replace(records[0], official_split="train")
    records += _site("b", 12)
    made = fold(records, held_out="b", validation=0.2, test_share=0.3, seed=0)
    assert made.dropped == tuple(range(8))
    assert {records[i].domain for i in made.train + made.val} == {"a"}
    inside = fold(records, held_out=None, validation=0.2, test_share=0.3, seed=0)
    ours = {i for i in inside.train + inside.val if records[i].domain == "a"}
    assert set(made.train + made.val) == ours, "both sides of the gap learn from the same patients of a site"


def test_hashing_does_not_depend_on_the_process():
    code = (
        "from test_splits import _site; from mammopath.cohort.splits import fold;"
        "print(fold([*_site('a', 20), *_site('b', 20)], held_out='b', validation=.2, test_share=.3, seed=1))"
    )
    root = Path(__file__).parent
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": s},
            capture_output=True,
            check=True,
        ).stdout
        for s in "12"
    }
    assert len(said) == 1


def test_what_cannot_be_split_is_an_error_that_names_the_sites():
    records = [*_site("north", 6), *_site("south", 6)]
    with pytest.raises(
        DataError, match=r"'nroth' has no images \(did you mean 'north'\?\); sites: north, south"
    ):
        fold(records, held_out="nroth", validation=0.2, test_share=0.3, seed=0)
    with pytest.raises(DataError, match="no patient is left to train"):
        fold(records[:12], held_out="north", validation=0.2, test_share=0.3, seed=0)
    with pytest.raises(DataError, match="no image is left to test"):
        fold([], held_out=None, validation=0.2, test_share=0.3, seed=0)


def test_one_class_and_unlabelled_sites_are_told():
    records = [
        *_site("a", 9),
        *(replace(r, malignant=1.0) for r in _site("b", 9)),
        *(replace(r, malignant=math.nan, modality="pathology") for r in _site("c", 9)),
    ]
    made = fold(records, held_out="c", validation=0.3, test_share=0.3, seed=0)
    assert made.warnings == (
        "training images of b have only label 1",
        "validation images of b have only label 1",
        "test images of c have no known label",
        "no training site has pathology images",
    )


@settings(max_examples=50)
@given(rows=_ROWS, limit=st.integers(1, 12), seed=st.integers(0, 2))
def test_thinning_keeps_whole_persons_within_the_limit(rows, limit, seed):
    records = [_record(i, **row) for i, row in enumerate(rows)]
    kept = thin(records, limit=limit, seed=seed)
    person = _persons(records)
    assert not {person[i] for i in kept} & {person[i] for i in set(range(len(records))) - set(kept)}
    assert all(sum(records[i].domain == site for i in kept) <= limit for site in SITES)
    assert thin(records, limit=0, seed=seed) == tuple(range(len(records)))
