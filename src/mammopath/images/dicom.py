"""A single-frame DICOM mammogram: pixels where more is brighter, and what the header says of them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from jaxtyping import Float32, UInt16
from pydicom.errors import InvalidDicomError

from mammopath.errors import ImageReadError
from mammopath.images.codecs import NATIVE, decoder_name, stored_values
from mammopath.images.guard import check_shape, check_size, decoding
from mammopath.images.tones import Values, first_tone, rescaled
from mammopath.types import Spacing

Intent = Literal["presentation", "processing", ""]

Pixels = UInt16[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]

_VIEWS = {
    "399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO",
    "399352003": "ML", "R-10224": "ML", "399260004": "ML", "399348003": "LM", "R-10228": "LM",
}  # fmt: skip
"""Codes of ViewCodeSequence (PS3.16 CID 4014, SNOMED CT and SRT) that are told apart here."""

_TONES = ("WindowWidth", "WindowCenter", "VOILUTSequence")

_PREAMBLE = 132
"""Bytes in front of the first element of a DICOM file."""

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM mammogram says of itself.

    Attributes:
        spacing: size of a pixel in the breast, from PixelSpacing, else ImagerPixelSpacing divided by the
            magnification, else NominalScannedPixelSpacing of a film; None if none is sensible.
        laterality: ``L``, ``R`` or empty; view: ``CC``, ``MLO``, ... or empty.
        intent: made for presentation or for processing, or not said.
        decoder: what decodes the pixels, with its version.
        patient: PatientID as it stands there, or empty.
        warnings: what it says that cannot be true and was passed over: ``window`` (``first_tone``),
            ``spacing`` (zero, or of no detector).
    """

    height: int
    width: int
    spacing: Spacing | None
    laterality: str
    view: str
    intent: Intent
    decoder: str
    patient: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DicomImage:
    """Pixels of a DICOM mammogram, more is brighter, and its header.

    ``pixels`` are uint16 as stored where nothing had to be computed, else float32 in [0, 2^BitsStored - 1]
    after a VOI transformation, or in rescaled values.
    """

    pixels: Pixels
    header: DicomHeader


def is_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are a DICOM preamble and its prefix (PS3.10 section 7.1)."""
    return start[128:132] == b"DICM"


def read_dicom(path: Path) -> DicomImage:
    """Read a mammogram as it is meant to be seen, up to one intensity range.

    Rescaling is applied always; the first VOI look-up table or window only where the image is for
    presentation (for processing, there is none that a reader should use). MONOCHROME1 is turned over.

    Raises:
        ImageReadError: ``missing``, ``empty``, ``format`` (not DICOM), ``unsupported`` (not a mammogram,
            multi-frame, colour, a transfer syntax without decoder), ``truncated``, ``pixels`` or
            ``too_large``. Whatever the decoders throw becomes this one error.
    """
    check_size(path)
    with decoding(path):
        data = _dataset(path, pixels=True)
        header = _header(data, path)
        if not data.get("PixelData"):
            raise ImageReadError(path, "has no pixels", code="pixels")
        return DicomImage(_shown(data, header, path), header)


def read_dicom_header(path: Path) -> DicomHeader:
    """Read what a mammogram's header says, without decoding.

    Raises:
        ImageReadError: as ``read_dicom``, except for faults that only decoding shows.
    """
    size = check_size(path)
    with decoding(path):
        data = _dataset(path, pixels=False)
        header = _header(data, path)
        native = str(data.file_meta.TransferSyntaxUID) in NATIVE - {"1.2.840.10008.1.2.1.99"}
        if native and size < header.height * header.width * int(data.BitsAllocated) // 8:
            raise ImageReadError(path, "ends before its pixels do", code="truncated", hint="copy it again")
    return header


def _dataset(path: Path, *, pixels: bool) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError:
        if path.stat().st_size <= _PREAMBLE:
            raise ImageReadError(path, "ends in its header", code="truncated", hint="copy it again") from None
        raise ImageReadError(path, "is not a DICOM file", code="format", hint="export it again") from None


def _header(data: pydicom.Dataset, path: Path) -> DicomHeader:
    _demand(data, path)
    intent, spacing = str(data.get("PresentationIntentType", "")).upper(), _spacing(data)
    wrong = {
        "window": first_tone(data) is None and any(_is_told(data, name) for name in _TONES),
        "spacing": spacing is None and any(_is_told(data, name) for name in _SPACINGS),
    }
    return DicomHeader(
        height=int(data.Rows),
        width=int(data.Columns),
        spacing=spacing,
        laterality=_laterality(data),
        view=_view(data),
        intent="presentation" if "PRESENTATION" in intent else "processing" if "PROCESSING" in intent else "",
        decoder=decoder_name(str(data.file_meta.TransferSyntaxUID)),
        patient=str(data.get("PatientID") or "").strip(),
        warnings=tuple(name for name, so in wrong.items() if so),
    )


def _demand(data: pydicom.Dataset, path: Path) -> None:
    """Refuse what is not one grey mammogram of sensible size."""
    modality, photometric = str(data.get("Modality", "")), str(data.get("PhotometricInterpretation", ""))
    told = data.get("NumberOfFrames")
    frames, samples = 1 if told in (None, "") else int(told), int(data.get("SamplesPerPixel", 1))
    wrong = {
        f"is of modality {modality or 'unknown'}, not MG": modality != "MG",
        f"holds {frames} frames": frames != 1,
        f"has {samples} samples per pixel, {photometric or 'of no kind'}":
            samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"),
        f"has {data.get('BitsAllocated')} bits per pixel": data.get("BitsAllocated") not in (8, 16),
    }  # fmt: skip
    for why, so in wrong.items():
        if so:
            raise ImageReadError(path, why, code="unsupported", hint="give single-frame grey mammograms")
    allocated, stored = int(data.BitsAllocated), int(data.BitsStored)
    if not 0 < stored <= allocated:
        raise ImageReadError(path, f"says it stores {stored} bits", code="pixels")
    if not stored - 1 <= int(data.get("HighBit", stored - 1)) < allocated:
        raise ImageReadError(path, f"says that bit {data.HighBit} is the highest of {stored}", code="pixels")
    check_shape(path, int(data.Rows), int(data.Columns))


def _shown(data: pydicom.Dataset, header: DicomHeader, path: Path) -> Pixels:
    values = rescaled(stored_values(data, path), data)
    tone = first_tone(data) if header.intent == "presentation" else None
    top = (1 << int(data.BitsStored)) - 1
    if tone is not None:
        values = (tone.apply(values) * np.float32(top)).astype(np.float32)
    if data.PhotometricInterpretation == "MONOCHROME1":
        values = _turned(values, top)
    return values if values.dtype == np.uint16 else values.astype(np.float32)


def _turned(values: Values, top: int) -> Values:
    """Bright and dark exchanged: within the stored range where values are in it, else within their own."""
    low, high = (0, top) if values.min() >= 0 and values.max() <= top else (values.min(), values.max())
    return (low + high - values).astype(values.dtype)


def _spacing(data: pydicom.Dataset) -> Spacing | None:
    magnification = _numbers(data.get("EstimatedRadiographicMagnificationFactor"))
    enlarged = magnification[0] if magnification and 1 <= magnification[0] <= 3 else 1.0
    for name, factor in zip(_SPACINGS, (1.0, enlarged, 1.0), strict=True):
        mm = _numbers(data.get(name))
        if len(mm) == 2 and all(0.005 < value < 5 for value in mm):
            return Spacing(mm[1] * 1000 / factor, mm[0] * 1000 / factor)
    return None


def _is_told(data: pydicom.Dataset, name: str) -> bool:
    return data.get(name) not in (None, "") and data.get(name) != []


def _numbers(value: object) -> list[float]:
    """Finite numbers of a decimal string that may be absent, single or multiple; empty where it is broken."""
    if value is None or value == "":
        return []
    try:
        numbers = [
            float(str(part))
            for part in (value if isinstance(value, pydicom.multival.MultiValue) else [value])
        ]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _laterality(data: pydicom.Dataset) -> str:
    side = str(data.get("ImageLaterality") or data.get("Laterality") or "").strip().upper()
    return side if side in ("L", "R") else ""


def _view(data: pydicom.Dataset) -> str:
    told = str(data.get("ViewPosition") or "").strip().upper()
    if told:
        return told
    codes = data.get("ViewCodeSequence") or []
    return _VIEWS.get(str(codes[0].get("CodeValue", "")), "") if codes else ""
