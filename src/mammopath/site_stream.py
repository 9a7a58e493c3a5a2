"""The unlabelled cases of a site as a stream: in which order they come, and views made as they are needed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence

from mammopath.adaptation.methods import Adaptation
from mammopath.adaptation.values import Views
from mammopath.bench import Bench, fill_workers
from mammopath.cohort.loader import Pick, label_table
from mammopath.errors import AdaptationError
from mammopath.features import HIDDEN, Bank, token_keys
from mammopath.filling import Wanted, fill
from mammopath.model.network import Network
from mammopath.progress import Track, silent
from mammopath.settings import AdaptSettings, RunSettings
from mammopath.tensors import Batch
from mammopath.types import Modality, Record


@dataclass(frozen=True)
class SiteStream:
    """Batches of cases of one modality, read when they are asked for, so that a site need not fit in memory.

    Attributes:
        network: brings images to the cut where nothing is stored. bank: where views come from.
        groups: rows of each batch. learned: leading batches that are adapted to and come with all views.
        styled: style-only views of each case. hidden: also a view whose middle is hidden.
    """

    network: Network
    bank: Bank
    modality: Modality
    groups: Sequence[Sequence[int]]
    learned: int
    styled: int = 0
    hidden: bool = False

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Views]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Views:
        if place >= self.learned:
            return Views(self._view(place, 0))
        styled = tuple(self._view(place, number) for number in style_numbers(self.styled))
        return Views(self._view(place, 0), styled, self._view(place, HIDDEN) if self.hidden else None)

    def _view(self, place: int, number: int) -> Batch:
        picks = [Pick(row, number) for row in self.groups[place]]
        return at_cut(self.network, self.bank.batch(self.modality, picks))


def site_stream(
    bench: Bench,
    network: Network,
    rows: Sequence[int],
    *,
    told: RunSettings,
    settings: AdaptSettings,
    method: Adaptation,
    track: Track = silent,
) -> SiteStream:
    """Cases of one modality as a stream; views that are not stored yet are made for the cases adapted to.

    Args:
        bench: records, and the store of their views.
        network: the source.
        rows: cases of one modality.
        told: settings of the source's run.
        settings: of the adaptation.
        method: which views it needs.
        track: shows progress.

    Raises:
        AdaptationError: an image cannot be read any more, says which and why; or the method needs views of
            whole slides.
    """
    modality, ordered = bench.records[rows[0]].modality, in_order(bench.records, rows)
    groups = [ordered[i : i + settings.batch] for i in range(0, len(ordered), settings.batch)]
    learned, styled = _learned(settings, len(groups)), _styled(settings, method)
    bags = [row for row in rows if row in bench.bags]
    if bags and (method.needs_views or method.needs_hidden):
        raise AdaptationError(
            f"{bench.records[bags[0]].image_id} is a bag of stored patches, which has no other views,"
            " as this method needs them: choose style, tent, eata, sar, t3a or shot_im"
        )
    styled = 0 if bags else styled
    numbers = [*style_numbers(styled), *([HIDDEN] if method.needs_hidden else [])]
    chosen = [row for group in groups[:learned] for row in group]
    filled = with_views(bench, network, chosen, told=told, numbers=numbers, track=track)
    bank = filled.bank(label_table(bench.records, {}), told, network)
    return SiteStream(network, bank, modality, groups, learned, styled, method.needs_hidden)


def with_views(
    bench: Bench,
    network: Network,
    rows: Sequence[int],
    *,
    told: RunSettings,
    numbers: Sequence[int],
    track: Track = silent,
) -> Bench:
    """The bench with further views of some rows; where the trunk is trained there is no store to fill.

    Raises:
        AdaptationError: an image cannot be read any more; says which and why.
    """
    if bench.store is None or not numbers:
        return bench
    rows = [row for row in rows if row not in bench.bags]  # any view of a slide is another draw of patches
    records = [bench.records[row] for row in rows]
    named = token_keys(records, network, told, views=numbers)
    wanted = [Wanted(record, keys) for record, keys in zip(records, named, strict=True)]
    unread = fill(bench.store, wanted, told, workers=fill_workers(told), track=track)
    if unread:
        listed = "\n  ".join(f"{s.where}: {s.why}" for s in unread[:10])
        raise AdaptationError(f"{len(unread)} images of the site cannot be read any more:\n  {listed}")
    keys = list(bench.keys)
    for row, new in zip(rows, named, strict=True):
        keys[row] = {**keys[row], **new}
    return replace(bench, keys=keys)


def in_order(records: Sequence[Record], rows: Sequence[int]) -> list[int]:
    """Rows by a hash of their image's name: files lie in folders by class, and the first cases calibrate."""
    return sorted(rows, key=lambda row: hashlib.sha256(records[row].image_id.encode()).digest())


def style_numbers(count: int) -> range:
    """Numbers of so many style-only views."""
    return range(-1, -1 - count, -1)


def at_cut(network: Network, batch: Batch) -> Batch:
    """The batch as tokens at the cut, without a gradient."""
    if batch.tokens is not None:
        return batch
    with torch.no_grad():
        return batch.with_tokens(pad_sequence(network.lower(batch.samples, batch.modality), batch_first=True))


def _learned(settings: AdaptSettings, batches: int) -> int:
    """Leading batches that are adapted to."""
    if settings.mode != "calibrate" or not settings.cases:
        return batches
    return min(batches, -(-settings.cases // settings.batch))


def _styled(settings: AdaptSettings, method: Adaptation) -> int:
    """Style-only views: what the method trims, or what the guard averages the source over.

    Raises:
        AdaptationError: they are too few for the method.
    """
    if method.needs_views and settings.views < max(1, settings.directions):
        raise AdaptationError(
            f"{settings.views} style-only views (views) span fewer than the {settings.directions} directions"
            " that this method removes: raise views or lower directions"
        )
    wanted = method.needs_views or (settings.guard.enabled and method.adapts)
    return settings.views if wanted else 0
