"""DICOM mammograms without who they are of: the basic profile of PS3.15, with keyed pseudonyms and UIDs."""

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from mammopath import __version__
from mammopath.errors import ImageReadError
from mammopath.files import writing
from mammopath.images.deidentify_table import Action, action_of
from mammopath.images.dicom import read_dicom_header
from mammopath.images.guard import decoding
from mammopath.types import Skipped

_SECRETS = (
    "PatientName", "PatientID", "OtherPatientNames", "AccessionNumber", "PatientBirthDate", "PatientAddress",
    "ReferringPhysicianName", "PatientMotherBirthName", "PatientTelephoneNumbers", "OtherPatientIDs",
)  # fmt: skip
"""What must not be found anywhere in the result."""

_SHORTEST = 4
"""Letters of the shortest secret that is searched for: shorter ones occur by chance."""

_DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0",
}  # fmt: skip
"""Values in place of others, by value representation; where there is none, the value becomes empty."""

_TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
"""Value representations in which a secret is searched for."""


def deidentify_folder(root: Path, out: Path, *, key: bytes) -> Iterator[Path | Skipped]:
    """De-identify every mammogram below a folder into another one; one file at a time.

    Names of files and folders are new as well, since the old ones may tell: pseudonym, study, instance. The
    same key gives the same pseudonyms and UIDs, so that exams of one patient stay together.

    Yields:
        Each file that was written, or why one was not.
    """
    for folder, _, names in os.walk(root):
        for path in sorted(Path(folder, name) for name in names):
            try:
                data = deidentified(path, key=key)
                place = out / str(data.PatientID) / str(data.StudyInstanceUID) / f"{data.SOPInstanceUID}.dcm"
                with writing(place) as temporary:
                    data.save_as(temporary, enforce_file_format=True)
                yield place
            except ImageReadError as error:
                yield Skipped(str(path), error.code, error.why)


def deidentified(path: Path, *, key: bytes) -> Dataset:
    """One mammogram after the Basic Application Level Confidentiality Profile (PS3.15 E.2, table E.1-1).

    Private elements go too. PatientID and PatientName become a pseudonym.

    Args:
        path: a DICOM mammogram.
        key: secret; whoever has it can tell which pseudonym a patient has.

    Raises:
        ImageReadError: as ``read_dicom_header``; or ``unsupported`` where annotations are burned into the
            pixels, which no table removes; or ``annotation`` where the result still holds the patient's name,
            number or another secret.
    """
    read_dicom_header(path)
    with decoding(path):
        data = pydicom.dcmread(path)
        if str(data.get("BurnedInAnnotation", "")).upper() == "YES":
            why = "has annotations burned into its pixels; black them out, or leave it out"
            raise ImageReadError(path, why, code="unsupported")
        secrets = _secrets(data)
        pseudonym = "P" + _digest(key, str(data.get("PatientID", "")))[:16]
        data.remove_private_tags()
        _clean(data, key)
        _sign(data, pseudonym)
        if leak := next(_leaks(data, secrets), None):
            raise ImageReadError(path, f"still tells who it is of, in {leak}", code="annotation")
    return data


def _secrets(data: Dataset) -> list[str]:
    values = [str(data.get(name, "")) for name in _SECRETS]
    words = [word for value in values for word in (value, *value.replace("^", " ").split())]
    return sorted({word.lower() for word in words if len(word) >= _SHORTEST})


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


def _leaks(data: Dataset, secrets: list[str]) -> Iterator[str]:
    for element in data.iterall():
        if element.VR in _TEXTS:
            text = str(element.value).lower()
            if any(secret in text for secret in secrets):
                yield f"{element.tag} {element.name}"
