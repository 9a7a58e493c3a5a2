"""From slides to files of patch features: restartable, beside other workers, past bad slides."""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mammopath import __version__
from mammopath.config import dump
from mammopath.errors import ConfigError, DataError, ImageReadError
from mammopath.files import write_text
from mammopath.images.slide import open_slide
from mammopath.model.network import Network
from mammopath.parallel import in_processes, threads
from mammopath.prepare.patches import patch_grid, stream
from mammopath.prepare.tissue import find_tissue
from mammopath.progress import Track, silent
from mammopath.settings import SlideSettings
from mammopath.slides.embed import embed, frozen_trunk, stain_of
from mammopath.slides.store import writing_features
from mammopath.slides.thumbnail import write_thumbnail
from mammopath.types import Skipped, Spacing

TOLD = 20
"""Unreadable patches of a slide that are told one by one; all of them are counted."""


@dataclass(frozen=True)
class Outcome:
    """What became of one slide.

    Attributes:
        slide: its name. path: of its file.
        verdict: of its tissue, or ``unreadable``, ``no patches``, ``busy`` (another worker has it).
        patches: how many have features. skipped: how many could not be read, and why the first of them.
        um: size of a level-0 pixel and where that comes from.
        share, pen, sharpness: see ``Tissue``.
        code, why: of an unreadable slide.
        notes: what is odd about the file.
    """

    slide: str
    path: str
    verdict: str
    patches: int = 0
    skipped: int = 0
    damage: tuple[str, ...] = ()
    um: tuple[float, float] = (0.0, 0.0)
    spacing_source: str = "unknown"
    share: float = 0.0
    pen: float = 0.0
    sharpness: float = 0.0
    code: str = ""
    why: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """Features of many slides, in one folder.

    Attributes:
        out: gets ``features/NAME.h5``, ``thumbnails/NAME.jpg``, ``slides/NAME.json``.
        settings: patches and model.
        spacings: of level-0 pixels by name, in place of headers.
    """

    out: Path
    settings: SlideSettings
    spacings: Mapping[str, Spacing]

    def features(self, name: str) -> Path:
        """Where the features of a slide lie."""
        return self.out / "features" / f"{name}.h5"

    def outcome(self, name: str) -> Path:
        """Where it is written what became of a slide; this file appears last."""
        return self.out / "slides" / f"{name}.json"


def extract(
    slides: Mapping[str, Path], job: Job, *, workers: int = 1, track: Track = silent
) -> list[Outcome]:
    """Features of every slide that has none yet.

    Args:
        slides: files by name.
        job: where to, and how.
        workers: processes; they, and other commands on the same folder, never take the same slide.
        track: shows progress.

    Raises:
        ConfigError: the folder holds features made with other settings, or the settings do not fit.
    """
    recipe = _claim(job)
    missing = [name for name in slides if not _is_done(job, name)]
    parts = [missing[i::workers] for i in range(max(1, workers))]
    work = partial(_work, job=job, recipe=recipe, slides=slides)
    if workers <= 1:
        found = work(missing, track=track)
    else:
        found = [one for part in in_processes(work, parts, workers=workers) for one in part]
    busy = [one for one in found if one.verdict == "busy"]
    return [*(read_outcome(job, name) for name in slides if job.outcome(name).exists()), *busy]


def read_outcome(job: Job, name: str) -> Outcome:
    """What became of a slide."""
    told: dict[str, Any] = json.loads(job.outcome(name).read_text())
    lists = {k: tuple(v) for k, v in told.items() if isinstance(v, list)}
    return Outcome(**(told | lists))


def name_slides(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without suffix.

    Raises:
        DataError: two are called the same.
    """
    named: dict[str, Path] = {}
    for path in paths:
        if (other := named.setdefault(path.stem, path)) != path:
            raise DataError(
                f"{path} and {other} are both called {path.stem}: their features would be one file"
            )
    return named


def _is_done(job: Job, name: str) -> bool:
    """Whether a slide is settled; one that could not be read is tried again, it may be whole by now."""
    return job.outcome(name).exists() and read_outcome(job, name).verdict != "unreadable"


def _claim(job: Job) -> str:
    """Write down what the folder's features are made with, or see that it is the same as before."""
    network = frozen_trunk(job.settings)
    told = {"settings": dump(job.settings) | {"workers": 0}, "trunk": network.lower_fingerprint()}
    recipe = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    path = job.out / "recipe.json"
    if path.exists() and (before := json.loads(path.read_text())["recipe"]) != recipe:
        raise ConfigError(
            f"{job.out}: holds features made with other settings or weights ({before[:12]});"
            " take another folder with --out"
        )
    if not path.exists():
        write_text(path, json.dumps({"recipe": recipe, "version": __version__, **told}, indent=1))
    return recipe


def _work(
    names: Sequence[str], *, job: Job, recipe: str, slides: Mapping[str, Path], track: Track = silent
) -> list[Outcome]:
    """Go through slides, in this process."""
    found = []
    with threads(job.settings.threads):
        network = frozen_trunk(job.settings) if names else None
        for i in track(range(len(names)), "slides", len(names)):
            assert network is not None
            found.append(_take(names[i], slides[names[i]], job, recipe, network=network))
    return found


def _take(name: str, path: Path, job: Job, recipe: str, *, network: Network) -> Outcome:
    """One slide, unless another worker has it or had it."""
    with _locked(job.out / "locks" / f"{name}.lock") as mine:
        if not mine:
            return Outcome(name, str(path), "busy")
        if _is_done(job, name):
            return read_outcome(job, name)
        started = time.monotonic()
        try:
            outcome = _one(name, path, job, recipe, network=network)
        except ImageReadError as error:
            outcome = Outcome(name, str(path), "unreadable", code=error.code, why=error.why)
        told = asdict(outcome) | {"seconds": round(time.monotonic() - started, 2)}
        write_text(job.outcome(name), json.dumps(told, indent=1))
        return outcome


def _one(name: str, path: Path, job: Job, recipe: str, *, network: Network) -> Outcome:
    patches = job.settings.patches
    with open_slide(path, job.spacings.get(path.name) or job.spacings.get(path.stem)) as slide:
        tissue = find_tissue(slide, patches.mask_um)
        write_thumbnail(job.out / "thumbnails" / f"{name}.jpg", tissue)
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
