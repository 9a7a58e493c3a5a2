"""DICOM mammograms for tests of what headers say: a breast that fills one side of the frame."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

SIZE = (96, 64)


def breast(side="L", *, shape=SIZE):
    """A half ellipse of tissue at the left edge (L) or the right edge (R), air around it, 12 bits."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    x = x if side == "L" else shape[1] - 1 - x
    inside = (x / (0.7 * shape[1])) ** 2 + ((y - shape[0] / 2) / (0.42 * shape[0])) ** 2 < 1
    texture = np.random.default_rng(0).integers(0, 600, shape)
    return np.where(inside, 2000 + texture, 20).astype(np.uint16)


def mammogram(pixels=None, **tags):
    """A data set for presentation, as a vendor writes it; ``tags`` change or, with None, remove elements."""
    side = tags.get("ImageLaterality", "L")
    pixels = breast(side) if pixels is None else pixels
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.2")
    data.SOPInstanceUID, data.StudyInstanceUID = UID("1.2.3.4"), UID("1.2.3")
    data.PatientID, data.PatientName, data.AccessionNumber = "4711", "DOE^JANE", "A1"
    data.StudyDate, data.AcquisitionTime, data.InstanceNumber = "20240101", "101500", "1"
    data.Modality, data.PresentationIntentType = "MG", "FOR PRESENTATION"
    data.InstitutionName, data.StationName, data.Manufacturer = "North", "MG1", "Acme"
    data.ImageLaterality, data.ViewPosition = side, "CC"
    data.ImagerPixelSpacing = ["0.1", "0.1"]
    data.PhotometricInterpretation, data.SamplesPerPixel = "MONOCHROME2", 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def save(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def exam(root: Path, *, study="1.2.3", **tags) -> Path:
    """Four standard views of one patient."""
    for n, (side, view) in enumerate([("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]):
        data = mammogram(
            ImageLaterality=side, ViewPosition=view, SOPInstanceUID=UID(f"{study}.{n}"),
            StudyInstanceUID=UID(study), InstanceNumber=str(n + 1), **tags,
        )  # fmt: skip
        save(root / study / f"{side}{view}.dcm", data)
    return root
