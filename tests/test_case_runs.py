"""Run folders behind predictions: nothing changed by hand, nothing unlearnt said, verdicts everywhere."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from case_run import lines
from mammopath.case.folder import BATCH, predict_cases
from mammopath.case.glance import glance
from mammopath.case.links import REFERENCE
from mammopath.case.pictures import FOOT, album, link_picture
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case
from mammopath.cohort import manifest
from mammopath.cohort.loader import collate, label_table
from mammopath.confidence import Reference
from mammopath.errors import ConfigError, DataError, WeightsError
from mammopath.files import sha256
from mammopath.maps.methods import METHODS
from mammopath.metrics.ood import fit_familiar
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.recipe import LinkRecipe
from mammopath.prepare.sample import load_sample
from mammopath.runs import load_run, save_facts, save_model
from mammopath.settings import ModelSettings, RunSettings

# ---------------------------------------------------------------- run folders


@pytest.fixture
def copy(phantom_run: tuple[Path, manifest.Manifest], tmp_path: Path) -> Path:
    shutil.copytree(phantom_run[0] / "run", tmp_path / "run")
    return tmp_path / "run"


def told(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_hashes_cannot_be_left_out(copy: Path) -> None:
    facts = told(copy)
    bare = {k: v for k, v in facts.items() if k != "files_sha256"}
    (copy / "run.json").write_text(json.dumps(bare))
    with pytest.raises(WeightsError, match="tells no hashes"):
        Predictor.load(copy)
    facts["files_sha256"].pop("confidence.json")
    (copy / "run.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match=r"confidence.json is not the file"):
        Predictor.load(copy)


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_a_file_of_the_wrong_kind_is_told_of(name: str, copy: Path) -> None:
    (copy / name).write_text("[]")
    with pytest.raises(WeightsError, match=f"{name} holds list, not an object"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    ("key", "value"), [("recipe", 5), ("sites", []), ("recipe", {"tasks": {"lesion": -1}})]
)
def test_facts_of_the_wrong_kind_are_told_of(key: str, value: object, copy: Path) -> None:
    (copy / "run.json").write_text(json.dumps(told(copy) | {key: value}))
    with pytest.raises((WeightsError, ConfigError), match=key):
        Predictor.load(copy)


def test_another_trunk_under_the_same_path_is_refused(tmp_path: Path) -> None:
    path, folder = tmp_path / "trunk.safetensors", tmp_path / "run"
    for seed in (0, 1):
        torch.manual_seed(seed)
        trunk = build_network(ModelSettings(encoder="vit_tiny_demo")).trunk.state_dict()
        safetensors.torch.save_file(trunk, path if not seed else tmp_path / "other.safetensors")
    settings = RunSettings(model=ModelSettings(encoder="vit_tiny_demo", weights=path))
    net = build_network(settings.model)
    folder.mkdir()
    save_model(folder, net.trained_state(), settings.model_copy(update={"model": net.settings}))
    save_facts(folder, {})
    assert load_run(folder).facts["trunk_sha256"] == sha256(path)
    facts = told(folder)
    (folder / "run.json").write_text(json.dumps(facts | {"trunk_sha256": None}))
    with pytest.raises(WeightsError, match="which trunk"):
        Predictor.load(folder)
    (folder / "run.json").write_text(json.dumps(facts))
    shutil.copy(tmp_path / "other.safetensors", path)
    with pytest.raises(WeightsError, match="is not the trunk"):
        load_run(folder)


def test_an_adapted_run_names_its_source(copy: Path) -> None:
    (copy / "run.json").write_text(json.dumps(told(copy) | {"source": "run-of-site-a"}))
    with pytest.raises(DataError, match="predict with its source, run-of-site-a"):
        Predictor.load(copy)


def test_a_fusion_that_never_ran_says_nothing(eager: Predictor, cases: list[Case]) -> None:
    facts = dict(eager.run.facts) | {"counters": {"fusion": 0}}
    untrained = replace(eager, run=replace(eager.run, facts=facts))
    said = untrained(cases[0])
    assert not [s for s in said.scores if s.unit == "both"]
    assert said.links.kind == "none"
    lone = Case("lone", tuple(r for r in cases[0].records if r.modality == "mammogram"))
    found = untrained(lone).links
    assert (found.kind, found.by) == (REFERENCE, "token similarity")
    weights = [p.weight for p in found.to_tissue[0].patches]
    assert weights[0] == pytest.approx(1.0)
    assert weights == sorted(weights, reverse=True)


def test_verdicts_stand_in_every_output(eager: Predictor, cases: list[Case], tmp_path: Path) -> None:
    failed = "failed: constant in 100 % of images"
    names = [f"{m}.{n}" for m in ("mammogram", "pathology") for n in METHODS]
    bad = replace(eager, verdicts=dict.fromkeys([*names, "link.relevance", "link.attention"], failed))
    predict_cases(bad, cases[:1], tmp_path / "out")
    out = tmp_path / "out"
    written = [f for f in out.rglob("*") if f.suffix in (".json", ".jsonl", ".html") and f.name != BATCH]
    assert len(written) > 4
    for file in written:
        assert failed in file.read_text(), file
    for file in (f for f in out.rglob("*.json")):
        assert "For research use only" in file.read_text(), file
    [line] = lines(out).values()
    assert {f["verdict"] for i in line["images"] for f in i["findings"]} == {failed}


def test_the_trunk_is_asked_once_for_each_image(
    predictor: Predictor, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = predictor.run.network
    passes: list[str] = []
    for name in ("lower", "describe"):
        real = getattr(Network, name)

        def counted(self, samples, *args, real=real, name=name, **more):
            passes.append(name)
            return real(self, samples, *args, **more)

        monkeypatch.setattr(Network, name, counted)
    records = [r for r in cases[0].records if r.modality == "mammogram"]
    samples = [load_sample(r, predictor.run.settings.prepare, multiple=8).sample for r in records]
    known = predictor.confidence["mammogram"]
    shape = network.describe(samples, "mammogram")[0].statistics.shape[1]
    features = np.random.default_rng(0).normal(size=(12, shape))
    familiar = fit_familiar(features, np.array(["a", "b"] * 6))
    reference = Reference("trunk", familiar, np.ones(9), np.ones(9))
    passes.clear()
    seen = glance(predictor.run, replace(known, reference=reference), records, samples)
    assert passes == ["describe"]
    assert len(seen.familiar) == len(records)
    assert None not in seen.familiar
    plain = collate(label_table(records, {}), range(len(records)), samples, cell=network.cell("mammogram"))
    expected = network.with_tokens(plain)
    torch.testing.assert_close(seen.batch.tokens, expected.tokens, atol=2e-3, rtol=1e-3)
    assert seen.batch.grid.tolist() == expected.grid.tolist()


def test_links_are_made_of_what_passed_the_audit_or_was_taught(predictor: Predictor) -> None:
    taught = predictor.recipe.model_copy(update={"link": LinkRecipe(weight=1.0)})
    for recipe, first, other in (
        (predictor.recipe, "relevance", "attention"),
        (taught, "attention", "relevance"),
    ):
        for verdicts, by in (
            ({}, first),
            ({"link.relevance": "failed: no gain", "link.attention": "failed: no gain"}, first),
            ({f"link.{other}": "passed"}, other),
            ({"link.relevance": "passed", "link.attention": "passed"}, first),
        ):
            assert replace(predictor, recipe=recipe, verdicts=verdicts).links_by() == by


def test_links_are_drawn_in_both_directions(eager: Predictor, cases: list[Case]) -> None:
    said = eager(cases[0])
    kept = album(said)
    heights = [
        link_picture(replace(said, links=replace(said.links, **{gone: ()})), kept).height
        for gone in ("to_tissue", "to_mammogram")
    ]
    whole = link_picture(said, kept)
    assert whole.height == sum(heights) - FOOT
    assert link_picture(replace(said, links=replace(said.links, to_tissue=(), to_mammogram=())), kept) is None


def test_examples_of_a_run_say_that_no_audit_has_looked(phantom_run: tuple[Path, manifest.Manifest]) -> None:
    listed = json.loads((phantom_run[0] / "run" / "examples.json").read_text())
    assert listed
    for one in listed:
        assert (one["method"], one["verdict"]) == ("attention", "not tested")
        assert "not tested" in one["caption"]
        drawn = [np.asarray(Image.open(phantom_run[0] / "run" / one[k])) for k in ("image", "overlay")]
        assert drawn[0].shape == drawn[1].shape
        assert (drawn[0] != drawn[1]).any()
