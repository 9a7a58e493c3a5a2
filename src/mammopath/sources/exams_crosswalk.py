"""A table of exams for images that were de-identified: pseudonyms and ranks in place of numbers and dates."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mammopath.images.deidentify import Written, coded
from mammopath.images.deidentify_secrets import words_of
from mammopath.sources.columns import ATTRIBUTE, Row
from mammopath.sources.exams import EXAM_COLUMNS, is_about
from mammopath.types import Skipped

_REPLACED = {"patient", "accession", "study", "date", "pair"}
"""Columns that are not carried over as they are."""

_WORDS = {"side", "label", "malignant", "severity", "split"}
"""Columns of known words only, in which nothing can be told of a patient."""

_PLACES = ("institution", "station", "detector")
"""What stands for a site and is gone from de-identified files."""


_SHORTEST = 3
"""Letters of the shortest name or number that is searched for; shorter ones are also ages and grades."""


def crosswalk(
    rows: Sequence[Row], written: Iterable[Written], *, key: bytes, where: str
) -> Iterator[Row | Skipped]:
    """The same table for the new files: a row per study that an old one is about.

    A new row says the patient by pseudonym and the study by its new UID. ``attr_visit`` is the place of the
    study among those of the patient, from 1 by date; ``attr_institution``, ``attr_station`` and
    ``attr_detector`` are codes of what the files said, where that is one for the study. ``pair`` becomes a
    code as well.

    Args:
        rows: as ``exams.read_exams`` gives them.
        written: what ``deidentify_folder`` wrote.
        key: the secret that the files were de-identified with.
        where: name of the table, for what is skipped.

    Yields:
        New rows; or why there is none: no image is meant, or a cell still holds a name, number or date.
    """
    images = list(written)
    named, places, visits = _by_name(images), _places(images, key), _visits(images)
    for number, row in enumerate(rows, start=2):
        near = [*named[row.get("patient", "")], *named[row.get("accession", "")]]
        meant = [image for image in near if is_about(row, image.facts)]
        if not meant:
            yield Skipped(f"{where}: row {number}", "annotation", "no image that was written is meant")
        elif told := next(_told(row, meant), ""):
            yield Skipped(f"{where}: row {number}", "annotation", f"column {told} still tells who it is of")
        else:
            kept = {name: cell for name, cell in row.items() if name not in _REPLACED and cell}
            pair = {"pair": coded("G", row["pair"], key)} if row.get("pair") else {}
            for patient, study in sorted({(image.patient, image.study) for image in meant}):
                extra = {f"{ATTRIBUTE}{name}": text for name, text in places[study].items()}
                visit = {f"{ATTRIBUTE}visit": visits[study]} if study in visits else {}
                yield {"patient": patient, "study": study} | kept | pair | visit | extra


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as the text of a CSV file, with the columns that are filled anywhere, in the usual order."""
    there = {name: None for row in rows for name in row}
    columns = [name for name in EXAM_COLUMNS if name in there]
    columns += [name for name in there if name not in columns]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _by_name(images: Sequence[Written]) -> defaultdict[str, list[Written]]:
    named: defaultdict[str, list[Written]] = defaultdict(list)
    for image in images:
        for name in {image.facts.patient, image.facts.accession} - {""}:
            named[name].append(image)
    return named


def _visits(images: Sequence[Written]) -> dict[str, str]:
    """Rank of each study among those of its patient, by date; none for a study without a date."""
    dates: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for image in images:
        if image.facts.date:
            dates[image.patient].add((image.facts.date, image.study))
    return {
        study: str(rank)
        for studies in dates.values()
        for rank, (_, study) in enumerate(sorted(studies), start=1)
    }


def _places(images: Sequence[Written], key: bytes) -> Mapping[str, Row]:
    """Codes of institution, station and detector of each study, where all of its images have the same."""
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for image in images:
        for name in _PLACES:
            found[image.study][name].add(image.facts.places.get(name, ""))
    return {
        study: {
            name: coded(name[0].upper(), next(iter(texts)), key)
            for name, texts in own.items()
            if len(texts) == 1 and texts != {""}
        }
        for study, own in found.items()
    }


def _told(row: Row, meant: Sequence[Written]) -> Iterator[str]:
    """Columns with free text in which a patient's name or number, an accession number or a date stands."""
    facts = [image.facts for image in meant]
    words = {word for f in facts for word in (f.patient, f.accession, *words_of(f.name))}
    secrets = [rf"\b{re.escape(word)}\b" for word in words if word.isascii() and len(word) >= _SHORTEST]
    secrets += [re.escape(word) for word in words if not word.isascii()]
    secrets += [f"{f.date[:4]}-?{f.date[4:6]}-?{f.date[6:]}" for f in facts if f.date]
    told = re.compile("|".join(secrets) or "(?!)", re.IGNORECASE)
    for name, cell in row.items():
        if name not in _REPLACED | _WORDS and told.search(cell):
            yield name
