"""WILDS camelyon17 v1.0: 455,954 patches of lymph nodes from 50 slides of CAMELYON17 (Koh et al. 2021)."""

from collections.abc import Iterator
from pathlib import Path

from mammopath.errors import DataError
from mammopath.sources.columns import read_cells
from mammopath.sources.slides import MATERIAL
from mammopath.sources.source import Source, first_folder, measured
from mammopath.types import Record, Skipped, Spacing

_TABLE = "metadata.csv"
_NEEDED = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")

_UM = 4 * 0.243
"""Nominal size of a pixel in micrometres: level 2 of the slides, a quarter of level 0."""

_SPLITS = {"0": "train", "1": "id_val", "2": "test", "3": "val"}
"""Of the benchmark: by centre, so an attribute here and not a split within a site."""


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the patches of ``camelyon17_v1.0``, in the order of ``metadata.csv``.

    A patch is malignant if there is tumour in its central 32 x 32 pixels. Patients and sites have the names
    that the source ``camelyon17`` gives them.

    Raises:
        DataError: no table, or one without the published columns.
    """
    folder = first_folder(root, ("", "camelyon17_v1.0"), _TABLE, what="patches of WILDS camelyon17")
    rows = read_cells(folder / _TABLE)
    if missing := [name for name in _NEEDED if name not in rows[0]]:
        raise DataError(
            f"{folder / _TABLE}: column {', '.join(missing)} is missing; give the published table"
        )
    for number, row in enumerate(rows, start=2):
        yield _record(row, f"{folder / _TABLE}:{number}", folder, root)


def _record(row: dict[str, str], where: str, folder: Path, root: Path) -> Record | Skipped:
    if row["tumor"] not in ("0", "1") or row["split"] not in _SPLITS or not row["patient"].isdigit():
        return Skipped(where, "annotation", f"not a row of WILDS camelyon17: {row}")
    node = f"patient_{int(row['patient']):03d}_node_{row['node']}"
    path = folder / "patches" / node / f"patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png"
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    return Record(
        image_id=f"wilds_camelyon17/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"camelyon17_{node[: len('patient_000')]}",
        patient_known=False,
        domain=f"camelyon17_centre_{row['center']}",
        modality="pathology",
        malignant=float(row["tumor"]),
        spacing=Spacing.square(_UM),
        spacing_source="nominal",
        attributes={MATERIAL: "camelyon17", "wilds_split": _SPLITS[row["split"]], "slide": node},
    )


SOURCE = Source(
    index=index,
    about="WILDS camelyon17, patches of lymph nodes, H&E, five Dutch centres",
    licence="CC0",
    editions={"published": {"images": 455_954}},
)
