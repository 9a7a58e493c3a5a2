"""The manifest: a Parquet table of records that says the same on every machine."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from mammopath import __version__
from mammopath.cohort.rows import SCHEMA, from_row, to_row
from mammopath.errors import DataError
from mammopath.files import writing
from mammopath.types import Record, Skipped

_KEY: Final = "mammopath"


@dataclass(frozen=True)
class Manifest:
    """Records of one or several sources, and where they come from.

    Attributes:
        records: one per image; their paths lie under ``root``.
        sizes: bytes of each file when it was indexed; -1 if it could not be seen.
        root: folder that stored paths are relative to.
        sources: names of the sources.
        skipped: files and rows that were left out, with reasons.
        created: when it was indexed (ISO 8601, UTC); version: of the package that did.
    """

    records: tuple[Record, ...]
    sizes: tuple[int, ...]
    root: Path
    sources: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    created: str = ""
    version: str = __version__

    def __post_init__(self) -> None:
        if len(self.records) != len(self.sizes):
            raise ValueError(f"{len(self.records)} records but {len(self.sizes)} file sizes")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(sorted({r.domain for r in self.records}))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what the records say and how large their files are.

        The same on every machine, in every folder and for every order of the records.
        """
        rows = (
            json.dumps([to_row(r, size)], sort_keys=True)
            for r, size in zip(self.records, self.sizes, strict=True)
        )
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def collect(entries: Iterable[Record | Skipped], *, source: str, root: Path, domain: str = "") -> Manifest:
    """Make a manifest of what a source's ``index`` yields; one image at a time, so memory stays small.

    Paths are stored relative to ``root``, or to its folder if it is a table. A second record of the same
    image is skipped. ``domain`` overrides the site of every record, and the first part of its ``image_id``
    with it, so that two tables of two sites do not meet.

    Raises:
        DataError: nothing was found.
    """
    records: dict[str, tuple[Record, int]] = {}
    skipped = []
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(entry)
            continue
        record = _moved(entry, domain) if domain else entry
        if record.image_id in records:
            skipped.append(Skipped(str(record.path), "annotation", f"second record of {record.image_id}"))
        else:
            records[record.image_id] = (record, _size(record.path))
    if not records:
        first = f" First skipped: {skipped[0].where}: {skipped[0].why}" if skipped else ""
        raise DataError(f"{root}: no image of source {source!r} was found; is this the right folder?{first}")
    return Manifest(
        records=tuple(record for record, _ in records.values()),
        sizes=tuple(size for _, size in records.values()),
        root=root if root.is_dir() else root.parent,
        sources=(source,),
        skipped=tuple(skipped),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest as Parquet, whole or not at all.

    Raises:
        DataError: an image lies outside the root.
    """
    rows = [
        to_row(r, size) | {"path": _relative(r, manifest.root)}
        for r, size in zip(manifest.records, manifest.sizes, strict=True)
    ]
    facts = {
        "root": str(manifest.root.absolute()),
        "sources": manifest.sources,
        "skipped": [[s.where, s.code, s.why] for s in manifest.skipped],
        "created": manifest.created,
        "version": manifest.version,
        "fingerprint": manifest.fingerprint,
    }
    with writing(path) as temporary:
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(temporary, metadata={_KEY: json.dumps(facts)})


def read(path: Path, *, root: Path | None = None) -> Manifest:
    """Read a manifest; ``root`` says where the images are now, if they have moved.

    Raises:
        DataError: not a manifest, a column is missing, or its content is not what its fingerprint says.
    """
    try:
        table = pl.read_parquet(path)
        facts = json.loads(pl.read_parquet_metadata(path)[_KEY])
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such manifest; write it with: mammopath index") from None
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a manifest ({error}); write it with: mammopath index") from None
    if missing := SCHEMA.keys() - set(table.columns):
        raise DataError(f"{path}: columns {', '.join(sorted(missing))} are missing; index the source again")
    root = Path(facts["root"]) if root is None else root
    manifest = Manifest(
        records=tuple(from_row(row, root) for row in table.iter_rows(named=True)),
        sizes=tuple(table["bytes"]),
        root=root,
        sources=tuple(facts["sources"]),
        skipped=tuple(Skipped(*entry) for entry in facts["skipped"]),
        created=facts["created"],
        version=facts["version"],
    )
    if manifest.fingerprint != facts["fingerprint"]:
        raise DataError(f"{path}: the rows do not match their fingerprint; index the source again")
    return manifest


def concat(manifests: Sequence[Manifest]) -> Manifest:
    """One manifest of several, in their order; its root is their nearest common folder.

    Raises:
        DataError: none is given, or two of them hold the same ``image_id``.
    """
    if not manifests:
        raise DataError("no manifest is given; write one with: mammopath index")
    seen: dict[str, Path] = {}
    for manifest in manifests:
        for record in manifest.records:
            if record.image_id in seen:
                raise DataError(
                    f"{record.image_id} is in two manifests: {seen[record.image_id]} and {record.path}; "
                    "list each data set once, or give one of them another domain"
                )
            seen[record.image_id] = record.path
    return Manifest(
        records=tuple(r for m in manifests for r in m.records),
        sizes=tuple(size for m in manifests for size in m.sizes),
        root=Path(os.path.commonpath([m.root.absolute() for m in manifests])),
        sources=tuple(dict.fromkeys(s for m in manifests for s in m.sources)),
        skipped=tuple(s for m in manifests for s in m.skipped),
        created=max(m.created for m in manifests),
    )


def _moved(record: Record, domain: str) -> Record:
    name = f"{domain}/{record.image_id.partition('/')[2]}"
    patient = name if record.patient == record.image_id else record.patient
    return replace(record, domain=domain, image_id=name, patient=patient)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _relative(record: Record, root: Path) -> str:
    try:
        return record.path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise DataError(f"{record.path}: lies outside the root {root} of its manifest") from None
