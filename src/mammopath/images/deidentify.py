"""DICOM mammograms without who they are of: the basic profile of PS3.15, with keyed pseudonyms and UIDs."""

import hashlib
import hmac
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from mammopath import __version__
from mammopath.errors import ImageReadError
from mammopath.files import write_bytes
from mammopath.images.codecs import clear_other_bits
from mammopath.images.deidentify_secrets import leaks, secrets_of
from mammopath.images.deidentify_table import Action, action_of
from mammopath.images.dicom_facts import REMOVED, Facts, facts_of
from mammopath.images.dicom_file import open_dicom
from mammopath.images.guard import decoding
from mammopath.types import Skipped

_NAMES = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
"""What folders and files are called by."""

_DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), REMOVED),
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0",
}  # fmt: skip
"""Values in place of others, by value representation; where there is none, the value becomes empty."""


@dataclass(frozen=True)
class Written:
    """One mammogram that was de-identified.

    Attributes:
        path: the new file.
        patient, study: pseudonym and new StudyInstanceUID, as in the new file.
        facts: what the original said. They are secret: keep them in memory.
    """

    path: Path
    patient: str
    study: str
    facts: Facts


def deidentify_folder(root: Path, out: Path, *, key: bytes) -> Iterator[Written | Skipped]:
    """De-identify every mammogram below a folder into another one; one file at a time.

    Names of files and folders are new as well, since the old ones may tell: pseudonym, study, instance. The
    same key gives the same pseudonyms and UIDs, so that exams of one patient stay together. Of several files
    of one SOP instance the first is written.

    Yields:
        Each file that was written, or why one was not.
    """
    written: dict[str, Path] = {}
    for path in _files(root):
        try:
            with decoding(path):
                data, facts = _copied(path, key)
                content = _bytes_of(data)
        except ImageReadError as error:
            yield Skipped(str(path), error.code, error.why)
            continue
        patient, study, instance = (str(data[name].value) for name in _NAMES)
        if (first := written.setdefault(instance, path)) != path:
            why = f"has the SOPInstanceUID of {first}: a copy, or two images with one name"
            yield Skipped(str(path), "annotation", why)
            continue
        place = out / patient / study / f"{instance}.dcm"
        write_bytes(place, content)
        yield Written(place, patient, study, facts)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (path for path in (Path(folder, name) for name in sorted(names)) if path.is_file())


def _bytes_of(data: Dataset) -> bytes:
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def deidentified(path: Path, *, key: bytes) -> Dataset:
    """One mammogram after the Basic Application Level Confidentiality Profile (PS3.15 E.2, table E.1-1).

    Private elements and overlays go too, also those in unused bits of the pixels. PatientID and PatientName
    become a pseudonym; where there is no PatientID, one for the study.

    Args:
        path: a DICOM mammogram.
        key: secret; whoever has it can tell which pseudonym a patient has.

    Raises:
        ImageReadError: as ``read_dicom`` and ``read_facts``; or ``unsupported`` where annotations are burned
            into the pixels, which no table removes; or ``annotation`` where it does not say its instance or
            study, or where the result still holds the patient's name, number or another secret.
    """
    with decoding(path):
        return _copied(path, key)[0]


def _copied(path: Path, key: bytes) -> tuple[Dataset, Facts]:
    """One mammogram de-identified, and what it said before."""
    data = open_dicom(path, pixels=True)
    facts = facts_of(data, path)
    if facts.has_text:
        why = "has annotations burned into its pixels; black them out, or leave it out"
        raise ImageReadError(path, why, code="unsupported")
    if not (facts.instance and facts.study and data.get("SOPClassUID")):
        why = "does not say its SOPClassUID, SOPInstanceUID or StudyInstanceUID"
        raise ImageReadError(path, why, code="annotation")
    clear_other_bits(data, path)
    secrets = secrets_of(data)
    data.remove_private_tags()
    _clean(data, key)
    if leak := next(leaks(data, secrets), None):
        raise ImageReadError(path, f"still tells who it is of, in {leak}", code="annotation")
    _sign(data, _pseudonym(facts, key))
    return data, facts


def _pseudonym(facts: Facts, key: bytes) -> str:
    """Of the patient; of the study where nobody is named, since those may be of different people."""
    if facts.patient:
        return coded("P", facts.patient, key)
    return coded("U", facts.study, key)


def coded(kind: str, text: str, key: bytes) -> str:
    """A code for a text that only the key can connect with it: ``kind`` and 16 hexadecimal digits."""
    return kind + _digest(key, text if kind == "P" else f"{kind} {text}")[:16]


def _clean(data: Dataset, key: bytes) -> None:
    for element in list(data):
        action = action_of(element.tag)
        if action == "remove":
            del data[element.tag]
        elif element.VR == "SQ" and action in ("uid", "keep"):
            for item in element.value:
                _clean(item, key)
        elif action == "uid":
            element.value = _new_uids(element.value, key)
        elif action != "keep":
            element.value = _replacement(action, element.VR)


def _replacement(action: Action, vr: str) -> object:
    if vr == "SQ":
        return []
    return _DUMMIES.get(vr) if action == "replace" else None


def _new_uids(value: object, key: bytes) -> object:
    if isinstance(value, pydicom.multival.MultiValue):
        return [_uid(str(each), key) for each in value]
    return _uid(str(value), key) if value else value


def _uid(old: str, key: bytes) -> UID:
    """A UID made of a number (PS3.5 B.2) that only the key can connect with the old one."""
    return UID(f"2.25.{int(_digest(key, old)[:32], 16)}")


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _sign(data: Dataset, pseudonym: str) -> None:
    """Say what was done (PS3.15 E.1.1), and write a new file meta header without the sender's."""
    data.PatientID = data.PatientName = pseudonym
    data.PatientIdentityRemoved = "YES"
    data.LongitudinalTemporalInformationModified = "REMOVED"
    data.DeidentificationMethod = f"mammopath {__version__}: PS3.15 basic profile"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    data.DeidentificationMethodCodeSequence = [code]
    syntax = data.file_meta.TransferSyntaxUID
    data.preamble = b"\0" * 128
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
