"""From stored values to shown ones: rescaling, windows and look-up tables (DICOM PS3.3 C.11)."""

import math
from dataclasses import dataclass

import numpy as np
import pydicom
from jaxtyping import Float, Num, Shaped
from pydicom.pixels import apply_modality_lut

Values = Num[np.ndarray, "h w"]

_WIDEST = 16
"""Times the range of values that a window may be wide: an image of 8 bits would show 16 greys."""


@dataclass(frozen=True)
class Window:
    """One window (PS3.3 C.11.2.1.2): its centre and width in rescaled values, and its shape."""

    centre: float
    width: float
    shape: str = "LINEAR"

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


def rescaled(values: Values, header: pydicom.Dataset) -> Values:
    """Values after the modality LUT or rescale slope and intercept; the same array where there is none."""
    if "ModalityLUTSequence" in header:
        return apply_modality_lut(values, header)
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    if (slope, intercept) == (1.0, 0.0):
        return values
    return (values * np.float32(slope) + np.float32(intercept)).astype(np.float32)


def first_tone(header: pydicom.Dataset) -> Window | Table | None:
    """The first VOI look-up table, else the first window; None where neither is there and sensible.

    A vendor lists its standard appearance first. Windows that are not finite, not wider than 0, beside all
    values or so wide that nothing would be left to see, and tables without entries, are taken as absent.
    """
    return _first_table(header) or _first_window(header)


def _first_table(header: pydicom.Dataset) -> Table | None:
    tables = header.get("VOILUTSequence") or []
    if not tables or "LUTData" not in tables[0] or "LUTDescriptor" not in tables[0]:
        return None
    number, first, bits = (int(value) for value in tables[0].LUTDescriptor)
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
    centre, width = _first_number(header.get("WindowCenter")), _first_number(header.get("WindowWidth"))
    shape = str(header.get("VOILUTFunction") or "LINEAR")
    if not (math.isfinite(centre) and math.isfinite(width)) or width < (1 if shape == "LINEAR" else 1e-6):
        return None
    low, high = value_range(header)
    is_beside = centre + width / 2 < low or centre - width / 2 > high
    return None if is_beside or width > _WIDEST * (high - low) else Window(centre, width, shape)


def value_range(header: pydicom.Dataset) -> tuple[float, float]:
    """Least and largest rescaled value that the stored bits can hold; a modality LUT may give any."""
    if "ModalityLUTSequence" in header:
        return -math.inf, math.inf
    stored, slope = int(header.BitsStored), float(header.get("RescaleSlope", 1))
    lowest = -(1 << (stored - 1)) if header.get("PixelRepresentation", 0) == 1 else 0
    ends = [
        slope * v + float(header.get("RescaleIntercept", 0)) for v in (lowest, lowest + (1 << stored) - 1)
    ]
    return min(ends), max(ends)


def _first_number(value: object) -> float:
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return math.nan if value is None or value == "" else float(str(value))
