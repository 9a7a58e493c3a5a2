"""Whole slides and fields in one study: what each is served as, and that no data set is lost on the way."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mammopath.bench import prepare_bench
from mammopath.cohort import manifest
from mammopath.cohort.loader import Pick, label_table
from mammopath.config import parse
from mammopath.errors import ConfigError, DataError
from mammopath.files import read_lines
from mammopath.lodo import cells, lodo
from mammopath.model.weights import build_network
from mammopath.phantom.camelyon import CamelyonPlan, make_camelyon
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.settings import LodoSettings, ModelSettings
from mammopath.slides.cohort import MixedBank, slide_files, slide_settings
from mammopath.slides.store import read_features
from mammopath.sources import SOURCES
from mammopath.sources.slides import is_slide
from mammopath.types import Record
from source_trees import bach_tree

SMALL = {
    "prepare": {
        "mammogram": {"height": 64, "width": 32},
        "pathology": {"height": 32, "width": 32},
        "draws": 1,
    },
    "model": {"readout": {"mammogram": [2], "pathology": [2]}, "cut": {"mammogram": 1, "pathology": 1}},
    "train": {"steps": 3, "batch": 2, "validate_every": 2},
    "slides": {"patches": {"side": 16, "um": 4.0, "mask_um": 8.0}, "bag": 32, "look": 64},
    "bootstrap": 100,
    "workers": 1,
}

CENTRE, SITE = "camelyon17_centre_1", "site_a"


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    generate(root, PhantomSettings(patients=8, fields=1))
    return root


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("camelyon") / "phantom"
    make_camelyon(root, CamelyonPlan(centres=2, patients=5, side=1024, um=4.0))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one trunk, so that fields and slides meet the same."""
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    torch.manual_seed(0)
    save_file(build_network(ModelSettings(adapter="none")).trunk.state_dict(), path)
    return path


def study(*sources: tuple[str, Path], weights: Path | None = None, **changes: object) -> LodoSettings:
    named = [{"source": name, "root": str(root), "partial": True} for name, root in sources]
    model = SMALL["model"] | {"weights": str(weights) if weights else None}
    return parse(LodoSettings, SMALL | {"data": {"sources": named}, "model": model} | changes)


@pytest.mark.slow
def test_a_study_trains_and_tests_on_slides_and_fields(
    fields: Path, slides: Path, weights: Path, cache: Path, tmp_path: Path
) -> None:
    """One table over both: CAMELYON's slides were refused as images, and the study went on without them."""
    settings = study(
        ("phantom", fields),
        ("camelyon17", slides),
        weights=weights,
        held_out=[SITE, CENTRE],
        methods=["logreg", "cnn", "full"],
        seeds=[0, 1],
        adaptation=["tent"],
        adapt={"guard": {"min_cases": 2}},
        cache=str(cache),
    )
    lodo(settings, tmp_path / "out")
    lines = [json.loads(line) for line in read_lines(tmp_path / "out" / "results.jsonl")]
    held = {(r["method"], r["seed"]) for r in lines if r["held_out"] == r["site"] == CENTRE}
    assert held == {(method, seed) for method in ("logreg", "full") for seed in (0, 1)}
    adapted = {r["method"] for r in lines if (r["site"], r["adaptation"]) == (CENTRE, "tent")}
    assert adapted == {"full"}
    both = {r["site"] for r in lines if r["method"] == "full" and r["held_out"] == ""}
    assert {SITE, CENTRE, "camelyon17_centre_0"} <= both
    on_fields = {r["method"] for r in lines if (r["site"], r["modality"]) == (SITE, "pathology")}
    assert on_fields == {"logreg", "cnn", "full"}
    assert all(r["n"] > 0 for r in lines)
    facts = json.loads((tmp_path / "out" / "runs" / f"{SITE}__full__0" / "run.json").read_text())
    assert {"camelyon17_centre_0", CENTRE} < set(facts["sites"]["pathology"])
    examples = json.loads((tmp_path / "out" / "runs" / f"{CENTRE}__full__0" / "examples.json").read_text())
    assert examples == []


@pytest.mark.slow
def test_slides_are_bags_and_fields_are_tokens_of_one_batch(
    fields: Path, slides: Path, weights: Path, cache: Path
) -> None:
    settings = study(("phantom", fields), ("camelyon17", slides), weights=weights)
    bench = prepare_bench(settings, cache=cache)
    assert len(bench.bags) == 20
    assert all(is_slide(bench.records[row]) for row in bench.bags)
    network = build_network(settings.model)
    bank = bench.bank(label_table(bench.records, {}), settings, network)
    field = next(i for i, r in enumerate(bench.records) if r.modality == "pathology" and i not in bench.bags)
    batch = bank.batch("pathology", [Pick(field, 0), Pick(max(bench.bags), 0), Pick(max(bench.bags), 1)])
    assert batch.valid.sum(1).tolist() == [4, 64, 32]
    features = read_features(bench.bags[max(bench.bags)])
    looked = np.linspace(0, len(features) - 1, 64).astype(int)
    assert batch.tokens is not None
    assert np.allclose(batch.tokens[1, 1:65].numpy(), features.values[looked])
    assert batch.malignant.tolist() == [bench.records[i].malignant for i in batch.row.tolist()]
    with torch.inference_mode():
        assert network.eval()(batch).logit.isfinite().all()
    assert isinstance(bank, MixedBank)
    again = bench.bank(label_table(bench.records, {}), settings, network)
    assert isinstance(again, MixedBank)
    assert again.bags.memory is bank.bags.memory  # every look of a run makes a bank; files are read once
    assert sum(path == bench.bags[max(bench.bags)] for path, _ in bank.bags.memory.values) == 1
    assert bank.statistics(field).shape == bank.statistics(max(bench.bags)).shape == (1, 2 * 96)


@pytest.mark.slow
def test_a_cache_of_slides_serves_the_next_study(
    slides: Path, weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = study(("camelyon17", slides), weights=weights)
    first = prepare_bench(settings, cache=cache)
    # Nothing is made again: what cannot be sent to another process would fail there.
    monkeypatch.setattr("mammopath.slides.extract._alone", lambda: None)
    assert prepare_bench(settings, cache=cache).bags == first.bags


def test_slides_without_label_make_no_site(slides: Path, weights: Path, tmp_path: Path) -> None:
    """CAMELYON17's test part became a site of its own, `centre_unknown`, and a class, NaN."""
    record = next(r for r in SOURCES["camelyon17"].index(slides) if isinstance(r, Record))
    unknown = replace(record, malignant=math.nan, domain="camelyon17_centre_unknown")
    files, skipped = slide_files([unknown], study(weights=weights), tmp_path, workers=1)
    assert files == {}
    assert [(s.where, s.code) for s in skipped] == [(record.image_id, "unlabelled")]


def test_slides_need_a_frozen_trunk_and_a_cut(weights: Path) -> None:
    settings = study(weights=weights)
    assert slide_settings(settings).trunk.block == 1
    for change, message in (
        ({"train_trunk": "all"}, "frozen trunk"),
        ({"cut": {"pathology": 0}}, "model.cut"),
    ):
        model = settings.model.model_copy(update=change)
        with pytest.raises(ConfigError, match=message):
            slide_settings(settings.model_copy(update={"model": model}))


def test_what_cannot_read_slides_has_no_run_for_them() -> None:
    def record(site: str, number: int, **attributes: str) -> Record:
        name = f"{site}{number}"
        return Record(name, Path(name), name, site, "pathology", 1.0, attributes=attributes)

    records = [record("a", 0), record("b", 0), record("c", 0, image="slide")]
    settings = study(methods=["cnn", "erm"], in_domain=False)
    assert {(c.held_out, c.method) for c in cells(settings, records)} == {
        ("a", "cnn"), ("b", "cnn"), ("a", "erm"), ("b", "erm"), ("c", "erm"),
    }  # fmt: skip
    assert not [c for c in cells(settings, records[1:]) if c.method == "cnn"]  # no other field to train on
    settings = study(methods=["erm"], in_domain=False, adaptation=["tent", "tact", "deyo"])
    adapted = {(c.held_out, c.adaptation) for c in cells(settings, records) if c.adaptation != "none"}
    assert {name for site, name in adapted if site == "a"} == {"tent", "tact", "deyo"}
    assert {name for site, name in adapted if site == "c"} == {
        "tent"
    }  # slides have no views in another style


def test_a_source_without_a_usable_image_stops_a_study(fields: Path, tmp_path: Path) -> None:
    """It went on with the other data sets, and its table looked like one of all of them."""
    root = bach_tree(tmp_path / "bach")
    listed = manifest.collect(SOURCES["bach"].index(root), source="bach", root=root)
    manifest.write(listed, tmp_path / "bach.parquet")
    for path in root.rglob("*.png"):
        path.unlink()
    settings = study(("phantom", fields))
    data = settings.data.model_copy(update={"manifests": (tmp_path / "bach.parquet",)})
    with pytest.raises(DataError, match="no image of bach can be used; the first: bach/"):
        prepare_bench(settings.model_copy(update={"data": data}), cache=tmp_path / "cache")
