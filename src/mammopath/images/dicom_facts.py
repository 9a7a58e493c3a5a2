"""What a DICOM header says around its image: whose it is, how and where it was taken, what is special."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom

from mammopath.images.dicom import Intent, read_dicom_header
from mammopath.images.guard import decoding
from mammopath.types import Spacing

_PLACES: Mapping[str, str] = {
    "institution": "InstitutionName",
    "station": "StationName",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "detector": "DetectorID",
}
"""What may stand for a site, by our name and the DICOM keyword."""

_MAGNIFIED = 1.3
"""Factor from which an image is a magnification view; contact views have up to about 1.1."""

_PADDLES = ("SPOT", "MAG", "BIOP")


@dataclass(frozen=True)
class Facts:
    """Around one mammogram.

    Attributes:
        instance, study: SOPInstanceUID and StudyInstanceUID.
        patient, name: PatientID and PatientName as they stand there.
        is_deidentified: PatientIdentityRemoved is YES.
        accession: number of the request; date: of the study (YYYYMMDD); taken: date and time of the exposure
            and InstanceNumber, which sort takes of one view.
        laterality, view, intent, spacing, size: as in ``DicomHeader``; size is height and width.
        is_special: spot, magnified, implant-displaced, rolled or stereotactic view.
        has_text: annotations are burned into the pixels, as far as the header says.
        places: institution, station, manufacturer, model and detector, where they are told.
        warnings: as in ``DicomHeader``.
    """

    instance: str
    study: str
    patient: str
    name: str
    is_deidentified: bool
    accession: str
    date: str
    taken: tuple[str, int]
    laterality: str
    view: str
    intent: Intent
    spacing: Spacing | None
    size: tuple[int, int]
    is_special: bool
    has_text: bool
    places: Mapping[str, str]
    warnings: tuple[str, ...]


def read_facts(path: Path) -> Facts:
    """Read what stands around a mammogram, without its pixels.

    Raises:
        ImageReadError: as ``read_dicom_header``.
    """
    header = read_dicom_header(path)
    with decoding(path):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        time = _text(data, "AcquisitionTime") or _text(data, "ContentTime")
        number = _text(data, "InstanceNumber")
        return Facts(
            instance=_text(data, "SOPInstanceUID"),
            study=_text(data, "StudyInstanceUID"),
            patient=header.patient,
            name=_text(data, "PatientName"),
            is_deidentified=_text(data, "PatientIdentityRemoved").upper() == "YES",
            accession=_text(data, "AccessionNumber"),
            date=_text(data, "StudyDate"),
            taken=(_text(data, "AcquisitionDate") + time, int(number) if number.isdigit() else 0),
            laterality=header.laterality,
            view=header.view,
            intent=header.intent,
            spacing=header.spacing,
            size=(header.height, header.width),
            is_special=_is_special(data),
            has_text=_text(data, "BurnedInAnnotation").upper() == "YES",
            places={name: _text(data, keyword) for name, keyword in _PLACES.items() if _text(data, keyword)},
            warnings=header.warnings,
        )


def _text(data: pydicom.Dataset, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else str(value).strip()


def _is_special(data: pydicom.Dataset) -> bool:
    """A view modifier (PS3.16 CID 4015), a magnified or spot view by its paddle, or a stereotactic one."""
    views = data.get("ViewCodeSequence") or []
    magnification = _text(data, "EstimatedRadiographicMagnificationFactor")
    try:
        enlarged = float(magnification or 1) >= _MAGNIFIED
    except ValueError:
        enlarged = False
    paddle = _text(data, "PaddleDescription").upper()
    return (
        any(view.get("ViewModifierCodeSequence") for view in views)
        or enlarged
        or any(word in paddle for word in _PADDLES)
        or "STEREO" in _text(data, "ImageType").upper()
    )
