"""What a DICOM header says around its image: whose it is, how and where it was taken, what is special."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom

from mammopath.errors import ImageReadError
from mammopath.images.dicom import header_of
from mammopath.images.dicom_file import open_dicom
from mammopath.images.dicom_words import Intent, is_capture, text_of
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

REMOVED = "REMOVED"
"""What stands in de-identified files in place of a text that must not be empty."""

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
        warnings, spacing_tag: as in ``DicomHeader``.
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
    spacing_tag: str


MODALITY_UNTOLD = "modality_untold"
"""Flag of a mammogram that does not say so itself: what it belongs to does (``assume_mg``)."""

_FLAGS: Mapping[str, str] = {
    "window": "window_ignored",
    "table": "voi_table_ignored",
    "function": "voi_function_unknown",
    "spacing": "no_spacing",
    "magnification": "magnification_ignored",
    "side": "side_contradicted",
    "view": "view_contradicted",
    "intent": "intent_contradicted",
    "photometric": "photometric_contradicted",
    "modality": MODALITY_UNTOLD,
    "bits": "bits_cleared",
}
"""Warning of ``DicomHeader`` -> flag of a record (``sources.flags``)."""


def flags_of_warnings(warnings: Iterable[str]) -> set[str]:
    """Flags of a record for the warnings of its header (``Header``, ``DicomHeader`` or ``Facts``)."""
    return {_FLAGS[warning] for warning in warnings}


def flags_of_facts(facts: Facts) -> set[str]:
    """Flags of one mammogram by itself: what is odd about it, told by its header alone."""
    found = {
        "special_view": facts.is_special,
        "view_unknown": not facts.view,
        "side_unknown": not facts.laterality,
        "burned_in": facts.has_text,
        "no_spacing": facts.spacing is None,
        "for_processing": facts.intent == "processing",
    }
    return {name for name, so in found.items() if so} | flags_of_warnings(facts.warnings)


def read_facts(path: Path) -> Facts:
    """Read what stands around a mammogram, without its pixels.

    Raises:
        ImageReadError: as ``read_dicom_header``; or ``unsupported``: a secondary capture.
    """
    with decoding(path):
        return facts_of(open_dicom(path, pixels=False), path)


def facts_of(data: pydicom.Dataset, path: Path) -> Facts:
    """What the elements of the file at ``path`` say around a mammogram.

    Raises:
        ImageReadError: as ``read_facts``. Other errors pass through; call it inside ``decoding``.
    """
    header = header_of(data, path)
    if is_capture(data):
        why = "is a secondary capture, such as a picture of a screen"
        raise ImageReadError(path, why, code="unsupported", hint="export the mammogram itself")
    time = text_of(data, "AcquisitionTime") or text_of(data, "ContentTime")
    number = text_of(data, "InstanceNumber")
    return Facts(
        instance=text_of(data, "SOPInstanceUID"),
        study=text_of(data, "StudyInstanceUID"),
        patient=header.patient,
        name=text_of(data, "PatientName"),
        is_deidentified=text_of(data, "PatientIdentityRemoved").upper() == "YES",
        accession=text_of(data, "AccessionNumber"),
        date=text_of(data, "StudyDate"),
        taken=(text_of(data, "AcquisitionDate") + time, int(number) if number.isdigit() else 0),
        laterality=header.laterality,
        view=header.view,
        intent=header.intent,
        spacing=header.spacing,
        size=(header.height, header.width),
        is_special=_is_special(data),
        has_text=text_of(data, "BurnedInAnnotation").upper() == "YES",
        places=_places(data),
        warnings=header.warnings,
        spacing_tag=header.spacing_tag,
    )


def _places(data: pydicom.Dataset) -> dict[str, str]:
    told = {name: text_of(data, keyword) for name, keyword in _PLACES.items()}
    return {name: text for name, text in told.items() if text not in ("", REMOVED)}


def _is_special(data: pydicom.Dataset) -> bool:
    """A view modifier (PS3.16 CID 4015), a magnified or spot view by its paddle, or a stereotactic one."""
    views = data.get("ViewCodeSequence") or []
    magnification = text_of(data, "EstimatedRadiographicMagnificationFactor")
    try:
        enlarged = float(magnification or 1) >= _MAGNIFIED
    except ValueError:
        enlarged = False
    paddle = text_of(data, "PaddleDescription").upper()
    return (
        any(view.get("ViewModifierCodeSequence") for view in views)
        or enlarged
        or any(word in paddle for word in _PADDLES)
        or "STEREO" in text_of(data, "ImageType").upper()
    )
