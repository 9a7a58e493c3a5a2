"""Adaptation as a step of a study and as a command: rows in the table, folders, the source untouched."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from mammopath.adapting import KNOWLEDGE, _patient_means, adapt_to_held_out
from mammopath.bench import prepare_bench
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.errors import AdaptationError, ConfigError
from mammopath.files import read_lines, sha256
from mammopath.lodo import lodo
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.runs import load_run
from mammopath.settings import AdaptSettings, GuardSettings, LodoSettings
from mammopath.sources import phantom
from mammopath.types import Record

SMALL = {
    "prepare": {"mammogram": {"height": 64, "width": 32}, "pathology": {"height": 32, "width": 32}},
    "model": {"train_trunk": "all", "readout": {"mammogram": [2], "pathology": [2]}, "cut": {}},
    "train": {"steps": 2, "batch": 2, "validate_every": 2},
    "bootstrap": 100,
    "workers": 1,
    "held_out": ["site_a"],
    "in_domain": False,
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    generate(root, PhantomSettings(patients=8, fields=1))
    return root


def study(root: Path, **changes: object) -> LodoSettings:
    source = {"source": "phantom", "root": str(root)}
    return parse(LodoSettings, SMALL | {"data": {"sources": [source]}} | changes)


@pytest.fixture(scope="module")
def done(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    lodo(study(cohort), out)
    lodo(study(cohort, adaptation=["none", "style", "t3a", "tact"]), out)
    return out


def test_a_study_grows_by_a_row_for_each_adaptation(done: Path) -> None:
    lines = [json.loads(line) for line in read_lines(done / "results.jsonl")]
    found = {(line["adaptation"], line["modality"]) for line in lines}
    adapted = {(a, m) for a in ("none", "style", "t3a", "tact") for m in ("mammogram", "pathology")}
    assert found == adapted | {("none", "both")}, "patients with both are judged as trained"
    for line in lines:
        assert ("adapted" in line) == (line["adaptation"] != "none")
        if "adapted" in line:
            assert line["adapted"][line["modality"]]["decision"] in ("adapted", "source")


def test_the_threshold_stays_the_sources(done: Path) -> None:
    lines = [json.loads(line) for line in read_lines(done / "results.jsonl")]
    for modality in ("mammogram", "pathology"):
        assert len({line["threshold"] for line in lines if line["modality"] == modality}) == 1


def test_an_adapted_run_says_what_moved_by_how_much_on_which_images(done: Path) -> None:
    folder = done / "runs" / "site_a__erm__0__style"
    reports = json.loads((folder / "adaptation.json").read_text())
    assert {r["modality"] for r in reports} == {"mammogram", "pathology"}
    for report in reports:
        assert len(report["hashes"]) == report["cases"] == len(report["rows"])
        assert all(m["distance"] > 0 for m in report["moved"])
    facts = json.loads((folder / "run.json").read_text())
    assert facts["source_sha256"] == sha256(done / "runs" / "site_a__erm__0" / "model.safetensors")


def test_a_refused_adaptation_leaves_the_source_bit_for_bit(done: Path) -> None:
    source = load_run(done / "runs" / "site_a__erm__0").network.trained_state()
    for folder in (done / "runs").glob("site_a__erm__0__*"):
        decisions = [r["decision"] for r in json.loads((folder / "adaptation.json").read_text())]
        state = load_run(folder).network.trained_state()
        same = all(torch.equal(state[name], source[name]) for name in source)
        assert same == (set(decisions) == {"source"})


def test_an_adapted_run_scores_what_it_says(done: Path) -> None:
    plain = pl.read_parquet(done / "runs" / "site_a__erm__0" / "predictions.parquet")
    adapted = pl.read_parquet(done / "runs" / "site_a__erm__0__tact" / "predictions.parquet")
    assert sorted(adapted["image_id"]) == sorted(plain["image_id"])
    assert adapted.filter(part="val").equals(plain.filter(part="val"))


@pytest.mark.parametrize("method", ["t3a", "tact"])
def test_the_command_adapts_to_a_manifest(method: str, done: Path, cohort: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.parquet"
    manifest.write(manifest.collect(phantom.index(cohort), source="phantom", root=cohort), path)
    out = tmp_path / "adapted"
    source = done / "runs" / "site_a__erm__0"
    before = sha256(source / "model.safetensors")
    command = ["adapt", str(source), str(path), "--method", method, "--out", str(out), "--probe", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert sha256(source / "model.safetensors") == before
    assert pl.read_parquet(out / "predictions.parquet").height == 8 * 3 * 3
    assert load_run(out).facts["source"] == source.name


def test_an_adapted_run_carries_what_predictions_need(done: Path) -> None:
    source, folder = (done / "runs" / name for name in ("site_a__erm__0", "site_a__erm__0__style"))
    there = [name for name in KNOWLEDGE if (source / name).exists()]
    assert "confidence.json" in there
    for name in there:
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    facts, before = (load_run(f).facts for f in (folder, source))
    assert facts["prevalence"] == before["prevalence"]
    assert facts["recipe"] == before["recipe"]
    assert "source" in facts["confidence_of"]


def test_an_adapted_run_names_its_images_and_those_it_learned_from(done: Path) -> None:
    reports = json.loads((done / "runs" / "site_a__erm__0__tact" / "adaptation.json").read_text())
    table = pl.read_parquet(done / "runs" / "site_a__erm__0__tact" / "predictions.parquet")
    tested = table.filter(part="test")["image_id"].to_list()
    assert sorted(one["image_id"] for r in reports for one in r["images"]) == sorted(tested)
    assert all(len(one["sha256"]) == 64 and one["learned"] for r in reports for one in r["images"])


def test_patients_move_with_their_images_where_a_stream_is_answered_case_by_case(
    done: Path, tmp_path: Path
) -> None:
    source = load_run(done / "runs" / "site_a__erm__0")
    bench = prepare_bench(source.settings, cache=tmp_path / "cache")
    settings = AdaptSettings(mode="online", batch=2, guard=GuardSettings(enabled=False))
    adapt_to_held_out(bench, source, method="t3a", settings=settings, folder=tmp_path / "out")
    before, after = (
        pl.read_parquet(f / "predictions.parquet").filter(part="test").sort("image_id")
        for f in (source.folder, tmp_path / "out")
    )
    reports = json.loads((tmp_path / "out" / "adaptation.json").read_text())
    assert all(r["adapted_cases"] for r in reports)
    assert not before["patient_logit"].equals(after["patient_logit"])
    groups = after.group_by("patient", "modality").agg(pl.col("patient_logit").n_unique())
    assert groups["patient_logit"].max() == 1


def test_an_error_names_the_files_that_are_to_blame(done: Path, tmp_path: Path) -> None:
    source = load_run(done / "runs" / "site_a__erm__0")
    bench = prepare_bench(source.settings, cache=tmp_path / "cache")
    row = next(i for i, r in enumerate(bench.records) if r.domain == "site_a")
    bench.samples[row].image.fill_(float("nan"))
    with pytest.raises(AdaptationError, match=str(bench.records[row].path)):
        adapt_to_held_out(bench, source, method="tent", settings=AdaptSettings(), folder=tmp_path / "out")


def test_what_an_image_moves_its_patient_moves_on_average() -> None:
    records = [Record(name, Path(name), name[0], "a", "mammogram") for name in ("p1", "q1", "p2")]
    moved = _patient_means(records, np.array([0, 1, 2]), np.array([1.0, 5.0, 2.0]))
    assert moved.tolist() == [1.5, 5.0, 1.5]


def test_an_unknown_adaptation_is_told_before_anything_runs(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaptationError, match="tent"):
        lodo(study(cohort, adaptation=["tant"]), tmp_path / "x")
    assert not (tmp_path / "x" / "runs").exists()


def test_a_failed_adaptation_leaves_no_folder(done: Path, cohort: Path, tmp_path: Path) -> None:
    source = load_run(done / "runs" / "site_a__erm__0")
    bench = prepare_bench(source.settings, cache=tmp_path)
    settings = AdaptSettings(views=0)
    with pytest.raises(AdaptationError):
        adapt_to_held_out(bench, source, method="tact", settings=settings, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_setting_of_the_adaptation_needs_another_study(done: Path, cohort: Path) -> None:
    with pytest.raises(ConfigError, match="adapt"):
        lodo(study(cohort, adapt={"batch": 4}), done)
