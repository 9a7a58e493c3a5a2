"""Cases from files or from a manifest, with what makes a case impossible told before any model runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mammopath.case.values import Case
from mammopath.cohort.manifest import Manifest
from mammopath.errors import DataError, ImageReadError
from mammopath.images.read import Header, read_header
from mammopath.types import Modality, Record


def case_of_files(mammograms: Sequence[Path], tissue: Sequence[Path], name: str = "") -> Case:
    """One patient from files; side, view and spacing come from their headers.

    Args:
        mammograms: DICOM or raster files.
        tissue: fields or slides.
        name: of the case; by default the PatientID of the mammograms, else the first file's name.

    Raises:
        DataError: no file is named, or one twice.
    """
    files: list[tuple[Path, Modality]] = [(Path(p), "mammogram") for p in mammograms]
    files += [(Path(p), "pathology") for p in tissue]
    if not files:
        raise DataError("a case needs an image: name at least one --mammogram or --slide, or a --manifest")
    paths = [path for path, _ in files]
    if twice := [p for p in paths if paths.count(p) > 1]:
        raise DataError(f"{twice[0]} is named twice; name each image once")
    headers = [_header(path) for path in paths]
    told = next((h.patient for h in headers if h and h.patient), "")
    name = name or told or files[0][0].stem
    records = [_record(p, m, h, name) for (p, m), h in zip(files, headers, strict=True)]
    return Case(name, _apart(records))


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
    headers = [_header(r.path) for r in case.records]
    people = {h.patient for h in headers if h and h.patient}
    if len(people) > 1:
        raise DataError(f"{case.name}: files of several patients are mixed: {', '.join(sorted(people))}")
    records = tuple(_completed(r, h, case.name) for r, h in zip(case.records, headers, strict=True))
    shown = {r.laterality for r in records if r.modality == "mammogram" and r.laterality}
    for record in records:
        if record.modality == "pathology" and shown and record.laterality not in ("", *shown):
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
    return replace(
        record,
        laterality=record.laterality or header.laterality,
        view=record.view or header.view,
        spacing=record.spacing or header.spacing,
        spacing_source=source,
    )


def _header(path: Path) -> Header | None:
    try:
        return read_header(path)
    except ImageReadError:
        return None


def _record(path: Path, modality: Modality, header: Header | None, name: str) -> Record:
    found = Record(path.name, path, name, "new", modality, pair_key=name)
    return _completed(found, header, name)


def _apart(records: Sequence[Record]) -> tuple[Record, ...]:
    """Files of one name in two folders get their folder's name too."""
    names = [r.image_id for r in records]
    return tuple(
        replace(r, image_id=f"{r.path.parent.name}/{r.image_id}") if names.count(r.image_id) > 1 else r
        for r in records
    )
