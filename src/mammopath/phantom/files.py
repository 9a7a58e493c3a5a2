"""Write phantom images in real file formats, each saying what it is: DICOM, tiled TIFF pyramids, PNG."""

import io
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8, UInt16
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from mammopath.files import write_bytes
from mammopath.phantom.cohort import Case
from mammopath.phantom.sites import MammogramStyle, TissueStyle

NOTICE = "SYNTHETIC PHANTOM made by mammopath for software tests; not a patient. For research use only."
"""Stands in every file."""

TILE = 64
"""Side of a TIFF tile in pixels."""


def write_dicom(
    path: Path, pixels: UInt16[np.ndarray, "h w"], case: Case, *, view: str, style: MammogramStyle
) -> None:
    """Write a Digital Mammography X-Ray Image, for presentation (DICOM PS3.3 A.26)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid(case, view)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    _describe(dataset, case, view, style)
    _add_pixels(dataset, pixels, style)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())


def write_tissue(path: Path, rgb: UInt8[np.ndarray, "h w 3"], style: TissueStyle) -> None:
    """Write a histology field, as PNG or as a tiled TIFF pyramid, with its resolution."""
    buffer = io.BytesIO()
    if style.format == "png":
        notice = PngInfo()
        notice.add_text("Description", NOTICE)
        dots = 25400 / style.um
        Image.fromarray(rgb).save(buffer, "png", pnginfo=notice, dpi=(dots, dots), compress_level=1)
    else:
        _write_pyramid(buffer, rgb, style)
    write_bytes(path, buffer.getvalue())


def _write_pyramid(buffer: io.BytesIO, rgb: UInt8[np.ndarray, "h w 3"], style: TissueStyle) -> None:
    """Two levels: the full one, and half of it as a reduced page."""
    half = np.asarray(Image.fromarray(rgb).reduce(2))
    dots = 1e4 / style.um
    with tifffile.TiffWriter(buffer) as tiff:
        for level, image in enumerate((rgb, half)):
            tiff.write(
                image,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="zlib",
                resolution=(dots / 2**level, dots / 2**level),
                resolutionunit="CENTIMETER",
                description=None if level else NOTICE,
                metadata=None,
                subfiletype=int(level > 0),
            )


def _describe(dataset: Dataset, case: Case, view: str, style: MammogramStyle) -> None:
    dataset.Modality = "MG"
    dataset.PatientID = case.name
    dataset.PatientName = f"Phantom^{case.name}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientComments = NOTICE
    dataset.ImageComments = NOTICE
    dataset.InstitutionName = case.site
    dataset.Manufacturer = "mammopath"
    dataset.ManufacturerModelName = style.maker
    dataset.StudyInstanceUID = _uid(case, "study")
    dataset.SeriesInstanceUID = _uid(case, "series")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesDescription = f"SYNTHETIC PHANTOM {case.side}{view}"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1 + (view == "MLO")
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined = "BREAST"
    dataset.ImageLaterality = case.side
    dataset.ViewPosition = view
    dataset.ImagerPixelSpacing = [style.mm, style.mm]
    dataset.BurnedInAnnotation = "YES" if style.film else "NO"


def _add_pixels(dataset: Dataset, pixels: UInt16[np.ndarray, "h w"], style: MammogramStyle) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if style.inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if style.inverted else "IDENTITY"
    dataset.BitsAllocated = 16
    dataset.BitsStored = style.bits
    dataset.HighBit = style.bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _uid(case: Case, part: str) -> str:
    """The same for the same case and seed."""
    return generate_uid(entropy_srcs=[case.name, str(case.seed), part])
