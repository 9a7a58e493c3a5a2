"""The trials of one run: the ways to train that its method tries, each from the same start on one fold."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch

from mammopath.bench import Bench
from mammopath.cohort.loader import label_table, training_sites, training_steps
from mammopath.cohort.splits import Fold
from mammopath.evaluate import Units, source_val_auc
from mammopath.features import Bank
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.objective import Objective
from mammopath.objectives.recipe import Recipe, Trial
from mammopath.paired import pair_table, read_together, true_pairs
from mammopath.parallel import device_of
from mammopath.predict import Scores, predict, prediction_table
from mammopath.progress import Track
from mammopath.settings import ModelSettings, RunSettings, TrainSettings
from mammopath.starting import start_from_probe
from mammopath.train import Best, Row, Watch, fit
from mammopath.types import Modality, Record

VALLEY = 20
"""Validations that SWAD needs at the least to see a valley of the loss."""


@dataclass(frozen=True)
class Job:
    """What every trial of a run shares."""

    bench: Bench
    settings: RunSettings
    part: Fold
    recipe: Recipe
    track: Track

    @property
    def train(self) -> list[int]:
        """Rows that train."""
        return self._of_modalities(self.part.train)

    @property
    def val(self) -> list[int]:
        """Rows of the training sites that select."""
        return self._of_modalities(self.part.val)

    @property
    def test(self) -> list[int]:
        """Rows of the held-out site."""
        return self._of_modalities(self.part.test)

    @property
    def sites(self) -> dict[Modality, tuple[str, ...]]:
        """Training sites of each modality."""
        return training_sites(self.bench.records, self.train)

    def bank(self, network: Network) -> Bank:
        """Where batches get their content."""
        return self.bench.bank(label_table(self.bench.records, self.sites), self.settings, network)

    def score(self, network: Network, *, rows: Sequence[int]) -> Scores:
        """What a network says of some rows."""
        precision = self.settings.train.precision
        return predict(network, self.bank(network), self.bench.records, rows, precision=precision)

    def _of_modalities(self, rows: Sequence[int]) -> list[int]:
        return [row for row in rows if self.bench.records[row].modality in self.recipe.modalities]


@dataclass(frozen=True)
class Fitted:
    """One trial: how it was trained, what came out, and what ran on the way."""

    train: TrainSettings
    network: Network
    best: Best
    counters: Mapping[str, int]
    idle: Mapping[str, str]


def trials(job: Job, *, log: Callable[[Row], None]) -> list[Fitted]:
    """Train once as set, or once for each trial that the method tunes over.

    Args:
        job: data, settings and method.
        log: takes one row per validation.
    """
    train = averaging(job.settings.train, job.recipe)
    ways = [_tried(train, trial) for trial in job.recipe.tune] or [train]
    return [_fitted(job, way, log) for way in ways]


def averaging(train: TrainSettings, recipe: Recipe) -> TrainSettings:
    """Settings with the weight averaging of the method; SWAD validates often enough to see a valley."""
    train = train.model_copy(update={"average": recipe.average}) if recipe.average else train
    often = max(1, train.steps // VALLEY)
    return (
        train.model_copy(update={"validate_every": min(train.validate_every, often)})
        if train.average == "swad"
        else train
    )


def fold_table(
    records: Sequence[Record], part: Fold, scores: Scores, *, all_val: bool = False
) -> pl.DataFrame:
    """Scores of a fold's validation and test rows; ``all_val`` calls the test rows validation too."""
    named = dict.fromkeys(part.test, "val" if all_val else "test") | dict.fromkeys(part.val, "val")
    return prediction_table(records, scores, part=named, test_split=set(part.test_split))


def _fitted(job: Job, train: TrainSettings, log: Callable[[Row], None]) -> Fitted:
    settings, records = job.settings, job.bench.records
    torch.manual_seed(settings.seed)
    network = build_network(_model(settings.model, job.recipe)).to(device_of(settings.device))
    objective = _objective(network, job, train)
    bank, draws = job.bank(network), settings.prepare.draws
    started = start_from_probe(network, bank, records, job.train) if job.recipe.start == "probe" else {}
    steps = training_steps(records, job.train, train, draws=draws, seed=settings.seed)
    best = fit(
        network,
        objective,
        ({m: bank.batch(m, picks).to(network.device()) for m, picks in step.items()} for step in steps),
        train,
        watch=Watch(
            _validate(job),
            log=log,
            track=job.track,
            select_last=settings.select == "last",
            from_start=bool(started),
        ),
        seed=settings.seed,
    )
    counters = (
        dict(objective.counters)
        | {f"probe {m}": 1 for m in started}
        | ({train.average: best.averaged} if best.averaged else {})
    )
    return Fitted(train, network, best, counters, dict(objective.idle_reasons))


def _validate(job: Job) -> Callable[[Network], Mapping[str, float]]:
    chosen = job.test if job.settings.select == "oracle" else job.val
    fuses = job.recipe.tasks.fusion > 0 and bool(true_pairs(job.bench.records, job.train))

    def validate(network: Network) -> dict[str, float]:
        scores = job.score(network, rows=chosen)
        table = fold_table(job.bench.records, job.part, scores, all_val=True)
        by_modality = {f"val_auc_{m}": source_val_auc(table, Units(), m) for m in job.sites}
        images = source_val_auc(table, Units())
        together = _val_auc_together(job, network, scores, chosen) if fuses else math.nan
        if math.isnan(together):
            return {"score": images} | by_modality
        return {"score": (images + together) / 2, "val_auc_together": together} | by_modality

    return validate


def _val_auc_together(job: Job, network: Network, scores: Scores, rows: Sequence[int]) -> float:
    """AUC of the patients with both modalities, read as the method reads them; NaN where there are none."""
    records, precision = job.bench.records, job.settings.train.precision
    fused = {}
    if network.fusion is not None:
        fused = read_together(network, job.bank(network), records, rows, precision=precision)
    table = pair_table(records, replace(job.part, val=tuple(rows), test=()), scores, fused)
    return source_val_auc(table, Units()) if table.height else math.nan


def _tried(train: TrainSettings, trial: Trial) -> TrainSettings:
    steps = max(1, round(train.steps * trial.length))
    return train.model_copy(update={"lr": train.lr * trial.rate, "steps": steps})


def _objective(network: Network, job: Job, train: TrainSettings) -> Objective:
    objective = Objective(
        job.recipe,
        width=network.embedding_width,
        align_width=job.settings.model.align_width,
        domains={m: len(names) for m, names in job.sites.items()},
        steps=train.steps,
    )
    return objective.to(network.device())


def _model(settings: ModelSettings, recipe: Recipe) -> ModelSettings:
    """A method that reads both modalities together, or the lesion map, needs the part that does.

    In a network of one modality there is nothing to fuse; the run tells that the ingredient stood idle.
    """
    fuses = recipe.tasks.fusion > 0 and recipe.tasks.fusion_kind == "cross" and len(settings.readout) > 1
    score = settings.image_score if recipe.tasks.image_score == "pooled" else recipe.tasks.image_score
    return settings.model_copy(update={"fusion": settings.fusion or fuses, "image_score": score})
