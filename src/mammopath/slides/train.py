"""Multiple-instance training in the common loop: a slide is an image, a patch is a token."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mammopath.cohort.loader import label_table, training_sites
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.predict import predict
from mammopath.progress import Track, silent
from mammopath.settings import BagSettings
from mammopath.slides.bags import BagBank, bag_steps
from mammopath.slides.embed import model_settings
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
        sites: that it was trained on.
    """

    network: Network
    step: int
    score: float
    log: Sequence[Row]
    sites: tuple[str, ...]


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
    torch.manual_seed(settings.seed)
    network = build_network(
        model_settings(settings.trunk).model_copy(update={"image_score": settings.image_score})
    )
    recipe = method_recipe("pathology", {"tasks": settings.tasks} | settings.train.overrides)
    objective = Objective(
        recipe,
        width=network.embedding_width,
        align_width=network.settings.align_width,
        domains={m: len(names) for m, names in sites.items()},
        steps=settings.train.steps,
    )
    bank = BagBank(files, records, labels, network.shape.prefix, settings.bag, settings.seed)
    log: list[Row] = []
    watch = Watch(lambda now: {"score": _auc(now, bank, records, val)}, log=log.append, track=track)
    best = fit(
        network,
        objective,
        _batches(bank, train, settings, network),
        settings.train,
        watch=watch,
        seed=settings.seed,
    )
    network.load_trained_state(best.state)
    return Trained(network.eval(), best.step, best.score, log, sites.get("pathology", ()))


def _batches(bank: BagBank, train: Sequence[int], settings: BagSettings, network: Network) -> Iterator[Step]:
    for step in bag_steps(bank.records, train, settings.train, seed=settings.seed):
        yield {m: bank.batch(m, picks).to(network.device()) for m, picks in step.items()}


def _auc(network: Network, bank: BagBank, records: Sequence[Record], rows: Sequence[int]) -> float:
    """Of all patches of each slide; the mean of the sites, as order between sites says little."""
    scores = predict(network, bank, records, rows, size=1)
    labels = np.array([records[row].malignant for row in scores.rows])
    sites = np.array([records[row].domain for row in scores.rows])
    found = [auc(labels[sites == s], scores.logit[sites == s]) for s in np.unique(sites)]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
