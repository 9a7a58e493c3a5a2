"""Outlines from XML, one element in memory at a time: ASAP, and Aperio ImageScope."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import iterparse

from mammopath.errors import DataError
from mammopath.images.outlines import Drawing, Outline, Points, box, closed
from mammopath.types import UNKNOWN, Skipped

ASAP_ROOT, APERIO_ROOT = "ASAP_Annotations", "Annotations"

_DEPTH = 16
"""Elements within elements; annotation files have six."""

_CORNERS = 64
"""Corners of the polygon that stands for an ellipse."""

_ASAP_SHAPES = {"Polygon", "Spline", "Rectangle"}
"""Types that enclose something; Dot, PointSet and Measurement do not."""

_FREEHAND, _RECTANGLE, _ELLIPSE = "0", "1", "2"
"""Aperio's region types that enclose something; arrows and rulers do not."""


def read_xml(path: Path) -> Drawing:
    """Outlines of ASAP or Aperio XML; the root element tells which.

    Raises:
        DataError: another root element.
        Exception: what the parser raises on broken or forbidden XML; ``read_drawing`` translates it.
    """
    outlines: list[Outline] = []
    skipped: list[Skipped] = []
    um, layer, root, depth = UNKNOWN, "", "", 0
    with path.open("rb") as file:
        for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
            if not root:
                root, um = _checked(element.tag, path), _number(element.get("MicronsPerPixel"))
            depth += 1 if event == "start" else -1
            if depth > _DEPTH:
                raise DataError(f"{path}: is nested too deeply to be an annotation file")
            is_asap = root == ASAP_ROOT
            if event == "start" and element.tag == "Annotation":
                layer = element.get("Name", "")
            if event == "end" and element.tag == ("Annotation" if is_asap else "Region"):
                try:
                    outlines.append(_asap(element) if is_asap else _aperio(element, layer))
                except ValueError as error:
                    skipped.append(Skipped(str(path), "annotation", f"{_called(element)} {error}"))
                element.clear()
    return Drawing(tuple(outlines), tuple(skipped), um)


def _checked(tag: str, path: Path) -> str:
    if tag not in (ASAP_ROOT, APERIO_ROOT):
        raise DataError(
            f"{path}: its root is <{tag[:40]}>, not <{ASAP_ROOT}> (ASAP) or <{APERIO_ROOT}> (Aperio)"
        )
    return tag


def _asap(element: Element) -> Outline:
    kind = element.get("Type", "Polygon")
    if kind not in _ASAP_SHAPES:
        raise ValueError(f"is a {kind}, which encloses nothing")
    corners = sorted(_corners(element, "Coordinate"), key=lambda corner: corner[0])
    points = closed((x, y) for _, x, y in corners)
    return Outline(points, name=element.get("Name", ""), group=element.get("PartOfGroup", ""))


def _aperio(element: Element, layer: str) -> Outline:
    kind = element.get("Type", _FREEHAND)
    corners = [(x, y) for _, x, y in _corners(element, "Vertex")]
    if kind not in (_FREEHAND, _RECTANGLE, _ELLIPSE):
        raise ValueError(f"is of type {kind}, which encloses nothing")
    if len(corners) == 2 and kind != _FREEHAND:
        corners = _between(*corners)
    points = _ellipse(closed(corners)) if kind == _ELLIPSE else closed(corners)
    values = (found.get("Value", "") for found in element.iter("Attribute"))
    name = element.get("Text", "") or next(filter(None, values), "")
    return Outline(points, name=name, group=layer, negative=element.get("NegativeROA", "0") == "1")


def _corners(element: Element, tag: str) -> Iterator[tuple[float, float, float]]:
    """Place in the order, x and y of each corner; the order of the file where none is given."""
    for i, corner in enumerate(element.iter(tag)):
        yield float(corner.get("Order", i)), float(corner.get("X", "")), float(corner.get("Y", ""))


def _between(one: tuple[float, float], other: tuple[float, float]) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = one, other
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _ellipse(points: Points) -> Points:
    """The ellipse in the bounding box of the corners."""
    left, top, right, bottom = box(points)
    x, y, half_x, half_y = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    turns = [2 * math.pi * k / _CORNERS for k in range(_CORNERS)]
    return tuple((x + half_x * math.cos(turn), y + half_y * math.sin(turn)) for turn in turns)


def _called(element: Element) -> str:
    return f"{element.tag} {element.get('Name') or element.get('Id') or ''}".strip()


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return UNKNOWN
