"""A hospital's mammography exams: a folder of DICOM files as exported, with a small table of labels."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.dicom_facts import Facts
from mammopath.sources.columns import ATTRIBUTE, Row, read_cells
from mammopath.sources.exams_files import DIRECTORY, Shot, by_study, of_several_names, read_shots
from mammopath.sources.exams_views import judged
from mammopath.sources.flags import flagged
from mammopath.sources.source import Source
from mammopath.sources.table import demand_known_split, demand_known_words, label_of, worst
from mammopath.sources.words import read_side
from mammopath.types import Record, Skipped

TABLE = "exams.csv"

EXAM_COLUMNS = (
    "patient", "accession", "study", "side", "date", "label", "malignant", "severity", "birads", "density",
    "split", "pair",
)  # fmt: skip
"""Columns of ``exams.csv``; patient (PatientID) or accession must be there, and label, malignant or severity.
Study (StudyInstanceUID), side and date (of the study, YYYYMMDD) say which images a row is about; empty means
all. A column ``attr_NAME`` becomes the attribute NAME."""


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of a folder of DICOM exams.

    A patient is a hash of PatientID, an exam a study. Of several files of one SOP instance the first counts.
    Files of a study that name another patient than most of it are left out. Of several takes of one standard
    view (CC or MLO that is not special) all but one are flagged ``retake``; versions for processing of an
    image that is there for presentation are left out (``exams_views.judged``). The site is the institution;
    attributes hold what else may stand for it (``by_site``).

    Args:
        root: a folder with ``exams.csv`` (``EXAM_COLUMNS``) and DICOM files anywhere below, with or without
            DICOMDIR; the DICOMDIR in such a folder; or a table of another name beside them.

    Raises:
        DataError: no table, missing or unknown columns, or a row that cannot be meant.
    """
    folder = root.parent if root.name.upper() == DIRECTORY and root.is_file() else root
    table = folder / TABLE if folder.is_dir() else folder
    rows = read_exams(table)
    shots, skipped = read_shots(table.parent)
    yield from skipped
    doubtful, named, used = of_several_names(shots), _by_name(rows), set[int]()
    for exam in by_study(shots):
        fitting = {shot.path: _fitting(shot, rows, named) for shot in exam}
        own = {n for numbers in fitting.values() for n in numbers}
        used |= own
        for entry in judged(exam):
            if isinstance(entry, Skipped):
                yield entry
                continue
            shot, flags = entry
            flags |= {"no_row"} if not own else set()
            flags |= {"name_differs"} if shot.facts.patient in doubtful else set()
            yield _record(shot, [rows[n] for n in fitting[shot.path]], table.parent, flags)
    for n in sorted(set(range(len(rows))) - used):
        yield Skipped(f"{table}: row {n + 2}", "annotation", "no image is of this patient, side and date")


def read_exams(table: Path) -> list[Row]:
    """Rows of a table of exams.

    Raises:
        DataError: as ``index``.
    """
    rows = read_cells(table)
    _demand_columns(rows[0], table)
    for number, row in enumerate(rows, start=2):
        _demand_sense(row, f"{table}: row {number}")
    return rows


def _by_name(rows: Sequence[Row]) -> defaultdict[str, set[int]]:
    """Places of rows by what they say of patient or accession."""
    named: defaultdict[str, set[int]] = defaultdict(set)
    for n, row in enumerate(rows):
        for name in ("patient", "accession"):
            if row.get(name):
                named[row[name]].add(n)
    return named


def _fitting(shot: Shot, rows: Sequence[Row], named: defaultdict[str, set[int]]) -> list[int]:
    """Places of the rows that are about one image."""
    near = named[shot.facts.patient] | named[shot.facts.accession]
    return sorted(n for n in near if is_about(rows[n], shot.facts))


def is_about(row: Row, facts: Facts) -> bool:
    """Whether a row is about an image: all of its filled cells agree, and one says whose it is."""
    side = row.get("side", "")
    told = [(row.get("patient"), facts.patient), (row.get("accession"), facts.accession)]
    told.append((row.get("study"), facts.study))
    told += [(row.get("date", "").replace("-", ""), facts.date), (side and read_side(side), facts.laterality)]
    return any(cell for cell, _ in told[:2]) and all(cell == found for cell, found in told if cell)


def _record(shot: Shot, rows: Sequence[Row], root: Path, flags: set[str]) -> Record:
    facts, (malignant, severity) = shot.facts, worst(label_of(_labels(row)) for row in rows)
    name = f"exams/{shot.path.relative_to(root).as_posix()}"
    told: dict[str, str] = {key: cell for row in rows for key, cell in row.items() if cell}
    extra: dict[str, str] = {
        key.removeprefix(ATTRIBUTE): cell for key, cell in told.items() if key.startswith(ATTRIBUTE)
    }
    attributes: dict[str, str] = {
        **{key: told[key] for key in ("birads", "density") if key in told},
        **extra,
        **facts.places,
        "exam": facts.study,
        "acquired": facts.date,
        "intent": facts.intent,
        "spacing_tag": facts.spacing_tag,
        **flagged(flags),
    }
    return Record(
        image_id=name,
        path=shot.path,
        patient=pseudonym(facts) or facts.study or name,
        patient_known=bool(facts.patient),
        domain=attributes.get("institution") or "hospital",
        modality="mammogram",
        malignant=malignant,
        severity=severity,
        laterality=facts.laterality,
        view=facts.view,
        spacing=facts.spacing,
        spacing_source="header" if facts.spacing else "unknown",
        pair_key=told.get("pair", ""),
        official_split=told.get("split", ""),
        attributes={key: value for key, value in attributes.items() if value},
    )


def pseudonym(facts: Facts) -> str:
    """PatientID where the file says that it is de-identified, else a hash of it; empty where there is none.

    The hash keeps numbers out of manifests and reports. It is no de-identification: whoever has a list of
    numbers can try them all.
    """
    if facts.is_deidentified or not facts.patient:
        return facts.patient
    return "exams_" + hashlib.sha256(facts.patient.encode()).hexdigest()[:16]


def _labels(row: Row) -> Row:
    return {name: row.get(name, "") for name in ("label", "malignant", "severity")}


def _demand_sense(row: Row, where: str) -> None:
    """See that labels are allowed words that agree, the side is one, and the split a known one.

    Raises:
        DataError: they are not. To leave such a row out could drop a whole class unseen.
    """
    demand_known_words(_labels(row), where)
    try:
        label_of(_labels(row))
        read_side(row.get("side", ""))
        demand_known_split(row.get("split", ""))
    except ValueError as error:
        raise DataError(f"{where}: {error}. Correct the table") from None


def _demand_columns(row: Row, table: Path) -> None:
    if not {"patient", "accession"} & row.keys() or not {"label", "malignant", "severity"} & row.keys():
        raise DataError(
            f"{table}: needs a column patient or accession, and one of label, malignant and severity; it has "
            f"{', '.join(row)}"
        )
    if unknown := [name for name in row if name not in EXAM_COLUMNS and not name.startswith(ATTRIBUTE)]:
        raise DataError(
            f"{table}: unknown column {unknown[0]!r}; allowed are {', '.join(EXAM_COLUMNS)}; call it "
            f"{ATTRIBUTE}{unknown[0]} to keep it as an attribute"
        )


SOURCE = Source(
    index=index,
    about="a hospital's mammography exams: DICOM as exported, with a table of labels",
    licence="that of the images",
)
