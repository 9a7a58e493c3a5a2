"""Every method of the table through the real loop: what it declares runs, and all that it trains moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mammopath.bench import Bench, prepare_bench
from mammopath.cohort.splits import Fold, fold
from mammopath.config import parse
from mammopath.objectives.methods import METHODS, method_recipe
from mammopath.paired import read_together, true_pairs
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.progress import silent
from mammopath.settings import LodoSettings
from mammopath.trials import VALLEY, Fitted, Job, averaging, trials
from mammopath.types import MODALITIES

MODEL = {"readout": {"mammogram": [2], "pathology": [2]}, "adapter_width": 4, "pool_width": 8}
SMALL = {
    "prepare": {
        "mammogram": {"height": 64, "width": 32},
        "pathology": {"height": 32, "width": 32},
        "draws": 1,
    },
    "model": MODEL,
    "train": {"steps": 20, "batch": 8, "validate_every": 20, "lr": 1e-2},
    "for_prediction": False,
    "workers": 1,
}
UNLABELLED = {"ordinal"}
"""What the phantom has no labels for."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, LodoSettings]:
    root = tmp_path_factory.mktemp("ingredients") / "cohort"
    generate(root, PhantomSettings(patients=24, fields=1))
    data = {"sources": [{"source": "phantom", "root": str(root)}]}
    settings = parse(LodoSettings, SMALL | {"data": data})
    return prepare_bench(settings, cache=root.parent / "cache"), settings


def fitted(bench: tuple[Bench, LodoSettings], method: str, **model: object) -> list[Fitted]:
    cohort, settings = bench
    changed = settings.model_copy(
        update={
            "model": settings.model.model_copy(update=model),
            "train": settings.train.model_copy(update={"method": method}),
        }
    )
    part = fold(cohort.records, held_out="site_c", validation=0.3, test_share=0.3, seed=0)
    job = Job(cohort, changed, part, method_recipe(method, {}), silent)
    return trials(job, log=lambda row: None)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_declares_runs_and_what_it_trains_moves(
    bench: tuple[Bench, LodoSettings], method: str
) -> None:
    recipe = METHODS[method]
    for one in fitted(bench, method):
        ran = {name for name, count in one.counters.items() if count}
        assert set(one.counters) - ran <= UNLABELLED, one.idle
        assert set(one.idle) <= UNLABELLED, one.idle
        assert not recipe.average or one.counters[recipe.average] > 0
        heads = one.network.of(recipe.modalities[0])
        ups = [p for name, p in heads.named_parameters() if name.endswith("up.weight")]
        assert ups
        assert all(bool(p.any()) for p in ups)
        assert all(bool(torch.isfinite(p).all()) for p in one.network.parameters())


@pytest.mark.parametrize("method", ["multitask", "full", "top_tokens", "late_fusion"])
def test_in_a_cohort_of_films_alone_what_joins_the_modalities_stands_idle_and_says_so(
    bench: tuple[Bench, LodoSettings], method: str
) -> None:
    cohort, settings = bench
    films = [i for i, r in enumerate(cohort.records) if r.modality == "mammogram"]
    alone = replace(cohort, records=[cohort.records[i] for i in films], keys=[cohort.keys[i] for i in films])
    for one in fitted((alone, settings), method, readout={"mammogram": (2,)}):
        assert one.network.fusion is None
        declared = set(one.counters) & {"fusion", "align"}
        assert declared == set(one.idle) & {"fusion", "align"}
        assert all(one.counters[name] == 0 for name in declared)
        assert method == "top_tokens" or declared


def test_the_attention_over_a_patients_images_is_trained(bench: tuple[Bench, LodoSettings]) -> None:
    """With one image in every bag its gate would stay as it was drawn, since a softmax over one is 1."""
    (one,) = fitted(bench, "erm")
    gate = one.network.of("mammogram").heads.images
    assert gate.score.weight.abs().sum() > 0  # starts at zero


def test_tuning_tries_every_trial_and_says_what_it_changed(bench: tuple[Bench, LodoSettings]) -> None:
    found = fitted(bench, "erm_plus")
    assert [f.train.lr for f in found] == pytest.approx([3e-3, 1e-2, 3e-2, 1e-2])
    assert [f.train.steps for f in found] == [20, 20, 20, 60]
    assert len({f.best.score for f in found}) > 1


def test_a_run_from_the_probe_is_never_selected_below_it(bench: tuple[Bench, LodoSettings]) -> None:
    """Its start is validated too, and ranks training images as logistic regression on the embeddings does."""
    cohort, settings = bench
    still = settings.train.model_copy(update={"lr": 1e-12, "method": "probe_start", "views": 1})
    (start,) = fitted((cohort, settings.model_copy(update={"train": still})), "probe_start")
    (trained,) = fitted(bench, "probe_start")
    assert start.best.step == 0
    assert trained.best.score >= start.best.score > 0.6
    assert trained.counters["probe mammogram"] == trained.counters["probe pathology"] == 1


@pytest.mark.parametrize("method", ["erm", "late_fusion", "multitask"])
def test_a_run_that_fuses_is_selected_by_images_and_by_patients_read_together(
    bench: tuple[Bench, LodoSettings], method: str
) -> None:
    cohort, settings = bench
    part = fold(cohort.records, held_out="site_c", validation=0.3, test_share=0.3, seed=0)
    recipe, rows = method_recipe(method, {}), []
    (one,) = trials(Job(cohort, settings, part, recipe, silent), log=rows.append)
    images = (rows[-1]["val_auc_mammogram"] + rows[-1]["val_auc_pathology"]) / 2
    if method == "erm":
        assert "val_auc_together" not in rows[-1]
        assert one.best.score == pytest.approx(images)
        return
    assert one.best.score == pytest.approx((images + rows[-1]["val_auc_together"]) / 2)
    assert rows[-1]["val_auc_together"] == pytest.approx(auc_together(cohort, settings, one, part, method))


def auc_together(cohort: Bench, settings: LodoSettings, one: Fitted, part: Fold, method: str) -> float:
    """Mean AUC over the training sites of their validation patients, read together by a trained network."""
    job = Job(cohort, settings, part, method_recipe(method, {}), silent)
    scores = job.score(one.network, rows=part.val)
    if method == "late_fusion":
        said = dict(zip(scores.rows.tolist(), scores.patient_logit.tolist(), strict=True))
        pairs = true_pairs(cohort.records, part.val)
        read = {(p.site, p.key): sum(said[p.rows[m][0]] for m in MODALITIES) for p in pairs}
    else:
        bank = job.bank(one.network)
        read = {k: r.logit for k, r in read_together(one.network, bank, cohort.records, part.val).items()}
    truth = {(r.domain, r.pair_key): r.malignant for r in cohort.records}
    keys = [[k for k in read if k[0] == site] for site in ("site_a", "site_b")]
    assert sum(map(len, keys)) == len(read) > 0, "nobody of the site that is left out"
    return float(np.mean([roc_auc_score([truth[k] for k in own], [read[k] for k in own]) for own in keys]))


def test_swad_validates_often_enough_to_see_a_valley(bench: tuple[Bench, LodoSettings]) -> None:
    _, settings = bench
    plain = averaging(settings.train, METHODS["erm"])
    dense = averaging(settings.train, METHODS["swad"])
    assert plain.validate_every == 20
    assert dense.steps // dense.validate_every >= VALLEY
    (one,) = fitted(bench, "swad")
    assert 0 < one.counters["swad"] <= settings.train.steps


def test_a_partner_by_label_reaches_no_classifier(bench: tuple[Bench, LodoSettings]) -> None:
    """Alignment by label moves projections alone: no head that classifies gets a gradient from it."""
    cohort, settings = bench
    part = fold(cohort.records, held_out="site_c", validation=0.3, test_share=0.3, seed=0)
    train = settings.train.model_copy(update={"method": "align_label", "steps": 1})
    weightless = {"tasks": {"malignancy": 0.0, "patient": 0.0}}
    recipe = method_recipe("align_label", weightless)
    job = Job(cohort, settings.model_copy(update={"train": train}), part, recipe, silent)
    (one,) = trials(job, log=lambda row: None)
    assert one.counters["align"] > 0
    heads = one.network.of("mammogram").heads
    for classifier in (heads.malignancy, heads.severity):
        assert classifier.weight.grad is None or not classifier.weight.grad.any()
    aligned = heads.align[0].weight.grad
    assert aligned is not None
    assert aligned.abs().sum() > 0
