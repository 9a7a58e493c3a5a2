"""CAMELYON17: 1,000 slides of lymph nodes, H&E, of 200 patients, five Dutch centres (Bandi et al. 2019)."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.outlines import Meaning
from mammopath.images.slide_spacing import spacing_of
from mammopath.sources.camelyon_tables import Stages, read_stages
from mammopath.sources.slides import (
    MATERIAL,
    NO_SPACINGS,
    SLIDE,
    Header,
    by_group,
    files_by_name,
    packed,
    read_header,
    read_outlines,
)
from mammopath.sources.source import ANNOTATED, Source
from mammopath.types import UNKNOWN, Record, Skipped, Spacing

_NAME = re.compile(r"patient_(\d{3})_node_(\d)")
_FOLDER = re.compile(r"cent(?:er|re)_(\d)", re.IGNORECASE)

TRAINING = 100
"""Patients 0 to 99 are the training part, in the order of their centres, 20 each."""

_PER_CENTRE = 20

GROUPS = {"metastases": Meaning("metastasis", 1.0), "normal": Meaning(use="hole")}
"""Groups of the XML; ``normal`` is painted after ``metastases``. Outlines of no group are not understood."""

NO_STAGES = Stages({}, {}, {})


def index(root: Path, spacings: Mapping[str, Spacing] = NO_SPACINGS) -> Iterator[Record | Skipped]:
    """List the slides of CAMELYON17.

    Takes the layout of the challenge (``training/center_0/patient_000_node_0.tif``,
    ``lesion_annotations``, ``stage_labels.csv``) and that of the archive (``images``, ``annotations``,
    ``stages.csv``). Labels come from the table of stages alone; a node that stands there as positive and has
    no XML is not outlined, and never negative.

    Each slide has the attributes ``node`` (class of its node) and ``pn`` (stage of its patient), where known.

    Args:
        root: folder of the data set.
        spacings: by name of slide, in place of headers.

    Raises:
        DataError: no slide is found, or the table of stages is none.
    """
    slides, doubles = files_by_name(root, (".tif", ".tiff"), _NAME)
    if not slides:
        raise DataError(
            f"{root}: holds no slide of CAMELYON17 (patient_000_node_0.tif, ...); unpack the archives"
        )
    drawings, more = files_by_name(root, (".xml",), _NAME)
    yield from (*doubles, *more, *packed(root, drawings))
    stages = NO_STAGES
    if path := next(iter(sorted(root.rglob("stage*.csv"))), None):
        stages = read_stages(path)
        yield from stages.skipped
        for name in sorted(stages.nodes.keys() - slides.keys()):
            yield Skipped(f"{name}.tif", "missing", f"is in {path.name}, but there is no such file")
    else:
        yield Skipped(str(root / "stage_labels.csv"), "missing", "there is none, so no label is known")
    for name, path in slides.items():
        header = read_header(path, spacing_of(path, spacings))
        if isinstance(header, Skipped):
            yield header
        else:
            yield from _slide(path, header, root, stages=stages, drawing=drawings.get(name))


def _slide(
    path: Path, header: Header, root: Path, *, stages: Stages, drawing: Path | None
) -> Iterator[Record | Skipped]:
    name = path.stem.lower()
    patient = name[: len("patient_000")]
    reading = read_outlines(drawing, by_group(GROUPS), header)
    yield from reading.skipped
    node, stage = stages.nodes.get(name, ""), stages.patients.get(patient, "")
    is_outlined = drawing is not None and reading.is_complete and bool(reading.findings)
    attributes = SLIDE | {MATERIAL: "camelyon17", "node": node, "pn": stage} | _annotated(node, is_outlined)
    yield Record(
        image_id=f"camelyon17/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"camelyon17_{patient}",
        patient_known=False,
        domain=f"camelyon17_{_centre(path, patient, stages)}",
        modality="pathology",
        malignant=float(node != "negative") if node else UNKNOWN,
        spacing=header.spacing,
        spacing_source=header.spacing_source,
        findings=reading.findings,
        official_split="train" if int(patient[-3:]) < TRAINING else "test",
        attributes={key: value for key, value in attributes.items() if value},
    )


def _annotated(node: str, is_outlined: bool) -> dict[str, str]:
    """On slides with an XML micro- and macro-metastases are all outlined, isolated tumour cells are not."""
    if node == "negative" or (node in ("micro", "macro") and is_outlined):
        return ANNOTATED
    return {"annotated": "partly"} if is_outlined else {}


def _centre(path: Path, patient: str, stages: Stages) -> str:
    """By the table, else by the folder, else by the number of a training patient."""
    number = int(patient[-3:])
    if patient in stages.centres:
        return f"centre_{stages.centres[patient]}"
    if found := next(filter(None, map(_FOLDER.fullmatch, path.parts[-2::-1])), None):
        return f"centre_{found[1]}"
    return f"centre_{number // _PER_CENTRE}" if number < TRAINING else "centre_unknown"


SOURCE = Source(
    index=index,
    index_spaced=index,
    about="CAMELYON17, whole slides of lymph nodes with pN stages, H&E, five Dutch centres",
    licence="CC0",
    editions={
        "published": {"images": 1000, "patients": 200, "malignant": 187, "not malignant": 313},
        "training part": {"images": 500, "patients": 100, "malignant": 187, "not malignant": 313},
    },
)
