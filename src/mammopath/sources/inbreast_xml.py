"""Outlines of INbreast: OsiriX regions of interest in an XML property list."""

import plistlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from mammopath.errors import DataError
from mammopath.images.outlines import closed
from mammopath.types import UNKNOWN, Finding

NAMES: Mapping[str, str] = {
    "mass": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "point": "calcification",
    "cluster": "cluster",
    "distortion": "distortion",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
    "spiculated region": "spiculated region",
    "espiculated region": "spiculated region",
}
"""Names as drawn, in lower case and without numbers, and ours. Others are kept as they are."""

_POINT = re.compile(r"\(\s*(-?[\d.]+(?:e[+-]?\d+)?)\s*,\s*(-?[\d.]+(?:e[+-]?\d+)?)")


def read_regions(path: Path, *, malignant: float = UNKNOWN) -> tuple[Finding, ...]:
    """Regions of one image, in its pixels: polygons, and points for what has one or two points.

    A region without points is left out.

    Raises:
        DataError: not such a file, or a region whose points cannot be read.
    """
    try:
        images = plistlib.loads(path.read_bytes())["Images"]
        regions = [region for image in images for region in image["ROIs"]]
        return tuple(f for region in regions for f in _findings(region, malignant))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ExpatError) as error:
        raise DataError(f"{path}: not a list of OsiriX regions ({error!r}); copy it again") from None


def _findings(region: Mapping[str, Any], malignant: float) -> Iterator[Finding]:
    name = _name(str(region.get("Name", "")))
    points = [_point(text) for text in region["Point_px"]]
    if len(set(points)) < 3:
        for point in dict.fromkeys(points):
            yield Finding("point", (point,), malignant=malignant, name=name)
        return
    try:
        yield Finding("polygon", closed(points), malignant=malignant, name=name)
    except ValueError:  # all on one line: their box is all that can be said
        xs, ys = [x for x, _ in points], [y for _, y in points]
        corners = ((min(xs), min(ys)), (max(xs) + 1, max(ys) + 1))
        yield Finding("box", corners, malignant=malignant, name=name)


def _name(text: str) -> str:
    plain = " ".join(re.sub(r"[\d_]+", " ", text).lower().split())
    return NAMES.get(plain, plain)


def _point(text: str) -> tuple[float, float]:
    if not (found := _POINT.match(text)):
        raise ValueError(f"{text!r} is no point")
    return float(found[1]), float(found[2])
