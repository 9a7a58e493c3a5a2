"""One run: a fold of a cohort, trained, validated and tested, into a run folder."""

import json
import math
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from mammopath.baselines import logreg_scores
from mammopath.bench import Bench
from mammopath.case.evidence import gather, write_evidence
from mammopath.cohort.loader import label_table, training_sites
from mammopath.cohort.splits import Fold, fold, person_marks
from mammopath.confidence import settle, write_confidence
from mammopath.diagnostics import write_diagnostics
from mammopath.explain import write_examples
from mammopath.familiarity import write_trust
from mammopath.files import append_line
from mammopath.model.network import Network
from mammopath.objectives.methods import method_recipe
from mammopath.paired import FILE as PAIRS
from mammopath.paired import Reading, pair_table, read_together
from mammopath.parallel import device_of, threads
from mammopath.predict import Scores, write_table
from mammopath.progress import Track, silent
from mammopath.runs import save_facts, save_model, writing_folder
from mammopath.scratch import cnn_scores, small_view
from mammopath.settings import RunSettings
from mammopath.trials import Job, fold_table, trials
from mammopath.types import MODALITIES, Record

LOGREG = "logreg"
"""Row of the table of methods that trains no network: frozen trunk and logistic regression."""

CNN = "cnn"
"""Row of the table of methods without a trunk: a small convolutional network from scratch."""

BASELINES = (LOGREG, CNN)
"""Rows that are no recipe; they leave no network behind that could be adapted."""

SELECTION = {LOGREG: "cross_validation", CNN: "source_val"}
"""Baselines choose by a rule of their own, whatever ``select`` says; it stands in their results."""


@dataclass(frozen=True)
class Outcome:
    """What a run found, before it is evaluated: of images, and of patients with both modalities."""

    table: pl.DataFrame
    facts: Mapping[str, Any]
    pairs: pl.DataFrame = field(default_factory=pl.DataFrame)


@dataclass(frozen=True)
class Solved:
    """What a method says of validation and test; ``fused`` of true pairs, where it reads them together."""

    scores: Scores
    facts: Mapping[str, Any]
    fused: Mapping[tuple[str, str], Reading] = field(default_factory=dict)


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
        solved = solve(bench, settings, part, building, track=track)
        table = fold_table(bench.records, part, solved.scores)
        write_table(building / "predictions.parquet", table, stamp=bench.stamp)
        pairs = pair_table(bench.records, part, solved.scores, solved.fused)
        if pairs.height:
            write_table(building / PAIRS, pairs, stamp=bench.stamp)
        timing = {"seconds": round(time.monotonic() - started, 1), "threads": settings.threads}
        save_facts(building, _fold_facts(bench, settings, part) | dict(solved.facts) | timing)
    return Outcome(table, solved.facts, pairs)


def _train(bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track) -> Solved:
    recipe = method_recipe(settings.train.method, settings.train.overrides)
    job = Job(bench, settings, part, recipe, track)
    tried = trials(job, log=lambda row: append_line(folder / "log.jsonl", json.dumps(row)))
    chosen = max(tried, key=lambda fitted: fitted.best.score)
    network = chosen.network
    network.load_trained_state(chosen.best.state)
    told = settings.model_copy(update={"model": network.settings, "train": chosen.train})
    save_model(folder, chosen.best.state, told)
    rows, fuses = sorted([*job.val, *job.test]), chosen.counters.get("fusion", 0) > 0
    scores = job.score(network, rows=rows)
    if recipe.tasks.severity == 0:  # the head is there, but nothing taught it
        scores = replace(scores, level=None)
    _write_knowledge(folder, job, network, scores, fused=fuses)
    facts = {"sites": job.sites, "prevalence": _prevalence(bench.records, job.train)}
    facts |= {"best_step": chosen.best.step, "recipe": recipe.model_dump()}
    facts |= {"counters": {**chosen.counters, **_adapted(network)}, "idle": dict(chosen.idle)}
    if recipe.tune:
        facts["tuning"] = [
            {"lr": f.train.lr, "steps": f.train.steps, "score": round(f.best.score, 6)} for f in tried
        ]
    return Solved(scores, facts, _fused(job, network, rows) if fuses else {})


def _fused(job: Job, network: Network, rows: Sequence[int]) -> dict[tuple[str, str], Reading]:
    """What a network that reads both modalities together says; late fusion is read off its scores."""
    if network.fusion is None:
        return {}
    precision = job.settings.train.precision
    return read_together(network, job.bank(network), job.bench.records, rows, precision=precision)


def _adapted(network: Network) -> dict[str, int]:
    """Blocks whose adapter changes what passes through; a fresh one does not."""
    if network.settings.adapter == "none":
        return {}
    ups = [p for name, p in network.named_parameters() if ".blocks." in name and name.endswith("up.weight")]
    return {f"adapter {network.settings.adapter}": sum(bool(up.detach().any()) for up in ups)}


def _write_knowledge(folder: Path, job: Job, network: Network, scores: Scores, *, fused: bool) -> None:
    """Diagnostics of a trained network, and what predictions of new patients need."""
    records, settings, recipe = job.bench.records, job.settings, job.recipe
    bank, precision = job.bank(network), settings.train.precision
    write_diagnostics(
        folder,
        network,
        bank,
        records,
        val=job.val,
        test=job.test,
        lesion_map=recipe.tasks.lesion > 0 or recipe.tasks.boxes > 0,
        precision=precision,
    )
    if settings.for_prediction:
        table = fold_table(records, job.part, scores)
        write_trust(folder, network, bank, records, table, part=job.part, precision=precision)
        # Of slides there are neither pictures nor places here: `mammopath slides predict` has those.
        train, val, test = (
            [r for r in rows if r not in job.bench.bags] for rows in (job.train, job.val, job.test)
        )
        found = gather(network, bank, records, train=train, val=val, recipe=recipe, fused=fused)
        write_evidence(folder, found)
        write_examples(folder, network, bank, records, scores, rows=test, settings=settings)


def _prevalence(records: Sequence[Record], rows: Sequence[int]) -> dict[str, float]:
    """Share of malignant images in training, by modality: the prior of test-time adaptation."""
    labels = {m: [records[r].malignant for r in rows if records[r].modality == m] for m in MODALITIES}
    known = {m: [label for label in found if label in (0, 1)] for m, found in labels.items()}
    return {m: round(fmean(found), 6) for m, found in known.items() if found}


def _logreg(bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track) -> Solved:
    del track
    labels = label_table(bench.records, training_sites(bench.records, part.train))
    scores, choices = logreg_scores(
        bench.stored(labels, settings), bench.records, part.train, sorted([*part.val, *part.test])
    )
    write_confidence(folder, settle(fold_table(bench.records, part, scores)))
    at_cut = {"pathology": settings.model.cut.get("pathology", 0)} if bench.bags else {}
    chosen = {
        m: {"block": at_cut.get(m, c.block + 1), "C": c.c, "cv_auc": _rounded(c.auc)}
        for m, c in choices.items()
    }
    return Solved(scores, {"best_step": 0, "choices": chosen, "counters": {}, "idle": {}})


def _without(part: Fold, rows: Container[int]) -> Fold:
    """The fold without some rows."""
    train, val, test, split = (
        tuple(row for row in own if row not in rows)
        for own in (part.train, part.val, part.test, part.test_split)
    )
    return replace(part, train=train, val=val, test=test, test_split=split)


def _rounded(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 4)


def _cnn(bench: Bench, settings: RunSettings, part: Fold, folder: Path, *, track: Track) -> Solved:
    part = _without(part, bench.bags)
    rows = sorted({*part.train, *part.val, *part.test})
    samples = {
        row: bench.samples.get(row) or small_view(bench.records[row], settings.prepare)
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
    write_confidence(folder, settle(fold_table(bench.records, part, scores)))
    chosen = {m: {"step": t.step, "val_auc": round(t.val_auc, 4)} for m, t in trained.items()}
    steps = max(t.step for t in trained.values())
    return Solved(scores, {"best_step": steps, "choices": chosen, "counters": {}, "idle": {}})


def _fold_facts(bench: Bench, settings: RunSettings, part: Fold) -> dict[str, Any]:
    rows = ("train", "val", "test", "test_split", "dropped")
    return {
        "held_out": part.held_out,
        "method": settings.train.method,
        "seed": settings.seed,
        "select": SELECTION.get(settings.train.method, settings.select),
        "stamp": bench.stamp,
        "fingerprint": bench.fingerprint,
        "rows": {name: len(getattr(part, name)) for name in rows},
        "people": sorted(person_marks(bench.records[i] for i in (*part.train, *part.val))),
        "warnings": list(part.warnings),
        "device": str(device_of(settings.device)),
    }
