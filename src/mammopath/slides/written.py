"""What is written of a slide that was scored: its map with places, a picture, rows of detections."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mammopath import RESEARCH_USE_ONLY
from mammopath.errors import ImageReadError
from mammopath.files import writing
from mammopath.images.geometry import Frame
from mammopath.images.slide import open_slide
from mammopath.maps.overlay import LONGEST, Picture, save, sheet
from mammopath.maps.values import AttentionMap
from mammopath.metrics.camelyon17 import node_class
from mammopath.prepare.overview import overview
from mammopath.slides.maps import Piece, cell_um
from mammopath.slides.outlines import measures
from mammopath.slides.score import SlideScore
from mammopath.types import Spacing

DETECTION = ("slide", "confidence", "x", "y", "x_um", "y_um", "length_um", "area_um2", "size_class")
"""Columns of a table of detections."""

MARKED = 20
"""So many pieces of tumour at most are framed in the picture, those of highest confidence."""


def detection(slide: str, piece: Piece, found: AttentionMap) -> dict[str, object]:
    """The row of a piece of tumour in a table; x and y count from the corner of the slide."""
    assert found.spacing is not None
    (x, y), spacing = piece.place, found.spacing
    measured = measures(piece, found)
    return {
        "slide": slide,
        "confidence": round(piece.confidence, 4),
        "x": round(x, 1),
        "y": round(y, 1),
        "x_um": round(x * spacing.um_x, 1),
        "y_um": round(y * spacing.um_y, 1),
        **measured,
        "size_class": node_class([measured["length_um"]]),
    }


def write_map(path: Path, found: AttentionMap, score: SlideScore, *, threshold: float) -> None:
    """Write the map and the patches under it as NPZ: places in level-0 pixels, spacing beside them.

    The middle of cell (row, column) lies at ``origin_xy + (column + 0.5, row + 0.5) * cell_xy``.
    """
    assert found.spacing is not None
    back = found.frame.inverse()
    with writing(path) as part:
        np.savez_compressed(
            part,
            probability=found.values.astype(np.float32),
            origin_xy=np.array([back.offset_x, back.offset_y]),
            cell_xy=np.array([back.scale_x, back.scale_y]) * found.cell,
            spacing_um_xy=np.array([found.spacing.um_x, found.spacing.um_y]),
            cell_um=np.array(cell_um(found)),
            corners_xy=score.places.corners,
            patch_span=np.array(score.places.span),
            patch_probability=score.tumour.astype(np.float32),
            patch_attention=score.attention.astype(np.float32),
            threshold=np.array(threshold),
            notice=np.array(RESEARCH_USE_ONLY),
        )


def draw(
    path: Path, slide: Path, found: AttentionMap, told: Sequence[Piece], *, spacing: Spacing | None
) -> str:
    """Draw the slide at low power with its map over it; says what is wrong where that cannot be done."""
    try:
        with open_slide(slide, spacing) as opened:
            sides = opened.width * opened.spacing.um_x, opened.height * opened.spacing.um_y
            um = max(max(sides) / LONGEST, opened.spacing.um_x)
            pixels, own = overview(opened, um), opened.spacing
    except ImageReadError as error:
        return f"no picture: {error.why}"
    frame = Frame(own.um_x / um, own.um_y / um)
    seen = Picture(pixels, frame, own, found.image_id)
    boxes = tuple(_box(piece, found) for piece in told[:MARKED])
    path.parent.mkdir(parents=True, exist_ok=True)
    save(sheet(found, seen, boxes=boxes), path)
    return ""


def _box(piece: Piece, found: AttentionMap) -> tuple[float, float, float, float]:
    (top, left), (rows, columns) = piece.first, piece.mask.shape
    return found.frame.inverse().box(left, top, left + columns, top + rows)
