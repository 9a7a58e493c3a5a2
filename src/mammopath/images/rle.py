"""Stored values of a frame in DICOM's run-length encoding: a plane of PackBits for each byte of a value.

``imagecodecs`` also has a decoder for whole frames, which ends the process on a frame that is cut short; its
decoder for PackBits refuses what is broken, and is far faster than pydicom's loop over bytes.
"""

import struct
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
from jaxtyping import Integer

from mammopath.errors import ImageReadError

_HEADER = struct.Struct("<16L")
"""Number of segments, and where each begins (PS3.5 section G.5)."""


def decode_rle(frame: bytes, shape: tuple[int, int], width: int, path: Path) -> Integer[np.ndarray, "h w"]:
    """Unsigned values of ``width`` bytes of one frame of one sample a pixel, highest byte first (PS3.5 G).

    Raises:
        ImageReadError: ``truncated`` where a segment gives too few pixels, ``pixels`` where the frame is not
            made of ``width`` segments, or a segment gives too many.
    """
    planes = np.empty((*shape, width), np.uint8)
    for byte, segment in enumerate(_segments(frame, width, path)):
        planes[..., byte] = _plane(segment, shape[0] * shape[1], path).reshape(shape)
    return planes.view(f">u{width}")[..., 0].astype(f"u{width}")


def _segments(frame: bytes, width: int, path: Path) -> list[bytes]:
    if len(frame) < _HEADER.size:
        raise ImageReadError(path, "its compressed pixels end early", code="truncated", hint="copy it again")
    count, *starts = _HEADER.unpack_from(frame)
    if count != width:
        why = f"its pixels come in {count} run-length segments, but its header says {width} bytes a pixel"
        raise ImageReadError(path, why, code="pixels")
    bounds = [*starts[:count], len(frame)]
    return [frame[start:stop] for start, stop in pairwise(bounds)]


def _plane(segment: bytes, length: int, path: Path) -> np.ndarray:
    try:
        plane = imagecodecs.packbits_decode(segment, out=length)
    except imagecodecs.PackbitsError as error:
        why = f"its run-length pixels are broken: {error}"
        raise ImageReadError(path, why, code="pixels", hint="copy it again") from error
    if len(plane) < length:
        raise ImageReadError(path, "its compressed pixels end early", code="truncated", hint="copy it again")
    return np.frombuffer(plane, np.uint8)
