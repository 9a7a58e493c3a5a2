"""One data set on disk becomes a manifest: looked up, listed, counted."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mammopath.cohort.manifest import Manifest, collect
from mammopath.errors import DataError
from mammopath.sources import SOURCES
from mammopath.sources.source import Counts, check_counts, count
from mammopath.types import Record, Skipped


@dataclass(frozen=True)
class Indexed:
    """A manifest, and its counts beside the expected ones."""

    manifest: Manifest
    counts: Counts


def index_source(
    name: str,
    root: Path,
    *,
    domain: str = "",
    strict: bool = False,
    partial: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Indexed:
    """Index one data set.

    Args:
        name: key of ``SOURCES``.
        root: folder as downloaded, or the file of a table.
        domain: overrides the site of every record.
        strict: stop at the first file or row that cannot be used.
        partial: accept counts that are not those of the published data set.
        progress: called with the number of entries listed so far.

    Raises:
        DataError: no such source or folder, nothing found, wrong counts, or with ``strict`` a bad file or row.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"no source {name!r}{guess} There are: {', '.join(SOURCES)}")
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or table")
    folder = root if root.is_dir() else root.parent
    entries = _watched(SOURCES[name].index(root), strict=strict, progress=progress)
    manifest = collect(entries, source=name, root=folder, domain=domain)
    if partial:
        return Indexed(manifest, Counts(count(manifest.records)))
    return Indexed(manifest, check_counts(SOURCES[name], manifest.records, manifest.skipped, root=root))


def _watched(
    entries: Iterator[Record | Skipped], *, strict: bool, progress: Callable[[int], None] | None
) -> Iterator[Record | Skipped]:
    for number, entry in enumerate(entries, start=1):
        if strict and isinstance(entry, Skipped):
            raise DataError(
                f"{entry.where}: {entry.why} ({entry.code}); correct it, or index without --strict"
            )
        if progress:
            progress(number)
        yield entry
