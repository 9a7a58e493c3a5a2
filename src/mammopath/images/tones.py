"""From stored values to shown ones: rescaling, windows and look-up tables (DICOM PS3.3 C.11)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pydicom
from jaxtyping import Bool, Float, Num, Shaped
from pydicom.pixels import apply_modality_lut

from mammopath.images.dicom_words import is_told, numbers_of, text_of

Values = Num[np.ndarray, "h w"]

_TOLD = ("WindowWidth", "WindowCenter", "VOILUTSequence")

_DEFAULTS: Mapping[str, float] = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}

_LARGEST = 1e30
"""Largest slope and intercept; with 16 bits they stay within 32-bit floats."""

Shape = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
"""Values of VOILUTFunction (PS3.3 C.11.2.1.3)."""

_NARROWEST: Mapping[str, float] = {"LINEAR": 1.0, "LINEAR_EXACT": 1e-6, "SIGMOID": 1e-6}
"""Least width of a window. A LINEAR one below 1 would turn the image over."""

_WIDEST = 16
"""Times the range of values that a window may be wide: an image of 8 bits would show 16 greys."""


@dataclass(frozen=True)
class Window:
    """One window (PS3.3 C.11.2.1.2): its centre and width in rescaled values, and its shape."""

    centre: float
    width: float
    shape: Shape = "LINEAR"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and self.width >= _NARROWEST[self.shape]):
            raise ValueError(f"no {self.shape} window is {self.width} wide around {self.centre}")

    def apply(self, values: Values) -> Float[np.ndarray, "h w"]:
        """Shown brightness in [0, 1]."""
        x = values.astype(np.float32)
        if self.shape == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (x - self.centre) / self.width, -80, 80)))
        if self.shape == "LINEAR_EXACT":
            return np.clip((x - self.centre) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (x > self.centre - 0.5).astype(np.float32)
        return np.clip((x - (self.centre - 0.5)) / (self.width - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class Table:
    """One VOI look-up table (PS3.3 C.11.2.1.1): entries in [0, 1] from the rescaled value ``first`` on."""

    entries: Float[np.ndarray, " n"]
    first: int

    def apply(self, values: Values) -> Float[np.ndarray, "h w"]:
        """Shown brightness in [0, 1]."""
        places = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[places]


def rescale_of(header: pydicom.Dataset) -> tuple[float, float]:
    """Rescale slope and intercept; an empty element says nothing, like one that is not there.

    Raises:
        ValueError: they are no numbers, too large for 32 bits, or make all values one.
    """
    slope, intercept = (_one(header, name, default) for name, default in _DEFAULTS.items())
    if slope == 0 or max(abs(slope), abs(intercept)) > _LARGEST:
        raise ValueError(f"values are rescaled by a slope of {slope:g} and an intercept of {intercept:g}")
    return slope, intercept


def _one(header: pydicom.Dataset, keyword: str, default: float) -> float:
    if not is_told(header, keyword):
        return default
    if len(numbers := numbers_of(header, keyword)) != 1:
        raise ValueError(f"{keyword} is {header.get(keyword)}, not one number")
    return numbers[0]


def rescaled(values: Values, header: pydicom.Dataset) -> Values:
    """Values after the modality LUT or rescale slope and intercept; the same array where there is none.

    Raises:
        ValueError: as ``rescale_of``.
    """
    if "ModalityLUTSequence" in header:
        return apply_modality_lut(values, header)
    slope, intercept = rescale_of(header)
    if (slope, intercept) == (1.0, 0.0):
        return values
    return (values * np.float32(slope) + np.float32(intercept)).astype(np.float32)


def first_tone(header: pydicom.Dataset) -> tuple[Window | Table | None, tuple[str, ...]]:
    """The first VOI look-up table, else the first window, and what was passed over.

    A vendor lists its standard appearance first. Windows that are not finite, not wider than 0, beside all
    values or so wide that nothing would be left to see, and tables without entries, are taken as absent.

    Returns:
        None for the tone where neither is there and sensible; and warnings: ``window`` (what is told makes no
        sense, and nothing is left to use), ``table`` (a broken table, in place of which the window is used),
        ``function`` (an unknown VOILUTFunction, in place of which LINEAR is).
    """
    table = _first_table(header)
    if table is not None:
        return table, ()
    window, is_known = _first_window(header), _shape(header) is not None
    passed = {
        "window": window is None and any(is_told(header, name) for name in _TOLD),
        "table": window is not None and is_told(header, "VOILUTSequence"),
        "function": window is not None and not is_known,
    }
    return window, tuple(name for name, so in passed.items() if so)


def _first_table(header: pydicom.Dataset) -> Table | None:
    tables = header.get("VOILUTSequence") or []
    descriptor = numbers_of(tables[0], "LUTDescriptor") if tables and "LUTData" in tables[0] else []
    if len(descriptor) != 3:
        return None
    number, first, bits = map(int, descriptor)
    entries = _entries(tables[0].LUTData, big_endian=not header.original_encoding[1])
    if not len(entries) or len(entries) < (number or 1 << 16) or not 0 < bits <= 16:
        return None
    if first > 0x7FFF and header.get("PixelRepresentation", 0) == 1:
        first -= 1 << 16
    return Table((entries / np.float32((1 << bits) - 1)).clip(0, 1).astype(np.float32), first)


def _entries(data: object, *, big_endian: bool) -> Shaped[np.ndarray, " n"]:
    if isinstance(data, bytes):
        return np.frombuffer(data[: len(data) // 2 * 2], dtype=">u2" if big_endian else "<u2")
    return np.atleast_1d(np.asarray(data, dtype=np.float64))


def _first_window(header: pydicom.Dataset) -> Window | None:
    centre, width = (_first_number(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    shape = _shape(header) or "LINEAR"
    if not (math.isfinite(centre) and math.isfinite(width)) or width < _NARROWEST[shape]:
        return None
    low, high = value_range(header)
    is_beside = centre + width / 2 < low or centre - width / 2 > high
    return None if is_beside or width > _WIDEST * (high - low) else Window(centre, width, shape)


def _shape(header: pydicom.Dataset) -> Shape | None:
    """What VOILUTFunction says, in letters of any case; None where that is no such word."""
    told = text_of(header, "VOILUTFunction").upper() or "LINEAR"
    return next((shape for shape in SHAPES if shape == told), None)


def value_range(header: pydicom.Dataset) -> tuple[float, float]:
    """Least and largest rescaled value that the stored bits can hold; a modality LUT may give any."""
    if "ModalityLUTSequence" in header:
        return -math.inf, math.inf
    stored, (slope, intercept) = int(header.BitsStored), rescale_of(header)
    lowest = -(1 << (stored - 1)) if header.get("PixelRepresentation", 0) == 1 else 0
    ends = [slope * v + intercept for v in (lowest, lowest + (1 << stored) - 1)]
    return min(ends), max(ends)


def _first_number(value: object) -> float:
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return math.nan if value is None or value == "" else float(str(value))


def padding_of(values: Num[np.ndarray, "h w"], header: pydicom.Dataset) -> Bool[np.ndarray, "h w"] | None:
    """Where stored values are padding (PS3.3 C.7.5.1.1.2): PixelPaddingValue, or from it to its range limit.

    None where the header tells of none, where there is none, and where there is nothing else.
    """
    ends = [
        _signed(int(header.get(name)), header)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if is_told(header, name)
    ]
    if not ends or not is_told(header, "PixelPaddingValue"):
        return None
    found = (values >= min(ends)) & (values <= max(ends))
    return found if found.any() and not found.all() else None


def _signed(value: int, header: pydicom.Dataset) -> int:
    """A value of 16 bits as the pixels have it, whichever of US and SS it was written as."""
    value &= 0xFFFF
    return value - (1 << 16) if header.get("PixelRepresentation", 0) == 1 and value >= 1 << 15 else value
