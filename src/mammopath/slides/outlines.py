"""Pieces of a map of tumour as outlines on the slide: rings around cells, and GeoJSON as QuPath reads it."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from mammopath import RESEARCH_USE_ONLY
from mammopath.files import write_text
from mammopath.maps.values import AttentionMap
from mammopath.metrics.camelyon17 import lesion_lengths
from mammopath.slides.maps import Piece, cell_um

Corner = tuple[int, int]
"""Of a cell: column and row."""

Ring = list[Corner]


def polygons(mask: Bool[np.ndarray, "rows cols"]) -> list[list[Ring]]:
    """Outlines of a mask along its cells: of each part that hangs together by edges, its ring and holes.

    Rings are closed; outer ones run clockwise on the screen, holes the other way.
    """
    labels, count = ndimage.label(mask)
    found = []
    for number in range(1, count + 1):
        rings = _rings(labels == number)
        found.append(sorted(rings, key=_area, reverse=True))  # the outer ring is the one positive area
    return found


def measures(piece: Piece, found: AttentionMap) -> dict[str, float]:
    """Longest diameter and area of a piece, in micrometres and square micrometres."""
    um, spacing = cell_um(found), found.spacing
    assert spacing is not None
    high = found.cell / found.frame.scale_y * spacing.um_y
    length = float(lesion_lengths(piece.mask, um=um).max())
    return {"length_um": round(length, 1), "area_um2": round(float(piece.mask.sum()) * um * high, 1)}


def write_geojson(
    path: Path, found: AttentionMap, told: Sequence[Piece], *, facts: Mapping[str, str]
) -> None:
    """Write pieces as a FeatureCollection in level-0 pixels, one feature each (RFC 7946, as QuPath uses it).

    Args:
        path: of the file.
        found: the map that the pieces are of; it knows its spacing.
        told: the pieces.
        facts: put beside the features, for people.
    """
    features = [_feature(piece, found) for piece in told]
    whole = {"type": "FeatureCollection", "notice": RESEARCH_USE_ONLY, **facts, "features": features}
    write_text(path, json.dumps(whole))


def _feature(piece: Piece, found: AttentionMap) -> dict[str, Any]:
    back, (top, left) = found.frame.inverse(), piece.first
    rings = [
        [[list(back.point(left + x, top + y)) for x, y in ring] for ring in part]
        for part in polygons(piece.mask)
    ]
    measured = {"confidence": round(piece.confidence, 4), **measures(piece, found)}
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Tumor"},
            "measurements": measured,
        },
    }


def _rings(mask: Bool[np.ndarray, "rows cols"]) -> list[Ring]:
    """Closed chains of the sides of cells that part inside from outside, with the inside to the right."""
    onward = _sides(mask)
    rings = []
    while onward:
        start = next(iter(onward))
        ring, at, heading = [start], start, (0, 0)
        while True:
            ends = onward[at]
            end = min(ends, key=lambda e: _turn(heading, (e[0] - at[0], e[1] - at[1])))
            ends.remove(end)
            if not ends:
                del onward[at]
            step = (end[0] - at[0], end[1] - at[1])
            if step == heading:
                ring[-1] = end
            else:
                ring.append(end)
            at, heading = end, step
            if at == start:
                break
        rings.append(ring)
    return rings


def _sides(mask: Bool[np.ndarray, "rows cols"]) -> dict[Corner, list[Corner]]:
    """Sides between a cell of the mask and one outside, by their first corner."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    ways = {  # outside where, from which corner of the cell, to which
        (0, -1): ((0, 0), (1, 0)),
        (1, 0): ((1, 0), (1, 1)),
        (0, 1): ((1, 1), (0, 1)),
        (-1, 0): ((0, 1), (0, 0)),
    }
    onward: defaultdict[Corner, list[Corner]] = defaultdict(list)
    for (across, down), (first, last) in ways.items():
        beside = padded[1 + down : len(padded) - 1 + down, 1 + across : padded.shape[1] - 1 + across]
        for y, x in np.argwhere(inside & ~beside).tolist():
            onward[x + first[0], y + first[1]].append((x + last[0], y + last[1]))
    return onward


def _turn(heading: Corner, step: Corner) -> int:
    """Order of ways on: right, straight, left; where two cells touch by a corner a ring keeps to its own."""
    return -(heading[0] * step[1] - heading[1] * step[0])


def _area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2
