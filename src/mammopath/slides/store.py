"""Patch features of a slide as HDF5, in the layout that users of CLAM and TRIDENT know."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, Int

from mammopath import RESEARCH_USE_ONLY
from mammopath.errors import DataError
from mammopath.files import writing
from mammopath.images.slide import Slide
from mammopath.prepare.patches import Grid
from mammopath.types import Spacing

MAGNIFICATION_UM = 10.0
"""Micrometres per pixel times magnification: 0.25 um is 40x by custom."""

ROWS = 512
"""Rows of a chunk in the file."""


@dataclass(frozen=True)
class Features:
    """Features of the patches of one slide.

    Attributes:
        values: one row per patch.
        corners: upper left corner of each, x and y in level-0 pixels.
        span: side of a patch in level-0 pixels; NaN where the file does not tell.
        step: distance of neighbours in level-0 pixels; NaN where the file does not tell.
        spacing: of a level-0 pixel, or None where the file does not tell.
        size: width and height of the slide at level 0, or None where the file does not tell.
        facts: whatever else the file says of itself.
    """

    values: Float32[np.ndarray, "n d"]
    corners: Int[np.ndarray, "n 2"]
    span: float
    step: float
    spacing: Spacing | None
    size: tuple[int, int] | None
    facts: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.corners)


class Writer:
    """Takes rows as they come, so that a slide's features never stand in memory together."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.rows = 0

    def add(self, values: Float32[np.ndarray, "n d"], corners: Int[np.ndarray, "n 2"]) -> None:
        """Append patches."""
        if self.rows == 0 and "features" not in self._file:
            width = values.shape[1]
            self._file.create_dataset(
                "features", (0, width), np.float32, maxshape=(None, width), chunks=(ROWS, width)
            )
        for name, new in (("features", values), ("coords", corners)):
            self._file[name].resize(self.rows + len(new), axis=0)
            self._file[name][self.rows :] = new
        self.rows += len(values)


@contextmanager
def writing_features(path: Path, slide: Slide, grid: Grid, facts: Mapping[str, str]) -> Iterator[Writer]:
    """A file of features, which appears when the block succeeds.

    Args:
        path: of the file.
        slide: whose they are.
        grid: of the patches.
        facts: what made them: the recipe, the encoder.
    """
    with writing(path) as part, h5py.File(part, "w") as file:
        coords = file.create_dataset("coords", (0, 2), np.int64, maxshape=(None, 2), chunks=(ROWS, 2))
        span, um = grid.span[0], grid.um
        coords.attrs.update(
            {
                "name": slide.path.stem,
                "patch_size": grid.side,
                "patch_size_level0": round(span),
                "patch_level": slide.level_for(um),
                "overlap": round(grid.side * (1 - grid.step / (grid.side * um))),
                "level0_magnification": MAGNIFICATION_UM / grid.spacing.um_x,
                "target_magnification": MAGNIFICATION_UM / um,
                "level0_width": slide.width,
                "level0_height": slide.height,
                # What the common layout leaves out:
                "um": um,
                "um_x": grid.spacing.um_x,
                "um_y": grid.spacing.um_y,
                "spacing_source": slide.spacing_source,
                "span_level0": span,
                "step_level0": grid.step / grid.spacing.um_x,
            }
        )
        file.attrs.update({"notice": RESEARCH_USE_ONLY, **facts})
        yield Writer(file)


def read_features(path: Path, rows: Int[np.ndarray, " n"] | slice = slice(None)) -> Features:
    """Features written by this program, by CLAM or by TRIDENT; some rows, or all.

    Raises:
        DataError: no such file, no HDF5, or without ``features`` and ``coords`` of equal length.
    """
    with _opened(path) as (features, coords):
        values = np.asarray(_some(features, rows), np.float32)
        return _features(values, np.asarray(_some(coords, rows), np.int64), coords)


def read_places(path: Path) -> Features:
    """Where the patches of a file lie, without their features: the values have no columns.

    Raises:
        DataError: as of ``read_features``.
    """
    with _opened(path) as (_, coords):
        corners = np.asarray(_some(coords, slice(None)), np.int64)
        return _features(np.zeros((len(corners), 0), np.float32), corners, coords)


def read_chunks(path: Path, *, chunk: int) -> Iterator[Float32[np.ndarray, "_ d"]]:
    """The features of a file, ``chunk`` rows at a time.

    Raises:
        DataError: as of ``read_features``.
    """
    with _opened(path) as (features, _):
        for start in range(0, features.shape[-2], chunk):
            yield np.asarray(_some(features, slice(start, start + chunk)), np.float32)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.Dataset, h5py.Dataset]]:
    """Features and places of a file whose shapes fit; some programs put an axis of one in front of them."""
    try:
        # Without its cache HDF5 reads the bytes of some rows, and not the whole chunks that they lie in.
        with h5py.File(path, "r", rdcc_nbytes=0) as file:
            features, coords = file["features"], file["coords"]
            width = features.shape[-1] if features.ndim else 0
            if _rows(features, width) is None or _rows(features, width) != _rows(coords, 2):
                raise DataError(f"{path}: features {features.shape} and coords {coords.shape} do not fit")
            yield features, coords
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of features") from None
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise DataError(f"{path}: is no file of features with `features` and `coords` ({error})") from None


def _rows(data: h5py.Dataset, width: int) -> int | None:
    """Rows of a table of so many columns, also behind an axis of one; None if it is none."""
    fits = data.ndim in (2, 3) and data.shape[-1] == width and (data.ndim == 2 or data.shape[0] == 1)
    return int(data.shape[-2]) if fits else None


def _some(data: h5py.Dataset, rows: Int[np.ndarray, " n"] | slice) -> np.ndarray:
    """Rows in any order; HDF5 itself wants each once, ascending."""
    first = (0,) if data.ndim == 3 else ()
    if isinstance(rows, slice):
        return data[(*first, rows)]
    ascending, place = np.unique(rows, return_inverse=True)
    return data[(*first, ascending)][place]


def _features(
    values: Float32[np.ndarray, "n d"], corners: Int[np.ndarray, "n 2"], coords: h5py.Dataset
) -> Features:
    told = {str(k): v for k, v in coords.attrs.items()}
    facts = {str(k): str(v) for k, v in coords.file.attrs.items()}
    um, size = (told.get("um_x"), told.get("um_y")), (told.get("level0_width"), told.get("level0_height"))
    if um[0] is None and told.get("level0_magnification"):
        um = (MAGNIFICATION_UM / float(told["level0_magnification"]),) * 2
    span = _span(told)
    overlap = float(told.get("overlap") or 0) / float(told.get("patch_size") or 1)
    return Features(
        values,
        corners,
        span=span,
        step=float(told.get("step_level0") or span * (1 - overlap)),
        spacing=Spacing(float(um[0]), float(um[1])) if um[0] and um[1] else None,
        size=(int(size[0]), int(size[1])) if size[0] and size[1] else None,
        facts=facts,
    )


def _span(told: Mapping[str, Any]) -> float:
    """Side of a patch at level 0; NaN where the attributes of ``coords`` do not tell.

    CLAM gives the side at the level that it read (``patch_size``) and that level's ``downsample``.
    """
    if known := told.get("span_level0") or told.get("patch_size_level0"):
        return float(known)
    scale = float(np.ravel(told.get("downsample", np.nan))[0])
    if np.isnan(scale) and told.get("patch_level") == 0:
        scale = 1.0
    return float(told.get("patch_size") or np.nan) * scale
