"""mini-MIAS: 322 digitised film mammograms, MLO, UK (Suckling et al. 1994)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mammopath.errors import DataError
from mammopath.sources.source import ANNOTATED, Source, first_folder, measured
from mammopath.types import UNKNOWN, Finding, Record, Skipped, Spacing

_SIDE = 1024
"""Side of a published image in pixels, which the coordinates of Info.txt refer to."""

_UM = 200.0
"""Size of a published pixel in micrometres (Info.txt)."""

_TISSUE = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}

_ROW = re.compile(
    r"(?P<image>mdb\d{3})\s+(?P<tissue>[FGD])\s+(?P<kind>CALC|CIRC|SPIC|MISC|ARCH|ASYM|NORM)"
    r"(?:\s+(?P<severity>[BM]))?(?:\s+(?P<x>\d+)\s+(?P<y>\d+)\s+(?P<radius>\d+))?\s*(?:\*NOTE 3\*)?\s*"
)


@dataclass(frozen=True)
class Row:
    """One row of Info.txt: an image's tissue, and one abnormality or none.

    Attributes:
        circle: centre and radius in published pixels, y counted from the bottom; None where the row has none.
    """

    image: str
    tissue: str
    kind: str
    malignant: float
    circle: tuple[int, int, int] | None


def index(root: Path) -> Iterator[Record | Skipped]:
    """List the mammograms of mini-MIAS.

    Takes the folder as published (``Info.txt`` and ``mdb001.pgm`` ... ``mdb322.pgm``), or with square images
    of another size and format in ``images/``; coordinates and spacing follow the size.

    Raises:
        DataError: no Info.txt, no images, or a folder that is not MIAS.
    """
    folder = first_folder(root, ("", "images", "all-mias"), "mdb[0-9]*.*", what="mini-MIAS image")
    files = {path.stem: path for path in sorted(folder.glob("mdb[0-9]*.*"), reverse=True)}
    rows, bad = read_info(_info(root, folder))
    yield from bad
    for image in sorted(rows.keys() | files.keys()):
        if image not in rows:
            yield Skipped(str(files[image]), "annotation", f"{image} has no usable row in Info.txt")
        elif image not in files:
            yield Skipped(str(folder / image), "missing", f"no image file for {image} of Info.txt")
        else:
            yield _record(files[image], rows[image], root)


def read_info(path: Path) -> tuple[dict[str, list[Row]], list[Skipped]]:
    """Rows of Info.txt by image, and the ones that cannot be read; the prose around them is passed over.

    A repeated row counts once.
    """
    rows: dict[str, list[Row]] = {}
    bad = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if not line.startswith("mdb"):
            continue
        row = _row(line)
        if row is None:
            bad.append(Skipped(f"{path}:{number}", "annotation", f"not a row of MIAS: {line.strip()!r}"))
        elif row.circle is None or row not in rows.get(row.image, []):
            rows.setdefault(row.image, []).append(row)
    return rows, bad


def _info(root: Path, folder: Path) -> Path:
    for path in (root / "Info.txt", folder / "Info.txt", root / "info.txt"):
        if path.is_file():
            return path
    raise DataError(f"{root}: holds no Info.txt, which has the labels; copy it from the published archive")


def _row(line: str) -> Row | None:
    found = _ROW.fullmatch(line.strip())
    if found is None or (found["kind"] == "NORM") != (found["severity"] is None):
        return None
    circle = None if found["x"] is None else (int(found["x"]), int(found["y"]), int(found["radius"]))
    return Row(found["image"], found["tissue"], found["kind"], float(found["severity"] == "M"), circle)


def _record(path: Path, rows: list[Row], root: Path) -> Record | Skipped:
    size = measured(path)
    if isinstance(size, Skipped):
        return size
    height, width = size
    number = int(path.stem[3:])
    malignant = max(row.malignant for row in rows)
    lesions = [row for row in rows if row.kind != "NORM"]
    placed = all(row.circle for row in lesions)
    return Record(
        image_id=f"mias/{path.relative_to(root).as_posix()}",
        path=path,
        patient=f"mias_{(number + 1) // 2:03d}",
        domain="mias",
        modality="mammogram",
        malignant=malignant,
        severity=UNKNOWN if malignant else float(bool(lesions)),
        laterality="L" if number % 2 else "R",
        view="MLO",
        spacing=Spacing(_UM * _SIDE / width, _UM * _SIDE / height),
        spacing_source="published",
        findings=tuple(_finding(row, height, width) for row in lesions if row.circle),
        attributes={
            "tissue": _TISSUE[rows[0].tissue],
            "abnormality": "+".join(sorted({row.kind for row in rows})),
            **(ANNOTATED if placed else {}),
        },
    )


def _finding(row: Row, height: int, width: int) -> Finding:
    x, y, radius = row.circle or (0, 0, 0)
    centre = (x * width / _SIDE, (_SIDE - y) * height / _SIDE)
    return Finding("circle", (centre,), radius=radius * width / _SIDE, malignant=row.malignant, name=row.kind)


SOURCE = Source(
    index=index,
    about="mini-MIAS, digitised film mammograms, MLO, UK",
    licence="research only; cite Suckling et al. 1994",
    editions={
        "published": {"images": 322, "patients": 161, "malignant": 52, "normal": 207, "benign": 63},
    },
)
