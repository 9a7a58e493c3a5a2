"""Whole slides among the images of a study: features at the cut, served as bags beside stored tokens."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mammopath.cohort.loader import Pick, collate
from mammopath.errors import ConfigError
from mammopath.features import TokenBank
from mammopath.progress import Track, silent
from mammopath.settings import RunSettings
from mammopath.slide_settings import SlideSettings, TrunkSettings
from mammopath.slides.bags import BagBank, BagMemory
from mammopath.slides.embed import frozen_trunk
from mammopath.slides.extract import extract, made_with
from mammopath.slides.job import Job, given_spacings
from mammopath.tensors import Batch
from mammopath.types import Modality, Record, Skipped

MEMORY = BagMemory()
"""Of the process: a run makes a bank for every look that it takes, and every run of a study the same ones."""


@dataclass(frozen=True)
class MixedBank:
    """Batches in which slides are bags and all other images are stored tokens.

    Attributes:
        tokens: of images. bags: of slides, by row.
        cut: block of pathology that both are read after, counted from 1.
    """

    tokens: TokenBank
    bags: BagBank
    cut: int

    def batch(self, modality: Modality, picks: Sequence[Pick]) -> Batch:
        """Put the picked views together; a slide has as many tokens as patches were drawn."""
        items = [self.bags.bag(p) if p.row in self.bags.files else self.tokens.item(p) for p in picks]
        batch = collate(self.tokens.labels, [p.row for p in picks], items)
        return replace(batch, prefix=self.bags.prefix)

    def statistics(self, row: int) -> torch.Tensor:
        """What a plain classifier reads: mean and spread at the cut; of mammograms what ``TokenBank`` tells.

        That is all that fields and slides have in common; the tokens of a slide are its patches.
        """
        if row in self.bags.files:
            patches = self.bags.bag(Pick(row, 0)).tokens[self.bags.prefix :]
            return torch.cat([patches.mean(dim=0), patches.std(dim=0, correction=0)])[None]
        found = self.tokens.statistics(row)
        if self.tokens.labels.modality[row] == "mammogram":
            return found
        _, mean, spread = found[self.cut - 1].chunk(3)
        return torch.cat([mean, spread])[None]


def mixed(
    tokens: TokenBank,
    files: Mapping[int, Path],
    records: Sequence[Record],
    settings: RunSettings,
    *,
    prefix: int,
) -> MixedBank:
    """A bank of stored tokens, and of slides with their features in ``files`` by row."""
    own = settings.slides
    bags = BagBank(
        files, records, tokens.labels, prefix, own.bag, own.look, seed=settings.seed, memory=MEMORY
    )
    return MixedBank(tokens, bags, settings.model.cut["pathology"])


def slide_settings(settings: RunSettings) -> SlideSettings:
    """How patches of slides of a study are made: with its trunk, up to its cut.

    Raises:
        ConfigError: the trunk below the cut is trained, or there is none.
    """
    cut = settings.model.cut.get("pathology", 0)
    if settings.model.train_trunk == "all":
        raise ConfigError("whole slides need a frozen trunk: set model.train_trunk to none or last_k")
    if cut < 1:
        raise ConfigError("whole slides are read at the cut: set model.cut.pathology to 1 or above")
    return SlideSettings(
        patches=settings.slides.patches,
        trunk=TrunkSettings(encoder=settings.model.encoder, weights=settings.model.weights, block=cut),
        precision=settings.train.trunk_precision,
        threads=settings.threads,
        device=settings.device,
    )


def slide_files(
    records: Sequence[Record], settings: RunSettings, cache: Path, *, workers: int, track: Track = silent
) -> tuple[dict[str, Path], list[Skipped]]:
    """Files of features of slides by ``image_id``, made where there are none, and slides without.

    A slide of unknown malignancy neither trains nor tests: published test slides without public labels must
    not become a site or a class of their own.

    Args:
        records: of slides.
        settings: of the study.
        cache: folder of stored activations; features lie in it by what they are made with.
        workers: processes.
        track: shows progress.

    Raises:
        ConfigError: see ``slide_settings``.
    """
    own = slide_settings(settings)
    labelled = [r for r in records if not math.isnan(r.malignant)]
    why = "its label is not known, so it can neither train nor test"
    skipped = [Skipped(r.image_id, "unlabelled", why) for r in records if math.isnan(r.malignant)]
    recipe = str(made_with(own, frozen_trunk(own))["recipe"])
    job = Job(cache / "slides" / recipe[:16], own, given_spacings(labelled))
    named = {_name(r): r for r in labelled}
    slides: Mapping[str, Path] = {name: r.path.absolute() for name, r in named.items()}
    files = {}
    for outcome in extract(slides, job, workers=workers, track=track):
        record = named[outcome.slide]
        if outcome.patches:
            files[record.image_id] = job.features(outcome.slide)
        else:
            told = f"{outcome.verdict}: {outcome.why}".removesuffix(": ")
            skipped.append(Skipped(record.image_id, outcome.code or outcome.verdict.replace(" ", "_"), told))
    return files, skipped


def _name(record: Record) -> str:
    """The same in every study that shares a cache, whatever other slides it has."""
    return f"{record.path.stem}-{hashlib.sha256(record.image_id.encode()).hexdigest()[:8]}"
