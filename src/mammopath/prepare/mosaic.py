"""A whole slide as a mosaic of fields over its tissue, each at the scale and size of fields read alone."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from mammopath.errors import ConfigError
from mammopath.images.geometry import Frame
from mammopath.images.slide import Slide
from mammopath.prepare.patches import tissue_share
from mammopath.prepare.resample import Size, largest_canvas
from mammopath.prepare.tissue import Tissue
from mammopath.settings import PathologySettings
from mammopath.tensors import Sample

LEAST = 0.1
"""Share of a field that must be tissue. Of a slide with less everywhere, the fullest field is taken."""


@dataclass(frozen=True)
class Mosaic:
    """Where the fields of a slide lie; they touch and do not overlap.

    Attributes:
        corners: upper left corner of each field with tissue, x and y in level-0 pixels.
        places: its row and column among all fields of the slide.
        grid: rows and columns of all fields.
        size: height and width of a field in prepared pixels. um: side of such a pixel in micrometres.
        frame: from level-0 pixels to prepared pixels of all fields together.
    """

    corners: Float[np.ndarray, "n 2"]
    places: Int[np.ndarray, "n 2"]
    grid: tuple[int, int]
    size: Size
    um: float
    frame: Frame

    def __len__(self) -> int:
        return len(self.corners)

    def sample(self, slide: Slide, number: int) -> Sample:
        """One field, prepared as one that is read alone, without a label; beyond the slide is padding.

        Raises:
            ImageReadError: this part of the slide is damaged.
        """
        x, y = self.corners[number].tolist()
        rgb = slide.read(x, y, size=self.size, um=self.um)
        left, top = self.frame.point(x, y)
        box = self.frame.box(0, 0, slide.width, slide.height)
        columns, rows = torch.arange(self.size[1]) + left + 0.5, torch.arange(self.size[0]) + top + 0.5
        across, down = (columns > box[0]) & (columns < box[2]), (rows > box[1]) & (rows < box[3])
        valid = down[:, None] & across
        image = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 * valid
        return Sample(image, valid, torch.full(self.size, torch.nan))

    def joined(self, values: dict[int, Float[np.ndarray, "rows cols"]]) -> Float[np.ndarray, "r c"]:
        """Values of fields, by number, as those of the slide; NaN where there is none."""
        rows, columns = next(iter(values.values())).shape
        whole = np.full((self.grid[0] * rows, self.grid[1] * columns), np.nan)
        for number, own in values.items():
            row, column = self.places[number].tolist()
            whole[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = own
        return whole


def mosaic(slide: Slide, tissue: Tissue, settings: PathologySettings, *, multiple: int) -> Mosaic:
    """Cover a slide with fields as a run reads them; those with little tissue are left out.

    The fields lie evenly around the middle of ``slide.bounds`` and reach over its edges, so that no tissue
    is left out; what lies beyond is padding.

    Args:
        slide: any slide.
        tissue: of this slide.
        settings: size and scale of a field.
        multiple: height and width of a field are multiples of this (patch size times token pooling).

    Raises:
        ConfigError: the settings fit fields to a size, whatever they show, so that nothing says how much of
            a slide one field is.
    """
    if not settings.um:
        raise ConfigError(
            "prepare.pathology.um is 0: fields were fitted to a size, which does not tell how to cut a slide"
        )
    size = largest_canvas(settings.height, settings.width, multiple)
    left, top, right, bottom = slide.bounds
    wide, high = size[1] * settings.um / slide.spacing.um_x, size[0] * settings.um / slide.spacing.um_y
    (x, columns), (y, rows) = _centred(left, right, wide), _centred(top, bottom, high)
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    corners = np.stack([x + places[:, 1] * wide, y + places[:, 0] * high], axis=1)
    share = tissue_share(tissue, np.rint(corners).astype(np.int64), (wide, high))
    kept = np.flatnonzero((share >= min(LEAST, share.max())) & (share > 0))
    frame = Frame(1, 1, -x, -y).scaled(slide.spacing.um_x / settings.um, slide.spacing.um_y / settings.um)
    return Mosaic(corners[kept], places[kept], (rows, columns), size, float(settings.um), frame)


def _centred(first: int, end: int, step: float) -> tuple[float, int]:
    """Where as few steps as cover a length begin, and their number."""
    count = max(1, math.ceil((end - first) / step - 1e-9))
    return first - (count * step - (end - first)) / 2, count
