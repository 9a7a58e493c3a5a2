"""The audit catches maps that are broken on purpose, and finds a link that is built to be right."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mammopath.audit.audit import EDGES, audit_run
from mammopath.audit.faithful import curves, gains
from mammopath.audit.figures import figures
from mammopath.audit.pairs import Person, link_figures
from mammopath.audit.shuffled import shuffled
from mammopath.audit.subjects import Subject, random_map, scene_of, subjects
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.errors import ConfigError
from mammopath.maps.attention import attention
from mammopath.maps.lesion import lesion
from mammopath.maps.methods import METHODS
from mammopath.maps.scene import Scene, at_cut
from mammopath.metrics.maps import Heat
from mammopath.model.network import Network
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.runs import load_run, save_facts, save_model
from mammopath.settings import RunSettings
from mammopath.sources.phantom import index
from mammopath.tensors import Batch
from mammopath.types import Record
from model_cases import batch, network, sample, stir


def speaking(**changes: object) -> Network:
    net = network(**changes)
    for part in ("heads", "fusion"):
        stir(net, part)
    return net.requires_grad_(False)


def looked_at(net: Network, count: int = 8) -> list[Subject]:
    found = []
    for i in range(count):
        one = sample(size=(32, 24), seed=i)
        where = np.zeros((8, 6), dtype=bool)
        where[i % 6 + 1, i % 4 + 1] = True
        scenes = [Scene(net, at_cut(net, batch([s]))) for s in (one, sample(size=(32, 24), seed=i))]
        record = Record(f"i{i}", Path(f"i{i}"), f"p{i}", "s", "mammogram", malignant=float(i % 2))
        edges = np.random.default_rng(i).random((8, 6))
        found.append(Subject(record, scenes[0], scenes[1], edges, where))
    return found


def constant(one: Scene) -> Heat:
    """The published fault: a softmax averaged over its own keys."""
    return np.where(np.isnan(one.on_grid(torch.zeros(48))), np.nan, 1 / 48)


def place_alone(one: Scene) -> Heat:
    """A map that knows the place and nothing else."""
    return one.on_grid(torch.arange(48.0))


def pixels(one: Scene) -> Heat:
    """A map of the tokens that go in, whatever the network does with them."""
    return one.on_grid(one.batch.tokens[0, 1:].norm(dim=-1))


@pytest.mark.parametrize(
    ("broken", "why"),
    [(constant, "constant"), (place_alone, "same for every image"), (pixels, "shuffled weights")],
)
def test_maps_broken_on_purpose_are_caught(broken, why: str) -> None:
    net = speaking()
    found = figures(looked_at(net), "broken", broken, noise=shuffled(net), draws=50)
    assert found.verdict.startswith("failed")
    assert why in found.verdict


@pytest.mark.parametrize("name", METHODS)
def test_maps_of_the_table_follow_the_weights(name: str) -> None:
    net = speaking()
    found = figures(looked_at(net), name, METHODS[name].make, noise=shuffled(net), draws=50)
    assert found.sanity.shuffled < 0.5
    assert found.sanity.constant == 0
    assert found.stability == pytest.approx(1.0)
    assert found.lesions == 4
    assert 0 <= found.pointing.low <= found.pointing.value <= found.pointing.high <= 1
    assert found.pointing_chance == pytest.approx(1 / 48)


def test_shuffling_leaves_the_source_alone_and_keeps_each_parameter_s_numbers() -> None:
    net = speaking()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    noise = shuffled(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    weight = "parts.mammogram.heads.lesion.weight"
    assert not torch.equal(noise.state_dict()[weight], before[weight])
    for name, value in noise.state_dict().items():
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)


def test_curves_begin_and_end_with_the_whole_and_with_one_token() -> None:
    net = speaking()
    one = looked_at(net, 1)[0].scene
    found = curves(one, attention(one))
    whole = float(net.upper(one.batch).logit[0])
    assert found["deletion"][0] == pytest.approx(whole, abs=1e-5)
    assert found["insertion"][-1] == pytest.approx(whole, abs=1e-5)
    first = int(np.nanargmax(attention(one)))
    alone = torch.zeros(1, 48, dtype=torch.bool)
    alone[0, first] = True
    expected = float(net.upper(replace(one.batch, valid=alone)).logit[0])
    assert found["insertion"][0] == pytest.approx(expected, abs=1e-5)


def test_a_map_that_is_what_the_score_is_made_of_beats_random() -> None:
    net = speaking(image_score="top_tokens", top_share=0.1)
    won = []
    for number, subject in enumerate(looked_at(net)):
        found = gains(subject.scene, lesion(subject.scene), random_map(subject, number))
        won.append(found["deletion"] + found["insertion"])
    assert np.mean(won) > 0


# ---------------------------------------------------------------- links


def persons(net: Network, count: int = 6, *, longer: int = 0) -> list[Person]:
    """People of whom four are malignant; every second one's tissue is ``longer`` pixels longer."""
    found = []
    for i in range(count):
        size = (16, 16 + longer * (i % 2))
        mammogram = at_cut(net, batch([sample(seed=i)], pair=[0]))
        tissue = at_cut(net, batch([sample("pathology", size, seed=50 + i)], "pathology", pair=[0]))
        shares = {"mammogram": [5, 6], "pathology": [2, 3, 7]}
        batches: dict[str, Batch] = {}
        for modality, one in (("mammogram", mammogram), ("pathology", tissue)):
            places = shares[modality]
            inside = torch.zeros(one.valid.shape)
            inside[0, places] = 1.0
            batches[modality] = replace(one, lesion=inside)
        found.append(Person(f"p{i}", i < 4, batches))
    return found


def test_a_link_that_ignores_the_query_gains_nothing_over_permuted_pairs() -> None:
    net = speaking(fusion=True)
    with torch.no_grad():
        net.fusion.query.weight.zero_()
    found = link_figures(net, persons(net), by="attention", draws=50)
    assert found.patients == 4
    assert found.gain.value == pytest.approx(0.0)
    assert found.within_chance == pytest.approx(3 / 16)
    assert found.among_chance == pytest.approx(3 / 64)


def test_a_link_towards_marked_tissue_is_found() -> None:
    net = speaking(fusion=True)
    marked = []
    for person in persons(net):
        tissue = person.batches["pathology"]
        tokens = tissue.tokens.clone()
        tokens[0, 1:][tissue.lesion[0] == 1] = 9.0
        marked.append(
            replace(person, batches=dict(person.batches) | {"pathology": tissue.with_tokens(tokens)})
        )
    seen = net.upper(marked[0].batches["pathology"]).tokens[0]
    towards = seen[2] - seen[0]
    with torch.no_grad():
        net.fusion.key.weight.zero_()
        net.fusion.key.weight[0] = towards
        net.fusion.query.weight.zero_()
        net.fusion.query.bias.zero_()
        net.fusion.query.bias[0] = 50.0
    found = link_figures(net, marked, by="attention", draws=50)
    assert found.within.value >= 3 / 5 - 1e-6, "all three lesion tokens are in the top five"


def test_a_link_without_any_preference_hits_as_often_as_chance() -> None:
    net = speaking(fusion=True)
    with torch.no_grad():
        net.fusion.query.weight.zero_()
        net.fusion.query.bias.zero_()
        net.fusion.malignancy.weight.zero_()
    for by in ("attention", "relevance"):
        found = link_figures(net, persons(net), by=by, draws=50)
        assert found.within.value == pytest.approx(found.within_chance)
        assert found.among.value == pytest.approx(found.among_chance)
        assert found.verdict.startswith("failed: no better than permuted pairs")


def test_tissue_of_several_sizes_is_mixed() -> None:
    net = speaking(fusion=True)
    found = link_figures(net, persons(net, longer=4), by="attention", draws=50)
    assert found.patients == 4
    assert 0 < found.among_chance < found.within_chance


def test_malignant_people_without_annotation_are_not_counted() -> None:
    one = persons(speaking(fusion=True), 1)[0]
    bare = {m: replace(b, lesion=torch.full_like(b.lesion, torch.nan)) for m, b in one.batches.items()}
    assert one.annotated
    assert not replace(one, batches=bare).annotated
    assert not replace(one, malignant=False).annotated


# ---------------------------------------------------------------- a run, from the command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody trained, which is enough to be audited."""
    made = tmp_path_factory.mktemp("audit")
    generate(made / "phantom", PhantomSettings(sites=("site_a",), patients=8, fields=1))
    found = manifest.collect(index(made / "phantom"), source="phantom", root=made / "phantom", domain="")
    manifest.write(found, made / "m.parquet")
    prepare = {"mammogram": {"height": 96, "width": 48}, "pathology": {"height": 48, "width": 48}}
    model = {"train_trunk": "all", "adapter": "none", "fusion": True}
    settings = parse(RunSettings, {"prepare": prepare, "model": model})
    from mammopath.model.weights import build_network

    torch.manual_seed(0)
    net = build_network(settings.model)
    stir(net, "heads")
    (made / "run").mkdir()
    save_model(made / "run", net.trained_state(), settings.model_copy(update={"model": net.settings}))
    recipe = {"tasks": {"lesion": 0.5, "fusion": 0.5, "fusion_kind": "cross"}}
    save_facts(made / "run", {"recipe": recipe, "counters": {"fusion": 1}})
    return made


def test_the_verdicts_of_an_audit_stand_beside_the_run(folder: Path) -> None:
    found = audit_run(folder / "run", folder / "m.parquet", images=4, out=folder / "audit.json")
    names = {(m.modality, m.method) for m in found.maps}
    assert names == {(m, n) for m in ("mammogram", "pathology") for n in (*METHODS, EDGES)}
    controls = [m.verdict for m in found.maps if m.method == EDGES]
    assert all("shuffled weights" in verdict for verdict in controls), "the control must be caught"
    assert [link.by for link in found.links] == ["relevance", "attention"]
    kept = json.loads((folder / "run" / "map_audit.json").read_text())
    assert kept == json.loads((folder / "audit.json").read_text())
    json.dumps(kept, allow_nan=False)
    from mammopath.case.verdicts import read_verdicts
    from mammopath.runs import load_run

    run = load_run(folder / "run")
    verdicts = read_verdicts(run)
    maps = {f"{m}.{n}" for m in ("mammogram", "pathology") for n in METHODS}
    assert set(verdicts) == maps | {"link.relevance", "link.attention"}
    assert read_verdicts(replace(run, facts={"model_sha256": "other"})) == {}


def test_images_are_chosen_with_lesions_first(folder: Path) -> None:
    from mammopath.runs import load_run

    run = load_run(folder / "run")
    records = manifest.read(folder / "m.parquet").records
    found = subjects(run.network, records, run.settings, modality="mammogram", most=4)
    assert [s.record.malignant for s in found] == [1, 1, 1, 0]
    assert all(s.lesion.any() == (s.record.severity > 0) for s in found)
    again = scene_of(run.network, found[0].record, sample(size=(96, 48)), run.settings)
    assert again.batch.tokens is not None


def test_pairs_without_annotation_leave_the_link_untested_and_keep_the_maps(
    folder: Path, tmp_path: Path
) -> None:
    listed = manifest.read(folder / "m.parquet")
    bare = tuple(
        replace(r, findings=(), attributes={k: v for k, v in r.attributes.items() if k != "annotated"})
        for r in listed.records
    )
    manifest.write(replace(listed, records=bare), tmp_path / "bare.parquet")
    shutil.copytree(folder / "run", tmp_path / "run")
    found = audit_run(tmp_path / "run", tmp_path / "bare.parquet", images=4)
    assert found.links == ()
    assert found.maps
    assert (tmp_path / "run" / "map_audit.json").exists()


def test_images_of_a_training_site_are_told_of(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    sites = {"mammogram": ["site_a", "site_b"], "pathology": ["site_a"]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"sites": sites}))
    found = audit_run(tmp_path / "run", folder / "m.parquet", images=4)
    assert found.known == ("site_a",)
    assert all("training sites (site_a)" in v for v in found.verdicts().values() if "not tested" not in v)
    kept = json.loads((tmp_path / "run" / "map_audit.json").read_text())
    assert kept["training_sites_among_the_images"] == ["site_a"]
    with pytest.raises(ConfigError, match="is a folder"):
        audit_run(tmp_path / "run", folder / "m.parquet", images=4, out=tmp_path)


def test_one_image_is_no_evidence_for_a_map(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    found = audit_run(tmp_path / "run", folder / "m.parquet", images=1)
    assert {m.verdict for m in found.maps} == {"not tested: 1 images, 4 are needed"}


def test_a_benign_finding_is_no_target(folder: Path) -> None:
    run = load_run(folder / "run")
    record = next(
        r
        for r in manifest.read(folder / "m.parquet").records
        if r.modality == "mammogram" and r.malignant == 1 and r.findings
    )
    benign = replace(record, findings=tuple(replace(f, malignant=0.0) for f in record.findings))
    [sick], [well] = (
        subjects(run.network, [r], run.settings, modality="mammogram", most=1) for r in (record, benign)
    )
    assert sick.lesion.any()
    assert not well.lesion.any()
