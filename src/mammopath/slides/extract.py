"""From slides to files of patch features: restartable, beside other workers, past bad slides."""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mammopath import __version__
from mammopath.config import dump
from mammopath.errors import ConfigError, ImageReadError
from mammopath.files import sweep, write_text
from mammopath.images.slide import open_slide
from mammopath.images.slide_spacing import spacing_of
from mammopath.model.network import Network
from mammopath.parallel import past_crashes, threads
from mammopath.prepare.patches import patch_grid, stream
from mammopath.prepare.tissue import find_tissue
from mammopath.progress import Track, silent
from mammopath.slide_settings import SlideSettings
from mammopath.slides.embed import embed, frozen_trunk, stain_of
from mammopath.slides.job import RECIPE, Job, Outcome, is_done, read_outcome, stamp_of
from mammopath.slides.store import writing_features
from mammopath.slides.thumbnail import write_thumbnail
from mammopath.types import Skipped

TOLD = 20
"""Unreadable patches of a slide that are told one by one; all of them are counted."""


Task = tuple[str, Path]
"""Name and file of a slide."""


def extract(
    slides: Mapping[str, Path], job: Job, *, workers: int = 0, track: Track = silent
) -> list[Outcome]:
    """Features of every slide that has none yet.

    Args:
        slides: files by name.
        job: where to, and how.
        workers: processes; they, and other commands on the same folder, never take the same slide. A slide
            on which one dies is told and passed over; 0 works in this process, which would die itself.
        track: shows progress.

    Raises:
        ConfigError: the folder holds features made with other settings, or the settings do not fit.
    """
    recipe = _claim(job, frozen_trunk(job.settings))
    missing = [(name, path) for name, path in slides.items() if not is_done(job, name, path)]
    if workers == 0:
        made = _here(missing, job, recipe, track=track)
    else:
        made = _in_processes(missing, job, recipe, workers=workers, track=track)
    return [made.get(name) or read_outcome(job, name) for name in slides]


def made_with(settings: SlideSettings, network: Network) -> dict[str, Any]:
    """All that the numbers of features depend on, and ``recipe``, a hash of it."""
    told = dump(settings)
    found = {
        "patches": told["patches"],
        "precision": told["precision"],
        "encoder": told["trunk"]["encoder"],
        "block": told["trunk"]["block"],
        "trunk": network.lower_fingerprint(),
    }
    return found | {"recipe": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()}


def _claim(job: Job, network: Network) -> str:
    """Write down what the folder's features are made with, or see that it is the same as before.

    Only what their numbers depend on is compared, so that a folder serves every command.
    """
    made = made_with(job.settings, network)
    recipe = str(made["recipe"])
    path = job.out / RECIPE
    if path.exists() and (before := json.loads(path.read_text())["recipe"]) != recipe:
        raise ConfigError(
            f"{job.out}: holds features made with other settings or weights ({before[:12]});"
            " take another folder with --out"
        )
    if not path.exists():
        told = dump(job.settings)
        settings = {name: told[name] for name in ("patches", "trunk", "precision")}
        whole = {**made, "version": __version__, "settings": settings}
        write_text(path, json.dumps(whole, indent=1))
    return recipe


def _here(tasks: Sequence[Task], job: Job, recipe: str, *, track: Track) -> dict[str, Outcome]:
    """Go through slides in this process."""
    network = frozen_trunk(job.settings)
    with threads(job.settings.threads):
        return {
            tasks[i][0]: _take(tasks[i], job, recipe, network=network)
            for i in track(range(len(tasks)), "slides", len(tasks))
        }


def _in_processes(
    tasks: Sequence[Task], job: Job, recipe: str, *, workers: int, track: Track
) -> dict[str, Outcome]:
    """Go through slides in other processes; a slide on which one dies is told and passed over."""
    results = past_crashes(partial(_alone, job=job, recipe=recipe), tasks, workers=workers)
    found = {}
    for _ in track(range(len(tasks)), "slides", len(tasks)):
        (name, path), outcome = next(results)
        if outcome is None:
            why = "the process that read it died: out of memory, or a fault in a decoder"
            outcome = Outcome(name, str(path), "unreadable", code="crashed", why=why)
            write_text(job.outcome(name), json.dumps(asdict(outcome), indent=1))
        found[name] = outcome
    return found


def _alone(task: Task, *, job: Job, recipe: str) -> Outcome:
    """One slide in a process that keeps its network for the next one."""
    plain = {name: getattr(job.settings, name) for name in SlideSettings.model_fields}
    with threads(job.settings.threads):
        return _take(task, job, recipe, network=_kept_trunk(SlideSettings(**plain)))


_kept_trunk = lru_cache(maxsize=1)(frozen_trunk)


def _take(task: Task, job: Job, recipe: str, *, network: Network) -> Outcome:
    """One slide, unless another worker has it or had it."""
    name, path = task
    with _locked(job.out / "locks" / f"{name}.lock") as mine:
        if not mine:
            return Outcome(name, str(path), "busy")
        if is_done(job, name, path):
            return read_outcome(job, name)
        for place in (job.features(name), job.thumbnail(name), job.outcome(name)):
            sweep(place)
        job.features(name).unlink(missing_ok=True)
        started, stamp = time.monotonic(), stamp_of(job, path)
        try:
            outcome = _one(name, path, job, recipe, network=network)
        except ImageReadError as error:
            outcome = Outcome(name, str(path), "unreadable", code=error.code, why=error.why)
        outcome = replace(outcome, **stamp, seconds=round(time.monotonic() - started, 2))
        write_text(job.outcome(name), json.dumps(asdict(outcome), indent=1))
        return outcome


def _one(name: str, path: Path, job: Job, recipe: str, *, network: Network) -> Outcome:
    patches = job.settings.patches
    with open_slide(path, spacing_of(path, job.spacings)) as slide:
        tissue = find_tissue(slide, patches.mask_um)
        write_thumbnail(job.thumbnail(name), tissue)
        grid = patch_grid(
            slide, tissue, side=patches.side, um=patches.um, overlap=patches.overlap, least=patches.tissue
        )
        skipped: list[Skipped] = []
        count = 0
        if tissue.verdict != "empty":
            facts = {"recipe": recipe, "encoder": job.settings.trunk.encoder, "read": patches.read}
            stain = stain_of(tissue, patches)
            with writing_features(job.features(name), slide, grid, facts) as file:
                for batch in stream(slide, grid, batch=patches.batch):
                    values = embed(
                        network, batch.pixels, patches, stain=stain, precision=job.settings.precision
                    )
                    file.add(values, grid.corners[batch.rows])
                    skipped += batch.skipped
                count = file.rows
            if not count:
                job.features(name).unlink()
        return Outcome(
            name,
            str(path),
            tissue.verdict if count or tissue.verdict == "empty" else "no patches",
            patches=count,
            skipped=len(skipped),
            damage=tuple(f"{s.where}: {s.why}" for s in skipped[:TOLD]),
            um=(slide.spacing.um_x, slide.spacing.um_y),
            spacing_source=slide.spacing_source,
            notes=slide.notes,
            share=round(tissue.share, 5),
            pen=round(tissue.pen, 5),
            sharpness=round(tissue.sharpness, 5) if np.isfinite(tissue.sharpness) else 0.0,
        )


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """A lock that ends with its process, however that ends; False where another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
