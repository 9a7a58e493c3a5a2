"""Outlines drawn on a slide, and the findings they stand for."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mammopath.types import UNKNOWN, Finding, Skipped

Points = tuple[tuple[float, float], ...]
"""Corners in level-0 pixels, x to the right, y down; the last one leads back to the first."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed outline, as it was drawn.

    Attributes:
        points: at least three different corners; where it crosses itself, the even-odd rule fills it.
        name: its own name or label.
        group: what it belongs to: a group (ASAP), a layer (Aperio), a class (GeoJSON).
        negative: marked as cut out of the others (Aperio's ``NegativeROA``).
        holes: what is cut out of this one outline (GeoJSON).
    """

    points: Points
    name: str = ""
    group: str = ""
    negative: bool = False
    holes: tuple[Points, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """All that an annotation file holds.

    Attributes:
        outlines: in the order of the file.
        skipped: what is no outline: points, rulers, two corners, corners that are no numbers.
        um: micrometres per level-0 pixel that the file claims; NaN where it does not.
    """

    outlines: tuple[Outline, ...]
    skipped: tuple[Skipped, ...] = ()
    um: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an outline stands for.

    Attributes:
        name: of the finding.
        malignant: 1, 0 or NaN (unknown).
        use: a finding; a hole, cut out of every outline that it overlaps, as if painted after them; or
            nothing, known and passed over.
    """

    name: str = ""
    malignant: float = UNKNOWN
    use: Literal["finding", "hole", "nothing"] = "finding"


@dataclass(frozen=True, slots=True)
class Reading:
    """Findings of a drawing.

    Attributes:
        findings: polygons, in the order of the drawing; holes are part of the polygons they are cut out of.
        skipped: outlines of unknown meaning or outside of the slide, and what was skipped in the file.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every outline of the file became part of the findings."""
        return not self.skipped


def interpret(
    drawing: Drawing,
    meaning: Callable[[Outline], Meaning | None],
    *,
    where: str,
    size: tuple[int, int] | None = None,
) -> Reading:
    """Findings of a drawing.

    Args:
        drawing: of one slide.
        meaning: what an outline stands for; None where that is not known.
        where: the file, for what is skipped.
        size: height and width of the slide at level 0, if known. If an outline lies wholly outside, the
            drawing is of another slide, and nothing of it is used; what reaches over an edge is kept.
    """
    if size is not None and (strays := [o for o in drawing.outlines if _is_outside(o.points, size)]):
        left, top, right, bottom = box(strays[0].points)
        why = (
            f"{len(strays)} of {len(drawing.outlines)} outlines lie outside the slide of {size[1]} x "
            f"{size[0]} pixels, the first at x {left:g} to {right:g}, y {top:g} to {bottom:g}: drawn on "
            "another slide?"
        )
        return Reading((), (*drawing.skipped, Skipped(where, "annotation", why)))
    told = [(outline, meaning(outline)) for outline in drawing.outlines]
    unknown = sorted({o.group or o.name for o, what in told if what is None and not o.negative})
    skipped = [
        Skipped(where, "annotation", f"outlines called {name!r} have no known meaning") for name in unknown
    ]
    cuts = [o.points for o, what in told if o.negative or (what is not None and what.use == "hole")]
    found = [(o, what) for o, what in told if what is not None and what.use == "finding" and not o.negative]
    return Reading(tuple(_findings(found, cuts)), (*drawing.skipped, *skipped))


def closed(points: Iterable[tuple[float, float]]) -> Points:
    """Corners without immediate repetitions and without the first one again at the end.

    Raises:
        ValueError: a coordinate is not finite, or the corners enclose nothing: fewer than three different
            ones, or all on one line.
    """
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("has a corner that is not a finite number")
        if not corners or corners[-1] != (x, y):
            corners.append((x, y))
    while len(corners) > 1 and corners[0] == corners[-1]:
        corners.pop()
    if len(set(corners)) < 3 or _is_straight(corners):
        raise ValueError(f"has {len(set(corners))} different corners that enclose nothing")
    return tuple(corners)


def box(points: Points) -> Box:
    """Bounding box."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def area(points: Points) -> float:
    """Area in pixels, by the shoelace formula."""
    following = (*points[1:], points[0])
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))) / 2


def _findings(found: list[tuple[Outline, Meaning]], cuts: list[Points]) -> Iterator[Finding]:
    boxes = [box(cut) for cut in cuts]
    for outline, what in found:
        own = box(outline.points)
        near = tuple(cut for cut, other in zip(cuts, boxes, strict=True) if _overlap(own, other))
        yield Finding(
            "polygon", outline.points, malignant=what.malignant, name=what.name, holes=outline.holes + near
        )


def _is_outside(points: Points, size: tuple[int, int]) -> bool:
    left, top, right, bottom = box(points)
    return right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_straight(corners: list[tuple[float, float]]) -> bool:
    (x0, y0), (x1, y1) = corners[0], max(corners, key=lambda p: math.dist(p, corners[0]))
    return all((x1 - x0) * (y - y0) == (y1 - y0) * (x - x0) for x, y in corners)
