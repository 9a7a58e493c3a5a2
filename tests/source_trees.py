"""Small trees of every data set, laid out as published, with made-up pixels."""

from collections.abc import Callable, Iterable
from pathlib import Path

import imagecodecs
import numpy as np

from mammopath.sources.phantom import generate
from mammopath.sources.phantom_cohort import PhantomSettings
from mammopath.types import Record, Skipped

GREY = imagecodecs.png_encode(np.arange(64 * 48, dtype=np.uint8).reshape(64, 48))
RGB = imagecodecs.png_encode(np.arange(50 * 50 * 3, dtype=np.uint8).reshape(50, 50, 3))


def put(path: Path, data: bytes = RGB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def split(entries: Iterable[Record | Skipped]) -> tuple[list[Record], list[Skipped]]:
    entries = list(entries)
    return [e for e in entries if isinstance(e, Record)], [e for e in entries if isinstance(e, Skipped)]


INFO = """1st column: MIAS database reference number.
=================================================================
mdb001 G CIRC B 512 256 100
mdb002 G NORM
mdb003 D MISC B 100 900 20
mdb003 D SPIC M 200 800 30
mdb003 D SPIC M 200 800 30
mdb004 F CALC M *NOTE 3*
mdb004 F CALC M *NOTE 3*
mdb006 F CIRC B
=================================================================
"""


def pgm(side=64):
    return f"P5\n{side} {side}\n255\n".encode() + bytes(range(256)) * (side * side // 256)


def mias_tree(root: Path) -> Path:
    for number in (1, 2, 3, 4, 6):
        put(root / f"mdb{number:03d}.pgm", pgm())
    (root / "Info.txt").write_text(INFO)
    return root


def bach_tree(root: Path) -> Path:
    rows = []
    for label, short in (("Normal", "n"), ("Benign", "b"), ("InSitu", "is"), ("Invasive", "iv")):
        for number in (1, 2):
            name = f"{short}{number:03d}.tif"
            put(root / "Photos" / label / name.replace(".tif", ".png"))
            rows.append(f"{name.replace('.tif', '.png')},{label}")
    (root / "Photos" / "microscopy_ground_truth.csv").write_text("\n".join(rows) + "\n")
    return root


def idc_tree(root: Path) -> Path:
    for patient in ("8863", "10253"):
        for label in "01":
            put(root / patient / label / f"{patient}_idx5_x51_y{label}01_class{label}.png")
    return root


def table_tree(root: Path) -> Path:
    put(root / "images" / "a.png", GREY)
    put(root / "images" / "b.png")
    (root / "t.csv").write_text(
        "image,patient,domain,modality,label,laterality,view,spacing_um,split,pair,findings,annotated,attr_density\n"
        "images/a.png,p1,north,mammogram,Malignant,left,mlo,70,train,p1,box 1 2 30 40,yes,3\n"
        "images\\b.png,p1,north,pathology,in_situ,,,0.25,,p1,,,\n"
    )
    return root / "t.csv"


def phantom_tree(root: Path) -> Path:
    generate(root / "phantom", PhantomSettings(patients=2, sites=("site_a",)))
    return root / "phantom"


TREES: dict[str, Callable[[Path], Path]] = {
    "mias": mias_tree, "bach": bach_tree, "idc": idc_tree, "table": table_tree, "phantom": phantom_tree,
}  # fmt: skip
