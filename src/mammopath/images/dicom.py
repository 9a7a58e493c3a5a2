"""A single-frame DICOM mammogram: pixels where more is brighter, and what the header says of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float32, UInt16

from mammopath.errors import ImageReadError
from mammopath.images.codecs import NATIVE, Decoded, decoder_name, stored_values
from mammopath.images.dicom_file import DEFLATED, open_dicom
from mammopath.images.dicom_spacing import spacing_of
from mammopath.images.dicom_words import (
    Intent,
    intent_of,
    is_shape_contradicted,
    is_tomosynthesis,
    side_of,
    text_of,
    view_of,
)
from mammopath.images.guard import check_shape, check_size, decoding
from mammopath.images.tones import Values, first_tone, padding_of, rescale_of, rescaled
from mammopath.types import Spacing

Pixels = UInt16[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]

WARNINGS = (
    "window", "table", "function", "spacing", "magnification",
    "side", "view", "intent", "photometric", "modality", "bits",
)  # fmt: skip
"""What a header may say that cannot be true and was passed over: see ``DicomHeader``."""

DECODED = frozenset({"bits"})
"""Warnings that a source, which reads headers, cannot have: decoding alone shows them."""


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM mammogram says of itself.

    Attributes:
        spacing: size of a pixel in the breast (``spacing_of``); None if none is sensible.
        laterality: ``L``, ``R`` or empty; view: ``CC``, ``MLO``, ... or empty.
        intent: made for presentation or for processing, or not said.
        decoder: what decodes the pixels, with its version.
        patient: PatientID as it stands there, or empty.
        warnings: what it says that cannot be true, of ``WARNINGS``: ``window``, ``table`` and ``function``
            (``first_tone``), ``spacing`` and ``magnification`` (``spacing_of``); ``side``, ``view``,
            ``intent`` and ``photometric``, which two elements tell differently; ``modality``: none is told
            (``assume_mg``); and, known after decoding only, ``bits``: there were bits beside the stored
            ones, and they were cleared.
        spacing_tag: elements that the spacing is made of.
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
    spacing_tag: str = ""


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


def read_dicom(path: Path, *, assume_mg: bool = False) -> DicomImage:
    """Read a mammogram as it is meant to be seen, up to one intensity range.

    Rescaling is applied always; the first VOI look-up table or window only where the image is for
    presentation (for processing, there is none that a reader should use). MONOCHROME1 is turned over.
    Padding becomes as dark as the darkest of the rest.

    Args:
        path: the file.
        assume_mg: the data set says that this is a mammogram: a file that tells no Modality is read too, with
            a warning. One that tells another is refused all the same.

    Raises:
        ImageReadError: ``missing``, ``empty``, ``format`` (not DICOM), ``unsupported`` (not a mammogram,
            multi-frame, colour, a transfer syntax without decoder), ``truncated``, ``pixels`` or
            ``too_large``. Whatever the decoders throw becomes this one error.
    """
    check_size(path)
    with decoding(path):
        data = open_dicom(path, pixels=True)
        header = header_of(data, path, assume_mg=assume_mg)
        decoded = stored_values(data, path)
        if decoded.has_other_bits:
            header = replace(header, warnings=(*header.warnings, "bits"))
        return DicomImage(_shown(decoded, data, header), header)


def read_dicom_header(path: Path, *, assume_mg: bool = False) -> DicomHeader:
    """Read what a mammogram's header says, without decoding; arguments as of ``read_dicom``.

    Raises:
        ImageReadError: as ``read_dicom``, except for faults that only decoding shows.
    """
    check_size(path)
    with decoding(path):
        return header_of(open_dicom(path, pixels=False), path, assume_mg=assume_mg)


def header_of(data: pydicom.Dataset, path: Path, *, assume_mg: bool = False) -> DicomHeader:
    """What the elements of the file at ``path`` say, whether read with its pixels or without.

    Raises:
        ImageReadError: as ``read_dicom_header``. Other errors pass through; call it inside ``decoding``.
    """
    is_untold = assume_mg and not text_of(data, "Modality")
    _demand(data, path, modality="" if is_untold else "MG")
    (side, sides), (view, views), (intent, intents) = side_of(data), view_of(data), intent_of(data)
    spacing, (_, passed) = spacing_of(data), first_tone(data)
    contradicted = {
        "side": sides,
        "view": views,
        "intent": intents,
        "photometric": is_shape_contradicted(data),
        "modality": is_untold,
    }
    return DicomHeader(
        height=int(data.Rows),
        width=int(data.Columns),
        spacing=spacing.spacing,
        laterality=side,
        view=view,
        intent=intent,
        decoder=decoder_name(str(data.file_meta.TransferSyntaxUID)),
        patient=text_of(data, "PatientID"),
        warnings=(*passed, *spacing.warnings, *(name for name, so in contradicted.items() if so)),
        spacing_tag=spacing.tag,
    )


def _demand(data: pydicom.Dataset, path: Path, *, modality: str) -> None:
    """Refuse what is not of this modality, or not one grey image of sensible size."""
    told, photometric = text_of(data, "Modality"), text_of(data, "PhotometricInterpretation")
    frames, samples = int(text_of(data, "NumberOfFrames") or 1), int(data.get("SamplesPerPixel", 1))
    wrong = {
        f"is of modality {told or 'unknown'}, not MG": told != modality,
        "is tomosynthesis or a projection of it, by its class": is_tomosynthesis(data),
        f"holds {frames} frames, as tomosynthesis does": frames != 1,
        f"has {samples} samples per pixel, {photometric or 'of no kind'}":
            samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"),
        f"has {data.get('BitsAllocated')} bits per pixel": data.get("BitsAllocated") not in (8, 16),
    }  # fmt: skip
    for why, so in wrong.items():
        if so:
            raise ImageReadError(path, why, code="unsupported", hint="give single-frame grey mammograms")
    check_shape(path, int(data.Rows), int(data.Columns))
    _demand_bits(data, path)


def _demand_bits(data: pydicom.Dataset, path: Path) -> None:
    """Refuse what is said of bits and cannot be, and uncompressed pixels that the file has no room for."""
    allocated, stored = int(data.BitsAllocated), int(data.BitsStored)
    if not 0 < stored <= allocated:
        raise ImageReadError(path, f"says it stores {stored} bits", code="pixels")
    if not stored - 1 <= int(data.get("HighBit", stored - 1)) < allocated:
        raise ImageReadError(path, f"says that bit {data.HighBit} is the highest of {stored}", code="pixels")
    if "ModalityLUTSequence" not in data:
        rescale_of(data)
    needed = int(data.Rows) * int(data.Columns) * allocated // 8
    is_plain = str(data.file_meta.TransferSyntaxUID) in NATIVE - {DEFLATED}
    if is_plain and "PixelData" not in data and path.stat().st_size < needed:
        raise ImageReadError(path, "ends before its pixels do", code="truncated", hint="copy it again")


def _shown(decoded: Decoded, data: pydicom.Dataset, header: DicomHeader) -> Pixels:
    padding, values = padding_of(decoded.values, data), rescaled(decoded.values, data)
    is_turned = data.PhotometricInterpretation == "MONOCHROME1"
    if padding is not None:
        rest = values[~padding]
        values = np.where(padding, rest.max() if is_turned else rest.min(), values)
    tone = first_tone(data)[0] if header.intent == "presentation" else None
    top = (1 << int(data.BitsStored)) - 1
    if tone is not None:
        values = (tone.apply(values) * np.float32(top)).astype(np.float32)
    if is_turned:
        values = _turned(values, top)
    return values if values.dtype == np.uint16 else values.astype(np.float32)


def _turned(values: Values, top: int) -> Values:
    """Bright and dark exchanged: within the stored range where values are in it, else within their own."""
    low, high = (0, top) if values.min() >= 0 and values.max() <= top else (values.min(), values.max())
    return (low + high - values).astype(values.dtype)
