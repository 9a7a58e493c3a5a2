"""A cohort on the bench: readable records, and their views at the cut where the trunk is frozen."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mammopath.cohort import manifest
from mammopath.cohort.check import check_records
from mammopath.cohort.facts import cohort_facts
from mammopath.cohort.loader import Labels
from mammopath.cohort.manifest import Manifest
from mammopath.cohort.splits import thin
from mammopath.cohort.store import TokenStore
from mammopath.cohort.views import standard_views
from mammopath.errors import ConfigError, DataError, ImageReadError
from mammopath.evaluate import stamp
from mammopath.features import Bank, SampleBank, TokenBank, ViewKeys, plain_view, token_keys
from mammopath.filling import Wanted, fill
from mammopath.images.packed import file_of
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.parallel import device_of, processes
from mammopath.progress import Track, silent
from mammopath.scratch import small_view
from mammopath.settings import DataSettings, RunSettings
from mammopath.slides.cohort import MixedBank, mixed, slide_files, slide_settings
from mammopath.sources import SOURCES
from mammopath.sources.slides import is_slide
from mammopath.sources.source import check_counts
from mammopath.tensors import Sample
from mammopath.types import Record, Skipped


@dataclass(frozen=True)
class Bench:
    """What every run of a study shares.

    Attributes:
        records: what could be read.
        skipped: what could not, with reasons.
        fingerprint: of the manifests.
        sources: names of the sources.
        stamp: what a reader of any single output must know (``evaluate.stamp``); empty for nothing.
        store: activations at the cut, ``keys`` their names; none where the trunk is trained from images.
        samples: plain views kept in memory where there is no store.
        bags: files of features of the records that are whole slides, by row.
    """

    records: Sequence[Record]
    skipped: Sequence[Skipped]
    fingerprint: str
    sources: Sequence[str] = ()
    store: TokenStore | None = None
    keys: Sequence[ViewKeys] = ()
    samples: dict[int, Sample] = field(default_factory=dict)
    stamp: str = ""
    bags: Mapping[int, Path] = field(default_factory=dict)

    def bank(self, labels: Labels, settings: RunSettings, network: Network) -> Bank:
        """Where batches get their content."""
        if self.store:
            return self.stored(labels, settings, prefix=network.shape.prefix)
        return SampleBank(self.records, labels, settings, network, kept=self.samples)

    def stored(self, labels: Labels, settings: RunSettings, *, prefix: int = 1) -> TokenBank | MixedBank:
        """What the store holds, and bags of slides where there are any; ``prefix`` tokens of the network.

        Raises:
            ConfigError: the trunk is trained from images, so nothing is stored.
        """
        if not self.store:
            raise ConfigError("this needs a frozen trunk: set model.train_trunk: none and model.weights")
        tokens = TokenBank(self.store, self.keys, labels)
        return mixed(tokens, self.bags, self.records, settings, prefix=prefix) if self.bags else tokens


def data_facts(bench: Bench) -> dict[str, Any]:
    """What is known of a bench's images and wrong with them, for JSON; every image is read once more."""
    facts = {"fingerprint": bench.fingerprint} | cohort_facts(bench.records)
    facts["check"] = [vars(finding) for finding in check_records(bench.records).findings]
    return facts | {"skipped": [{"where": s.where, "code": s.code, "why": s.why} for s in bench.skipped]}


def stamped(bench: Bench, facts: Mapping[str, Any]) -> Bench:
    """The bench, with the stamp that its facts call for."""
    return replace(bench, stamp=stamp(facts))


def read_cohort(settings: DataSettings) -> Manifest:
    """Read manifests and index sources; both together make one manifest, of standard views if so wished.

    Raises:
        ConfigError: neither is named, or a source is unknown.
        DataError: a manifest or source is not what it should be.
    """
    found = [manifest.read(path) for path in settings.manifests]
    for source in settings.sources:
        if source.source not in SOURCES:
            raise ConfigError(f"data.sources: no source {source.source!r}; there are {', '.join(SOURCES)}")
        known = SOURCES[source.source]
        made = manifest.collect(
            known.index(source.root), source=source.source, root=source.root, domain=source.domain
        )
        if not source.partial:
            check_counts(known, made.records, made.skipped, root=source.root)
        found.append(made)
    if not found:
        raise ConfigError("no data: name manifests under data.manifests or data sets under data.sources")
    cohort = manifest.concat(found)
    return standard_views(cohort) if settings.standard_views else cohort


def prepare_bench(
    settings: RunSettings,
    *,
    cache: Path,
    tokens: bool = True,
    strict: bool = False,
    track: Track = silent,
) -> Bench:
    """Read the cohort and, with a frozen trunk, fill the store; unreadable images are left out and listed.

    Args:
        settings: data, preparation, model.
        cache: folder of stored activations.
        tokens: False where no run looks through the trunk: images are kept as the small network sees them.
        strict: stop at the first unreadable image.
        track: shows progress.

    Raises:
        DataError: an image is unreadable and ``strict``, or none of a source is readable.
    """
    cohort = read_cohort(settings.data)
    records = [cohort.records[i] for i in thin(cohort.records, limit=settings.data.limit, seed=0)]
    if any(map(is_slide, records)):
        slide_settings(settings)  # before anything is read
    network = build_network(settings.model)
    if not tokens:
        view = partial(small_view, settings=settings.prepare)
        bench = _from_images(cohort, records, view, track=track)
    elif network.lower_is_frozen():
        bench = _from_store(cohort, records, network, settings, cache=cache, track=track)
    else:
        view = partial(plain_view, settings=settings, network=network)
        bench = _from_images(cohort, records, view, track=track)
    _demand_sources(cohort.records, bench)
    return _demand(bench, strict=strict)


def _from_store(
    cohort: Manifest,
    records: Sequence[Record],
    network: Network,
    settings: RunSettings,
    *,
    cache: Path,
    track: Track,
) -> Bench:
    """The trunk is frozen: its activations are stored once, those of slides as bags of patches."""
    store, workers = TokenStore(cache), fill_workers(settings)
    readable, unread = _present([r for r in records if not is_slide(r)])
    keys = token_keys(readable, network, settings)
    wanted = [Wanted(r, names) for r, names in zip(readable, keys, strict=True)]
    unread += fill(store, wanted, settings, workers=workers, track=track)
    bad = {s.where for s in unread}
    views = {one.record.image_id: one.keys for one in wanted if one.record.image_id not in bad}
    slides = [r for r in records if is_slide(r)]
    bags, unread_slides = (
        slide_files(slides, settings, cache, workers=workers, track=track) if slides else ({}, [])
    )
    usable = [r for r in records if r.image_id in views or r.image_id in bags]
    return Bench(
        usable,
        [*cohort.skipped, *unread, *unread_slides],
        cohort.fingerprint,
        cohort.sources,
        store,
        [views.get(r.image_id, {}) for r in usable],
        bags={i: bags[r.image_id] for i, r in enumerate(usable) if r.image_id in bags},
    )


def _from_images(
    cohort: Manifest, records: Sequence[Record], view: Callable[[Record], Sample], *, track: Track
) -> Bench:
    """Nothing is stored, as the trunk is trained or not there: views are kept in memory."""
    usable, samples, unread = _samples(records, view, track=track)
    return Bench(usable, [*cohort.skipped, *unread], cohort.fingerprint, cohort.sources, samples=samples)


def fill_workers(settings: RunSettings) -> int:
    """Processes that fill the store: one keeps a graphics card busy, and inside a worker there is one."""
    if device_of(settings.device).type != "cpu" or multiprocessing.parent_process() is not None:
        return 1
    return processes(settings.workers, threads=settings.threads)


def _present(records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
    """Records whose file is there, and those whose file is not."""
    there = [file_of(r.path).is_file() for r in records]
    gone = [
        Skipped(r.image_id, "missing", f"{r.path} is not there")
        for r, found in zip(records, there, strict=True)
        if not found
    ]
    return [r for r, found in zip(records, there, strict=True) if found], gone


def _samples(
    records: Sequence[Record], view: Callable[[Record], Sample], *, track: Track
) -> tuple[list[Record], dict[int, Sample], list[Skipped]]:
    """Views of all records that can be read."""
    kept: list[Record] = []
    samples: dict[int, Sample] = {}
    unread: list[Skipped] = []
    for i in track(range(len(records)), "preparing images", len(records)):
        try:
            samples[len(kept)] = view(records[i])
        except ImageReadError as error:
            unread.append(Skipped(records[i].image_id, error.code, error.why))
            continue
        kept.append(records[i])
    return kept, samples, unread


def _demand_sources(listed: Sequence[Record], bench: Bench) -> None:
    """A study that silently goes on without one of its data sets would be taken for one with it."""
    left = {_source(r.image_id) for r in bench.records}
    for name in sorted({_source(r.image_id) for r in listed} - left):
        reasons = [s for s in bench.skipped if _source(s.where) == name]
        first = f"; the first: {reasons[0].where}: {reasons[0].why}" if reasons else "; raise data.limit"
        raise DataError(f"no image of {name} can be used{first}. Mend it, or take the source out of data")


def _source(image_id: str) -> str:
    return image_id.split("/", maxsplit=1)[0]


def _demand(bench: Bench, *, strict: bool) -> Bench:
    bad = [s for s in bench.skipped if s.code != "view"]
    if bad and strict:
        listed = "\n  ".join(f"{s.where}: {s.why}" for s in bad[:10])
        raise DataError(f"{len(bad)} images cannot be used, and --strict is on:\n  {listed}")
    if not bench.records:
        raise DataError("no image can be read; see the reasons with `mammopath check`")
    return bench
