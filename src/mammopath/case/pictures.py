"""Pictures of a case: every image with its maps, and the links between regions and patches."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from mammopath import RESEARCH_USE_ONLY
from mammopath.case.links import OWN
from mammopath.case.values import Link, Links, Patch, Prediction, SeenImage
from mammopath.errors import ImageReadError
from mammopath.images.read import assumes_mg, read_image
from mammopath.images.slide import open_slide
from mammopath.maps.overlay import LONGEST, Picture, crop, overlay, picture
from mammopath.maps.values import Box
from mammopath.prepare.overview import framed
from mammopath.types import Spacing

WIDTH, TILE, GAP, VIEW = 1200, 118, 22, 520
"""Of the picture of links: width, side of a patch, space between, height of a view."""

HEAD, ROW, FOOT = 58, TILE + GAP + 22, 32
"""Height of the titles of a direction, of a row of patches, and of the notice at the end."""

PAPER, INK, QUIET, WARN = (255, 255, 255), (27, 31, 36), (77, 86, 97), (138, 59, 0)

LINES = ((0, 114, 178), (213, 94, 0), (0, 121, 90), (170, 51, 119), (122, 79, 163))
"""After Okabe and Ito; regions are also numbered, so that colour is not needed."""


@dataclass(frozen=True)
class Album:
    """A case's images as stored, read once more for looking at.

    Attributes:
        pixels: of images that were read at once. slides: files of the others, with their spacing.
        pictures: of all.
    """

    pixels: Mapping[str, Shaped[np.ndarray, "_ _ *c"]]
    slides: Mapping[str, tuple[Path, Spacing | None]]
    pictures: Mapping[str, Picture]

    def tile(self, image_id: str, box: Box) -> UInt8[np.ndarray, "side side 3"] | None:
        """What an image shows around a box of level-0 pixels; None where the image is not here."""
        if image_id in self.pixels:
            return crop(self.pixels[image_id], box, side=TILE)
        if image_id not in self.slides:
            return None
        with open_slide(*self.slides[image_id]) as slide:
            left, top, right, bottom = box
            half = max(right - left, bottom - top)
            x, y = (left + right) / 2 - half, (top + bottom) / 2 - half
            return slide.read(x, y, size=(TILE, TILE), um=2 * half * slide.spacing.um_x / TILE)


def album(prediction: Prediction) -> Album:
    """Read the images of a prediction."""
    pixels: dict[str, np.ndarray] = {}
    slides: dict[str, tuple[Path, Spacing | None]] = {}
    pictures: dict[str, Picture] = {}
    for seen in prediction.images:
        name, path, spacing = seen.record.image_id, seen.record.path, seen.record.spacing
        if seen.fields:
            slides[name] = (path, spacing)
            pictures[name] = Picture(*framed(path, spacing, side=LONGEST), spacing, mark_of(seen))
            continue
        pixels[name] = read_image(path, assume_mg=assumes_mg(seen.record)).pixels
        pictures[name] = picture(pixels[name], spacing=spacing, mark=mark_of(seen))
    return Album(pixels, slides, pictures)


def link_picture(prediction: Prediction, kept: Album) -> Image.Image | None:
    """Regions of each modality, joined to the patches of the other that belong to them; None without any."""
    links = prediction.links
    both = (("tissue", links.to_tissue), ("mammogram", links.to_mammogram))
    panels = [
        _panel(prediction, kept, found, other) for other, found in both if any(x.patches for x in found)
    ]
    if not panels:
        return None
    page = Image.new("RGB", (WIDTH, sum(p.height for p in panels) + FOOT), PAPER)
    top = 0
    for panel in panels:
        page.paste(panel, (0, top))
        top += panel.height
    _text(ImageDraw.Draw(page), (12, page.height - FOOT + 8), RESEARCH_USE_ONLY, 13, QUIET)
    return page


def _panel(prediction: Prediction, kept: Album, links: Sequence[Link], other: str) -> Image.Image:
    """One direction: views with their regions on the left, rows of patches on the right."""
    shown = [link for link in links if link.patches][: len(LINES)]
    names = list(dict.fromkeys(link.image_id for link in shown))[:2]
    shown = [link for link in shown if link.image_id in names]
    page = Image.new("RGB", (WIDTH, HEAD + max(VIEW, len(shown) * ROW) + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    scales = _views(page, prediction, kept, names)
    lowest = max(scales[n][3] for n in names)
    left = WIDTH - 5 * (TILE + GAP)
    title, told = _title(prediction.links, other)
    _text(draw, (left, 10), title, 16, INK if prediction.links.kind == OWN else WARN)
    _text(draw, (left, 32), told, 13, QUIET if prediction.links.verdict == "passed" else WARN)
    for row, link in enumerate(shown):
        start = _region(draw, link, scales[link.image_id], row)
        _row(page, draw, link, kept, start=start, at=(left, HEAD + row * ROW), colour=LINES[row])
    return page.crop((0, 0, WIDTH, HEAD + max(lowest, len(shown) * ROW) + GAP))


def _title(links: Links, other: str) -> tuple[str, str]:
    """What is shown, and the verdict of the audit."""
    told = f"Link by {links.by}. Sanity: {links.verdict}."
    if links.kind == OWN:
        return f"{other.capitalize()} patches of this patient", told
    return f"{other.upper()} OF REFERENCE CASES, NOT THIS PATIENT", told


def _views(
    page: Image.Image, prediction: Prediction, kept: Album, names: Sequence[str]
) -> dict[str, tuple[float, float, float, int]]:
    """Paste the views; place, scale from level-0 pixels to the page, and height there of each."""
    found: dict[str, tuple[float, float, float, int]] = {}
    room = (WIDTH - 5 * (TILE + GAP) - 40) // len(names)
    draw = ImageDraw.Draw(page)
    for number, name in enumerate(names):
        place, seen = next(
            (k, i) for k, i in enumerate(prediction.images, start=1) if i.record.image_id == name
        )
        small = kept.pictures[name]
        drawn = Image.fromarray(overlay(seen.guide, small))
        scale = min((room - 12) / drawn.width, VIEW / drawn.height)
        drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)))
        left = 12 + number * room
        page.paste(drawn, (left, HEAD))
        _text(draw, (left, 10), f"{place}. {mark_of(seen)}", 16, INK)
        _text(draw, (left, 32), f"{seen.guide.method} map", 13, QUIET)
        found[name] = (float(left), float(HEAD), scale * small.frame.scale_x, drawn.height)
    return found


def mark_of(seen: SeenImage) -> str:
    """What an image is called on pictures: side and view, or that it is tissue."""
    return seen.mark if seen.record.modality == "mammogram" else "tissue"


def _region(
    draw: ImageDraw.ImageDraw, link: Link, place: tuple[float, float, float, int], row: int
) -> tuple[float, float]:
    """Frame a region; where its lines start."""
    left, top, scale, _ = place
    box = [left + link.box[0] * scale, top + link.box[1] * scale, left + link.box[2] * scale]
    box.append(top + link.box[3] * scale)
    draw.rectangle(box, outline=LINES[row], width=3)
    _text(draw, (box[0] + 4, box[1] + 2), str(link.number), 16, PAPER)
    return box[2], (box[1] + box[3]) / 2


def _row(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    link: Link,
    kept: Album,
    *,
    start: tuple[float, float],
    at: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    for k, patch in enumerate(link.patches):
        left, top = at[0] + k * (TILE + GAP), at[1]
        if k == 0:
            middle = (left - 2, top + TILE / 2)
            draw.line((*start, left - 26, middle[1], *middle), fill=colour, width=3)
        else:
            draw.line((left - GAP, top + TILE / 2, left, top + TILE / 2), fill=colour, width=1 + (k < 3))
        page.paste(Image.fromarray(_tile(patch, kept)), (left, top))
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline=colour, width=2)
        _text(draw, (left, top + TILE + 2), caption(patch), 12, WARN if patch.whose else INK)


def caption(patch: Patch) -> str:
    """Weight, and of a reference what it was."""
    if not patch.whose:
        return f"{100 * patch.weight:.0f} % of the link"
    return f"reference, {'malignant' if patch.malignant == 1 else 'not malignant'}"


def _tile(patch: Patch, kept: Album) -> Shaped[np.ndarray, "side side 3"]:
    """A patch with what lies around it; grey where its image is not at hand."""
    shown = None
    with suppress(ImageReadError):
        if patch.box is not None and patch.path:
            pixels = read_image(Path(patch.path), assume_mg=True).pixels  # a reference: it has trained
            shown = crop(pixels, patch.box, side=TILE)
        elif patch.box is not None:
            shown = kept.tile(patch.image_id, patch.box)
    return np.full((TILE, TILE, 3), 200, np.uint8) if shown is None else shown


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[int | float, int | float],
    text: str,
    size: int,
    colour: tuple[int, ...],
) -> None:
    draw.text(at, text, fill=colour, font=ImageFont.load_default(size))
