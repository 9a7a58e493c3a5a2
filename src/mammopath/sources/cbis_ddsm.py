"""CBIS-DDSM: 3,103 series of digitised film mammograms with proven lesions, US (Lee et al. 2017)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammopath.errors import ImageReadError
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.images.read import read_header
from mammopath.sources.cbis_ddsm_masks import Lesion, read_lesion
from mammopath.sources.cbis_ddsm_series import Series, find_series
from mammopath.sources.cbis_ddsm_tables import Roi, find_tables, read_rois
from mammopath.sources.flags import flagged
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import UNKNOWN, Finding, Record, Skipped, Spacing

SPACING = Spacing.square(45.0)
"""Nominal: the films were scanned at 42, 43.5 or 50 um, and no file says at which (Lee et al. 2017)."""


@dataclass(frozen=True)
class Known:
    """Labels of the lesions of films, breasts and patients, over both parts."""

    film: Mapping[tuple[str, ...], set[float]]
    breast: Mapping[tuple[str, ...], set[float]]
    patient: Mapping[tuple[str, ...], set[float]]


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of CBIS-DDSM, one record per film and published part.

    Takes all four layouts (NBIA with ``metadata.csv``, NBIA classic, IDC, Kaggle's JPEGs) with the four
    published tables, or those of masses or calcifications alone, in the folder or up to two below it. 71
    films stand under masses and calcifications with a series each: such a film is one record with both
    kinds of lesions, or two where one series is for training and the other for testing, so that the leak
    guard sees it.

    A film is malignant if any of its lesions is, in any table; attributes ``breast`` and ``patient`` say so
    of the whole breast and the patient. Findings are the outlines of the lesion masks.

    Raises:
        DataError: no table, or no images.
    """
    rois: list[Roi] = []
    for table in find_tables(root):
        read, bad = read_rois(table)
        rois += read
        yield from bad
    series, known = find_series(root), _known(rois)
    films: defaultdict[tuple[str, str, str, str], list[Roi]] = defaultdict(list)
    for roi in rois:
        films[(roi.part, *roi.film)].append(roi)
    for _, lesions in sorted(films.items()):
        yield from _film(lesions, series, known, root)


def _known(rois: Sequence[Roi]) -> Known:
    known = Known(defaultdict(set), defaultdict(set), defaultdict(set))
    for roi in rois:
        known.film[roi.film].add(roi.malignant)
        known.breast[roi.film[:2]].add(roi.malignant)
        known.patient[roi.film[:1]].add(roi.malignant)
    return known


def _film(rois: Sequence[Roi], series: Series, known: Known, root: Path) -> Iterator[Record | Skipped]:
    """The record of one film from its lesions, and what is wrong with any of them."""
    there = [roi for roi in rois if roi.image in series]
    if not there:
        yield Skipped(rois[0].name, "missing", f"no file of series {rois[0].image}")
        return
    path = max(series[there[0].image], key=lambda file: file.stat().st_size)
    try:
        header = read_header(path)
    except ImageReadError as error:
        yield Skipped(str(path), error.code, error.why)
        return
    findings: list[Finding] = []
    flags = flags_of_warnings(header.warnings) - {"no_spacing"}  # none is told of these films
    lesions = [(roi, _lesion(roi, series, (header.height, header.width))) for roi in rois]
    for roi, lesion in lesions:
        if isinstance(lesion, str):
            yield Skipped(f"{roi.name}_{roi.number}", "annotation", lesion)
        else:
            findings += lesion.findings
            flags |= {"mask_rescaled"} if lesion.rescaled else set()
    flags |= {"mixed_labels"} if len(known.film[rois[0].film]) > 1 else set()
    record = _record(there[0], path, root, known)
    complete = ANNOTATED if all(isinstance(lesion, Lesion) for _, lesion in lesions) else {}
    attributes = {**_attributes(rois, known), **flagged(flags), **complete}
    yield replace(record, findings=tuple(findings), attributes=attributes)


def _lesion(roi: Roi, series: Series, size: tuple[int, int]) -> Lesion | str:
    files = [file for uid in roi.masks for file in series.get(uid, ())]
    return read_lesion(files, size, malignant=roi.malignant, name=roi.kind)


def _record(roi: Roi, path: Path, root: Path, known: Known) -> Record:
    malignant = max(known.film[roi.film])
    return Record(
        image_id=f"cbis_ddsm/{path.relative_to(root).as_posix()}",
        path=path,
        patient=roi.patient,
        domain="cbis_ddsm",
        modality="mammogram",
        malignant=malignant,
        severity=UNKNOWN if malignant else 1.0,
        laterality=roi.side,
        view=roi.view,
        spacing=SPACING,
        spacing_source="nominal",
        official_split=roi.part,
    )


def _attributes(rois: Sequence[Roi], known: Known) -> dict[str, str]:
    word = {1.0: "malignant", 0.0: "benign"}
    pathology = {"malignant": "MALIGNANT", "benign": "BENIGN"}[word[max(r.malignant for r in rois)]]
    callback = {roi.pathology for roi in rois} == {"BENIGN_WITHOUT_CALLBACK"}
    traits = sorted({pair for roi in rois for pair in roi.traits})
    told = {
        "film": rois[0].name,
        "abnormality": "+".join(sorted({roi.kind for roi in rois})),
        "pathology": "BENIGN_WITHOUT_CALLBACK" if callback else pathology,
        "breast": word[max(known.breast[rois[0].film[:2]])],
        "patient": word[max(known.patient[rois[0].film[:1]])],
        "density": max(roi.density for roi in rois).replace("0", ""),
        "birads": max((roi.assessment for roi in rois), key=_suspicion),
        "subtlety": min(roi.subtlety for roi in rois),
        **{name: "+".join(value for other, value in traits if other == name) for name, _ in traits},
    }
    return {name: value for name, value in told.items() if value}


def _suspicion(assessment: str) -> float:
    """BI-RADS categories from least to worst; 0 (more images are needed) is told only if nothing else is."""
    return float(assessment) if assessment.isdigit() and assessment != "0" else -math.inf


SOURCE = Source(
    index=index,
    about="CBIS-DDSM, digitised film mammograms with proven lesions, US",
    licence="CC BY 3.0",
    editions={
        "published": {"images": 3061, "patients": 1566, "malignant": 1366, "not malignant": 1695},
        "masses": {"images": 1592, "patients": 892},
        "calcifications": {"images": 1511, "patients": 753},
    },
)
