"""What a source is: a function that lists its records, and what we know of the data set behind it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.images.raster import read_size
from mammopath.types import SEVERITIES, Record, Skipped, Spacing

Index = Callable[[Path], Iterator[Record | Skipped]]
"""Lists the images under a folder, one at a time; what cannot be used becomes Skipped."""

SpacedIndex = Callable[[Path, Mapping[str, Spacing]], Iterator[Record | Skipped]]
"""Likewise, with sizes of pixels by name of file, with or without suffix, in place of what headers say."""

ANNOTATED = {"annotated": "yes"}
"""Attribute of images all of whose lesions are among the findings, so that elsewhere there is none."""


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        index: lists its records.
        about: one line for people.
        licence: what its publisher allows.
        editions: counts that must be found, by edition; empty where none are known. Keys as of ``count``.
        index_spaced: lists its records with spacings that are given; None where headers are not asked.
    """

    index: Index
    about: str
    licence: str
    editions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    index_spaced: SpacedIndex | None = None


@dataclass(frozen=True)
class Counts:
    """What was found of one source, beside what its nearest edition has (empty where none is known)."""

    found: Mapping[str, int]
    expected: Mapping[str, int] = field(default_factory=dict)
    edition: str = ""

    @property
    def wrong(self) -> dict[str, str]:
        """``found/expected`` of every count that differs."""
        return {
            name: f"{self.found.get(name, 0)}/{n}"
            for name, n in self.expected.items()
            if self.found.get(name, 0) != n
        }


def by_site(entries: Iterable[Record | Skipped], attribute: str) -> Iterator[Record | Skipped]:
    """The same entries, with an attribute (institution, station, manufacturer, ...) for a site.

    A record without that attribute keeps its site; empty changes nothing.
    """
    for entry in entries:
        site = "" if isinstance(entry, Skipped) else entry.attributes.get(attribute, "")
        yield replace(entry, domain=site) if isinstance(entry, Record) and site else entry


def count(records: Iterable[Record]) -> dict[str, int]:
    """Images, patients, and images by label (``malignant``, ``not malignant``) and severity category."""
    found: Counter[str] = Counter()
    patients = set()
    for record in records:
        patients.add(record.patient)
        found["images"] += 1
        if record.malignant in (0.0, 1.0):
            found["malignant" if record.malignant else "not malignant"] += 1
        if record.severity in (0.0, 1.0, 2.0, 3.0):
            found[SEVERITIES[int(record.severity)]] += 1
    return dict(found) | {"patients": len(patients)}


def check_counts(
    source: Source, records: Iterable[Record], skipped: Iterable[Skipped], *, root: Path
) -> Counts:
    """Compare what was found with the edition of the source that comes nearest.

    Files that are there but unusable explain a difference; files that are missing do not.

    Raises:
        DataError: counts differ, and unusable files do not explain it.
    """
    found = count(records)
    if not source.editions:
        return Counts(found)
    edition = min(
        source.editions, key=lambda name: abs(source.editions[name]["images"] - found.get("images", 0))
    )
    counts = Counts(found, source.editions[edition], edition)
    unusable = sum(entry.code not in ("missing", "annotation") for entry in skipped)
    if counts.wrong and found.get("images", 0) + unusable != counts.expected["images"]:
        told = ", ".join(f"{name} {numbers}" for name, numbers in counts.wrong.items())
        raise DataError(
            f"{root}: found/expected differ ({edition}): {told}. Unpack the download again; to use a part of "
            "the data set on purpose, allow a partial index"
        )
    return counts


def measured(path: Path) -> tuple[int, int] | Skipped:
    """Height and width of an image, or why it is left out."""
    try:
        return read_size(path)
    except ImageReadError as error:
        return Skipped(str(path), error.code, error.why)


def first_folder(root: Path, names: Iterable[str], pattern: str, *, what: str) -> Path:
    """The first of some folders under ``root`` that holds a file or folder like ``pattern``.

    Raises:
        DataError: there is none.
    """
    tried = [root / name for name in names]
    for folder in tried:
        if folder.is_dir() and next(folder.glob(pattern), None):
            return folder
    raise DataError(
        f"{root}: holds no {what}; looked for {pattern} in {', '.join(str(folder) for folder in tried)}. "
        "Give the folder as unpacked"
    )
