"""The mammograms in a folder of DICOM files: each once, and none of a patient who does not belong there."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from mammopath.errors import ImageReadError
from mammopath.images.dicom import is_dicom
from mammopath.images.dicom_facts import Facts, read_facts
from mammopath.images.guard import decoding
from mammopath.types import Skipped

DIRECTORY = "DICOMDIR"


@dataclass(frozen=True)
class Shot:
    """One file of an exam, and what its header says."""

    path: Path
    facts: Facts


def read_shots(root: Path) -> tuple[list[Shot], list[Skipped]]:
    """Mammograms under ``root`` by path, and what is left out of them.

    Files that are no DICOM are passed over unless their suffix says that they should be. What a DICOMDIR
    lists and is not there is told.
    """
    shots: list[Shot] = []
    skipped: list[Skipped] = []
    seen: dict[str, Path] = {}
    for path in sorted(_files(root)):
        try:
            if not _should_be_dicom(path):
                continue
            facts = read_facts(path)
        except ImageReadError as error:
            skipped.append(Skipped(str(path), error.code, error.why))
            continue
        first = seen.setdefault(facts.instance or str(path), path)
        if first == path:
            shots.append(Shot(path, facts))
        else:
            why = f"has the SOPInstanceUID of {first.name}: a copy, or two images with one name"
            skipped.append(Skipped(str(path), "annotation", why))
    own = [shot for group in by_study(shots) for shot in _of_most(group, skipped)]
    return sorted(own, key=lambda shot: shot.path), [*skipped, *_missing(root)]


def _files(root: Path) -> Iterator[Path]:
    """Files under ``root``, and links that lead nowhere; no DICOMDIR, no pipes or devices."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names if name.upper() != DIRECTORY):
            if path.is_file() or not path.exists():
                yield path


def _should_be_dicom(path: Path) -> bool:
    with decoding(path), path.open("rb") as file:
        return path.suffix.lower() in (".dcm", ".dicom") or is_dicom(file.read(132))


def of_several_names(shots: Sequence[Shot]) -> set[str]:
    """PatientIDs that stand with several names, in whatever studies."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for shot in shots:
        names[shot.facts.patient] |= {_plain(shot.facts.name)} - {""}
    return {patient for patient, own in names.items() if patient and len(own) > 1}


def by_study(shots: Sequence[Shot]) -> list[list[Shot]]:
    """Exams: the shots of each study, or of each folder where no study is told."""
    studies: defaultdict[str, list[Shot]] = defaultdict(list)
    for shot in shots:
        studies[shot.facts.study or str(shot.path.parent)].append(shot)
    return list(studies.values())


def _of_most(study: Sequence[Shot], skipped: list[Skipped]) -> list[Shot]:
    """The shots of the patient that most of a study names; the others are skipped, all where it is a draw."""
    named = Counter((shot.facts.patient, _plain(shot.facts.name)) for shot in study)
    (most, count), *others = named.most_common()
    is_draw = bool(others) and others[0][1] == count
    keep = [s for s in study if (s.facts.patient, _plain(s.facts.name)) == most and not is_draw]
    why = "names another patient than the rest of its study; see whose image it is before it is used"
    skipped += [Skipped(str(s.path), "annotation", why) for s in study if s not in keep]
    return keep


def _plain(name: str) -> str:
    """``DOE^JANE``, ``Doe^Jane^`` and ``doe jane`` are one name."""
    return " ".join(name.replace("^", " ").lower().split())


def _missing(root: Path) -> Iterator[Skipped]:
    """What DICOMDIR files list (PS3.3 F.3.2.2) that is not on disk.

    Names are compared in lower case, since many systems copy discs that way.
    """
    for directory in sorted(path for path in root.rglob("*") if path.name.upper() == DIRECTORY):
        try:
            with decoding(directory):
                records = pydicom.dcmread(directory).get("DirectoryRecordSequence") or []
        except ImageReadError as error:
            yield Skipped(str(directory), error.code, error.why)
            continue
        home = directory.parent
        there = {path.relative_to(home).as_posix().lower() for path in _files(home) if path.is_file()}
        for told in (record.get("ReferencedFileID") or [] for record in records):
            parts = [told] if isinstance(told, str) else list(told)
            if {"", ".", ".."} & set(parts) or any("/" in part or "\\" in part for part in parts):
                why = f"lists {'/'.join(parts)}, which is no place in its folder"
                yield Skipped(str(directory), "annotation", why)
            elif parts and "/".join(parts).lower() not in there:
                why = "is listed in DICOMDIR, but is not there"
                yield Skipped(str(home.joinpath(*parts)), "missing", why)
