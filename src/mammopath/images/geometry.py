"""Where things are: from level-0 pixels to prepared pixels and back, and findings painted there."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mammopath.types import Finding

Point = tuple[float, float]
"""x to the right, y down, in pixels; pixel (0, 0) covers [0, 1) x [0, 1), so its centre is at (0.5, 0.5)."""

Number = int | float

_CORNERS = 64
"""Corners of the polygon that stands for a circle whose axes are scaled unequally."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A map between two grids of pixels along their axes: x -> scale_x * x + offset_x, and so for y.

    Read it as "from level-0 pixels to prepared pixels". A negative ``scale_x`` mirrors left and right.

    Attributes:
        scale_x, scale_y: prepared pixels per level-0 pixel; not 0.
        offset_x, offset_y: where the level-0 origin comes to lie, in prepared pixels.
    """

    scale_x: Number = 1.0
    scale_y: Number = 1.0
    offset_x: Number = 0.0
    offset_y: Number = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.scale_x, self.scale_y, self.offset_x, self.offset_y))):
            raise ValueError(f"a frame must be finite: {self}")
        if self.scale_x == 0 or self.scale_y == 0:
            raise ValueError(f"a frame must not flatten the image: {self}")

    def cropped(self, left: Number, top: Number) -> "Frame":
        """Then cut away ``left`` columns and ``top`` rows."""
        return self.then(Frame(offset_x=-left, offset_y=-top))

    def padded(self, left: Number, top: Number) -> "Frame":
        """Then add ``left`` columns and ``top`` rows."""
        return self.cropped(-left, -top)

    def scaled(self, x: Number, y: Number) -> "Frame":
        """Then resample to ``x`` times the width and ``y`` times the height."""
        return self.then(Frame(x, y))

    def mirrored(self, width: Number) -> "Frame":
        """Then turn left and right around in an image of this width."""
        return self.then(Frame(-1.0, 1.0, width, 0.0))

    def then(self, later: "Frame") -> "Frame":
        """This map, followed by another."""
        return Frame(
            later.scale_x * self.scale_x,
            later.scale_y * self.scale_y,
            later.scale_x * self.offset_x + later.offset_x,
            later.scale_y * self.offset_y + later.offset_y,
        )

    def inverse(self) -> "Frame":
        """The way back: from prepared pixels to level-0 pixels."""
        return Frame(
            1 / self.scale_x, 1 / self.scale_y, -self.offset_x / self.scale_x, -self.offset_y / self.scale_y
        )

    def point(self, x: Number, y: Number) -> Point:
        """Where a point comes to lie."""
        return self.scale_x * x + self.offset_x, self.scale_y * y + self.offset_y

    def box(
        self, left: Number, top: Number, right: Number, bottom: Number
    ) -> tuple[float, float, float, float]:
        """Where a box comes to lie: left, top, right, bottom."""
        (x0, y0), (x1, y1) = self.point(left, top), self.point(right, bottom)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    def finding(self, finding: Finding) -> Finding:
        """A finding in prepared pixels; a circle whose axes are scaled unequally becomes a polygon."""
        if finding.kind == "box":
            left, top, right, bottom = self.box(*finding.box())
            return replace(finding, points=((left, top), (right, bottom)))
        if finding.kind == "circle" and not math.isclose(abs(self.scale_x), abs(self.scale_y), rel_tol=1e-6):
            return self.finding(_polygon(finding))
        points = tuple(self.point(x, y) for x, y in finding.points)
        holes = tuple(tuple(self.point(x, y) for x, y in hole) for hole in finding.holes)
        return replace(finding, points=points, radius=finding.radius * abs(self.scale_x), holes=holes)


def paint(findings: Iterable[Finding], frame: Frame, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Mask of the pixels whose centre lies in a finding.

    A finding too small to hold a pixel's centre, as a point is, marks the one pixel that it lies in.

    Args:
        findings: in level-0 pixels.
        frame: from level-0 to prepared pixels.
        size: height and width of the mask.
    """
    mask = np.zeros(size, dtype=bool)
    for finding in findings:
        painted = _inside(finding, frame, size)
        if not painted.any():
            _mark_centre(painted, frame.box(*finding.box()))
        mask |= painted
    return mask


def paint_classes(
    findings: Sequence[Finding], classes: Sequence[int], frame: Frame, size: tuple[int, int]
) -> Int[np.ndarray, "h w"]:
    """Class of each pixel, 0 where there is no finding; a later finding is painted over an earlier one.

    Args:
        findings: in level-0 pixels.
        classes: one for each finding.
        frame: from level-0 to prepared pixels.
        size: height and width of the result.
    """
    painted = np.zeros(size, dtype=np.int64)
    for finding, value in zip(findings, classes, strict=True):
        painted[paint([finding], frame, size)] = value
    return painted


def _inside(finding: Finding, frame: Frame, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    x = np.arange(size[1]) + 0.5
    y = np.arange(size[0])[:, None] + 0.5
    if finding.kind == "polygon":
        inside = _inside_polygon(np.array([frame.point(*p) for p in finding.points]), size)
        for hole in finding.holes:
            inside &= ~_inside_polygon(np.array([frame.point(*p) for p in hole]), size)
        return inside
    left, top, right, bottom = frame.box(*finding.box())
    if finding.kind == "box":
        return (left <= x) & (x < right) & (top <= y) & (y < bottom)
    if finding.radius == 0:
        return np.zeros(size, dtype=bool)
    across, down = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
    return across**2 + down**2 <= 1


def _inside_polygon(corners: Float[np.ndarray, "n 2"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Even-odd rule, a row of pixel centres at a time."""
    mask = np.zeros(size, dtype=bool)
    centres = np.arange(size[1]) + 0.5
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first, last = max(0, math.floor(y0.min())), min(size[0], math.ceil(y0.max()))
    for row in range(first, last):
        y = row + 0.5
        crossing = (y0 <= y) != (y1 <= y)
        share = (y - y0[crossing]) / (y1[crossing] - y0[crossing])
        crossings = np.sort(x0[crossing] + share * (x1[crossing] - x0[crossing]))
        mask[row] = np.searchsorted(crossings, centres) % 2 == 1
    return mask


def _mark_centre(mask: Bool[np.ndarray, "h w"], box: tuple[float, float, float, float]) -> None:
    """Mark the pixel in which the middle of a small box lies, if the mask holds it."""
    left, top, right, bottom = box
    column, row = math.floor((left + right) / 2), math.floor((top + bottom) / 2)
    if right - left <= 2 and bottom - top <= 2 and 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
        mask[row, column] = True


def _polygon(circle: Finding) -> Finding:
    """A regular polygon of the circle's area."""
    turn = 2 * math.pi / _CORNERS
    radius = circle.radius * math.sqrt(turn / math.sin(turn))
    x, y = circle.points[0]
    points = tuple(
        (x + radius * math.cos(k * turn), y + radius * math.sin(k * turn)) for k in range(_CORNERS)
    )
    return replace(circle, kind="polygon", points=points, radius=0.0)
