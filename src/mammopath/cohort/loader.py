"""Batches: which images meet in a step (domain-balanced, seeded), and how they are put together."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mammopath.cohort.store import Stored
from mammopath.settings import TrainSettings
from mammopath.tensors import Batch, Sample, share_per_token
from mammopath.types import MODALITIES, ORDINALS, Modality, Record


@dataclass(frozen=True)
class Labels:
    """What is known of each record, as tensors in the order of the records.

    ``domain`` counts the training sites of the record's modality from 0; -1 for other sites.
    """

    modality: tuple[Modality, ...]
    malignant: Float[Tensor, " r"]
    severity: Float[Tensor, " r"]
    domain: Int[Tensor, " r"]
    patient: Int[Tensor, " r"]
    pair: Int[Tensor, " r"]
    ordinal: Float[Tensor, " r"]


@dataclass(frozen=True)
class Pick:
    """One view of one record: ``draw`` 0 is plain, positive is augmented, negative changes the style only."""

    row: int
    draw: int


def training_sites(records: Sequence[Record], rows: Sequence[int]) -> dict[Modality, tuple[str, ...]]:
    """Sites of each modality among ``rows``, in alphabetical order."""
    sites: dict[Modality, set[str]] = {m: set() for m in MODALITIES}
    for row in rows:
        sites[records[row].modality].add(records[row].domain)
    return {m: tuple(sorted(found)) for m, found in sites.items() if found}


def label_table(records: Sequence[Record], sites: Mapping[Modality, Sequence[str]]) -> Labels:
    """Labels of all records; ``sites`` are the training sites of each modality."""
    patients = {p: i for i, p in enumerate(sorted({r.patient for r in records}))}
    pairs = {k: i for i, k in enumerate(sorted({r.pair_key for r in records if r.pair_key}))}
    domains = {(m, s): i for m, names in sites.items() for i, s in enumerate(names)}
    return Labels(
        modality=tuple(r.modality for r in records),
        malignant=torch.tensor([r.malignant for r in records]),
        severity=torch.tensor([r.severity for r in records]),
        domain=torch.tensor([domains.get((r.modality, r.domain), -1) for r in records]),
        patient=torch.tensor([patients[r.patient] for r in records]),
        pair=torch.tensor([pairs.get(r.pair_key, -1) for r in records]),
        ordinal=torch.tensor([ORDINALS[r.modality].level(r.attributes) for r in records]),
    )


def collate(
    labels: Labels, rows: Sequence[int], items: Sequence[Stored] | Sequence[Sample], *, cell: int = 1
) -> Batch:
    """Put views of one modality together, tokens padded to the longest.

    Args:
        labels: of all records.
        rows: the records, one per item.
        items: stored tokens or samples.
        cell: side of a token's square in prepared pixels (only samples need it).
    """
    index = torch.tensor(list(rows))
    masks = [_token_masks(item, cell) for item in items]
    stored = [item.tokens.float() for item in items if isinstance(item, Stored)]
    return Batch(
        modality=labels.modality[rows[0]],
        malignant=labels.malignant[index],
        severity=labels.severity[index],
        domain=labels.domain[index],
        patient=labels.patient[index],
        pair=labels.pair[index],
        ordinal=labels.ordinal[index],
        row=index,
        valid=pad_sequence([m.valid for m in masks], batch_first=True),
        lesion=pad_sequence([m.lesion for m in masks], batch_first=True, padding_value=float("nan")),
        tokens=pad_sequence(stored, batch_first=True) if stored else None,
        samples=tuple(item for item in items if isinstance(item, Sample)),
        grid=torch.stack([m.grid for m in masks]),
    )


@dataclass(frozen=True)
class TokenMasks:
    """What a view says of each of its patch tokens.

    Attributes:
        valid: whether it is image and not padding.
        lesion: share inside annotated findings; NaN where not annotated.
        grid: rows and columns.
    """

    valid: Bool[Tensor, " n"]
    lesion: Float[Tensor, " n"]
    grid: Int[Tensor, "2"]


def token_masks(sample: Sample, cell: int) -> TokenMasks:
    """Masks of the tokens whose squares have ``cell`` prepared pixels a side."""
    grid = torch.tensor([side // cell for side in sample.valid.shape])
    return TokenMasks(
        share_per_token(sample.valid.float(), cell) > 0.5, share_per_token(sample.lesion, cell), grid
    )


def _token_masks(item: Stored | Sample, cell: int) -> TokenMasks:
    if isinstance(item, Stored):
        return TokenMasks(item.valid, item.lesion.float(), item.grid)
    return token_masks(item, cell)


def training_steps(
    records: Sequence[Record], rows: Sequence[int], settings: TrainSettings, *, draws: int, seed: int
) -> Iterator[dict[Modality, list[Pick]]]:
    """Endless steps: ``settings.batch`` images of every training site, classes drawn equally often.

    Within a site each class is gone through in shuffled rounds, so every image is seen equally often
    within its class. Images of a patient come ``settings.views`` at a time, because bags of one image would
    teach the attention over a patient's images nothing. Where a site holds both modalities of a patient,
    the pathology images follow the patients of the mammograms of the same step, so that true pairs meet.

    Args:
        records: all of them.
        rows: the training rows.
        settings: batch size, class balance, images of a patient that come together.
        draws: number of augmented views; each pick draws one of them or the plain view.
        seed: of everything random here.
    """
    rng = np.random.default_rng([seed, 0x5A3])
    sites = _rows_by_site(records, rows)
    streams = {key: _stream(records, group, settings, rng=rng) for key, group in sites.items()}
    partners = _partners(records, rows)
    while True:
        step: dict[Modality, list[Pick]] = defaultdict(list)
        asked: dict[str, list[str]] = defaultdict(list)
        for (modality, site), stream in sorted(streams.items()):
            for place in range(settings.batch):
                row = next(stream)
                if modality == "mammogram":
                    asked[site].append(records[row].pair_key)
                elif place < len(asked[site]) and (found := partners.get(asked[site][place])):
                    row = found[int(rng.integers(len(found)))]
                step[modality].append(Pick(row, int(rng.integers(draws + 1))))
        yield dict(step)


def _rows_by_site(records: Sequence[Record], rows: Sequence[int]) -> dict[tuple[Modality, str], list[int]]:
    sites: dict[tuple[Modality, str], list[int]] = defaultdict(list)
    for row in rows:
        sites[records[row].modality, records[row].domain].append(row)
    return sites


def _partners(records: Sequence[Record], rows: Sequence[int]) -> dict[str, list[int]]:
    """Pathology rows of each pairing key."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if records[row].modality == "pathology" and records[row].pair_key:
            found[records[row].pair_key].append(row)
    return found


def _stream(
    records: Sequence[Record], rows: Sequence[int], settings: TrainSettings, *, rng: np.random.Generator
) -> Iterator[int]:
    """Endless rows of one site, classes in turn (NaN is a class of its own)."""
    classes: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        label = str(records[row].malignant) if settings.balance == "label" else ""
        classes[label][records[row].patient].append(row)
    rounds = [
        _shuffled_rounds(list(group.values()), settings.views, rng) for _, group in sorted(classes.items())
    ]
    while True:
        for one in rounds:
            yield next(one)


def _shuffled_rounds(
    patients: Sequence[Sequence[int]], views: int, rng: np.random.Generator
) -> Iterator[int]:
    """Every row once a round, at most ``views`` of a patient in a row."""
    while True:
        shuffled = [[int(row) for row in rng.permutation(list(rows))] for rows in patients]
        together = [rows[i : i + views] for rows in shuffled for i in range(0, len(rows), views)]
        for place in rng.permutation(len(together)):
            yield from together[place]
