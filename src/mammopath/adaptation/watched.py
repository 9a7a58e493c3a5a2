"""A stream that is checked as it is read, and that remembers which cases went by; batches are let go."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from mammopath.adaptation.values import Stream, Views
from mammopath.tensors import Batch


@dataclass(frozen=True)
class Watched:
    """A stream whose batches are checked once, when they are first read; they are read in order.

    Attributes:
        stream: the cases. check: refuses views that cannot be adapted to.
        rows: of the cases that went by, in order. hashes: SHA-256 of their tokens.
    """

    stream: Stream
    check: Callable[[Views], None]
    rows: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Views]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Views:
        views = self.stream[place]
        if place not in self.seen:
            self.check(views)
            self.seen.add(place)
            self.rows.extend(views.plain.row.tolist())
            self.hashes.extend(_hashes(views.plain))
        return views


def _hashes(batch: Batch) -> Iterator[str]:
    """SHA-256 of the real tokens of each case, whatever it was padded to."""
    assert batch.tokens is not None
    for tokens, valid in zip(batch.tokens, batch.valid, strict=True):
        real = torch.cat([tokens[: batch.prefix], tokens[batch.prefix :][valid]])
        yield hashlib.sha256(real.float().cpu().contiguous().numpy().tobytes()).hexdigest()
