"""Maps over images as people look at them: as stored, with colours, scale bar, side mark, colour bar."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from mammopath import RESEARCH_USE_ONLY
from mammopath.files import writing
from mammopath.images.geometry import Frame
from mammopath.maps.values import AttentionMap, Box
from mammopath.types import Spacing

LONGEST = 900
"""Longest side of a picture of an image, in pixels."""

STRENGTH = 0.6
"""Opacity of the strongest place of a map."""

COLOURS = "inferno"
"""Perceptually uniform, in order of lightness, readable without colour vision."""

BAR, LINE = 96, 19
"""Width of the column with the colour bar; height of a line of the text below the image."""

BEYOND = (214, 217, 221)
"""What a crop shows beside its image."""

INK, PAPER, MARK = (235, 235, 235), (16, 18, 20), (90, 200, 250)


@dataclass(frozen=True)
class Picture:
    """An image of a case, reduced for looking at, in the orientation in which it is stored.

    Attributes:
        pixels: at most ``LONGEST`` a side.
        frame: from level-0 pixels to pixels of the picture.
        spacing: of a level-0 pixel, or None.
        mark: side and view, or what else says which image it is.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    frame: Frame
    spacing: Spacing | None
    mark: str


def picture(pixels: Shaped[np.ndarray, "h w *c"], *, spacing: Spacing | None, mark: str) -> Picture:
    """Reduce an image; grey ones are spread between their 0.5th and 99.8th percentile."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(np.ascontiguousarray(_eight_bits(pixels))).convert("RGB")
    small = small.resize(size, Image.Resampling.BOX)
    return Picture(np.asarray(small), Frame(size[0] / width, size[1] / height), spacing, mark)


def heat(found: AttentionMap, seen: Picture) -> Float[np.ndarray, "h w"]:
    """The map at the picture's size: each pixel takes its token's value, softened; 0 beside the map."""
    height, width = seen.pixels.shape[:2]
    there = seen.frame.inverse().then(found.frame)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (there.scale_x * x + there.offset_x) / found.cell - 0.5
    rows = (there.scale_y * y + there.offset_y) / found.cell - 0.5
    return _bilinear(np.nan_to_num(found.values), rows, columns)


def overlay(found: AttentionMap, seen: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the map over it, nothing written on it; opacity by strength."""
    values = heat(found, seen)
    top = np.nanmax(found.values) if found.valid.any() else 0.0
    share = values / top if top > 0 else values
    colours = matplotlib.colormaps[COLOURS](share)[..., :3] * 255
    alpha = STRENGTH * share[..., None]
    return ((1 - alpha) * seen.pixels + alpha * colours).round().astype(np.uint8)


def sheet(found: AttentionMap, seen: Picture, *, boxes: tuple[Box, ...] = ()) -> Image.Image:
    """The overlay with everything a reader needs beside it: marks, bars, method, unit, verdict, notice."""
    base = overlay(found, seen)
    height, width = base.shape[:2]
    told = f"{found.method} map, {found.unit}. Sanity: {found.verdict}."
    across = max(width, 330) + BAR
    lines = [*wrap(told, width=across // 7), RESEARCH_USE_ONLY]
    strip = 8 + LINE * len(lines)
    page = Image.new("RGB", (across, max(height, 220) + strip), PAPER)
    page.paste(Image.fromarray(base), (0, 0))
    draw = ImageDraw.Draw(page)
    for number, box in enumerate(boxes, start=1):
        _box(draw, seen.frame.box(*box), str(number), inside=(width, height))
    _write(draw, (8, 6), seen.mark, size=20)
    _scale_bar(draw, seen, height)
    _colour_bar(page, draw, found, height=max(height, 220))
    for number, line in enumerate(lines):
        _write(draw, (8, page.height - strip + 4 + LINE * number), line, size=13)
    return page


def save(page: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with writing(path) as part:
        page.save(part, format="PNG")


def crop(
    seen: Shaped[np.ndarray, "h w *c"], box: Box, *, side: int = 160
) -> UInt8[np.ndarray, "side side 3"]:
    """A square around a box of level-0 pixels, twice its size, beyond the image grey."""
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1], 2.0)
    left, top, right, bottom = (round(m + sign * half) for sign in (-1, 1) for m in middle)
    pixels = _eight_bits(seen)
    page = Image.new("RGB", (right - left, bottom - top), BEYOND)
    page.paste(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB"), (-left, -top))
    return np.asarray(page.resize((side, side), Image.Resampling.BICUBIC))


def _eight_bits(pixels: Shaped[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
    if pixels.ndim == 2:
        return _spread(pixels)
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _spread(pixels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    low, high = np.quantile(pixels[:: max(1, len(pixels) // 512)], (0.005, 0.998))
    return (np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)


def _bilinear(
    values: Float[np.ndarray, "rows cols"], rows: Float[np.ndarray, " h"], columns: Float[np.ndarray, " w"]
) -> Float[np.ndarray, "h w"]:
    """Values between the middles of tokens; half a token beyond the map's edge they end."""
    down, across = _hat(rows, values.shape[0]), _hat(columns, values.shape[1])
    return np.clip(down @ values @ across.T, 0, None)


def _hat(places: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, "n count"]:
    weights = np.clip(1 - np.abs(places.clip(0, count - 1)[:, None] - np.arange(count)), 0, 1)
    return weights * ((places >= -0.5) & (places <= count - 0.5))[:, None]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int | float, int | float], text: str, *, size: int) -> None:
    draw.text(at, text, fill=INK, font=_font(size), stroke_width=2, stroke_fill=PAPER)


def _box(draw: ImageDraw.ImageDraw, box: Box, name: str, *, inside: tuple[int, int]) -> None:
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(inside[0] - 1.0, box[2]), min(inside[1] - 1.0, box[3])
    if right > left and bottom > top:
        draw.rectangle((left, top, right, bottom), outline=MARK, width=2)
        draw.text((left + 4, top + 2), name, fill=MARK, font=_font(16), stroke_width=2, stroke_fill=PAPER)


def _scale_bar(draw: ImageDraw.ImageDraw, seen: Picture, height: int) -> None:
    """A round length of about a fifth of the picture; without spacing it says so."""
    if seen.spacing is None:
        _write(draw, (8, height - 24), "scale unknown", size=13)
        return
    per_pixel = seen.spacing.um_x / seen.frame.scale_x
    wanted = per_pixel * seen.pixels.shape[1] / 4
    um = max(u * 10**p for p in range(7) for u in (1, 2, 5) if u * 10**p <= max(wanted, 1))
    length = um / per_pixel
    draw.line((8, height - 10, 12 + length, height - 10), fill=PAPER, width=8)  # seen on glass, too
    draw.line((10, height - 10, 10 + length, height - 10), fill=INK, width=4)
    _write(draw, (10, height - 32), f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} um", size=14)


def _colour_bar(page: Image.Image, draw: ImageDraw.ImageDraw, found: AttentionMap, *, height: int) -> None:
    left, top, bottom = page.width - BAR + 14, 30, height - 30
    ramp = matplotlib.colormaps[COLOURS](np.linspace(1, 0, bottom - top))[:, None, :3] * 255
    strip = np.broadcast_to(ramp, (bottom - top, 16, 3)).astype(np.uint8)
    page.paste(Image.fromarray(np.ascontiguousarray(strip)), (left, top))
    highest = float(np.nanmax(found.values)) if found.valid.any() else 0.0
    for share in (1.0, 0.5, 0.0):
        at = (left + 20, top + (1 - share) * (bottom - top) - 8)
        _write(draw, at, f"{share * highest:.3g}", size=13)
