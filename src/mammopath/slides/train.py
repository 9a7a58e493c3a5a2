"""Multiple-instance training in the common loop: a slide is an image, a patch is a token."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mammopath.cohort.loader import label_table, training_sites
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.parallel import device_of
from mammopath.progress import Track, silent
from mammopath.settings import ModelSettings
from mammopath.slide_settings import BagSettings
from mammopath.slides.bags import BagBank, bag_steps
from mammopath.slides.embed import frozen_trunk, model_settings
from mammopath.slides.score import score_slide
from mammopath.train import Step, Watch, fit
from mammopath.types import Record

Row = dict[str, float | int]


@dataclass(frozen=True)
class Trained:
    """A trained network of slides.

    Attributes:
        network: with the weights of the best step.
        step: the best step, by the slides that validate. score: their AUC; NaN where they are of one class.
        log: a row for each validation.
        sites: that it was trained on. recipe: of the objective.
    """

    network: Network
    step: int
    score: float
    log: Sequence[Row]
    sites: tuple[str, ...]
    recipe: Mapping[str, Any]


def train_bags(
    records: Sequence[Record],
    files: Mapping[int, Path],
    *,
    train: Sequence[int],
    val: Sequence[int],
    settings: BagSettings,
    track: Track = silent,
) -> Trained:
    """Train heads on random patches of slides, choosing the step on all patches of others.

    Args:
        records: all of them.
        files: of features, by row.
        train: rows that train.
        val: rows that choose the step.
        settings: trunk, patches per step, training.
        track: shows progress.
    """
    sites = training_sites(records, train)
    labels = label_table(records, sites)
    network = bag_network(settings)
    recipe = method_recipe("pathology", {"tasks": settings.tasks} | settings.train.overrides)
    objective = Objective(
        recipe,
        width=network.embedding_width,
        align_width=network.settings.align_width,
        domains={m: len(names) for m, names in sites.items()},
        steps=settings.train.steps,
    ).to(network.device())
    bank = BagBank(files, records, labels, network.shape.prefix, settings.bag, seed=settings.seed)
    log: list[Row] = []
    watch = Watch(lambda now: {"score": _auc(now, files, records, val)}, log=log.append, track=track)
    best = fit(
        network,
        objective,
        _batches(bank, train, settings, network),
        settings.train,
        watch=watch,
        seed=settings.seed,
    )
    network.load_trained_state(best.state)
    return Trained(
        network.eval(), best.step, best.score, log, sites.get("pathology", ()), recipe.model_dump()
    )


def bag_network(settings: BagSettings) -> Network:
    """A network with fresh heads over the trunk that the features come from, on the device asked for."""
    torch.manual_seed(settings.seed)
    network = build_network(bag_model(settings))
    if settings.trunk.weights is None:  # a trunk that is drawn is drawn alike for features and bags
        network.trunk.load_state_dict(frozen_trunk(settings).trunk.state_dict())
        network.start_parts()
    return network.to(device_of(settings.device))


def bag_model(settings: BagSettings) -> ModelSettings:
    """Settings of the network of bags."""
    return model_settings(settings.trunk).model_copy(update={"image_score": settings.image_score})


def _batches(bank: BagBank, train: Sequence[int], settings: BagSettings, network: Network) -> Iterator[Step]:
    for step in bag_steps(bank.records, train, settings.train, seed=settings.seed):
        yield {m: bank.batch(m, picks).to(network.device()) for m, picks in step.items()}


def _auc(
    network: Network, files: Mapping[int, Path], records: Sequence[Record], rows: Sequence[int]
) -> float:
    """Of all patches of each slide, streamed; the mean of the sites, as order between sites says little."""
    network.eval()
    scores = np.array([score_slide(network, files[row]).logit for row in rows])
    labels = np.array([records[row].malignant for row in rows])
    sites = np.array([records[row].domain for row in rows])
    found = [auc(labels[sites == s], scores[sites == s]) for s in np.unique(sites)]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
