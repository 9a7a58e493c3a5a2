"""What must not be found anywhere in a de-identified mammogram, and where it still is."""

import re
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from mammopath.images.codecs import CODECS

_SECRETS = (
    "PatientName", "PatientID", "OtherPatientNames", "AccessionNumber", "PatientBirthDate", "PatientAddress",
    "ReferringPhysicianName", "PatientMotherBirthName", "PatientTelephoneNumbers", "OtherPatientIDs",
)  # fmt: skip
"""What must not be found anywhere in the result, nor any word of it."""

_DEVICES = ("DetectorID", "DeviceSerialNumber")
"""What must not be found as a whole; a word of it may be the name of a model."""

_SHORTEST, _SHORTEST_OTHER = 4, 2
"""Letters of the shortest secret that is searched for: shorter ones occur by chance. The other is of scripts
in which names are that short."""

_TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"}
"""Value representations in which a secret is searched for."""

_SCAN, _HEAD = re.compile(rb"\xff\xda|\xff\x93"), 1 << 16
"""Where the pixels of a code stream begin; comments stand in front of that, in so many bytes."""


def secrets_of(data: Dataset) -> list[str]:
    """Names and numbers that a mammogram says of its patient, and words of them, in small letters."""
    values = [str(data.get(name, "")) for name in _SECRETS]
    words = [word for value in values for word in (value, *words_of(value))]
    words += [str(data.get(name, "")).strip() for name in _DEVICES]
    long = (word for word in words if len(word) >= (_SHORTEST if word.isascii() else _SHORTEST_OTHER))
    return sorted({word.lower() for word in long})


def words_of(name: str) -> list[str]:
    """Words of a person's name, whichever of its parts and scripts they stand in (PS3.5 section 6.2.1)."""
    return [word for word in re.split(r"[\s^=,\\]+", name) if word]


def leaks(data: Dataset, secrets: Sequence[str]) -> Iterator[str]:
    """Elements in whose text a secret stands; comments of compressed pixels are text."""
    texts = [(e, e.value) for e in data.iterall() if e.VR in _TEXTS]
    if str(data.file_meta.TransferSyntaxUID) in CODECS:
        texts.append((data["PixelData"], _SCAN.split(data.PixelData, maxsplit=1)[0][:_HEAD]))
    for element, value in texts:
        text = (value.decode("latin-1") if isinstance(value, bytes) else str(value)).lower()
        if any(secret in text for secret in secrets):
            yield f"{element.tag} {element.name}"
