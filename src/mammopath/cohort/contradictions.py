"""What the pixels of a mammogram contradict in its header: which side it is of, and which way is bright."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from mammopath.prepare.breast import UNSURE, find_breast
from mammopath.types import Record

_AIR = 0.25
"""Least share of an image that is as bright as its brightest for air to be taken as bright."""

_TIMES = 3.0
"""So many times more often than as dark as its darkest."""

_COARSE = 128


def contradictions(record: Record, pixels: Shaped[np.ndarray, "h w"]) -> Iterator[str]:
    """``inverted``, ``side`` or nothing.

    Only images that a detector made for presentation (attribute ``intent``) are asked for their side: films
    are digitised either way round.
    """
    if is_inverted(pixels):
        yield "inverted"
    elif record.attributes.get("intent") == "presentation" and record.laterality:
        wall = find_breast(pixels).wall
        if abs(wall) >= UNSURE and (wall > 0) != (record.laterality == "L"):
            yield "side"


def is_inverted(pixels: Shaped[np.ndarray, "h w"]) -> bool:
    """Whether air is bright: much of the image is at the bright end, hardly any at the dark end."""
    step = max(1, max(pixels.shape) // _COARSE)
    coarse = pixels[::step, ::step].astype(np.float32)
    low, high = np.quantile(coarse, (0.01, 0.99))
    margin = 0.05 * (high - low)
    bright, dark = float((coarse >= high - margin).mean()), float((coarse <= low + margin).mean())
    return bright >= _AIR and bright > _TIMES * dark
