"""Submissions judged against the records of a manifest, by the rules of CAMELYON16, CAMELYON17 and BACH."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mammopath.errors import DataError
from mammopath.images.geometry import Frame, paint, paint_classes
from mammopath.images.raster import read_raster
from mammopath.images.slide import open_slide
from mammopath.metrics import bach, camelyon16
from mammopath.metrics.camelyon17 import stage_kappa
from mammopath.metrics.froc import Regions, camelyon16_regions
from mammopath.metrics.intervals import Interval
from mammopath.metrics.ordinal import quadratic_kappa
from mammopath.types import NODE_CLASSES, SEVERITIES, Record

LEVEL, OFFICIAL_UM = 5, 0.243
"""The organisers judge at level 5 and take 0.243 um for the pixels of every slide (Evaluation_FROC.py)."""

_SAME_SHAPE = 0.02
"""Part by which a mask's sides may differ from those of its slide: sides of reduced images are rounded."""


@dataclass(frozen=True)
class Nodes:
    """CAMELYON17.

    Attributes:
        kappa: of the stages of patients, the challenge's figure.
        patients: that were judged. missing: patients with a known stage that the submission lacks.
        node_kappa: quadratically weighted kappa of the classes of nodes. nodes: that were judged.
    """

    kappa: Interval
    patients: int
    missing: tuple[str, ...]
    node_kappa: float
    nodes: int


class PaintedLesions(Mapping[str, Regions]):
    """Lesions of slides by name, each painted from its outlines when it is asked for: one in memory."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = {name: r for name, r in records.items() if r.findings}

    def __getitem__(self, name: str) -> Regions:
        return paint_lesions(self._records[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def slides_of(records: Sequence[Record], split: str) -> dict[str, Record]:
    """Slides of a part of a manifest by their name.

    Args:
        records: of a manifest.
        split: ``test``, ``train`` (as the source publishes it) or ``all``.

    Raises:
        DataError: there is none, or two have the same name.
    """
    found: dict[str, Record] = {}
    for record in records:
        if record.attributes.get("image") != "slide" or split not in ("all", record.official_split):
            continue
        if record.path.stem in found:
            raise DataError(
                f"{record.path}: has the name of {found[record.path.stem].path}; judge them apart"
            )
        found[record.path.stem] = record
    if not found:
        raise DataError(f"the manifest has no slide of the part {split!r}; --split all takes every slide")
    return found


def judge_slides(slides: Mapping[str, Record], scores: Mapping[str, float]) -> Interval:
    """CAMELYON16, task 2: AUC over the slides with a known label.

    Raises:
        DataError: a slide has no score, or no slide a label.
    """
    truth = {name: r.malignant for name, r in slides.items() if not math.isnan(r.malignant)}
    if not truth:
        raise DataError("no slide of the manifest has a label; was the reference there when it was indexed?")
    return camelyon16.slide_task(truth, scores)


def judge_lesions(
    slides: Mapping[str, Record], detections: Mapping[str, Float[np.ndarray, "_ 3"]], *, draws: int = 0
) -> tuple[camelyon16.LesionTask, list[str]]:
    """CAMELYON16, task 1: FROC over the slides without tumour and those all of whose tumour is outlined.

    Args:
        slides: of ``slides_of``.
        detections: by slide; a slide that is not among them has none.
        draws: of a bootstrap over slides; 0 for no interval.

    Returns:
        The task, and the names of slides that were left out because their tumour is not (all) outlined.

    Raises:
        DataError: no lesion is outlined, or detections of a slide that is not in the manifest.
    """
    judged = {name: r for name, r in slides.items() if r.attributes.get("annotated") == "yes"}
    left_out = sorted(slides.keys() - judged.keys())
    if not any(r.findings for r in judged.values()):
        raise DataError("no slide of the manifest has outlines; were the annotations there at the index?")
    passed = {camelyon16.slide_name(name) for name in left_out}
    own = {name: rows for name, rows in detections.items() if camelyon16.slide_name(name) not in passed}
    return camelyon16.lesion_task(judged, own, PaintedLesions(judged), draws=draws), left_out


def paint_lesions(record: Record) -> Regions:
    """Lesions of a slide on the grid of the official evaluation.

    That is level 5 of the scanners of CAMELYON, pixels of 7.8 um; for a slide of other pixels it is the power
    of two that comes nearest to this size.

    Raises:
        DataError: the slide's spacing is not known. ImageReadError: the slide cannot be opened.
    """
    if record.spacing is None:
        raise DataError(f"{record.path}: without a spacing its lesions cannot be measured")
    um = math.sqrt(record.spacing.um_x * record.spacing.um_y)
    level = max(0, round(math.log2(OFFICIAL_UM * 2**LEVEL / um)))
    with open_slide(record.path, record.spacing) as slide:
        size = (max(1, slide.height >> level), max(1, slide.width >> level))
    lesions = [finding for finding in record.findings if finding.malignant == 1]
    tumour = paint(lesions, Frame(2.0**-level, 2.0**-level), size)
    return camelyon16_regions(tumour, um=OFFICIAL_UM if level == LEVEL else um, level=level)


def judge_stages(
    records: Sequence[Record], patients: Mapping[str, str], nodes: Mapping[str, str], *, partial: bool = False
) -> Nodes:
    """CAMELYON17: kappa of the stages of patients.

    Args:
        records: with the attributes ``pn`` and ``node``, where they are known.
        patients: submitted stage by patient (``patient_000``).
        nodes: submitted class by node (``patient_000_node_0``).
        partial: judge the patients of the submission, and tell the others; else every patient must be there.

    Raises:
        DataError: a patient without a submitted stage, a stage that is none, or no patient to judge.
    """
    truth = {
        r.path.stem.lower()[: len("patient_000")]: r.attributes["pn"] for r in records if "pn" in r.attributes
    }
    missing = sorted(truth.keys() - patients.keys())
    judged = {name: stage for name, stage in truth.items() if name in patients or not partial}
    if not judged:
        raise DataError("no patient of the submission has a known stage in the manifest")
    kappa = stage_kappa(judged, patients)
    known = {r.path.stem.lower(): r.attributes["node"] for r in records if "node" in r.attributes}
    both = sorted(known.keys() & nodes.keys())
    true, told = (
        np.array([NODE_CLASSES.index(table[name]) for name in both], dtype=np.int64)
        for table in (known, nodes)
    )
    node_kappa = quadratic_kappa(true, told, categories=len(NODE_CLASSES)) if both else math.nan
    return Nodes(kappa, len(judged), tuple(missing if partial else ()), node_kappa, len(both))


def judge_fields(records: Sequence[Record], classes: Mapping[str, int]) -> tuple[float, int]:
    """BACH, part A: accuracy over the fields with a known severity, and how many they are.

    Args:
        records: of a manifest.
        classes: submitted class by the field's name, with or without suffix.

    Raises:
        DataError: a field has no class, or no field a severity.
    """
    told = {Path(name).stem: label for name, label in classes.items()}
    fields = [r for r in records if r.attributes.get("image") != "slide" and not math.isnan(r.severity)]
    if not fields:
        raise DataError("no field of the manifest has a severity")
    if lost := [r.path.stem for r in fields if r.path.stem not in told]:
        raise DataError(f"{len(lost)} fields have no class, the first: {lost[0]}; class every field")
    truth = np.array([r.severity for r in fields])
    return bach.accuracy(truth, np.array([float(told[r.path.stem]) for r in fields])), len(fields)


def judge_masks(records: Sequence[Record], masks: Mapping[str, Path]) -> dict[str, float]:
    """BACH, part B: score of each labelled slide; that of the set is their mean.

    Args:
        records: of a manifest.
        masks: by name of slide: a grey image of the whole slide at any size, whose pixels are classes 0 to 3.

    Raises:
        DataError: a labelled slide has no mask, there is no labelled slide, or a mask has another shape.
        ImageReadError: a mask or slide cannot be read.
    """
    slides = [
        r for r in records if r.attributes.get("image") == "slide" and r.attributes.get("annotated") == "yes"
    ]
    if not slides:
        raise DataError("no slide of the manifest is labelled all over (BACH: A01 to A10 with their XML)")
    if lost := [r.path.stem for r in slides if r.path.stem not in masks]:
        raise DataError(f"{len(lost)} slides have no mask, the first: {lost[0]}")
    return {r.path.stem: _mask_score(r, masks[r.path.stem]) for r in slides}


def find_masks(folder: Path, names: Collection[str] = (".png", ".tif", ".tiff", ".pgm")) -> dict[str, Path]:
    """Masks of a folder by name of slide.

    Raises:
        DataError: there is none.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.*")) if path.suffix.lower() in names}
    if not found:
        raise DataError(f"{folder}: holds no mask (one SLIDE.png per slide)")
    return found


def _mask_score(record: Record, path: Path) -> float:
    mask = read_raster(path)
    if mask.ndim != 2:
        raise DataError(f"{path}: a mask is a grey image of classes 0 to 3, this one has colours")
    with open_slide(record.path, record.spacing) as slide:
        scale = (mask.shape[1] / slide.width, mask.shape[0] / slide.height)
    if abs(scale[0] / scale[1] - 1) > _SAME_SHAPE + 1 / min(mask.shape):
        raise DataError(f"{path}: {mask.shape[1]} x {mask.shape[0]} pixels have not the shape of its slide")
    if strange := [f.name for f in record.findings if f.name not in SEVERITIES]:
        raise DataError(f"{record.path}: outlines of {strange[0]!r} are none of {', '.join(SEVERITIES)}")
    classes = [SEVERITIES.index(finding.name) for finding in record.findings]
    truth = paint_classes(record.findings, classes, Frame(*scale), mask.shape)
    return bach.slide_score(truth, mask.astype(np.int64))
