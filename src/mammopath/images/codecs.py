"""Stored values of a single-frame DICOM image: one decoder per transfer syntax, so that numbers repeat."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from jaxtyping import Integer
from pydicom.encaps import generate_frames

from mammopath.errors import ImageReadError
from mammopath.images.rle import decode_rle
from mammopath.images.streams import Claim, claim_of, is_followed

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

_LOSSY = {"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"}
"""Transfer syntaxes whose decoded values may be a little beyond those that were stored."""


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
        return f"imagecodecs.packbits {imagecodecs.__version__}"
    return f"{CODECS[syntax].name} {imagecodecs.__version__}" if syntax in CODECS else ""


@dataclass(frozen=True)
class Decoded:
    """Stored values, and whether bits beside the stored ones were set: overlays of old files, or a lie."""

    values: Stored
    has_other_bits: bool


def stored_values(header: pydicom.Dataset, path: Path) -> Decoded:
    """Decode the pixels of one frame of one sample per pixel, before any rescaling.

    Bits outside the stored ones, where old files keep overlays, are cleared in uncompressed pixels; signed
    values get their sign (PS3.5 section 8.1.1).

    Raises:
        ImageReadError: ``unsupported`` transfer syntax, ``truncated``, or ``pixels`` where the code stream or
            the decoded frame is not what the header says: another size, sign, more bits, or two frames.
    """
    if not header.get("PixelData"):
        raise ImageReadError(path, "has no pixels", code="pixels")
    syntax = str(header.file_meta.TransferSyntaxUID)
    shape = (int(header.Rows), int(header.Columns))
    if syntax in NATIVE:
        values = _native(header, shape, path)
    elif syntax == RLE:
        values = decode_rle(_one_frame(header, path), shape, int(header.BitsAllocated) // 8, path)
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
    found = _clean(_within(values, header) if syntax in _LOSSY else values, header)
    if found.has_other_bits and syntax not in NATIVE:
        why = f"its compressed pixels do not fit the {header.BitsStored} bits that its header says"
        raise ImageReadError(path, why, code="pixels", hint="have it sent uncompressed")
    return found


def clear_other_bits(header: pydicom.Dataset, path: Path) -> None:
    """Clear the bits of ``PixelData`` that hold no pixels, where old files keep overlays (PS3.5 8.1.2).

    Raises:
        ImageReadError: as ``stored_values``, which also says that compressed pixels have no such bits.
    """
    found = stored_values(header, path)
    if not found.has_other_bits:
        return
    bits, stored = int(header.BitsAllocated), int(header.BitsStored)
    shift = int(header.get("HighBit", stored - 1)) + 1 - stored
    order = ">" if str(header.file_meta.TransferSyntaxUID) == BIG_ENDIAN else "<"
    values = (found.values.astype(np.int32) << shift).astype(f"{order}i{bits // 8}")
    header.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)


def _frame(header: pydicom.Dataset, path: Path) -> bytes:
    """The one compressed frame, whose own header agrees with that of the file.

    Not all decoders notice that its end is missing, or that there is a second one; and what it claims is
    looked at first, since decoders make room for it.
    """
    frame = _one_frame(header, path)
    if _END not in frame[-_PADDING:]:
        raise ImageReadError(path, "its compressed pixels end early", code="truncated", hint="copy it again")
    if is_followed(frame):
        raise _several(path)
    claim = claim_of(frame)
    if claim is None:
        raise ImageReadError(path, "its compressed pixels have no header", code="pixels")
    told = Claim(int(header.Rows), int(header.Columns), 1, claim.bits, claim.is_signed)
    if claim != told:
        why = (
            f"its compressed pixels are {claim.width} x {claim.height} of {claim.samples} samples, but its "
            f"header says {told.width} x {told.height} of 1"
        )
        raise ImageReadError(path, why, code="pixels")
    if claim.is_signed is not None and claim.is_signed != (header.get("PixelRepresentation", 0) == 1):
        raise ImageReadError(path, "its compressed pixels have another sign than it says", code="pixels")
    return frame


def _one_frame(header: pydicom.Dataset, path: Path) -> bytes:
    frame, *others = generate_frames(header.PixelData, number_of_frames=1)
    if others:
        raise _several(path)
    return frame


def _several(path: Path) -> ImageReadError:
    return ImageReadError(path, "holds more frames than its header says", code="pixels")


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


def _within(values: Stored, header: pydicom.Dataset) -> Stored:
    """Lossy values that are beyond the stored ones by up to a sixteenth, brought back to the largest of them.

    Without that their lowest bits would be left: black where the image is brightest.
    """
    top = (1 << int(header.BitsStored)) - 1
    is_over = values.dtype.kind == "u" and top < values.max() <= top + (top >> 4)
    return np.minimum(values, top).astype(values.dtype) if is_over else values


def _clean(values: Stored, header: pydicom.Dataset) -> Decoded:
    stored, high = int(header.BitsStored), int(header.get("HighBit", int(header.BitsStored) - 1))
    is_signed = header.get("PixelRepresentation", 0) == 1
    if not is_signed and high == stored - 1 and values.dtype.kind == "u" and values.max() < 1 << stored:
        return Decoded(values.astype(np.uint16, copy=False), False)
    whole = values.astype(np.int32)
    shift, mask = high + 1 - stored, (1 << stored) - 1
    found = (whole >> shift) & mask
    others = whole & ((1 << int(header.BitsAllocated)) - 1) & ~(mask << shift)
    if not is_signed:
        return Decoded(found.astype(np.uint16), bool(others.any()))
    sign = 1 << (stored - 1)
    found = (found ^ sign) - sign
    extended = (1 << int(header.BitsAllocated)) - (
        1 << (high + 1)
    )  # all bits above those of a negative value
    return Decoded(found, bool((others[(others != extended) | (found >= 0)] != 0).any()))
