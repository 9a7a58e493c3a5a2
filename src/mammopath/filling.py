"""Fill the store of activations: the frozen trunk once over every image, in several processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mammopath.cohort.loader import token_masks
from mammopath.cohort.store import Stored, TokenStore
from mammopath.errors import ImageReadError
from mammopath.features import ViewKeys, augmented, plain_view
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.parallel import device_of, in_processes, threads
from mammopath.progress import Track
from mammopath.settings import RunSettings
from mammopath.tensors import Sample
from mammopath.types import Modality, Record, Skipped

TASK = 64
"""Images that a process takes at a time: many enough to build the trunk for."""

TOGETHER = 8
"""Images whose views go through the trunk together."""


NO_STATISTICS = torch.zeros(0, 0)
"""Changed views have none: logistic regression reads plain ones alone."""


@dataclass(frozen=True)
class Wanted:
    """A record and the names of its views."""

    record: Record
    keys: ViewKeys


def fill(
    store: TokenStore,
    wanted: Sequence[Wanted],
    settings: RunSettings,
    *,
    workers: int,
    track: Track,
) -> list[Skipped]:
    """Run the frozen trunk once over every missing view; can be stopped and started at any time.

    Args:
        store: where views are kept.
        wanted: what it should hold.
        settings: of preparation, model, precision, threads and device; the same numbers for any ``workers``.
        workers: processes at the same time.
        track: shows progress.

    Returns:
        Records that could not be read; they have no views.
    """
    missing = [one for one in wanted if not all(map(store.has, one.keys.values()))]
    tasks = [missing[i : i + TASK] for i in range(0, len(missing), TASK)]
    found = in_processes(partial(_fill, store, settings), tasks, workers=workers)
    skipped: list[Skipped] = []
    for _ in track(range(len(tasks)), "trunk features", len(tasks)):
        skipped += next(found)
    return sorted(skipped, key=lambda s: s.where)  # whichever process was first


def _fill(store: TokenStore, settings: RunSettings, wanted: Sequence[Wanted]) -> list[Skipped]:
    skipped: list[Skipped] = []
    with threads(settings.threads):
        network = build_network(settings.model).to(device_of(settings.device)).eval()
        for start in range(0, len(wanted), TOGETHER):
            skipped += _fill_group(store, network, settings, wanted[start : start + TOGETHER])
    return skipped


def _fill_group(
    store: TokenStore, network: Network, settings: RunSettings, wanted: Sequence[Wanted]
) -> list[Skipped]:
    skipped: list[Skipped] = []
    precision = settings.train.trunk_precision
    plain: dict[Modality, dict[str, Sample]] = {}
    changed: dict[Modality, dict[str, Sample]] = {}
    for one in wanted:
        record, absent = one.record, {n: key for n, key in one.keys.items() if not store.has(key)}
        if not absent:  # another process was quicker
            continue
        try:
            sample = plain_view(record, settings, network)
        except ImageReadError as error:
            skipped.append(Skipped(record.image_id, error.code, error.why))
            continue
        if 0 in absent:
            plain.setdefault(record.modality, {})[absent.pop(0)] = sample
        others = {key: augmented(sample, record, n, settings) for n, key in absent.items()}
        changed.setdefault(record.modality, {}).update(others)
    for modality, samples in plain.items():
        found = network.describe(list(samples.values()), modality, precision=precision)
        _put(store, samples, [(one.tokens, one.statistics) for one in found], cell=network.cell(modality))
    for modality, samples in changed.items():
        tokens = network.lower(list(samples.values()), modality, precision=precision)
        _put(store, samples, [(own, NO_STATISTICS) for own in tokens], cell=network.cell(modality))
    return skipped


def _put(
    store: TokenStore, samples: Mapping[str, Sample], found: Sequence[tuple[Tensor, Tensor]], *, cell: int
) -> None:
    for (key, sample), (tokens, statistics) in zip(samples.items(), found, strict=True):
        masks = token_masks(sample, cell)
        kept, rows = tokens.half().cpu(), statistics.half().cpu()
        store.put(key, Stored(kept, masks.valid, masks.lesion.half(), rows, masks.grid))
