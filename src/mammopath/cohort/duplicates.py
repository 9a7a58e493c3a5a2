"""The same pixels under two names: exactly, or after resizing and re-encoding."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float32, Shaped
from PIL import Image

_SIDE = 32
"""Side of the thumbnail that hashes and correlations are taken of."""

NEAR_BITS = 6
"""Perceptual hashes (of 64 bits) that differ in no more than so many are compared further."""

NEAR_CORRELATION = 0.99
"""Thumbnails that correlate at least so well show the same picture."""

_FLAT = 2e-3
"""Thumbnails whose spread is less than this share of their largest value show nothing."""

_ROWS = 512
"""Hashes compared with all others at a time; bounds memory."""


@dataclass(frozen=True)
class Look:
    """What an image looks like, in little memory.

    Attributes:
        exact: SHA-256 of size, depth and decoded pixels: not of the file.
        perceptual: signs of 63 low frequencies of the thumbnail (Zauner 2010, pHash).
        thumbnail: 32 x 32 means, centred and of length 1; all zero for an image of one value.
    """

    exact: str
    perceptual: int
    thumbnail: Float32[np.ndarray, "32 32"]

    @property
    def is_flat(self) -> bool:
        """Whether every pixel has (nearly) the same value, so that looking alike means nothing."""
        return not self.thumbnail.any()


def look(pixels: Shaped[np.ndarray, "h w *c"]) -> Look:
    """Take the hashes of decoded pixels, grey (h, w) or RGB (h, w, 3)."""
    told = f"{pixels.dtype.str} {pixels.shape}".encode()
    exact = hashlib.sha256(told)
    exact.update(np.ascontiguousarray(pixels).data)
    thumbnail = _thumbnail(pixels)
    signs = scipy.fft.dctn(thumbnail)[:8, :8].ravel() > 0
    signs[0] = False
    return Look(exact.hexdigest(), int.from_bytes(np.packbits(signs).tobytes(), "big"), thumbnail)


def same(looks: Sequence[Look]) -> list[tuple[int, ...]]:
    """Groups of two or more images with exactly the same pixels, which are not flat."""
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(looks):
        if not one.is_flat:
            groups.setdefault(one.exact, []).append(i)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def nearly_same(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Pairs of images that show the same picture, but not in exactly the same pixels."""
    usable = np.array([i for i, one in enumerate(looks) if not one.is_flat], dtype=int)
    hashes = np.array([looks[i].perceptual for i in usable], dtype=np.uint64)
    for start in range(0, len(usable), _ROWS):
        block = hashes[start : start + _ROWS, None] ^ hashes[None, start:]
        for row, column in np.argwhere(np.bitwise_count(block) <= NEAR_BITS):
            a, b = int(usable[start + row]), int(usable[start + column])
            if (
                a < b
                and looks[a].exact != looks[b].exact
                and _correlation(looks[a], looks[b]) >= NEAR_CORRELATION
            ):
                yield a, b


def _thumbnail(pixels: Shaped[np.ndarray, "h w *c"]) -> Float32[np.ndarray, "32 32"]:
    if pixels.dtype == np.uint8:
        picture = Image.fromarray(pixels).convert("L")
    else:
        picture = Image.fromarray(pixels.astype(np.float32).reshape(*pixels.shape[:2], -1).mean(axis=2))
    small = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    centred = small - small.mean()
    length = float(np.linalg.norm(centred))
    is_flat = length < _FLAT * _SIDE * max(1.0, float(np.abs(small).max()))
    return np.zeros_like(centred) if is_flat else centred / length


def _correlation(one: Look, other: Look) -> float:
    return float((one.thumbnail * other.thumbnail).sum())
