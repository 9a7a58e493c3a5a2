"""The whole path on a small phantom: folds, resume after kill -9, cache equivalence, bad files."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
import torch

from mammopath import scratch
from mammopath.bench import prepare_bench
from mammopath.cohort.loader import Pick, label_table, training_sites, training_steps
from mammopath.config import dump, parse
from mammopath.errors import ConfigError, DataError
from mammopath.experiment import run
from mammopath.features import SampleBank, TokenBank
from mammopath.files import read_lines
from mammopath.lodo import Cell, cells, finished, locked, lodo
from mammopath.model.weights import build_network
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.runs import load_run, writing_folder
from mammopath.settings import LodoSettings

SMALL = {
    "prepare": {
        "mammogram": {"height": 64, "width": 32},
        "pathology": {"height": 32, "width": 32},
        "draws": 1,
    },
    "model": {"train_trunk": "all", "readout": {"mammogram": [1], "pathology": [1]}},
    "train": {"steps": 3, "batch": 2, "validate_every": 2},
    "bootstrap": 100,
    "workers": 1,
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    generate(root, PhantomSettings(patients=8, fields=1))
    return root


def study(root: Path, **changes: object) -> LodoSettings:
    return parse(
        LodoSettings, SMALL | {"data": {"sources": [{"source": "phantom", "root": str(root)}]}} | changes
    )


@pytest.fixture(scope="module")
def done(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    lodo(study(phantom), out)
    return out


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in read_lines(out / "results.jsonl")]


def test_every_site_is_held_out_in_each_modality_and_in_both_and_has_an_in_domain_reference(
    done: Path,
) -> None:
    found = {(line["held_out"], line["site"], line["modality"]) for line in lines(done)}
    sites = ("site_a", "site_b", "site_c")
    modalities = ("mammogram", "pathology", "both")  # the phantom's patients have both
    assert found == {(h, s, m) for s in sites for h in (s, "") for m in modalities}


def test_no_patient_of_the_held_out_site_validates_its_run(done: Path) -> None:
    for folder in (done / "runs").glob("site_*"):
        table = pl.read_parquet(folder / "predictions.parquet")
        test, val = (set(table.filter(part=p)["patient"]) for p in ("test", "val"))
        assert test
        assert val
        assert not test & val
        assert set(table.filter(part="val")["site"]).isdisjoint(table.filter(part="test")["site"])


def test_a_run_folder_rebuilds_the_model_that_made_its_predictions(done: Path) -> None:
    folder = done / "runs" / "site_a__erm__0"
    loaded = load_run(folder)
    bench = prepare_bench(loaded.settings, cache=done / "cache")
    rows = [i for i, r in enumerate(bench.records) if r.domain == "site_a" and r.modality == "mammogram"][:4]
    labels = label_table(bench.records, {})
    batch = bench.bank(labels, loaded.settings, loaded.network).batch("mammogram", [Pick(r, 0) for r in rows])
    with torch.inference_mode():
        logit = loaded.network(batch).logit
    table = pl.read_parquet(folder / "predictions.parquet")
    kept = dict(zip(table["image_id"], table["logit"], strict=True))
    expected = torch.tensor([kept[bench.records[r].image_id] for r in rows], dtype=torch.float32)
    torch.testing.assert_close(logit, expected, rtol=1e-4, atol=1e-5)


def test_a_finished_study_is_not_run_again(done: Path, phantom: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / "runs").rglob("*") if p.is_file()}
    lodo(study(phantom), done)
    assert before == {p: p.stat().st_mtime_ns for p in (done / "runs").rglob("*") if p.is_file()}


def test_lines_are_the_same_whatever_the_folder(done: Path, phantom: Path, tmp_path: Path) -> None:
    lodo(study(phantom, held_out=["site_b"], in_domain=False), tmp_path / "again")
    mine = [line for line in lines(done) if line["held_out"] == "site_b"]
    assert lines(tmp_path / "again") == mine


def test_kill_and_resume_gives_the_same_lines(done: Path, phantom: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "killed", tmp_path / "study.json"
    config.write_text(json.dumps(dump(study(phantom))))
    program = "from mammopath.cli.app import main; main()"
    command = [sys.executable, "-c", program, "lodo", str(config), "--out", str(out)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(read_lines(out / "results.jsonl")) < 3:  # the second run has begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    part = lines(out)
    assert len(part) < len(lines(done))
    lodo(study(phantom), out)
    assert lines(out) == lines(done)
    assert not list((out / "runs").glob(".*"))


def test_a_torn_last_line_and_an_unfinished_cell_are_made_again(
    done: Path, phantom: Path, tmp_path: Path
) -> None:
    out = tmp_path / "torn"
    out.mkdir()
    whole = (done / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text(whole[0] + whole[1][:30])
    assert finished(out / "results.jsonl") == set()
    lodo(study(phantom), out)
    assert lines(out) == lines(done)


def test_a_folder_of_another_study_is_refused(done: Path, phantom: Path) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        lodo(study(phantom, seed=3), done)


def test_a_study_belongs_to_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="another process"), locked(tmp_path):
        pass


def test_a_run_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="something already"), writing_folder(tmp_path / "run"):
        pass


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with writing_folder(tmp_path / "run") as part:
            (part / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_unimodal_methods_have_no_run_where_they_say_nothing(phantom: Path) -> None:
    from mammopath.bench import read_cohort

    records = [
        r
        for r in read_cohort(study(phantom).data).records
        if r.domain != "site_a" or r.modality == "pathology"
    ]
    found = cells(study(phantom, methods=["mammogram", "erm"]), records)
    assert Cell("site_a", "mammogram", 0) not in found
    assert Cell("site_a", "erm", 0) in found
    assert Cell("site_b", "mammogram", 0) in found


def test_an_unknown_site_or_method_is_told(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="site_a"):
        lodo(study(phantom, held_out=["site_x"]), tmp_path / "a")
    with pytest.raises(ConfigError, match="erm"):
        lodo(study(phantom, methods=["ermm"]), tmp_path / "b")


def test_a_bad_file_is_listed_and_the_rest_goes_on(phantom: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(phantom, root)
    victim = next(p for p in sorted(root.rglob("*")) if p.suffix in (".tif", ".tiff", ".png"))
    victim.write_bytes(victim.read_bytes()[:200])
    bench = prepare_bench(study(root), cache=tmp_path / "cache")
    assert [victim.name in s.where for s in bench.skipped] == [True]
    assert len(bench.records) == 8 * 3 * 3 - 1
    with pytest.raises(DataError, match=victim.name):
        prepare_bench(study(root), cache=tmp_path / "cache", strict=True)


FROZEN = {"encoder": "vit_tiny_demo", "weights": "?", "readout": {"mammogram": [4], "pathology": [4]}}
FROZEN |= {"cut": {"mammogram": 2, "pathology": 2}, "token_pool": {"mammogram": 1, "pathology": 1}}


@pytest.fixture(scope="module")
def frozen(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> LodoSettings:
    """A study over a frozen trunk whose weights were drawn once."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    trunk = build_network(study(phantom).model).trunk
    save_file({k: v.contiguous() for k, v in trunk.state_dict().items()}, path)
    model = FROZEN | {"weights": str(path)}
    train = SMALL["train"] | {"trunk_precision": "fp32"}
    return study(phantom, model=model, train=train, prepare=SMALL["prepare"] | {"draws": 0})


def test_training_from_the_cache_gives_the_losses_of_training_without(
    frozen: LodoSettings, tmp_path: Path
) -> None:
    bench = prepare_bench(frozen, cache=tmp_path)
    rows = range(len(bench.records))
    labels = label_table(bench.records, training_sites(bench.records, rows))
    network = build_network(frozen.model).eval()
    cached = TokenBank(bench.store, bench.keys, labels)
    plain = SampleBank(bench.records, labels, frozen, network)
    steps = training_steps(bench.records, rows, frozen.train, draws=0, seed=0)
    for step in islice(steps, 3):
        for modality, picks in step.items():
            with torch.inference_mode():
                a, b = (network(bank.batch(modality, picks)).logit for bank in (cached, plain))
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_cached_runs_log_the_same_losses_as_uncached_ones(frozen: LodoSettings, tmp_path: Path) -> None:
    bench = prepare_bench(frozen, cache=tmp_path / "cache")
    uncached = type(bench)(bench.records, bench.skipped, bench.fingerprint, bench.sources)
    logs = []
    for name, one in (("cached", bench), ("uncached", uncached)):
        run(one, frozen, held_out="site_a", folder=tmp_path / name)
        logs.append([json.loads(line)["loss"] for line in read_lines(tmp_path / name / "log.jsonl")])
    assert logs[0] == pytest.approx(logs[1], abs=1e-5)


def test_a_half_filled_cache_is_filled_up_and_a_full_one_left_alone(
    frozen: LodoSettings, tmp_path: Path
) -> None:
    first = prepare_bench(frozen, cache=tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    for path in files[::2]:
        path.unlink()
    kept = {p: p.stat().st_mtime_ns for p in files[1::2]}
    second = prepare_bench(frozen, cache=tmp_path)
    assert sorted(tmp_path.rglob("*.safetensors")) == files
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert second.keys == first.keys


def test_permuted_labels_leave_nothing_to_find(phantom: Path, tmp_path: Path) -> None:
    """Whatever reaches the classifier by another way than the image would show here."""
    from dataclasses import replace

    import numpy as np

    from mammopath.evaluate import Resampling, Units, result_lines

    settings = study(phantom, train=SMALL["train"] | {"steps": 20, "batch": 4, "validate_every": 10})
    bench = prepare_bench(settings, cache=tmp_path / "cache")
    patients = sorted({r.patient for r in bench.records})
    drawn = dict(zip(patients, np.random.default_rng(1).permutation(len(patients)) % 2, strict=True))
    records = [replace(r, malignant=float(drawn[r.patient])) for r in bench.records]
    outcome = run(replace(bench, records=records), settings, held_out="site_a", folder=tmp_path / "run")
    for line in result_lines(outcome.table, {}, units=Units("image"), resampling=Resampling(500)):
        assert line["auc_low"] <= 0.5 <= line["auc_high"]


def test_a_study_keeps_what_its_report_needs_of_cases_and_licences(done: Path) -> None:
    cases = pl.read_parquet(done / "cases.parquet")
    groups = {"view", "density", "age", "vendor", "lesion", "laterality"}
    assert groups | {"image_id", "path", "um_x", "attributes"} <= set(cases.columns)
    assert all(Path(path).is_file() for path in cases["path"])
    card = json.loads((done / "card.json").read_text())
    assert card["encoder"]["name"] == "vit_tiny_demo"
    assert [s["name"] for s in card["sources"]] == ["phantom"]
    run = next((done / "runs").iterdir())
    assert (run / "confidence.json").exists()


def test_every_output_of_a_study_carries_its_stamp_from_the_first_run_on(done: Path) -> None:
    told = "synthetic phantom: not clinical"
    assert all(str(line["stamp"]).startswith(told) for line in lines(done))
    for folder in (done / "runs").iterdir():
        assert json.loads((folder / "run.json").read_text())["stamp"].startswith(told)
        assert pl.read_parquet_metadata(folder / "predictions.parquet")["stamp"].startswith(told)
    assert json.loads((done / "card.json").read_text())["stamp"].startswith(told)


def test_a_study_without_a_transformer_reads_each_image_once_and_stores_no_tokens(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = scratch.load_sample
    monkeypatch.setattr(
        scratch, "load_sample", lambda record, *a, **k: read.append(record.image_id) or real(record, *a, **k)
    )
    lodo(study(phantom, methods=["cnn"], held_out=["site_a", "site_c"], in_domain=False), tmp_path)
    assert len(lines(tmp_path)) >= 2
    assert len(read) == len(set(read)) == pl.read_parquet(tmp_path / "cases.parquet").height
    assert not (tmp_path / "cache").exists()


def test_a_baseline_names_the_rule_by_which_it_chose_not_that_of_the_study(
    phantom: Path, tmp_path: Path
) -> None:
    lodo(study(phantom, methods=["cnn"], select="oracle", held_out=["site_c"], in_domain=False), tmp_path)
    assert {line["select"] for line in lines(tmp_path)} == {"source_val"}
    facts = json.loads((tmp_path / "runs" / "site_c__cnn__0" / "run.json").read_text())
    assert facts["select"] == "source_val"
