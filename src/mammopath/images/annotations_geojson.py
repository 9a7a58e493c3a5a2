"""Outlines from GeoJSON as QuPath writes it (RFC 7946, pixels in place of degrees)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammopath.errors import DataError
from mammopath.images.outlines import Drawing, Outline, Points, closed
from mammopath.types import Skipped


def read_geojson(path: Path) -> Drawing:
    """Outlines of a FeatureCollection, a Feature, or a list of Features.

    A polygon's first ring is its outline, the others are its holes. The group is QuPath's classification.

    Raises:
        DataError: not GeoJSON.
        Exception: what the parser raises on broken JSON; ``read_drawing`` translates it.
    """
    content = json.loads(path.read_bytes())
    features = content if isinstance(content, list) else content.get("features", [content])
    if not isinstance(features, list) or not all(_is_feature(feature) for feature in features):
        raise DataError(f"{path}: is JSON, but not a GeoJSON Feature, FeatureCollection or list of Features")
    outlines: list[Outline] = []
    skipped: list[Skipped] = []
    for number, feature in enumerate(features):
        try:
            outlines.extend(_outlines(feature))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            skipped.append(Skipped(str(path), "annotation", f"feature {number}: {error}"))
    return Drawing(tuple(outlines), tuple(skipped))


def _is_feature(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.get("type") == "Feature" and isinstance(value.get("geometry"), dict)
    )


def _outlines(feature: dict[str, Any]) -> Iterator[Outline]:
    geometry = feature["geometry"]
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"is a {kind}, which encloses nothing")
    facts = feature.get("properties") or {}
    group = facts.get("classification") or ""
    group = group.get("name", "") if isinstance(group, dict) else group
    polygons = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
    for outline, *holes in polygons:
        yield Outline(
            _ring(outline),
            name=str(facts.get("name") or ""),
            group=str(group),
            holes=tuple(map(_ring, holes)),
        )


def _ring(corners: Any) -> Points:
    return closed((float(x), float(y)) for x, y, *_ in corners)
