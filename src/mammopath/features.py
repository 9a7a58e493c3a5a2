"""Where batches get their content: from stored activations of a frozen trunk, or from images.

Both banks answer ``batch(modality, picks)``; training and prediction do not know which one they use.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from mammopath.cohort.loader import Labels, Pick, collate
from mammopath.cohort.store import Stored, TokenStore, view_key
from mammopath.files import sha256
from mammopath.images.packed import file_of
from mammopath.model.network import Network
from mammopath.prepare.augment import apply, draw, draw_style, hide_middle
from mammopath.prepare.sample import load_sample, prepare_fingerprint
from mammopath.settings import RunSettings
from mammopath.tensors import Batch, Sample
from mammopath.types import Modality, Record

ViewKeys = Mapping[int, str]
"""Names of a record's stored views by number: 0 plain, positive augmented, negative in style only, and
one more with its middle hidden (``HIDDEN``)."""

HIDDEN = -(1 << 20)
"""Number of the view whose middle is hidden, for test-time adaptation."""


STYLES = "|styles 2"
"""Version of style-only views; 2 came with pixel size and compression."""


@runtime_checkable
class Bank(Protocol):
    """Gives batches of any rows and views."""

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the picked views together."""
        ...


def plain_view(record: Record, settings: RunSettings, network: Network) -> Sample:
    """The record as it is; its sides are multiples of a token's side.

    Raises:
        ImageReadError: the file cannot be read.
    """
    return load_sample(record, settings.prepare, multiple=network.cell(record.modality)).sample


def augmented(sample: Sample, record: Record, number: int, settings: RunSettings) -> Sample:
    """The augmented view of that number; seeded by the image's name, so it is the same in every run.

    A negative number is a view of which only the style is changed, as another scanner or laboratory would;
    ``HIDDEN`` is the view whose middle is hidden.
    """
    if number == HIDDEN:
        return hide_middle(sample)
    digest = hashlib.sha256(f"{record.image_id}|{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    change = draw if number > 0 else draw_style
    return apply(sample, change(settings.prepare.augment, record.modality, generator=generator))


@dataclass
class SampleBank:
    """Prepares images as they are asked for; keeps plain views in memory up to a budget.

    Attributes:
        budget: bytes of plain views to keep.
        fresh: count of augmented views asked for, so that each one is new.
    """

    records: Sequence[Record]
    labels: Labels
    settings: RunSettings
    network: Network
    budget: int = 2 << 30
    fresh: int = 0
    kept: dict[int, Sample] = field(default_factory=dict)

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the picked views together, as samples."""
        samples = [self._sample(pick) for pick in picks]
        return collate(self.labels, [p.row for p in picks], samples, cell=self.network.cell(modality))

    def _sample(self, pick: Pick) -> Sample:
        plain = self._plain(pick.row)
        if pick.draw == 0:
            return plain
        self.fresh += pick.draw > 0
        number = self.fresh if pick.draw > 0 else pick.draw
        return augmented(plain, self.records[pick.row], number, self.settings)

    def _plain(self, row: int) -> Sample:
        if row in self.kept:
            return self.kept[row]
        with torch.inference_mode(False):  # what is kept may be trained on later
            sample = plain_view(self.records[row], self.settings, self.network)
        size = sum(t.numel() * t.element_size() for t in vars(sample).values())
        if self.budget >= size:
            self.budget -= size
            self.kept[row] = sample
        return sample


@dataclass(frozen=True)
class TokenBank:
    """Reads stored activations at the cut; ``keys[row][draw]`` names them."""

    store: TokenStore
    keys: Sequence[ViewKeys]
    labels: Labels

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the picked views together, as tokens."""
        return collate(self.labels, [p.row for p in picks], [self.item(p) for p in picks])

    def item(self, pick: Pick) -> Stored:
        """One view."""
        return self.store.get(self.keys[pick.row][pick.draw])

    def statistics(self, row: int) -> torch.Tensor:
        """CLS, mean and spread of the plain view's patch tokens after each block, depth x 3d."""
        return self.store.get(self.keys[row][0]).statistics.float()


def token_keys(
    records: Sequence[Record], network: Network, settings: RunSettings, *, views: Sequence[int] | None = None
) -> list[ViewKeys]:
    """Names of the stored views of every record: by its bytes, its name, and all that makes a view.

    Args:
        records: whose views.
        network: the lower part and weights count.
        settings: of preparation, cut and precision.
        views: numbers; none means those that training needs, plain and augmented.
    """
    numbers = range(settings.prepare.draws + 1) if views is None else views
    weights = network.lower_fingerprint()
    recipes = {m: _recipe(weights, m, settings) for m in network.modalities}
    files = [file_of(r.path) for r in records]
    content = {file: sha256(file) for file in dict.fromkeys(files)}
    hashes = [f"{content[file]}|{_told(r)}" for file, r in zip(files, records, strict=True)]
    return [
        {number: view_key(recipes[r.modality] + _drawn(number), image, number) for number in numbers}
        for r, image in zip(records, hashes, strict=True)
    ]


def _drawn(number: int) -> str:
    """The version of style-only views, so that a change of what is drawn renames them and no other view."""
    return STYLES if number < 0 else ""


def _told(record: Record) -> str:
    """What a record says that decides how its image is prepared and where its lesions lie."""
    return f"{record.image_id}|{record.spacing}|{record.laterality}|{record.view}|{record.findings}"


def _recipe(weights: str, modality: Modality, settings: RunSettings) -> str:
    model = settings.model
    parts = (
        weights,
        prepare_fingerprint(settings.prepare, modality),
        str(model.cut.get(modality, 0)),
        str(model.token_pool.get(modality, 1)),
        settings.train.trunk_precision,
    )
    tile = model.tile.get(modality, 0)
    return "|".join(parts) + (f"|tile {tile}" if tile else "")
