"""Cases from files or from a manifest, with what makes a case impossible told before any model runs."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammopath.case.values import Case
from mammopath.cohort.manifest import Manifest
from mammopath.errors import ConfigError, DataError, ImageReadError
from mammopath.images.read import Header, assumes_mg, read_header
from mammopath.images.slide import is_whole_slide
from mammopath.sources import slides
from mammopath.types import MODALITIES, Modality, Record, Skipped, Spacing

MARKED = re.compile(r"(?P<path>.+?):(?P<side>[LR]?)(:(?P<view>[A-Z]*))?")
"""A file with its side and view: ``scan.png:L:CC``; or with its side alone: ``core.png:L``."""


@dataclass(frozen=True)
class Marked:
    """A file with what its header does not tell: side (``L``, ``R`` or empty) and view, or empty."""

    path: Path
    side: str = ""
    view: str = ""


def marked(text: str) -> Marked:
    """Read ``PATH``, ``PATH:SIDE`` or ``PATH:SIDE:VIEW``; a file of that very name wins."""
    found = MARKED.fullmatch(text)
    if found is None or Path(text).exists():
        return Marked(Path(text))
    return Marked(Path(found["path"]), found["side"], found["view"] or "")


def spacings(text: str) -> dict[Modality, Spacing]:
    """Read ``70``, ``70,0.5`` or ``,0.5``: micrometres per pixel of mammograms and of tissue.

    Raises:
        ConfigError: it is something else.
    """
    parts = text.split(",")
    try:
        told = {m: Spacing.square(float(um)) for m, um in zip(MODALITIES, parts, strict=False) if um.strip()}
    except ValueError as error:
        raise ConfigError(f"--spacing-um {text}: {error}; write 70, or 70,0.5") from None
    if len(parts) > len(MODALITIES):
        raise ConfigError(f"--spacing-um {text}: two numbers at most, of mammograms and of tissue")
    return told


def case_of_files(
    mammograms: Sequence[Path | Marked],
    tissue: Sequence[Path | Marked],
    name: str = "",
    *,
    spacing: Mapping[Modality, Spacing] | None = None,
) -> Case:
    """One patient from files; side, view and spacing come from their headers, else from what is told here.

    Args:
        mammograms: DICOM or raster files, with side and view where the header has none.
        tissue: fields or slides; the side is that of the biopsied breast.
        name: of the case; by default the PatientID of the mammograms, else the first file's name.
        spacing: of the files of a modality whose header tells none.

    Raises:
        DataError: no file is named, or one twice.
    """
    files: list[tuple[Marked, Modality]] = [(_marked(p), "mammogram") for p in mammograms]
    files += [(_marked(p), "pathology") for p in tissue]
    if not files:
        raise DataError("a case needs an image: name at least one --mammogram or --slide, or a --manifest")
    paths = [file.path for file, _ in files]
    if twice := [p for p in paths if paths.count(p) > 1]:
        raise DataError(f"{twice[0]} is named twice; name each image once")
    headers = [_header(file.path, modality) for file, modality in files]
    told = next((h.patient for h in headers if h and h.patient), "")
    name = name or told or paths[0].stem
    records = [_record(f, m, h, name) for (f, m), h in zip(files, headers, strict=True)]
    return Case(name, _apart([_spaced(r, (spacing or {}).get(r.modality)) for r in records]))


def cases_of_manifest(manifest: Manifest) -> list[Case]:
    """The patients of a manifest in its order; records with one pairing key are one patient."""
    groups: dict[str, list[Record]] = defaultdict(list)
    whose: dict[str, str] = {}
    for record in manifest.records:
        name = whose.setdefault(record.pair_key or f"\0{record.patient}", record.patient)
        groups[name].append(replace(record, patient=name, pair_key=name))
    return [Case(name, tuple(records)) for name, records in groups.items()]


def checked(case: Case) -> Case:
    """The case with sides and views from the headers where the records do not know them.

    Files that cannot be read are left for the reader to tell of.

    Raises:
        DataError: there is no image; files of two patients are mixed; a file's side contradicts its record;
            tissue is of a breast of which there is no mammogram.
    """
    if not case.records:
        raise DataError(f"{case.name}: a case needs at least one image")
    headers = [_header(r.path, r.modality, assume_mg=assumes_mg(r)) for r in case.records]
    people = {h.patient for h in headers if h and h.patient}
    if len(people) > 1:
        raise DataError(f"{case.name}: files of several patients are mixed: {', '.join(sorted(people))}")
    records = tuple(_completed(r, h, case.name) for r, h in zip(case.records, headers, strict=True))
    shown = {r.laterality for r in records if r.modality == "mammogram"}
    for record in records:
        could_be = not shown or "" in shown or record.laterality in ("", *shown)
        if record.modality == "pathology" and not could_be:
            raise DataError(
                f"{case.name}: {record.path.name} is tissue of the {record.laterality} breast, but the"
                f" mammograms show {', '.join(sorted(shown))}"
            )
    return Case(case.name, records)


def _completed(record: Record, header: Header | None, name: str) -> Record:
    if header is None:
        return record
    if record.laterality and header.laterality and record.laterality != header.laterality:
        raise DataError(
            f"{name}: {record.path.name} is listed as side {record.laterality}, but its header says"
            f" {header.laterality}; correct the list, or the file"
        )
    source = record.spacing_source if record.spacing or not header.spacing else "header"
    tag = {"spacing_tag": header.spacing_tag} if not record.spacing and header.spacing_tag else {}
    return replace(
        record,
        laterality=record.laterality or header.laterality,
        view=record.view or header.view,
        spacing=record.spacing or header.spacing,
        spacing_source=source,
        attributes={**record.attributes, **tag},
    )


def _header(path: Path, modality: Modality, *, assume_mg: bool = False) -> Header | None:
    if modality == "pathology" and is_whole_slide(path):
        found = slides.read_header(path)
        return None if isinstance(found, Skipped) else Header(*found.size, spacing=found.spacing)
    try:
        return read_header(path, assume_mg=assume_mg)
    except ImageReadError:
        return None


def _marked(file: Path | Marked) -> Marked:
    return file if isinstance(file, Marked) else Marked(Path(file))


def _record(file: Marked, modality: Modality, header: Header | None, name: str) -> Record:
    found = Record(
        file.path.name,
        file.path,
        name,
        "new",
        modality,
        laterality=file.side,
        view=file.view,
        pair_key=name,
    )
    return _completed(found, header, name)


def _spaced(record: Record, spacing: Spacing | None) -> Record:
    """The record with a spacing told by hand where its file tells none."""
    if record.spacing or spacing is None:
        return record
    return replace(record, spacing=spacing, spacing_source="override")


def _apart(records: Sequence[Record]) -> tuple[Record, ...]:
    """Files of one name in two folders get their folder's name too."""
    names = [r.image_id for r in records]
    return tuple(
        replace(r, image_id=f"{r.path.parent.name}/{r.image_id}") if names.count(r.image_id) > 1 else r
        for r in records
    )
