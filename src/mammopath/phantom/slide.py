"""Phantom slides: pyramidal tiled JPEG TIFFs with known tumour outlines, of any size, and their ASAP XML."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import quoteattr

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mammopath.files import write_text, writing
from mammopath.images.geometry import Frame
from mammopath.phantom.files import NOTICE
from mammopath.phantom.shapes import Points
from mammopath.phantom.sites import TissueStyle
from mammopath.phantom.texture import GLASS, KINDS, TUMOUR, paint_texture

TILE, PERIOD = 256, 512
"""Side of a tile, and of the textures that repeat, in pixels."""

Texture = UInt8[np.ndarray, "p p 3"]


@dataclass(frozen=True)
class Area:
    """An outline in level-0 pixels, and the kind of ground inside of it."""

    outline: Points
    kind: int


@dataclass(frozen=True)
class SlidePlan:
    """What a phantom slide shows.

    Attributes:
        side: of the square slide in level-0 pixels; um: side of a pixel.
        areas: painted one over the other, on glass.
        style: stains and scanner of its laboratory.
        seed: of its textures; slides of one laboratory may share them.
        levels: of the pyramid, each half of the one before.
        quality: of the JPEG tiles.
    """

    side: int
    um: float
    areas: tuple[Area, ...]
    style: TissueStyle
    seed: int = 0
    levels: int = 5
    quality: int = 80

    @property
    def tumours(self) -> tuple[Points, ...]:
        """Outlines of tumours in level-0 pixels."""
        return tuple(area.outline for area in self.areas if area.kind == TUMOUR)


def write_slide(path: Path, plan: SlidePlan) -> None:
    """Paint a slide tile by tile, whole or not at all; tiles of one kind are painted and encoded once."""
    with writing(path) as part, tifffile.TiffWriter(part, bigtiff=True) as tiff:
        textures = _textures(plan.style, plan.um, plan.seed)
        for level in range(plan.levels):
            side = max(1, plan.side >> level)
            dots = 1e4 / (plan.um * plan.side / side)
            tiff.write(
                _Painter(plan, textures, level).tiles(),
                shape=(side, side, 3),
                dtype=np.uint8,
                photometric="ycbcr",
                subsampling=(2, 2),
                tile=(TILE, TILE),
                compression="jpeg",
                resolution=(dots, dots),
                resolutionunit="CENTIMETER",
                description=None if level else NOTICE,
                metadata=None,
                subfiletype=int(level > 0),
            )


def write_asap(
    path: Path,
    outlines: Sequence[Points],
    group: str = "metastases",
    *,
    holes: Sequence[Points] = (),
    cut: str = "normal",
) -> None:
    """Write outlines as ASAP does (computationalpathologygroup/ASAP), in level-0 pixels.

    Args:
        path: the file.
        outlines: of tumours.
        group: that they belong to.
        holes: what is cut out of them.
        cut: group of the holes.
    """
    drawn = [(group, outline) for outline in outlines] + [(cut, hole) for hole in holes]
    polygons = "".join(
        f'<Annotation Name="Annotation {i}" Type="Polygon" PartOfGroup={quoteattr(name)} Color="#F4FA58">'
        "<Coordinates>"
        + "".join(f'<Coordinate Order="{k}" X="{x:.4f}" Y="{y:.4f}" />' for k, (x, y) in enumerate(outline))
        + "</Coordinates></Annotation>"
        for i, (name, outline) in enumerate(drawn)
    )
    groups = "".join(
        f'<Group Name={quoteattr(name)} PartOfGroup="None" Color="#ff0000"><Attributes /></Group>'
        for name in dict.fromkeys(name for name, _ in drawn)
    )
    write_text(
        path,
        f'<?xml version="1.0"?>\n<!-- {NOTICE} -->\n<ASAP_Annotations><Annotations>{polygons}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>\n",
    )


@lru_cache(maxsize=4)
def _textures(style: TissueStyle, um: float, seed: int) -> list[Texture]:
    """One of each kind; slides of a laboratory that share a seed share them."""
    return [
        paint_texture(kind, style, side=PERIOD, um=um, rng=np.random.default_rng([seed, kind]))
        for kind in range(KINDS)
    ]


@dataclass
class _Painter:
    """Paints the tiles of one level."""

    plan: SlidePlan
    textures: Sequence[Texture]
    level: int
    kept: dict[bytes, bytes] = field(default_factory=dict)

    def tiles(self) -> Iterator[bytes]:
        """Encoded tiles, row by row."""
        side = max(1, self.plan.side >> self.level)
        scale = side / self.plan.side
        reduced = [np.asarray(Image.fromarray(t).reduce(1 << self.level)) for t in self.textures]
        count = -(-side // TILE)
        rough = self._labels(Frame(8 * scale / TILE, 8 * scale / TILE), 8 * count + 8)
        for row in range(count):
            for column in range(count):
                near = rough[max(0, 8 * row - 1) : 8 * row + 9, max(0, 8 * column - 1) : 8 * column + 9]
                labels = np.full((TILE, TILE), near[0, 0])
                if (near != near[0, 0]).any():
                    labels = self._labels(Frame(scale, scale, -column * TILE, -row * TILE), TILE)
                yield self._encoded(labels, reduced, row, column)

    def _labels(self, frame: Frame, side: int) -> UInt8[np.ndarray, "h w"]:
        picture = Image.new("L", (side, side), GLASS)
        draw = ImageDraw.Draw(picture)
        for area in self.plan.areas:
            draw.polygon([frame.point(x, y) for x, y in area.outline], fill=area.kind)
        return np.asarray(picture)

    def _encoded(
        self, labels: UInt8[np.ndarray, "h w"], textures: Sequence[Texture], row: int, column: int
    ) -> bytes:
        period = textures[0].shape[0]
        rows, columns = (np.arange(TILE) + row * TILE) % period, (np.arange(TILE) + column * TILE) % period
        key = hashlib.sha256(labels.tobytes() + bytes([rows[0] // 4, columns[0] // 4])).digest()
        if key not in self.kept:
            place = np.ix_(rows, columns)
            kinds = np.unique(labels)
            tile = textures[kinds[0]][place]
            for kind in kinds[1:]:
                tile = np.where((labels == kind)[..., None], textures[kind][place], tile)
            quality = self.plan.quality
            encoded = bytes(imagecodecs.jpeg8_encode(tile, quality, subsampling="420", outcolorspace="YCBCR"))
            if len(kinds) > 1:
                return encoded
            self.kept[key] = encoded
        return self.kept[key]
