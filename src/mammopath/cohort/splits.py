"""Who trains, who selects, who tests: patient-disjoint folds that leave one site out."""

import difflib
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mammopath.errors import DataError
from mammopath.types import Record

Cell = tuple[str, float]
"""A site and a patient label (1, 0, or -1 for unknown)."""


@dataclass(frozen=True)
class Fold:
    """One fold, as ascending row indices into the records it was made of.

    Attributes:
        held_out: the site left out, or None for the in-domain fold, where every site trains.
        train: rows that train; val: rows of training sites that select (``source_val``).
        test: all rows of the held-out site; in the in-domain fold the test part of every site.
        test_split: the rows of ``test`` in their site's fixed test part, on which the held-out and the
            in-domain model are compared: it depends on neither seed nor held-out site.
        dropped: rows of patients who may not train because they test, here or in their data set's own split.
        warnings: what a reader of the results should know of this fold.
    """

    held_out: str | None
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    test_split: tuple[int, ...]
    dropped: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def fold(
    records: Sequence[Record], *, held_out: str | None, validation: float, test_share: float, seed: int
) -> Fold:
    """Split records into training, validation and test rows without a patient crossing.

    A patient is one person: everybody with the same ``patient`` or the same non-empty ``pair_key``. A person
    seen at the held-out site is dropped from training, whatever other sites saw them. Validation and test
    persons are drawn by a hash of their name within each site and label, so the order of rows is of no
    influence. Persons of a published test split neither train nor select in any fold, whichever site is left
    out: a model that learned from them could never be compared with published results. In the in-domain fold
    the published test images are the test part of their site; the other rows of those persons are dropped.

    Args:
        records: rows of one or several manifests.
        held_out: the site to leave out; None gives the in-domain fold.
        validation: share of the training persons of each site and label, in (0, 1).
        test_share: share of a site's persons in its test part where it publishes none, in (0, 1).
        seed: of the choice of validation persons; the test part does not depend on it.

    Raises:
        DataError: no such site, or nobody is left to train or to test.
    """
    sites = sorted({r.domain for r in records})
    if held_out is not None and held_out not in sites:
        raise DataError(_unknown_site(held_out, sites))
    persons = person_names(records)
    part = _test_part(records, persons, test_share)
    test = part if held_out is None else _where(r.domain == held_out for r in records)
    published = {person for person, r in zip(persons, records, strict=True) if r.official_split == "test"}
    barred = published | {persons[i] for i in test}
    free = [i for i in range(len(records)) if persons[i] not in barred]
    cells = _cells(records, persons, free)
    selecting = _draw(cells, validation, salt=f"validation/{seed}")
    val = tuple(i for i in free if persons[i] in selecting)
    train = tuple(i for i in free if persons[i] not in selecting)
    dropped = tuple(sorted(set(range(len(records))) - set(free) - set(test)))
    _demand(train, val, test, held_out=held_out, sites=sites)
    return Fold(
        held_out=held_out,
        train=train,
        val=val,
        test=test,
        test_split=tuple(sorted(set(test) & set(part))),
        dropped=dropped,
        warnings=_warnings(records, train=train, val=val, test=test),
    )


def thin(records: Sequence[Record], *, limit: int, seed: int) -> tuple[int, ...]:
    """Rows of at most ``limit`` images per site, whole persons, drawn with the seed; all rows for 0.

    A person who does not fit any more is left out, and the next one is tried. Larger limits do not
    necessarily contain smaller ones.
    """
    if limit == 0:
        return tuple(range(len(records)))
    persons = person_names(records)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for i, person in enumerate(persons):
        rows[person].append(i)
    room = dict.fromkeys((r.domain for r in records), limit)
    kept: list[int] = []
    for person in sorted(rows, key=lambda p: _hash(f"thin/{seed}", p)):
        needs: defaultdict[str, int] = defaultdict(int)
        for i in rows[person]:
            needs[records[i].domain] += 1
        if all(room[site] >= n for site, n in needs.items()):
            kept += rows[person]
            room |= {site: room[site] - n for site, n in needs.items()}
    return tuple(sorted(kept))


def person_names(records: Sequence[Record]) -> list[str]:
    """Name of the person of each row: the smallest patient of all whom pairing keys connect."""
    parent = {r.patient: r.patient for r in records}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = patient = parent[parent[patient]]
        return patient

    first_of_pair: dict[str, str] = {}
    for r in records:
        if r.pair_key:
            a, b = root(r.patient), root(first_of_pair.setdefault(r.pair_key, r.patient))
            parent[max(a, b)] = min(a, b)
    return [root(r.patient) for r in records]


def person_marks(records: Iterable[Record]) -> set[str]:
    """Short hashes of every name that the records' persons go by: patients and pairing keys.

    A run keeps those of the persons it learned from, so that they can be told later without naming anybody
    (who knows a name can still find out whether it is among them).
    """
    names = {key for r in records for key in (("patient", r.patient), ("pair", r.pair_key)) if key[1]}
    return {_hash(kind, name)[:12] for kind, name in names}


def _test_part(records: Sequence[Record], persons: Sequence[str], share: float) -> tuple[int, ...]:
    """Rows of the fixed test part of every site, published or drawn; the same for every fold and seed."""
    published = {r.domain for r in records if r.official_split == "test"}
    official = _where(r.official_split == "test" for r in records)
    undivided = [i for i, r in enumerate(records) if r.domain not in published]
    testing = {persons[i] for i in official}
    testing |= _draw(_cells(records, persons, undivided), share, salt="test", chosen=testing)
    return tuple(sorted({*official, *(i for i in undivided if persons[i] in testing)}))


def _cells(records: Sequence[Record], persons: Sequence[str], rows: Iterable[int]) -> dict[Cell, set[str]]:
    """Persons by site and label there: malignant if any image is, unknown if none is known."""
    labels: defaultdict[tuple[str, str], float] = defaultdict(lambda: -1.0)
    for i in rows:
        label = records[i].malignant
        key = (records[i].domain, persons[i])
        labels[key] = max(labels[key], -1.0 if math.isnan(label) else label)
    cells: defaultdict[Cell, set[str]] = defaultdict(set)
    for (site, person), label in labels.items():
        cells[site, label].add(person)
    return {cell: cells[cell] for cell in sorted(cells)}


def _draw(cells: Mapping[Cell, set[str]], share: float, *, salt: str, chosen: Iterable[str] = ()) -> set[str]:
    """``share`` of the persons of every cell: at least one and never all, where a cell has two or more.

    Persons whom an earlier cell has chosen count in the later cells that hold them too.
    """
    drawn = set(chosen)
    for members in cells.values():
        wanted = min(len(members) - 1, max(1, round(share * len(members))))
        free = sorted(members - drawn, key=lambda person: _hash(salt, person))
        drawn |= set(free[: max(0, wanted - len(members & drawn))])
    return drawn


def _hash(salt: str, person: str) -> str:
    return hashlib.sha256(f"{salt}\0{person}".encode()).hexdigest()


def _where(flags: Iterable[bool]) -> tuple[int, ...]:
    return tuple(i for i, flag in enumerate(flags) if flag)


def _unknown_site(name: str, sites: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, sites, n=1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    return f"held-out site {name!r} has no images{guess}; sites: {', '.join(sites) or 'none'}"


def _demand(
    train: tuple[int, ...],
    val: tuple[int, ...],
    test: tuple[int, ...],
    *,
    held_out: str | None,
    sites: list[str],
) -> None:
    why = f"held-out site {held_out!r}, sites {', '.join(sites) or 'none'}"
    if not test:
        raise DataError(f"no image is left to test ({why}): add patients, or raise data.test_share")
    if not train or not val:
        raise DataError(
            f"no patient is left to train and validate ({why}): add another site, or patients who are "
            "neither seen at the held-out one nor in a published test split"
        )


def _warnings(
    records: Sequence[Record], *, train: tuple[int, ...], val: tuple[int, ...], test: tuple[int, ...]
) -> tuple[str, ...]:
    found = []
    for name, rows in (("training", train), ("validation", val), ("test", test)):
        labels: defaultdict[str, set[float]] = defaultdict(set)
        for i in rows:
            labels[records[i].domain].add(records[i].malignant)
        for site, seen in sorted(labels.items()):
            known = seen & {0.0, 1.0}
            if len(known) < 2:
                what = f"only label {known.pop():.0f}" if known else "no known label"
                found.append(f"{name} images of {site} have {what}")
    unseen = {records[i].modality for i in test} - {records[i].modality for i in train}
    return (*found, *(f"no training site has {modality} images" for modality in sorted(unseen)))
