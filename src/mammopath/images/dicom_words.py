"""What DICOM says of a mammogram in words and codes: side, view, what it is made for; and its numbers."""

import math
from collections.abc import Mapping
from typing import Literal

import pydicom
from pydicom.multival import MultiValue

Intent = Literal["presentation", "processing", ""]

_VIEWS: Mapping[str, str] = {
    "399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO",
    "399260004": "ML", "R-10224": "ML", "399352003": "LM", "R-10228": "LM",
    "399099002": "LMO", "R-10230": "LMO", "399192008": "XCCL", "R-1024A": "XCCL",
    "399101009": "XCCM", "R-1024B": "XCCM", "399196006": "FB", "R-10244": "FB",
    "399188001": "SIO", "R-102D0": "SIO", "441555000": "ISO", "R-40AAA": "ISO",
    "127457009": "SPECIMEN", "G-8310": "SPECIMEN",
}  # fmt: skip
"""Views by their code, SNOMED CT and the older SNOMED RT (PS3.16 CID 4014); the words are those of the ACR,
which that table gives beside them."""

_IMAGES = "1.2.840.10008.5.1.4.1.1."

_INTENTS: Mapping[str, Intent] = {
    _IMAGES + "1.2": "presentation", _IMAGES + "1.2.1": "processing",
    _IMAGES + "1.1": "presentation", _IMAGES + "1.1.1": "processing",
}  # fmt: skip
"""What images of a SOP class are made for: digital mammograms, and digital X-rays (PS3.4 annex B.5)."""

_TOMOSYNTHESIS = {_IMAGES + "13.1.3", _IMAGES + "13.1.4", _IMAGES + "13.1.5"}
"""SOP classes of breast tomosynthesis and of its projections."""

_CAPTURES = _IMAGES + "7"
"""Secondary captures, and with a number behind it their multi-frame kinds: films, and pictures of screens."""


def text_of(data: pydicom.Dataset, keyword: str) -> str:
    """A value as text without spaces around it; empty where there is none."""
    value = data.get(keyword)
    return "" if value is None else str(value).strip()


def is_told(data: pydicom.Dataset, keyword: str) -> bool:
    """Whether an element is there with a value."""
    return data.get(keyword) not in (None, "") and data.get(keyword) != []


def numbers_of(data: pydicom.Dataset, keyword: str) -> list[float]:
    """Finite numbers of an element that may be absent, single or multiple; none where one is no number."""
    value = data.get(keyword)
    if value is None or value == "":
        return []
    try:
        numbers = [float(str(part)) for part in (value if isinstance(value, (MultiValue, list)) else [value])]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def side_of(data: pydicom.Dataset) -> tuple[str, bool]:
    """Side (``L``, ``R`` or empty) by ImageLaterality, else Laterality; and whether the two contradict."""
    sides = [text_of(data, name).upper() for name in ("ImageLaterality", "Laterality")]
    told = next((side for side in sides if side), "")
    return told if told in ("L", "R") else "", set(sides) >= {"L", "R"}


def view_of(data: pydicom.Dataset) -> tuple[str, bool]:
    """View by ViewPosition, else by ViewCodeSequence; and whether the two contradict."""
    told, codes = text_of(data, "ViewPosition").upper(), data.get("ViewCodeSequence") or []
    coded = _VIEWS.get(text_of(codes[0], "CodeValue"), "") if codes else ""
    return told or coded, bool(told and coded and told != coded)


def intent_of(data: pydicom.Dataset) -> tuple[Intent, bool]:
    """What an image is made for, by PresentationIntentType, else by its class; whether the two contradict."""
    word, classed = (
        text_of(data, "PresentationIntentType").upper(),
        _INTENTS.get(text_of(data, "SOPClassUID")),
    )
    told: Intent = "presentation" if "PRESENTATION" in word else "processing" if "PROCESSING" in word else ""
    return told or classed or "", bool(told and classed and told != classed)


def is_tomosynthesis(data: pydicom.Dataset) -> bool:
    """Whether the class of an image is one of tomosynthesis, however many frames it has."""
    return text_of(data, "SOPClassUID") in _TOMOSYNTHESIS


def is_capture(data: pydicom.Dataset) -> bool:
    """Whether an image is a secondary capture: a digitised film, or a picture of a screen."""
    told = text_of(data, "SOPClassUID")
    return told == _CAPTURES or told.startswith(_CAPTURES + ".")


def is_shape_contradicted(data: pydicom.Dataset) -> bool:
    """Whether PresentationLUTShape goes with the other photometric interpretation (PS3.3 C.8.11.3).

    INVERSE says again that an image is MONOCHROME1, and IDENTITY that it is not; neither turns it over.
    """
    fitting = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}
    shape = text_of(data, "PresentationLUTShape").upper()
    return shape in fitting and fitting[shape] != text_of(data, "PhotometricInterpretation")
