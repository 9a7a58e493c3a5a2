"""How large a pixel of a DICOM mammogram is in the breast, and which element says so."""

from dataclasses import dataclass

import pydicom

from mammopath.images.dicom_words import is_told, numbers_of
from mammopath.types import Spacing

_TAGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")

_MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"

_LARGEST = 400.0
"""Millimetres of the longest detector or film: mammograms have at most about 30 cm."""


@dataclass(frozen=True)
class Found:
    """The spacing of an image, or None; the elements it is made of; and what was passed over on the way.

    ``warnings``: ``spacing`` where one is told and none makes sense, ``magnification`` where its factor is
    not from 1 to 3.
    """

    spacing: Spacing | None
    tag: str = ""
    warnings: tuple[str, ...] = ()


def spacing_of(data: pydicom.Dataset) -> Found:
    """Size of a pixel in the breast (PS3.3 10.7.1.3).

    PixelSpacing goes first. Where it only repeats ImagerPixelSpacing it is not calibrated: like that, it is
    the size on the detector, and is divided by the magnification. NominalScannedPixelSpacing is of a film.
    """
    factors = numbers_of(data, _MAGNIFICATION)
    is_odd = is_told(data, _MAGNIFICATION) and not (len(factors) == 1 and 1 <= factors[0] <= 3)
    odd = ("magnification",) if is_odd else ()
    factor = factors[0] if factors and not is_odd else 1.0
    for name in _TAGS:
        mm = numbers_of(data, name)
        if not _is_sensible(mm, data):
            continue
        if factor != 1 and _is_on_the_detector(name, data):
            found = Spacing(mm[1] * 1000 / factor, mm[0] * 1000 / factor)
            return Found(found, f"{name} / {_MAGNIFICATION}", odd)
        return Found(Spacing(mm[1] * 1000, mm[0] * 1000), name, odd)
    is_lost = any(is_told(data, name) for name in _TAGS)
    return Found(None, "", (*odd, "spacing") if is_lost else odd)


def _is_sensible(mm: list[float], data: pydicom.Dataset) -> bool:
    """From 5 um to 5 mm, and no larger an image than a detector: 1000 um are often written as 1 mm."""
    return (
        len(mm) == 2
        and all(0.005 < value < 5 for value in mm)
        and mm[0] * int(data.Rows) <= _LARGEST
        and mm[1] * int(data.Columns) <= _LARGEST
    )


def _is_on_the_detector(name: str, data: pydicom.Dataset) -> bool:
    if name == "PixelSpacing":
        is_calibrated = is_told(data, "PixelSpacingCalibrationType")
        return not is_calibrated and numbers_of(data, name) == numbers_of(data, "ImagerPixelSpacing")
    return name == "ImagerPixelSpacing"
