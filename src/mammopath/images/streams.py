"""What a compressed frame says of itself before it is decoded: JPEG, JPEG-LS and JPEG 2000."""

import io
import re
import struct
from dataclasses import dataclass

from mammopath.images.headers import jpeg_frame

_J2K = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 code stream, and the marker of its sizes (ITU-T T.800 A.4, A.5)."""

_SIZES = struct.Struct(">2x2xIIII16xHB")
"""After those markers: length, capabilities; width, height, their offsets; tiles; components, depth."""

_AGAIN = re.compile(rb"\xff\xd9[\x00\xff]{0,32}?(?:\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP)")
"""The end of a code stream, with padding behind it, and the start of another (or of a JP2 file with one)."""


@dataclass(frozen=True)
class Claim:
    """What a code stream says of its image; JPEG and JPEG-LS say nothing of signs."""

    height: int
    width: int
    samples: int
    bits: int
    is_signed: bool | None = None


def claim_of(frame: bytes) -> Claim | None:
    """What a code stream claims to decode to; None where it has no such header."""
    if frame.startswith(b"\xff\xd8"):
        found = jpeg_frame(io.BytesIO(frame))
        return None if found is None else Claim(found.height, found.width, found.samples, found.bits)
    start = frame.find(_J2K)
    if start < 0 or len(frame) < start + len(_J2K) + _SIZES.size:
        return None
    width, height, left, top, samples, depth = _SIZES.unpack_from(frame, start + len(_J2K))
    return Claim(height - top, width - left, samples, (depth & 0x7F) + 1, bool(depth & 0x80))


def is_followed(frame: bytes) -> bool:
    """Whether another code stream stands behind the first one: a frame that nobody would see."""
    return _AGAIN.search(frame) is not None
