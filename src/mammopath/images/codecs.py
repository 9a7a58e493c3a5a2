"""Stored values of a single-frame DICOM image: one decoder per transfer syntax, so that numbers repeat."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from jaxtyping import Integer
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from mammopath.errors import ImageReadError

Stored = Integer[np.ndarray, "h w"]

LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = {"1.2.840.10008.1.2", LITTLE_ENDIAN, BIG_ENDIAN, "1.2.840.10008.1.2.1.99"}
"""Transfer syntaxes whose pixels are not compressed (deflated ones are inflated with the whole data set)."""

_END = b"\xff\xd9"
"""Last marker of a JPEG, JPEG-LS and JPEG 2000 code stream."""

_PADDING = 16
"""Bytes at the end of a frame in which its end marker must stand; writers pad with all sorts of bytes."""

RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Codec:
    """A decoder of compressed frames, and the name that stands in the record of a run."""

    name: str
    decode: Callable[[bytes], np.ndarray]


_LOSSLESS = Codec("imagecodecs.jpegsof3", imagecodecs.jpegsof3_decode)  # refuses broken data; others fill in
_DCT = Codec("imagecodecs.jpeg8", imagecodecs.jpeg8_decode)
_JPEGLS = Codec("imagecodecs.jpegls", imagecodecs.jpegls_decode)
_J2K = Codec("imagecodecs.jpeg2k", imagecodecs.jpeg2k_decode)

CODECS: dict[str, Codec] = {
    "1.2.840.10008.1.2.4.50": _DCT,
    "1.2.840.10008.1.2.4.51": _DCT,
    "1.2.840.10008.1.2.4.57": _LOSSLESS,
    "1.2.840.10008.1.2.4.70": _LOSSLESS,
    "1.2.840.10008.1.2.4.80": _JPEGLS,
    "1.2.840.10008.1.2.4.81": _JPEGLS,
    "1.2.840.10008.1.2.4.90": _J2K,
    "1.2.840.10008.1.2.4.91": _J2K,
}
"""Transfer syntax UID -> decoder. GDCM is left out on purpose: it ends the process on some broken files."""


def decoder_name(syntax: str) -> str:
    """What decodes a transfer syntax, with its version; empty where nothing does."""
    if syntax in NATIVE:
        return f"numpy {np.__version__}"
    if syntax == RLE:
        return f"pydicom {pydicom.__version__}"
    return f"{CODECS[syntax].name} {imagecodecs.__version__}" if syntax in CODECS else ""


def stored_values(header: pydicom.Dataset, path: Path) -> Stored:
    """Decode the pixels of one frame of one sample per pixel, before any rescaling.

    Bits outside the stored ones, where old files keep overlays, are cleared; signed values get their sign
    (PS3.5 section 8.1.1).

    Raises:
        ImageReadError: ``unsupported`` transfer syntax, ``truncated``, or ``pixels`` where the decoded frame
            is not what the header says.
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    shape = (int(header.Rows), int(header.Columns))
    if syntax in NATIVE:
        values = _native(header, shape, path)
    elif syntax == RLE:
        decoder = get_decoder(header.file_meta.TransferSyntaxUID)
        values, _ = decoder.as_array(header, decoding_plugin="pydicom", raw=True)
    elif syntax in CODECS:
        values = CODECS[syntax].decode(_frame(header, path))
    else:
        raise ImageReadError(
            path, f"is compressed as {header.file_meta.TransferSyntaxUID.name}, which is not read here",
            code="unsupported", hint="have it sent uncompressed or as JPEG Lossless",
        )  # fmt: skip
    if values.shape != shape or values.dtype.kind not in "iu":
        raise ImageReadError(
            path, f"decodes to {values.dtype} {values.shape}, but its header says {shape}", code="pixels"
        )
    return _clean(values, header)


def _frame(header: pydicom.Dataset, path: Path) -> bytes:
    """The one compressed frame; not all decoders notice that its end is missing."""
    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    if _END not in frame[-_PADDING:]:
        raise ImageReadError(path, "its compressed pixels end early", code="truncated", hint="copy it again")
    return frame


def _native(header: pydicom.Dataset, shape: tuple[int, int], path: Path) -> Stored:
    bits = int(header.BitsAllocated)
    order = ">" if str(header.file_meta.TransferSyntaxUID) == BIG_ENDIAN else "<"
    needed = shape[0] * shape[1] * bits // 8
    if len(header.PixelData) < needed:
        raise ImageReadError(
            path, f"has {len(header.PixelData):,} bytes of pixels, needs {needed:,}", code="truncated",
            hint="copy it again",
        )  # fmt: skip
    if len(header.PixelData) > needed + needed % 2:
        raise ImageReadError(path, "holds more pixels than its header says", code="pixels")
    return np.frombuffer(header.PixelData[:needed], dtype=f"{order}u{bits // 8}").reshape(shape)


def _clean(values: Stored, header: pydicom.Dataset) -> Stored:
    stored, high = int(header.BitsStored), int(header.get("HighBit", int(header.BitsStored) - 1))
    signed = header.get("PixelRepresentation", 0) == 1
    if not signed and high == stored - 1 and values.dtype.kind == "u" and values.max() < 1 << stored:
        return values.astype(np.uint16, copy=False)
    values = (values.astype(np.int64) >> (high + 1 - stored)) & ((1 << stored) - 1)
    if signed:
        sign = 1 << (stored - 1)
        return ((values ^ sign) - sign).astype(np.int32)
    return values.astype(np.uint16)
