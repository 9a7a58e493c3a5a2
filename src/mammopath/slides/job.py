"""A job over slides: their names, where features lie, what became of each, whether that still holds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mammopath.errors import DataError
from mammopath.images.slide_spacing import spacing_of
from mammopath.slide_settings import SlideSettings
from mammopath.types import Record, Spacing

RECIPE = "recipe.json"
"""What the features of a folder are made with."""


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
        size, mtime_ns: of the file, in bytes and nanoseconds. override: spacing that was given, x and y.
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
    size: int = 0
    mtime_ns: int = 0
    override: tuple[float, ...] = ()


@dataclass(frozen=True)
class Job:
    """Features of many slides, in one folder.

    Attributes:
        out: gets ``features/NAME.h5``, ``thumbnails/NAME.jpg``, ``slides/NAME.json``.
        settings: patches and model.
        spacings: of level-0 pixels by path or name, in place of headers.
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

    def thumbnail(self, name: str) -> Path:
        """Where the thumbnail of a slide lies."""
        return self.out / "thumbnails" / f"{name}.jpg"


def read_outcome(job: Job, name: str) -> Outcome:
    """What became of a slide."""
    told: dict[str, Any] = json.loads(job.outcome(name).read_text())
    lists = {k: tuple(v) for k, v in told.items() if isinstance(v, list)}
    return Outcome(**(told | lists))


def name_slides(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without suffix; files of one name take those of their folders in front.

    ``a/1.dcm`` and ``b/1.dcm`` become ``a_1`` and ``b_1``.

    Raises:
        DataError: two files would still be called the same.
    """
    namesakes: dict[str, list[Path]] = {}
    for path in dict.fromkeys(path.absolute() for path in paths):
        namesakes.setdefault(path.stem, []).append(path)
    named: dict[str, Path] = {}
    for own in namesakes.values():
        for name, path in zip(_names(own), own, strict=True):
            if (other := named.setdefault(name, path)) != path:
                raise DataError(f"{path}: would be called {name}, as {other} is; rename it")
    return named


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ: stem, or name, with more and more folders."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        for last in ("stem", "name"):
            names = ["_".join((*p.parts[-depth:-1], str(getattr(p, last)))) for p in paths]
            if len(set(names)) == len(paths):
                return names
    return [path.stem for path in paths]


def given_spacings(records: Iterable[Record]) -> dict[str, Spacing]:
    """Spacings that do not come from headers, by path: a file name alone may stand for several slides."""
    return {str(r.path.absolute()): r.spacing for r in records if r.spacing and r.spacing_source != "header"}


def find_features(folder: Path, slides: Sequence[Path]) -> dict[Path, Path]:
    """Files of features by slide, of those that have one.

    Args:
        folder: of `mammopath slides features`, where it is written which file was read; or of other programs,
            with a file ``NAME.h5`` for each slide NAME.
        slides: as the caller spells them.
    """
    told = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "slides").glob("*.json"))}
    by_path = {one["path"]: name for name, one in told.items()}
    named = {path: name for name, path in name_slides(slides).items()}
    found = {}
    for slide in slides:
        name = by_path.get(str(slide.absolute()), named[slide.absolute()])
        places = (folder / "features" / f"{name}.h5", folder / f"{name}.h5")
        if place := next((place for place in places if place.exists()), None):
            found[slide] = place
    return found


def is_done(job: Job, name: str, path: Path) -> bool:
    """Whether a slide is settled: the same file was read, and what came of it is there.

    One that could not be read is tried again, it may be whole by now. A file of the same size and time is
    the same in whatever folder it lies, and features of a slide that is no longer there stay.
    """
    if not job.outcome(name).exists():
        return False
    told = read_outcome(job, name)
    is_kept = told.patches == 0 or job.features(name).exists()
    is_same = not path.exists() or told == replace(told, **stamp_of(job, path))
    return told.verdict != "unreadable" and is_kept and is_same


def stamp_of(job: Job, path: Path) -> dict[str, Any]:
    """What tells one slide, and one reading of it, from another of the same name."""
    try:
        facts = path.stat()
    except OSError:
        return {}
    spacing = spacing_of(path, job.spacings)
    override = (spacing.um_x, spacing.um_y) if spacing else ()
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "override": override}
