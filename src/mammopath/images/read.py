"""One image of any format: DICOM or raster, told apart by content; or one of the many in an HDF5 file."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from mammopath.images.dicom import DicomHeader, is_dicom, read_dicom, read_dicom_header
from mammopath.images.dicom_facts import MODALITY_UNTOLD
from mammopath.images.guard import check_size, decoding
from mammopath.images.packed import is_packed, packed_size, read_packed
from mammopath.images.raster import read_raster, read_size
from mammopath.types import Record, Spacing

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"] | Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Header:
    """What a file says of itself; a raster says its size only.

    Attributes:
        spacing: size of a pixel, or None.
        laterality: ``L``, ``R`` or empty; view: ``CC``, ``MLO``, ... or empty.
        patient: PatientID, or empty; decoder: what decodes the pixels.
        warnings, spacing_tag: as in ``DicomHeader``; none of a raster.
    """

    height: int
    width: int
    spacing: Spacing | None = None
    laterality: str = ""
    view: str = ""
    patient: str = ""
    decoder: str = "raster"
    warnings: tuple[str, ...] = ()
    spacing_tag: str = ""


@dataclass(frozen=True)
class Image:
    """Pixels of one image, grey (h, w) or RGB (h, w, 3), more is brighter; and its header."""

    pixels: Pixels
    header: Header


def assumes_mg(record: Record) -> bool:
    """Whether a source that knows its files took this one for a mammogram, though it does not say so."""
    return MODALITY_UNTOLD in record.attributes.get("flags", "").split("+")


def read_image(path: Path, *, assume_mg: bool = False) -> Image:
    """Read a DICOM mammogram (``read_dicom``), a raster (``read_raster``) or one of many (``read_packed``).

    ``assume_mg`` is for files that are known for mammograms (``assumes_mg``, ``read_dicom``).

    Raises:
        ImageReadError: as the two of them.
    """
    if is_packed(path):
        packed = read_packed(path)
        return Image(packed, Header(*packed.shape[:2]))
    if _is_dicom(path):
        dicom = read_dicom(path, assume_mg=assume_mg)
        return Image(dicom.pixels, _header(dicom.header))
    pixels = read_raster(path)
    return Image(pixels, Header(*pixels.shape[:2]))


def read_header(path: Path, *, assume_mg: bool = False) -> Header:
    """Read what a file says of itself, without decoding its pixels; arguments as of ``read_image``.

    Raises:
        ImageReadError: as ``read_dicom_header`` and ``read_size``.
    """
    if is_packed(path):
        return Header(*packed_size(path))
    if _is_dicom(path):
        return _header(read_dicom_header(path, assume_mg=assume_mg))
    return Header(*read_size(path))


def _header(header: DicomHeader) -> Header:
    return Header(**{field.name: getattr(header, field.name) for field in fields(Header)})


def _is_dicom(path: Path) -> bool:
    check_size(path)
    with decoding(path), path.open("rb") as file:
        return is_dicom(file.read(132))
