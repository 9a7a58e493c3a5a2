"""PCam (PatchCamelyon): 327,680 patches of lymph nodes cut from CAMELYON16 (Veeling et al. 2018)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding
from mammopath.images.packed import stack_shape
from mammopath.sources.columns import Row, read_cells
from mammopath.sources.slides import MATERIAL
from mammopath.sources.source import Source, first_folder
from mammopath.types import Record, Skipped, Spacing

_PARTS = {"train": "train", "valid": "train", "test": "test"}
"""Parts as published, and the split that each belongs to."""

_FILE = "camelyonpatch_level_2_split_{part}_{what}"

_UM = 4 * 0.243
"""Nominal size of a pixel in micrometres: level 2 of the slides, a quarter of level 0."""

_SLIDE = re.compile(r"camelyon16_(?:(?:train_)?(normal|tumor)|(test))_(\d{3})")


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the patches of ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``.

    A patch is malignant if there is tumour in its central 32 x 32 pixels. Its path is the file and a number.
    The slide that it comes from stands for the patient, where ``..._meta.csv`` tells it; slides have the
    names that the source ``camelyon16`` gives them.

    Raises:
        DataError: no such file.
    """
    folder = first_folder(root, ("", "pcam", "pcamv1"), "camelyonpatch_*", what="PCam file")
    for part in _PARTS:
        images = folder / f"{_FILE.format(part=part, what='x')}.h5"
        if images.is_file():
            yield from _part(part, images, root)
        elif images.with_name(f"{images.name}.gz").is_file():
            yield Skipped(
                f"{images}.gz", "unsupported", "is packed; unpack it with gunzip, images are read singly"
            )
        else:
            yield Skipped(str(images), "missing", f"there is no {part} part")


def _part(part: str, images: Path, root: Path) -> Iterator[Record | Skipped]:
    try:
        count = stack_shape(images)[0]
        labels = _labels(images.with_name(f"{_FILE.format(part=part, what='y')}.h5"))
    except ImageReadError as error:
        yield Skipped(str(images), error.code, error.why)
        return
    meta = images.with_name(f"{_FILE.format(part=part, what='meta')}.csv")
    rows: Sequence[Row] = read_cells(meta) if meta.is_file() else [{}] * count
    if not count == len(labels) == len(rows):
        why = f"has {count} patches, but there are {len(labels)} labels and {len(rows)} rows of {meta.name}"
        yield Skipped(str(images), "annotation", why)
        return
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        yield _record(images / f"{number:06d}", part, label, row.get("wsi", ""), root)


def _record(path: Path, part: str, label: int, told: str, root: Path) -> Record:
    found = _SLIDE.fullmatch(told)
    name = f"pcam/{path.relative_to(root).as_posix()}"
    return Record(
        image_id=name,
        path=path,
        patient=f"camelyon16_{found[1] or found[2]}_{found[3]}" if found else name,
        patient_known=False,
        domain="pcam",
        modality="pathology",
        malignant=float(label),
        spacing=Spacing.square(_UM),
        spacing_source="nominal",
        official_split=_PARTS[part],
        attributes={MATERIAL: "camelyon16", "pcam_split": part},
    )


def _labels(path: Path) -> list[int]:
    """Labels in the order of the images.

    Raises:
        ImageReadError: no such file, or not labels of 0 and 1.
    """
    with decoding(path), h5py.File(path, "r") as file:
        values = np.asarray(next(iter(file.values()))).ravel()
    if not np.isin(values, (0, 1)).all():
        raise ImageReadError(path, "holds other labels than 0 and 1", code="format")
    return [int(value) for value in values]


SOURCE = Source(
    index=index,
    about="PCam, patches of lymph nodes cut from CAMELYON16, H&E",
    licence="CC0",
    editions={
        "published": {"images": 327_680},
        "training part": {"images": 262_144},
    },
)
