"""Patients with both modalities: who counts as one, what their score comes from, what a study says."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mammopath.cohort.loader import Pick
from mammopath.cohort.splits import Fold
from mammopath.evaluate import Resampling
from mammopath.lodo import lodo
from mammopath.model.network import Network
from mammopath.paired import BOTH, Reading, pair_lines, pair_table, read_together, true_pairs
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.predict import Scores
from mammopath.report.markdown import END, PAIRS, put_tables
from mammopath.report.page import write_report
from mammopath.report.pairs import ALL, pair_rows
from mammopath.report.study import read_study
from mammopath.types import Modality, Record
from model_cases import batch, network, sample
from test_lodo import lines, study

FEW = Resampling(200)


def image(number: int, modality: Modality, key: str, *, site: str = "a", malignant: float = 0.0) -> Record:
    name = f"{modality}-{number}"
    return Record(
        name, Path(name), f"{site}-{key or number}", site, modality, malignant=malignant, pair_key=key
    )


RECORDS = [
    image(0, "mammogram", "p", malignant=0.0),
    image(1, "mammogram", "p", malignant=math.nan),
    image(2, "pathology", "p", malignant=1.0),
    image(3, "mammogram", "q"),
    image(4, "pathology", "q"),
    image(5, "mammogram", "alone"),
    image(6, "pathology", ""),
    image(7, "mammogram", "apart"),
    image(8, "pathology", "apart", site="b"),
]
"""``p`` and ``q`` have both modalities at their site; the others lack one, a key, or a site in common."""

TESTED = Fold("a", (), (), tuple(range(len(RECORDS))), (), ())
SAID = Scores(np.arange(9), np.zeros(9), np.array([1.0, 1, 3, -2, -4, 0, 0, 0, 0]))


def test_a_true_pair_has_both_modalities_at_one_site() -> None:
    found = true_pairs(RECORDS, range(len(RECORDS)))
    assert [(p.site, p.key) for p in found] == [("a", "p"), ("a", "q")]
    assert found[0].rows == {"mammogram": (0, 1), "pathology": (2,)}
    assert true_pairs(RECORDS, [0, 1, 4]) == [], "an image in another part of the fold makes no pair"


def test_late_fusion_is_the_mean_of_the_two_patient_logits_and_the_truth_the_worst_image() -> None:
    table = pair_table(RECORDS, TESTED, SAID)
    assert table["logit"].to_list() == [2.0, -3.0]
    assert table["malignant"].to_list() == [1.0, 0.0]
    assert table["reads"].to_list() == ["mean", "mean"]
    assert table["logit_mammogram"].to_list() == [1.0, -2.0]
    assert table["logit_fused"].is_nan().all()


def test_a_method_of_one_modality_is_judged_on_the_same_patients_by_that_alone() -> None:
    alone = Scores(np.array([2, 4]), np.zeros(2), np.array([3.0, -4.0]))
    table = pair_table(RECORDS, TESTED, alone)
    assert table["pair"].to_list() == ["p", "q"]
    assert table["logit"].to_list() == [3.0, -4.0]
    assert table["reads"].to_list() == ["pathology", "pathology"]
    assert table["logit_mean"].is_nan().all()


def test_what_the_network_reads_from_both_comes_first() -> None:
    table = pair_table(RECORDS, TESTED, SAID, {("a", "p"): Reading(7.0, 2.0), ("a", "q"): Reading(8.0)})
    assert table["logit"].to_list() == [7.0, 8.0]
    assert table["severity_level"].fill_nan(None).to_list() == [2.0, None]
    assert table["logit_mean"].to_list() == [2.0, -3.0]


def test_lines_have_the_auc_of_every_reading_and_no_pair_gives_no_line() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2
    records = [
        image(2 * k + i, modality, f"{k}", malignant=float(truth[k]))
        for k in range(60)
        for i, modality in enumerate(("mammogram", "pathology"))
    ]
    said = rng.normal(size=120) + np.repeat(truth, 2)
    fold = Fold("a", (), (), tuple(range(120)), (), ())
    table = pair_table(records, fold, Scores(np.arange(120), said, said))
    (line,) = pair_lines(table, {"method": "erm"}, resampling=FEW)
    assert (line["modality"], line["unit"], line["n"], line["reads"]) == (BOTH, "pair", 60, "mean")
    left, right = said[::2], said[1::2]
    for name, logits in {"mean": (left + right) / 2, "mammogram": left, "pathology": right}.items():
        assert line[f"auc_{name}"] == pytest.approx(roc_auc_score(truth, logits), abs=1e-6)
        assert line[f"auc_{name}_low"] < line[f"auc_{name}"] < line[f"auc_{name}_high"]
    assert line["auc"] == line["auc_mean"]
    assert "auc_fused" not in line
    assert (
        pair_lines(
            pair_table(records[::2], fold_of(60), Scores(np.arange(60), left, left)), {}, resampling=FEW
        )
        == []
    )


def fold_of(count: int) -> Fold:
    return Fold("a", (), (), tuple(range(count)), (), ())


class Shown:
    """A bank of random images; patients are told apart by their pairing key."""

    def __init__(self, made: Network, records: list[Record]) -> None:
        keys = {key: k for k, key in enumerate(sorted({r.pair_key for r in records}))}
        self.pair = [keys[r.pair_key] for r in records]
        self.cell = made.cell

    def batch(self, modality: Modality, picks: list[Pick]):
        rows = [p.row for p in picks]
        made = batch([sample(modality, seed=row) for row in rows], modality, cell=self.cell(modality))
        pair = torch.tensor([self.pair[row] for row in rows])
        return replace(made, patient=pair, pair=pair)


def test_reading_together_is_the_fusion_of_each_patient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammopath.paired.SIZE", 3)
    records = [
        image(10 * k + i, modality, key)
        for k, key in enumerate("zxyw")
        for i, modality in enumerate(("mammogram", "mammogram", "pathology"))
    ]
    made = network(fusion=True).eval()
    bank = Shown(made, records)
    found = read_together(made, bank, records, range(len(records)))
    assert {key for _, key in found} == set("zxyw")
    for k, key in enumerate("zxyw"):
        with torch.inference_mode():
            batches = {
                "mammogram": bank.batch("mammogram", [Pick(3 * k, 0), Pick(3 * k + 1, 0)]),
                "pathology": bank.batch("pathology", [Pick(3 * k + 2, 0)]),
            }
            alone = made.fuse({m: made(b) for m, b in batches.items()}, batches)
        assert found["a", key].logit == pytest.approx(float(alone.logit), abs=1e-4)


@pytest.fixture(scope="module")
def fused_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paired")
    generate(root / "cohort", PhantomSettings(patients=8, fields=1))
    settings = study(root / "cohort", methods=["mammogram", "late_fusion", "full"], held_out=["site_b"])
    lodo(settings, root / "out")
    return root / "out"


def test_a_study_judges_patients_by_late_fusion_by_the_full_method_and_by_one_modality(
    fused_study: Path,
) -> None:
    judged = [line for line in lines(fused_study) if line["modality"] == BOTH]
    assert {line["of"] for line in lines(fused_study) if line["held_out"] and line["method"] == "full"} == {3}
    held_out = {line["method"]: line for line in judged if line["held_out"] == line["site"]}
    assert {m: line["reads"] for m, line in held_out.items()} == {
        "mammogram": "mammogram",
        "late_fusion": "mean",
        "full": "fused",
    }
    assert len({(line["n"], line["positives"]) for line in held_out.values()}) == 1, "the same patients"
    for method, line in held_out.items():
        table = pl.read_parquet(fused_study / "runs" / f"site_b__{method}__0" / "pairs.parquet")
        test = table.filter(part="test")
        assert test["patient"].n_unique() == line["n"]
        assert line["auc"] == pytest.approx(roc_auc_score(test["malignant"], test["logit"]), abs=1e-6)
        assert not set(test["patient"]) & set(table.filter(part="val")["patient"])
    assert {line["site"] for line in judged if not line["held_out"]} == {"site_a", "site_b", "site_c"}
    assert json.dumps(held_out)  # plain values


def test_the_report_has_them_in_one_table_true_to_the_predictions(fused_study: Path) -> None:
    page = write_report(fused_study).read_text()
    assert 'id="pairs"' in page
    assert 'href="#pairs"' in page
    rows = {r.label: r for r in pair_rows(read_study(fused_study))}
    assert set(rows) == {"mammogram", "late_fusion", "full"}
    assert (rows["full"].told, rows["late_fusion"].told) == ("both, fused", "mean of both")
    table = pl.read_csv(fused_study / "tables" / "pairs.csv")
    assert dict(zip(table["label"], table["reads"], strict=True))["full"] == "fused"
    assert read_study(fused_study).notes == [], "every AUC follows from what the runs keep of the pairs"
    sites = pl.read_csv(fused_study / "tables" / "sites.csv")
    assert BOTH not in sites["modality"].to_list(), "no mean over sites mixes patients into images"


def made(folder: Path) -> Path:
    """Two sites, two methods, two seeds; ``late_fusion`` knows more of the label than ``erm``."""
    truth = np.arange(80) % 2
    found = []
    for number, site in enumerate(("a", "b")):
        records = [
            image(2 * k + i, modality, f"{k}", site=site, malignant=float(truth[k]))
            for k in range(80)
            for i, modality in enumerate(("mammogram", "pathology"))
        ]
        for method, gain in (("erm", 0.5), ("late_fusion", 2.5)):
            for seed in (0, 1):
                said = np.random.default_rng([number, seed]).normal(size=160) + gain * np.repeat(truth, 2)
                table = pair_table(records, fold_of(160), Scores(np.arange(160), said, said))
                run = f"{site}__{method}__{seed}"
                (folder / "runs" / run).mkdir(parents=True)
                table.write_parquet(folder / "runs" / run / "pairs.parquet")
                facts = {"run": run, "held_out": site, "method": method, "adaptation": "none", "seed": seed}
                found += pair_lines(table, facts, resampling=FEW)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder


def test_differences_of_pairs_are_from_the_reference_and_means_from_all_sites(tmp_path: Path) -> None:
    rows = {(r.site, r.label): r for r in pair_rows(read_study(made(tmp_path)), draws=300)}
    assert set(rows) == {(s, m) for s in ("a", "b", ALL) for m in ("erm", "late_fusion")}
    for site in ("a", "b"):
        gap = rows[site, "late_fusion"].auc - rows[site, "erm"].auc
        assert rows[site, "late_fusion"].difference == pytest.approx(gap, abs=1e-5)
        assert math.isnan(rows[site, "erm"].difference)
    mean = rows[ALL, "late_fusion"]
    assert mean.auc == pytest.approx((rows["a", "late_fusion"].auc + rows["b", "late_fusion"].auc) / 2)
    assert mean.low < mean.difference < mean.high
    assert mean.low > 0
    page = tmp_path / "page.md"
    page.write_text(f"# Pairs\n\n{PAIRS}\n{END}\n")
    put_tables(tmp_path, page)
    assert page.read_text().count("| `late_fusion` | mean of both |") == 3
