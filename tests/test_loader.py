"""Batches: balance over sites and classes, true pairs, padding, labels."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mammopath.cohort.loader import Pick, collate, label_table, training_sites, training_steps
from mammopath.cohort.store import Stored
from mammopath.settings import TrainSettings
from mammopath.tensors import Sample
from mammopath.types import Record


def record(
    i: int, *, site: str = "a", modality: str = "mammogram", label: float = 0.0, pair: str = ""
) -> Record:
    name = f"{modality}/{site}/{i}"
    return Record(name, Path(name), f"{site}{i}", site, modality, malignant=label, pair_key=pair)


def cohort(sizes: dict[tuple[str, str], tuple[int, int]]) -> list[Record]:
    """Records with (negatives, positives) per (site, modality)."""
    return [
        record(i, site=site, modality=modality, label=float(i >= negatives))
        for (site, modality), (negatives, positives) in sizes.items()
        for i in range(negatives + positives)
    ]


def stored(tokens: int) -> Stored:
    """A view of so many patch tokens."""
    valid = torch.ones(tokens, dtype=torch.bool)
    return Stored(
        torch.ones(tokens + 1, 2).half(),
        valid,
        torch.zeros(tokens).half(),
        torch.zeros(0, 6),
        torch.tensor([1, tokens]),
    )


SIZES = {("a", "mammogram"): (30, 3), ("b", "mammogram"): (5, 5), ("c", "pathology"): (4, 20)}


def test_every_site_gives_as_many_images_to_each_step() -> None:
    records = cohort(SIZES)
    step = next(training_steps(records, range(len(records)), TrainSettings(batch=6), draws=0, seed=0))
    counts = Counter((records[p.row].domain, m) for m, picks in step.items() for p in picks)
    assert counts == dict.fromkeys(SIZES, 6)


def test_classes_are_drawn_equally_often_and_images_within_a_class_too() -> None:
    records = cohort(SIZES)
    steps = training_steps(records, range(len(records)), TrainSettings(batch=6), draws=0, seed=0)
    rows = Counter(p.row for step in islice(steps, 60) for picks in step.values() for p in picks)
    for site in "abc":
        mine = {r: n for r, n in rows.items() if records[r].domain == site}
        by_label = [[n for r, n in mine.items() if records[r].malignant == label] for label in (0.0, 1.0)]
        assert sum(by_label[0]) == sum(by_label[1]) == 180
        assert all(max(counts) - min(counts) <= 1 for counts in by_label)


def test_without_balance_classes_come_as_they_are() -> None:
    records = cohort({("a", "mammogram"): (30, 10)})
    steps = training_steps(records, range(40), TrainSettings(batch=4, balance="none"), draws=0, seed=0)
    picks = [p.row for step in islice(steps, 10) for p in step["mammogram"]]
    assert sorted(picks) == list(range(40))


def test_a_seed_gives_the_same_steps_and_another_gives_others() -> None:
    records = cohort(SIZES)
    a, b, c = (
        list(islice(training_steps(records, range(len(records)), TrainSettings(batch=4), draws=2, seed=s), 5))
        for s in (1, 1, 2)
    )
    assert a == b != c


@given(draws=st.integers(0, 4))
@settings(max_examples=10)
def test_views_are_drawn_from_the_plain_one_and_the_augmented(draws: int) -> None:
    records = cohort({("a", "mammogram"): (8, 8)})
    steps = training_steps(records, range(16), TrainSettings(batch=16), draws=draws, seed=0)
    seen = {p.draw for step in islice(steps, 20) for p in step["mammogram"]}
    assert seen == set(range(draws + 1))


def test_true_pairs_meet_in_a_step() -> None:
    records = [
        record(i, modality=modality, label=float(i % 2), pair=f"pair{i}")
        for modality in ("mammogram", "pathology")
        for i in range(20)
    ]
    step = next(training_steps(records, range(40), TrainSettings(batch=8), draws=0, seed=0))
    pairs = [[records[p.row].pair_key for p in step[m]] for m in ("mammogram", "pathology")]
    assert pairs[0] == pairs[1]


def test_training_sites_are_those_of_the_training_rows() -> None:
    records = cohort(SIZES)
    rows = [i for i, r in enumerate(records) if r.domain != "a"]
    assert training_sites(records, rows) == {"mammogram": ("b",), "pathology": ("c",)}


def test_labels_count_training_sites_and_mark_others() -> None:
    records = [record(0), record(1, site="b"), record(2, site="z", label=float("nan"))]
    labels = label_table(records, {"mammogram": ("a", "b")})
    assert labels.domain.tolist() == [0, 1, -1]
    assert labels.malignant.isnan().tolist() == [False, False, True]
    assert labels.pair.tolist() == [-1, -1, -1]


def test_tokens_are_padded_to_the_longest_and_marked() -> None:
    labels = label_table([record(0), record(1)], {"mammogram": ("a",)})
    items = [stored(n) for n in (2, 4)]
    batch = collate(labels, [0, 1], items, cell=1)
    assert batch.tokens is not None
    assert batch.tokens.shape == (2, 5, 2)
    assert batch.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.lesion[0, 2:].isnan().all()


def test_samples_of_different_size_meet_in_a_batch() -> None:
    labels = label_table([record(0), record(1)], {"mammogram": ("a",)})
    sizes = [(4, 4), (8, 4)]
    samples = [Sample(torch.zeros(1, *s), torch.ones(*s, dtype=torch.bool), torch.zeros(*s)) for s in sizes]
    batch = collate(labels, [0, 1], samples, cell=2)
    assert batch.valid.sum(1).tolist() == [4, 8]
    assert len(batch.samples) == 2


def test_a_pick_is_a_value() -> None:
    assert Pick(1, 0) == Pick(1, 0)
    with pytest.raises(AttributeError):
        Pick(1, 0).row = 2  # type: ignore[misc]


def two_views_each(patients: int) -> list[Record]:
    return [replace(record(i, label=float(i // 2 % 2)), patient=f"p{i // 2}") for i in range(2 * patients)]


@pytest.mark.parametrize(("views", "together"), [(1, 0.5), (2, 1.0)])
def test_views_of_a_patient_come_together(views: int, together: float) -> None:
    records = two_views_each(40)
    chosen = TrainSettings(batch=8, views=views)
    steps = islice(training_steps(records, range(80), chosen, draws=0, seed=0), 20)
    shares = [
        sum(n > 1 for n in Counter(records[p.row].patient for p in step["mammogram"]).values())
        / len({records[p.row].patient for p in step["mammogram"]})
        for step in steps
    ]
    assert (np.mean(shares) == 1.0) if together == 1.0 else (np.mean(shares) < together)


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=8), views=st.integers(1, 4))
def test_every_image_comes_once_a_round_whatever_comes_together(sizes: list[int], views: int) -> None:
    records = [
        replace(record(i), patient=f"p{person}")
        for i, person in enumerate(person for person, size in enumerate(sizes) for _ in range(size))
    ]
    chosen = TrainSettings(batch=len(records) if len(records) > 1 else 2, views=views, balance="none")
    steps = training_steps(records, range(len(records)), chosen, draws=0, seed=0)
    for step in islice(steps, 3):
        assert sorted(p.row for p in step["mammogram"]) == list(range(len(records)))
