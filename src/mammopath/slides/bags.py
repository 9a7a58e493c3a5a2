"""Slides as bags of patch features: a bank that gives the training loop some patches of a slide, or all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from mammopath.cohort.loader import Labels, Pick, collate, training_steps
from mammopath.cohort.store import Stored
from mammopath.images.geometry import Frame, paint
from mammopath.settings import TrainSettings
from mammopath.slides.store import Features, read_features
from mammopath.tensors import Batch
from mammopath.types import Modality, Record

PIXELS = 4
"""Pixels across a patch when annotated findings are painted to find its share of tumour."""


@dataclass
class BagBank:
    """Bags of records that are slides; one token is one patch.

    A draw of 0 is the whole slide; any other draw is ``patches`` of it, new ones each time. The prefix
    tokens of a bag are the mean of its patches.

    Attributes:
        files: of features, by row. records: all of them. labels: of all records.
        prefix: number of prefix tokens of the network.
        patches: at most so many are drawn for a step.
        seed: of the draws.
        budget: bytes of features to keep in memory.
    """

    files: Mapping[int, Path]
    records: Sequence[Record]
    labels: Labels
    prefix: int
    patches: int = 256
    seed: int = 0
    budget: int = 1 << 30
    drawn: int = 0
    kept: dict[int, tuple[Features, Float[np.ndarray, " n"]]] = field(default_factory=dict)

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the bags of the picked slides together, padded to the largest."""
        items = [self._bag(pick) for pick in picks]
        batch = collate(self.labels, [p.row for p in picks], items)
        return replace(batch, prefix=self.prefix)

    def _bag(self, pick: Pick) -> Stored:
        features, lesion = self._slide(pick.row)
        values = torch.from_numpy(features.values)
        share = torch.from_numpy(lesion)
        if pick.draw and len(features) > self.patches:
            self.drawn += 1
            rng = np.random.default_rng([self.seed, self.drawn, pick.row])
            chosen = torch.from_numpy(np.sort(rng.choice(len(features), self.patches, replace=False)))
            values, share = values[chosen], share[chosen]
        head = values.mean(dim=0, keepdim=True).expand(self.prefix, -1)
        return Stored(
            torch.cat([head, values]),
            torch.ones(len(values), dtype=torch.bool),
            share,
            torch.zeros(0, 0),
            torch.tensor([1, len(values)]),
        )

    def _slide(self, row: int) -> tuple[Features, Float[np.ndarray, " n"]]:
        if row not in self.kept:
            features = read_features(self.files[row])
            found = (features, tumour_share(self.records[row], features).astype(np.float32))
            if self.budget < features.values.nbytes:
                return found
            self.budget -= features.values.nbytes
            self.kept[row] = found
        return self.kept[row]


def bag_steps(
    records: Sequence[Record], rows: Sequence[int], settings: TrainSettings, *, seed: int
) -> Iterator[dict[Modality, list[Pick]]]:
    """Endless steps as of other images, every pick a fresh draw of patches."""
    for step in training_steps(records, rows, settings, draws=0, seed=seed):
        yield {modality: [Pick(p.row, 1) for p in picks] for modality, picks in step.items()}


def tumour_share(record: Record, features: Features) -> Float[np.ndarray, " n"]:
    """Share of each patch inside annotated tumours.

    Outside of them it is NaN unless the slide is annotated exhaustively or known to be free of tumour.
    """
    count = len(features)
    is_complete = record.attributes.get("annotated") == "yes" or record.malignant == 0
    rest = 0.0 if is_complete else np.nan
    tumours = [f for f in record.findings if f.malignant != 0]
    if not tumours or not count:
        return np.full(count, rest)
    cell = features.span / PIXELS
    left, top = features.corners.min(axis=0)
    right, bottom = features.corners.max(axis=0) + features.span
    size = (int((bottom - top) / cell) + 2, int((right - left) / cell) + 2)
    painted = paint(tumours, Frame(1 / cell, 1 / cell, -left / cell, -top / cell), size)
    shares = box_means(painted, (features.corners - [left, top]) / cell)
    return np.where(shares > 0, shares, rest)


def box_means(mask: np.ndarray, corners: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Mean of a mask over squares of ``PIXELS`` a side, by a summed-area table; corners are x, y."""
    table = np.zeros(np.add(mask.shape, 1), np.int64)
    table[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    x, y = _inside(corners[:, 0], mask.shape[1]), _inside(corners[:, 1], mask.shape[0])
    sums = table[y + PIXELS, x + PIXELS] - table[y, x + PIXELS] - table[y + PIXELS, x] + table[y, x]
    return sums / PIXELS**2


def _inside(corner: Float[np.ndarray, " n"], size: int) -> Int[np.ndarray, " n"]:
    return np.clip(np.rint(corner).astype(np.int64), 0, size - PIXELS)
