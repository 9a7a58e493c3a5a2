"""One run: a fold of a cohort, trained, validated and tested, into a run folder."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import torch

from mammopath.baselines import logreg_scores
from mammopath.bench import Bench
from mammopath.case.evidence import gather, write_evidence
from mammopath.cohort.loader import label_table, training_sites, training_steps
from mammopath.cohort.splits import Fold, fold
from mammopath.confidence import settle, write_confidence
from mammopath.diagnostics import write_diagnostics
from mammopath.errors import ConfigError
from mammopath.evaluate import source_val_auc
from mammopath.explain import write_examples
from mammopath.familiarity import write_trust
from mammopath.features import TokenBank
from mammopath.files import append_line
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.objectives.recipe import Recipe
from mammopath.parallel import device_of, threads
from mammopath.predict import Scores, predict, prediction_table, write_table
from mammopath.prepare.sample import load_sample
from mammopath.progress import Track, silent
from mammopath.runs import save_facts, save_model, writing_folder
from mammopath.scratch import cnn_scores
from mammopath.settings import ModelSettings, RunSettings, TrainSettings
from mammopath.train import Watch, fit
from mammopath.types import MODALITIES, Modality, Record

LOGREG = "logreg"
"""Row of the table of methods that trains no network: frozen trunk and logistic regression."""

CNN = "cnn"
"""Row of the table of methods without a trunk: a small convolutional network from scratch."""

BASELINES = (LOGREG, CNN)
"""Rows that are no recipe; they leave no network behind that could be adapted."""


@dataclass(frozen=True)
class Outcome:
    """What a run found, before it is evaluated."""

    table: pl.DataFrame
    facts: Mapping[str, Any]


def run(
    bench: Bench, settings: RunSettings, *, held_out: str | None, folder: Path, track: Track = silent
) -> Outcome:
    """Train on every site but ``held_out``, test on it, and write the run folder.

    Args:
        bench: the cohort.
        settings: model, method, training, seed.
        held_out: the site that is left out; None trains with every site, for the in-domain reference.
        folder: the run folder; must not exist.
        track: shows progress.

    Raises:
        ConfigError: the folder exists, or a setting does not fit.
        DataError: the fold cannot be made (unknown site, one class only, nobody left).
    """
    started = time.monotonic()
    part = fold(
        bench.records,
        held_out=held_out,
        validation=settings.data.validation,
        test_share=settings.data.test_share,
        seed=settings.seed,
    )
    with threads(settings.threads), writing_folder(folder) as building:
        solve = {LOGREG: _logreg, CNN: _cnn}.get(settings.train.method, _train)
        scores, facts = solve(bench, settings, part, building, track=track)
        table = _table(bench.records, part, scores)
        write_table(building / "predictions.parquet", table)
        timing = {"seconds": round(time.monotonic() - started, 1), "threads": settings.threads}
        save_facts(building, _fold_facts(bench, settings, part) | facts | timing)
    return Outcome(table, facts)


def _train(
    bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track
) -> tuple[Scores, dict[str, Any]]:
    recipe = method_recipe(settings.train.method, settings.train.overrides)
    train, val, test = (
        _of_modalities(bench.records, rows, recipe) for rows in (part.train, part.val, part.test)
    )
    sites = training_sites(bench.records, train)
    labels = label_table(bench.records, sites)
    torch.manual_seed(settings.seed)
    network = build_network(_model(settings.model, recipe)).to(device_of(settings.device))
    objective = _objective(network, recipe, settings, sites)
    bank = bench.bank(labels, settings, network)
    steps = training_steps(
        bench.records, train, settings.train, draws=settings.prepare.draws, seed=settings.seed
    )
    chosen = test if settings.select == "oracle" else val

    score = partial(predict, bank=bank, records=bench.records, precision=settings.train.precision)

    def validate(now: Network) -> dict[str, float]:
        table = _table(bench.records, part, score(now, rows=chosen), all_val=True)
        by_modality = {f"val_auc_{m}": source_val_auc(table, "image", m) for m in sites}
        return {"score": source_val_auc(table, "image")} | by_modality

    best = fit(
        network,
        objective,
        ({m: bank.batch(m, picks).to(network.device()) for m, picks in step.items()} for step in steps),
        _with_average(settings.train, recipe),
        watch=Watch(
            validate,
            log=lambda row: append_line(folder / "log.jsonl", json.dumps(row)),
            track=track,
            select_last=settings.select == "last",
        ),
        seed=settings.seed,
    )
    network.load_trained_state(best.state)
    save_model(folder, best.state, settings.model_copy(update={"model": network.settings}))
    scores = score(network, rows=sorted([*val, *test]))
    learns_lesions = recipe.tasks.lesion > 0 or recipe.tasks.boxes > 0
    write_diagnostics(
        folder,
        network,
        bank,
        bench.records,
        val=val,
        test=test,
        lesion_map=learns_lesions,
        precision=settings.train.precision,
    )
    if settings.for_prediction:
        table, precision = _table(bench.records, part, scores), settings.train.precision
        write_trust(folder, network, bank, bench.records, table, part=part, precision=precision)
        write_evidence(folder, gather(network, bank, bench.records, train=train, val=val, recipe=recipe))
        write_examples(folder, network, bank, bench.records, scores, rows=test, settings=settings)
    counts = {"counters": dict(objective.counters), "idle": dict(objective.idle_reasons)}
    told = {"sites": sites, "prevalence": _prevalence(bench.records, train), "recipe": recipe.model_dump()}
    return scores, {"best_step": best.step} | told | counts


def _prevalence(records: Sequence[Record], rows: Sequence[int]) -> dict[str, float]:
    """Share of malignant images in training, by modality: the prior of test-time adaptation."""
    labels = {m: [records[r].malignant for r in rows if records[r].modality == m] for m in MODALITIES}
    known = {m: [label for label in found if label in (0, 1)] for m, found in labels.items()}
    return {m: round(fmean(found), 6) for m, found in known.items() if found}


def _logreg(
    bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track
) -> tuple[Scores, dict[str, Any]]:
    del track
    labels = label_table(bench.records, training_sites(bench.records, part.train))
    if not bench.store:
        raise ConfigError(f"{LOGREG} needs a frozen trunk: set model.train_trunk: none and model.weights")
    bank = TokenBank(bench.store, bench.keys, labels)
    scores, choices = logreg_scores(bank, bench.records, part.train, sorted([*part.val, *part.test]))
    write_confidence(folder, settle(_table(bench.records, part, scores)))
    chosen = {m: {"block": c.block + 1, "C": c.c, "cv_auc": round(c.auc, 4)} for m, c in choices.items()}
    return scores, {"best_step": 0, "choices": chosen, "counters": {}, "idle": {}}


def _cnn(
    bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track
) -> tuple[Scores, dict[str, Any]]:
    rows = sorted({*part.train, *part.val, *part.test})
    samples = {
        row: bench.samples.get(row) or load_sample(bench.records[row], settings.prepare, multiple=16).sample
        for row in track(rows, "preparing images", len(rows))
    }
    scores, trained = cnn_scores(
        samples,
        bench.records,
        part,
        settings=settings.train,
        augment=settings.prepare.augment,
        seed=settings.seed,
    )
    write_confidence(folder, settle(_table(bench.records, part, scores)))
    chosen = {m: {"step": t.step, "val_auc": round(t.val_auc, 4)} for m, t in trained.items()}
    steps = max(t.step for t in trained.values())
    return scores, {"best_step": steps, "choices": chosen, "counters": {}, "idle": {}}


def _objective(
    network: Network, recipe: Recipe, settings: RunSettings, sites: Mapping[Modality, Sequence[str]]
) -> Objective:
    objective = Objective(
        recipe,
        width=network.embedding_width,
        align_width=settings.model.align_width,
        domains={m: len(names) for m, names in sites.items()},
        steps=settings.train.steps,
    )
    return objective.to(network.device())


def _of_modalities(records: Sequence[Record], rows: Sequence[int], recipe: Recipe) -> list[int]:
    return [row for row in rows if records[row].modality in recipe.modalities]


def _model(settings: ModelSettings, recipe: Recipe) -> ModelSettings:
    """A method that reads both modalities together, or the lesion map, needs the part that does."""
    fuses = recipe.tasks.fusion > 0 and recipe.tasks.fusion_kind == "cross"
    score = settings.image_score if recipe.tasks.image_score == "pooled" else recipe.tasks.image_score
    return settings.model_copy(update={"fusion": settings.fusion or fuses, "image_score": score})


def _with_average(settings: TrainSettings, recipe: Recipe) -> TrainSettings:
    return settings.model_copy(update={"average": recipe.average}) if recipe.average else settings


def _table(records: Sequence[Record], part: Fold, scores: Scores, *, all_val: bool = False) -> pl.DataFrame:
    named = dict.fromkeys(part.test, "val" if all_val else "test") | dict.fromkeys(part.val, "val")
    return prediction_table(records, scores, part=named, test_split=set(part.test_split))


def _fold_facts(bench: Bench, settings: RunSettings, part: Fold) -> dict[str, Any]:
    rows = ("train", "val", "test", "test_split", "dropped")
    return {
        "held_out": part.held_out,
        "method": settings.train.method,
        "seed": settings.seed,
        "select": settings.select,
        "fingerprint": bench.fingerprint,
        "rows": {name: len(getattr(part, name)) for name in rows},
        "warnings": list(part.warnings),
        "device": str(device_of(settings.device)),
    }
