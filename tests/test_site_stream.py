"""Cases of a site as a stream: order, and views that are made for the cases that need them."""

import dataclasses
import multiprocessing
from pathlib import Path

import pytest
import torch

from mammopath import features
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.bench import Bench, fill_workers, prepare_bench
from mammopath.config import parse
from mammopath.errors import AdaptationError
from mammopath.features import HIDDEN, token_keys
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.settings import AdaptSettings, GuardSettings, RunSettings
from mammopath.site_stream import SiteStream, in_order, site_stream
from mammopath.types import Finding, Spacing
from slide_trees import pcam_tree


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    root = pcam_tree(tmp_path_factory.mktemp("site") / "pcam")
    return parse(
        RunSettings,
        {
            "data": {"sources": [{"source": "pcam", "root": str(root), "partial": True}]},
            "prepare": {"pathology": {"height": 28, "width": 28}, "draws": 1},
            "model": {"readout": {"mammogram": [1], "pathology": [1]}},
            "workers": 1,
        },
    )


@pytest.fixture
def bench(told: RunSettings, tmp_path) -> Bench:
    torch.manual_seed(0)
    return prepare_bench(told, cache=tmp_path / "cache")


def network_of(told: RunSettings) -> Network:
    torch.manual_seed(0)  # without a weights file the trunk is drawn at random
    return build_network(told.model).eval()


def stored(bench: Bench) -> int:
    return len(list(bench.store.folder.rglob("*.safetensors")))


def stream(bench: Bench, told: RunSettings, method: str, **changes) -> SiteStream:
    settings = AdaptSettings(batch=2, **changes)
    rows = range(len(bench.records))
    return site_stream(
        bench, network_of(told), rows, told=told, settings=settings, method=ADAPTATIONS[method]
    )


def test_a_bench_holds_plain_and_augmented_views_only(bench, told):
    assert stored(bench) == len(bench.records) * (told.prepare.draws + 1)
    assert {tuple(names) for names in bench.keys} == {(0, 1)}


def test_style_views_are_made_for_the_cases_that_calibrate(bench, told):
    before = stored(bench)
    found = stream(bench, told, "tact", cases=3, views=2)
    assert stored(bench) == before + 4 * 2  # whole batches that hold three cases
    assert [len(views.styled) for views in found][:3] == [2, 2, 0]
    assert not torch.equal(found[0].plain.tokens, found[0].styled[0].tokens)
    stream(bench, told, "tact", cases=3, views=2)
    assert stored(bench) == before + 4 * 2  # and only once


def test_along_a_stream_every_case_has_them(bench, told):
    found = stream(bench, told, "tent", mode="online", cases=3, views=1)
    assert all(len(views.styled) == 1 for views in found)


def test_views_that_nothing_asks_for_are_not_made(bench, told):
    before = stored(bench)
    stream(bench, told, "none")
    stream(bench, told, "tent", guard=GuardSettings(enabled=False))
    assert stored(bench) == before


def test_deyo_comes_with_images_whose_middle_is_hidden(bench, told):
    found = stream(bench, told, "deyo", views=1)
    assert all(views.hidden is not None and len(views.styled) == 1 for views in found)
    assert not torch.equal(found[0].plain.tokens, found[0].hidden.tokens)


def test_further_views_do_not_rename_those_that_are_kept(bench, told):
    every = token_keys(bench.records, network_of(told), told, views=[-1, 0, 1, HIDDEN])
    for kept, names in zip(bench.keys, every, strict=True):
        assert {0: names[0], 1: names[1]} == kept
        assert len(set(names.values())) == 4


def test_a_new_version_of_styles_renames_style_views_only(bench, told, monkeypatch):
    network, numbers = network_of(told), [-1, 0, 1]
    before = token_keys(bench.records, network, told, views=numbers)
    monkeypatch.setattr(features, "STYLES", "|styles 3")
    after = token_keys(bench.records, network, told, views=numbers)
    for old, new in zip(before, after, strict=True):
        assert (old[0], old[1]) == (new[0], new[1])
        assert old[-1] != new[-1]


def test_the_order_is_of_names_and_mixes_what_lies_in_folders_by_class(bench):
    rows = list(range(len(bench.records)))
    ordered = in_order(bench.records, rows)
    assert sorted(ordered) == rows
    assert ordered != rows
    assert in_order(bench.records, rows[::-1]) == ordered
    labels = [bench.records[row].malignant for row in sorted(rows, key=lambda r: bench.records[r].malignant)]
    assert [bench.records[row].malignant for row in ordered] != labels


def test_too_few_views_for_the_directions_are_refused_before_any_is_made(bench, told):
    before = stored(bench)
    with pytest.raises(AdaptationError, match="raise views or lower directions"):
        stream(bench, told, "tact", views=1, directions=2)
    assert stored(bench) == before


def test_slides_come_without_views_and_methods_that_need_them_say_so(bench, told):
    slides = dataclasses.replace(bench, bags={0: Path("slide.safetensors")})
    for method in ("tact", "deyo"):
        with pytest.raises(AdaptationError, match="bag of stored patches"):
            stream(slides, told, method, views=2)


def test_a_worker_fills_alone(told, monkeypatch):
    several = told.model_copy(update={"workers": 3, "device": "cpu"})
    assert fill_workers(several) == 3
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert fill_workers(several) == 1


def test_what_a_record_says_of_its_image_names_its_views(told: RunSettings, bench: Bench) -> None:
    """A corrected spacing, side or outline must not meet activations of before."""
    record, network = bench.records[0], network_of(told)
    changes = (
        {"spacing": Spacing.square(123.0)},
        {"laterality": "L" if record.laterality == "R" else "R"},
        {"view": "ML"},
        {"findings": (Finding("box", ((0.0, 0.0), (9.0, 9.0))),)},
    )
    told_apart = [dataclasses.replace(record, **change) for change in changes]
    names = {keys[0] for keys in token_keys([record, *told_apart], network, told)}
    assert len(names) == 1 + len(changes)
