"""An attention map: one value per token of an image, with its unit and its place on level 0."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mammopath import RESEARCH_USE_ONLY
from mammopath.images.geometry import Frame
from mammopath.metrics.maps import UNTESTED
from mammopath.types import Spacing

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in level-0 pixels."""


@dataclass(frozen=True)
class AttentionMap:
    """Values of a map method over one image, a regular grid of squares.

    Attributes:
        method: a key of the table of map methods.
        unit: what a value is.
        values: of each token, at least 0; NaN where there is no image.
        cell: side of a token in prepared pixels.
        frame: from level-0 pixels to prepared pixels.
        image_id: of the image.
        spacing: of a level-0 pixel, or None.
        verdict: of the latest audit of this method on this run: ``passed``, ``failed: ...``, ``not tested``.
        size: height and width of the image in level-0 pixels, if known; boxes then end at its edges.
    """

    method: str
    unit: str
    values: Float[np.ndarray, "rows cols"]
    cell: int
    frame: Frame
    image_id: str
    spacing: Spacing | None = None
    verdict: str = UNTESTED
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if np.isinf(self.values).any() or (self.values < 0).any():
            raise ValueError(f"{self.method}: values of a map are finite and at least 0, or NaN on padding")

    @property
    def valid(self) -> Bool[np.ndarray, "rows cols"]:
        """Where there is image."""
        return ~np.isnan(self.values)

    def box(self, row: int, column: int) -> Box:
        """The square of a token on level 0, as far as it lies in the image."""
        left, top = column * self.cell, row * self.cell
        return within(self.frame.inverse().box(left, top, left + self.cell, top + self.cell), self.size)

    def peak(self) -> tuple[int, int]:
        """Row and column of the highest value, the first of equal ones.

        Raises:
            ValueError: the map has no value at all.
        """
        row, column = np.unravel_index(np.nanargmax(self.values), self.values.shape)
        return int(row), int(column)

    def to_json(self) -> Mapping[str, Any]:
        """As kept on disk; padding becomes null."""
        rows = [[None if math.isnan(v) else round(v, 6) for v in row] for row in self.values.tolist()]
        frame = self.frame
        return {
            "notice": RESEARCH_USE_ONLY,
            "image_id": self.image_id,
            "method": self.method,
            "unit": self.unit,
            "verdict": self.verdict,
            "cell": self.cell,
            "level0_to_prepared": [frame.scale_x, frame.scale_y, frame.offset_x, frame.offset_y],
            "um_per_level0_pixel": [self.spacing.um_x, self.spacing.um_y] if self.spacing else None,
            "values": rows,
        }


def within(box: Box, size: tuple[int, int] | None) -> Box:
    """A box as far as it lies in an image of this height and width; as it is where they are unknown."""
    if size is None:
        return box
    height, width = size
    (left, right), (top, bottom) = (
        (min(max(low, 0.0), most), min(max(high, 0.0), most))
        for low, high, most in ((box[0], box[2], float(width)), (box[1], box[3], float(height)))
    )
    return left, top, right, bottom
