"""Slides as bags of patch features: a bank that gives the training loop some patches of a slide, or all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from mammopath.cohort.loader import Labels, Pick, collate, training_steps
from mammopath.cohort.store import Stored
from mammopath.errors import DataError
from mammopath.images.geometry import Frame, paint
from mammopath.settings import TrainSettings
from mammopath.slides.store import Features, read_features, read_places
from mammopath.tensors import Batch
from mammopath.types import Modality, Record, Spacing

PIXELS = 4
"""Pixels across a patch when annotated findings are painted to find its share of tumour."""


@dataclass
class BagMemory:
    """What banks have read of files of features; several banks may share it.

    Attributes:
        budget: bytes of features that there is room for; of slides beyond it, drawn patches alone are read.
        values: of whole slides, by file and its time.
        shares: share of tumour of every patch, by file, its time, and record.
    """

    budget: int = 1 << 30
    values: dict[tuple[Path, int], Float32[np.ndarray, "n d"]] = field(default_factory=dict)
    shares: dict[tuple[Path, int, str], Float32[np.ndarray, " n"]] = field(default_factory=dict)


@dataclass
class BagBank:
    """Bags of records that are slides; one token is one patch.

    A draw of 0 is the whole slide, or always the same part of it; any other draw is ``patches`` of it, new
    ones each time. The prefix tokens of a bag are the mean of its patches.

    Attributes:
        files: of features, by row. records: all of them. labels: of all records.
        prefix: number of prefix tokens of the network.
        patches: at most so many are drawn for a step.
        look: at most so many, evenly over the slide, are its draw 0; 0 for all.
        seed: of the draws.
        memory: of what was read.
    """

    files: Mapping[int, Path]
    records: Sequence[Record]
    labels: Labels
    prefix: int
    patches: int = 256
    look: int = 0
    seed: int = 0
    drawn: int = 0
    memory: BagMemory = field(default_factory=BagMemory)

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the bags of the picked slides together, padded to the largest."""
        batch = collate(self.labels, [p.row for p in picks], [self.bag(pick) for pick in picks])
        return replace(batch, prefix=self.prefix)

    def bag(self, pick: Pick) -> Stored:
        """A slide as tokens, as many as were drawn."""
        share = self._share(pick.row)
        rows = self._rows(pick, len(share))
        values, share = torch.from_numpy(self._values(pick.row, rows)), share[rows]
        head = values.mean(dim=0, keepdim=True).expand(self.prefix, -1)
        return Stored(
            torch.cat([head, values]),
            torch.ones(len(values), dtype=torch.bool),
            torch.from_numpy(share),
            torch.zeros(0, 0),
            torch.tensor([1, len(values)]),
        )

    def _rows(self, pick: Pick, count: int) -> Int[np.ndarray, " n"] | slice:
        """Which of ``count`` patches a pick shows."""
        if pick.draw and count > self.patches:
            self.drawn += 1
            rng = np.random.default_rng([self.seed, self.drawn, pick.row])
            return np.sort(rng.choice(count, self.patches, replace=False))
        if not pick.draw and self.look and count > self.look:
            return np.linspace(0, count - 1, self.look).astype(np.int64)
        return slice(None)

    def _values(self, row: int, rows: Int[np.ndarray, " n"] | slice) -> Float32[np.ndarray, "_ d"]:
        memory, key = self.memory, self._key(row)
        if key in memory.values:
            return memory.values[key][rows]
        # Features fill their file, so its size says whether there is room for them.
        if isinstance(rows, slice) or self.files[row].stat().st_size <= memory.budget:
            found = read_features(self.files[row]).values
            if found.nbytes <= memory.budget:
                memory.budget -= found.nbytes
                memory.values[key] = found
            return found[rows]
        return read_features(self.files[row], rows).values

    def _share(self, row: int) -> Float32[np.ndarray, " n"]:
        key = (*self._key(row), self.records[row].image_id)
        if key not in self.memory.shares:
            places = read_places(self.files[row])
            self.memory.shares[key] = tumour_share(self.records[row], places).astype(np.float32)
        return self.memory.shares[key]

    def _key(self, row: int) -> tuple[Path, int]:
        return self.files[row], self.files[row].stat().st_mtime_ns


def bag_steps(
    records: Sequence[Record], rows: Sequence[int], settings: TrainSettings, *, seed: int
) -> Iterator[dict[Modality, list[Pick]]]:
    """Endless steps as of other images, every pick a fresh draw of patches."""
    for step in training_steps(records, rows, settings, draws=0, seed=seed):
        yield {modality: [Pick(p.row, 1) for p in picks] for modality, picks in step.items()}


def tumour_share(record: Record, features: Features) -> Float[np.ndarray, " n"]:
    """Share of each patch inside annotated tumours.

    Outside of them it is NaN unless the slide is annotated exhaustively or known to be free of tumour.

    Raises:
        DataError: tumours are outlined, but the file of features does not tell how large its patches are.
    """
    count = len(features)
    is_complete = record.attributes.get("annotated") == "yes" or record.malignant == 0
    rest = 0.0 if is_complete else np.nan
    tumours = [f for f in record.findings if f.malignant != 0]
    if not tumours or not count:
        return np.full(count, rest)
    if np.isnan(features.span):
        raise DataError(
            f"{record.image_id}: has outlines, but its features do not tell the side of a patch at level 0;"
            " give coords the attribute patch_size_level0, or patch_size and downsample"
        )
    um = features.spacing or Spacing.square(1.0)
    cell = np.array([1.0, um.um_x / um.um_y]) * features.span / PIXELS
    first = features.corners.min(axis=0)
    width, height = ((features.corners.max(axis=0) - first) / cell).astype(int) + PIXELS + 2
    painted = paint(tumours, Frame(*(1 / cell), *(-first / cell)), (int(height), int(width)))
    shares = box_means(painted, (features.corners - first) / cell)
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
