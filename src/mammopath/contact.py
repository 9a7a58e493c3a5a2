"""A contact sheet: images of a cohort as the model will see them, with side, view, label and findings."""

import base64
import hashlib
import html
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mammopath import RESEARCH_USE_ONLY
from mammopath.errors import ConfigError, ImageReadError
from mammopath.files import write_bytes, write_text
from mammopath.images.geometry import Frame
from mammopath.prepare.overview import framed
from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.sources.slides import is_slide
from mammopath.types import Record

TALLEST = 336
"""Height of a picture on the sheet, in pixels."""

_LINE, _GAP, _COLUMNS = 15, 10, 8

_PAPER, _INK, _PADDING = (18, 20, 24), (228, 228, 228), (38, 46, 66)

_COLOURS = {1.0: (255, 86, 86), 0.0: (95, 205, 120)}
_UNKNOWN = (255, 200, 60)
"""Findings: malignant red, benign green, unknown yellow."""


@dataclass(frozen=True)
class Tile:
    """One image of the sheet, and the lines below it."""

    picture: UInt8[np.ndarray, "h w 3"]
    lines: tuple[str, ...]


def draw(records: Sequence[Record], *, number: int, seed: int) -> list[Record]:
    """So many records, as evenly over sites and labels as there are; the same for the same seed."""
    groups: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: hashlib.sha256(f"{seed}/{r.image_id}".encode()).digest()):
        groups[record.domain, str(record.malignant)].append(record)
    rounds = max(map(len, groups.values()), default=0)
    turns = [group[i] for i in range(rounds) for _, group in sorted(groups.items()) if i < len(group)]
    return sorted(turns[:number], key=lambda r: (r.domain, r.image_id))


def tiles(records: Sequence[Record], settings: PrepareSettings, *, multiple: int) -> Iterator[Tile]:
    """A tile for each record; one that cannot be read says why."""
    for record in records:
        try:
            rgb, frame = _seen(record, settings, multiple=multiple)
        except ImageReadError as error:
            blank = np.full((TALLEST, TALLEST // 2, 3), _PADDING, dtype=np.uint8)
            yield Tile(blank, (f"NOT READ: {error.code}", error.why[:40], *_caption(record, "")[1:]))
            continue
        yield Tile(_picture(record, rgb, frame), _caption(record, " mirrored" * (frame.scale_x < 0)))


def write_sheet(found: Sequence[Tile], out: Path) -> None:
    """Write tiles as one picture (.png) or as a page that needs nothing else (.html).

    Raises:
        ConfigError: another suffix.
    """
    if out.suffix.lower() == ".png":
        write_bytes(out, _png(_sheet(found)))
    elif out.suffix.lower() in (".html", ".htm"):
        write_text(out, _page(found))
    else:
        raise ConfigError(f"{out}: a contact sheet is written as .png or .html")


def _seen(
    record: Record, settings: PrepareSettings, *, multiple: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Frame]:
    """The prepared image with blue padding, and the way there; a slide at low power.

    Raises:
        ImageReadError: it cannot be read.
    """
    if is_slide(record):
        return framed(record.path, record.spacing, side=2 * TALLEST)
    prepared = load_sample(record, settings, multiple=multiple)
    sample = prepared.sample
    grey = (sample.image.numpy().clip(0, 1) * 255).astype(np.uint8)
    rgb = np.moveaxis(grey if len(grey) == 3 else np.repeat(grey, 3, axis=0), 0, -1)
    return np.where(sample.valid.numpy()[..., None], rgb, np.array(_PADDING, np.uint8)), prepared.frame


def _picture(
    record: Record, rgb: UInt8[np.ndarray, "h w 3"], seen: Frame
) -> UInt8[np.ndarray, "tall wide 3"]:
    """An image as high as the sheet has it, with its findings outlined."""
    scale = TALLEST / rgb.shape[0]
    size = (max(1, round(rgb.shape[1] * scale)), TALLEST)
    picture = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture)
    frame = seen.scaled(scale, scale)
    for finding in record.findings:
        shown = frame.finding(finding)
        colour = _COLOURS.get(finding.malignant, _UNKNOWN)
        left, top, right, bottom = shown.box()
        if shown.kind == "polygon":
            pen.line([*shown.points, shown.points[0]], fill=colour, width=2)
        elif shown.kind == "box":
            pen.rectangle((left, top, right, bottom), outline=colour, width=2)
        else:
            pen.ellipse((left - 3, top - 3, right + 3, bottom + 3), outline=colour, width=2)
    return np.asarray(picture)


def _caption(record: Record, note: str) -> tuple[str, ...]:
    label = {1.0: "malignant", 0.0: "not malignant"}.get(record.malignant, "label unknown")
    birads = record.attributes.get("birads")
    place = f"{record.laterality or 'side ?'} {record.view or 'view ?'}"
    if record.modality == "pathology":
        place = f"{record.laterality} {'slide' if is_slide(record) else 'tissue'}".strip()
    lines = [place + note, label + (f" BI-RADS {birads}" if birads else ""), record.domain]
    if flags := record.attributes.get("flags"):
        lines.append("! " + flags)
    return (*lines, record.image_id.rpartition("/")[2])


def _sheet(found: Sequence[Tile]) -> Image.Image:
    """Tiles in rows, each as wide as the widest."""
    wide = max((tile.picture.shape[1] for tile in found), default=1)
    lines = max((len(tile.lines) for tile in found), default=1)
    wide, high = max(wide, 150) + _GAP, TALLEST + lines * _LINE + _GAP
    columns = min(_COLUMNS, max(1, len(found)))
    rows = max(1, math.ceil(len(found) / columns))
    sheet = Image.new("RGB", (columns * wide + _GAP, rows * high + 2 * _LINE), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for n, tile in enumerate(found):
        x, y = _GAP + n % columns * wide, _GAP + n // columns * high
        sheet.paste(Image.fromarray(tile.picture), (x, y))
        for i, line in enumerate(tile.lines):
            pen.text((x, y + TALLEST + 2 + i * _LINE), line[: wide // 6], fill=_INK, font=font)
    pen.text((_GAP, rows * high + _LINE // 2), RESEARCH_USE_ONLY, fill=_INK, font=font)
    return sheet


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _page(found: Sequence[Tile]) -> str:
    figures = []
    for tile in found:
        data = base64.b64encode(_png(Image.fromarray(tile.picture))).decode()
        lines = "<br>".join(html.escape(line) for line in tile.lines)
        alt = html.escape(", ".join(tile.lines[:3]))
        picture = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
        figures.append(f"<figure>{picture}<figcaption>{lines}</figcaption></figure>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Contact sheet</title><style>'
        "body{background:#121418;color:#e4e4e4;font:13px/1.35 system-ui,sans-serif;margin:1rem}"
        "main{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;max-width:22rem;overflow-wrap:anywhere}"
        f"</style><h1>Contact sheet</h1><p>{html.escape(RESEARCH_USE_ONLY)}</p>"
        f"<p>Findings: red malignant, green benign, yellow unknown. Blue is padding.</p>"
        f"<main>{''.join(figures)}</main></html>\n"
    )
