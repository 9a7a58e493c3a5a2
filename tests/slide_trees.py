"""Small trees of the data sets of whole slides, laid out as published, with made-up pixels."""

import functools
import io
import json
from pathlib import Path

import h5py
import numpy as np
import tifffile

from source_trees import put

TUMOUR = ((20, 20), (100, 20), (100, 90), (20, 90))
ISLAND = ((40, 40), (60, 40), (60, 60), (40, 60))


@functools.cache
def slide(um: float = 0.243, description: str = "") -> bytes:
    """A slide of 128 x 192 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (128, 192, 3), dtype=np.uint8)
    return slide_of(pixels, um, description)


def slide_of(pixels: np.ndarray, um: float = 0.243, description: str = "") -> bytes:
    """A tiled TIFF with its resolution."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, pixels, tile=(64, 64), photometric="rgb", compression="jpeg",
        resolution=(1e4 / um, 1e4 / um), resolutionunit="CENTIMETER", description=description or None,
    )  # fmt: skip
    return file.getvalue()


def svs(um: float = 0.467) -> bytes:
    """An Aperio slide."""
    return slide(um, f"Aperio Image Library v10\n192x128 (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = {um}")


def asap(*shapes, kind="Polygon"):
    """ASAP XML of (group, corners)."""
    drawn = "".join(
        f'<Annotation Name="A {i}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, (x, y) in enumerate(corners))
        + "</Coordinates></Annotation>"
        for i, (group, corners) in enumerate(shapes)
    )
    groups = '<Group Name="Tumor" PartOfGroup="None" Color="#ff0000"><Attributes /></Group>'
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{drawn}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def aperio(*regions, um="0.467"):
    """Aperio XML of (attributes of the region, its children, corners)."""
    drawn = "".join(
        f"<Region {facts}>{children}<Vertices>"
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
        + "</Vertices></Region>"
        for facts, children, corners in regions
    )
    return (
        f'<Annotations MicronsPerPixel="{um}"><Annotation Id="1" Name="Layer 1"><Regions>'
        f"<RegionAttributeHeaders/>{drawn}</Regions></Annotation></Annotations>"
    )


REFERENCE = """test_001,Tumor,IDC,Macro
test_002,Normal,DCIS,None
test_114,Tumor,ILC,Macro
test_049,Tumor,IDC,Micro
"""

C16 = {
    "normal_001": 0.243, "normal_086": 0.243, "normal_101": 0.2265, "tumor_001": 0.243, "tumor_010": 0.243,
    "tumor_071": 0.2265, "test_001": 0.2265, "test_002": 0.243, "test_003": 0.243, "test_049": 0.243,
    "test_114": 0.243,
}  # fmt: skip
"""Slides of the tree and their spacing."""

C16_DRAWN = ("tumor_001", "tumor_010", "test_001", "test_114")


def camelyon16_tree(root: Path) -> Path:
    """As on the challenge's drive."""
    for name, um in C16.items():
        kind = name.split("_")[0]
        place = root / ("testing/images" if kind == "test" else f"training/{kind}")
        put(place / f"{name}.tif", slide(um))
    for name in C16_DRAWN:
        part = "testing" if name.startswith("test") else "training"
        put(root / part / "lesion_annotations" / f"{name}.xml", _drawn16(name))
    put(root / "testing" / "reference.csv", REFERENCE.encode())
    put(root / "testing" / "evaluation" / "evaluation_mask" / "test_001.tif", slide())
    return root


def camelyon16_archive(root: Path) -> Path:
    """As in the open archive: names in lower case, everything in one folder."""
    for name, um in C16.items():
        put(root / "images" / f"{name}.tif", slide(um))
    for name in C16_DRAWN:
        put(root / "annotations" / f"{name}.xml", _drawn16(name))
    put(root / "masks" / "tumor_001.tif", slide())
    put(root / "background_tissue" / "tumor_001.tif", slide())
    put(root / "reference.csv", b"NAME,LABEL,TYPE,SIZE\n" + REFERENCE.replace("test", "Test").encode())
    return root


def _drawn16(name: str) -> bytes:
    group = "Tumor" if name.startswith("test") else "_0"
    return asap((group, TUMOUR), ("_2", ISLAND)).encode()


STAGES = {
    "patient_000": ("pN0", ("negative",) * 5),
    "patient_020": ("pN1mi", ("negative", "itc", "micro", "micro", "negative")),
    "patient_041": ("pN1", ("macro", "negative", "negative", "negative", "negative")),
}
C17_DRAWN = ("patient_020_node_1", "patient_020_node_2")


def stage_table(*, centres: bool = False, header: bool = True) -> bytes:
    lines = ["patient,stage" + ",center" * centres] * header
    for patient, (stage, nodes) in STAGES.items():
        centre = f",{int(patient[-3:]) // 20}" * centres
        lines.append(f"{patient}.zip,{stage}{centre}")
        lines += [f"{patient}_node_{i}.tif,{node}{centre}" for i, node in enumerate(nodes)]
    return "\n".join(lines).encode()


def camelyon17_tree(root: Path) -> Path:
    """As on the challenge's drive, with one test patient and one node that is not there."""
    for patient in STAGES:
        centre = int(patient[-3:]) // 20
        for node in range(5):
            if (patient, node) != ("patient_000", 4):
                put(root / f"training/center_{centre}/{patient}_node_{node}.tif", slide())
    put(root / "testing" / "patient_100_node_0.tif", slide())
    for name in C17_DRAWN:
        put(root / "training" / "lesion_annotations" / f"{name}.xml", _drawn17())
    put(root / "training" / "stage_labels.csv", stage_table())
    return root


def camelyon17_archive(root: Path) -> Path:
    """As in the open archive."""
    for patient in STAGES:
        for node in range(5):
            put(root / "images" / f"{patient}_node_{node}.tif", slide())
    for name in C17_DRAWN:
        put(root / "annotations" / f"{name}.xml", _drawn17())
    put(root / "masks" / f"{C17_DRAWN[0]}.tif", slide())
    put(root / "stages.csv", stage_table(centres=True))
    return root


def _drawn17() -> bytes:
    return asap(("metastases", TUMOUR), ("normal", ISLAND)).encode()


def bach_wsi_tree(root: Path) -> Path:
    """Two slides with regions in regions, and one without an XML."""
    for name in ("A01", "A02", "01"):
        put(root / "WSI" / f"{name}.svs", svs())
    regions = [
        ('Id="1" Type="0" Text="Benign" NegativeROA="0"', "", ISLAND),
        ('Id="2" Type="0" Text="Carcinoma in situ" NegativeROA="0"', "", TUMOUR),
        ('Id="3" Type="0" Text="Normal" NegativeROA="0"', "", ((0, 0), (190, 0), (190, 120), (0, 120))),
    ]
    put(root / "WSI" / "A01.xml", aperio(*regions).encode())
    put(root / "WSI" / "A02.xml", aperio(*regions[::2]).encode())
    return root


def tcga_tree(root: Path) -> Path:
    """As the data portal unpacks them: a folder for each slide."""
    names = (
        "TCGA-A7-A0CD-01Z-00-DX2.609CED8D-5947-4753-A75B-73A8343B47EC",
        "TCGA-A7-A0CD-11A-01-TS1.aa",
        "TCGA-BH-A0B3-01A-03-BSC.bb",
        "TCGA-BH-A0B3-06A-01-TS1.cc",
    )
    for number, name in enumerate(names):
        put(root / f"uuid-{number}" / f"{name}.svs", svs(0.25))
    return root


WILDS = (("004", 0, 0), ("020", 1, 3), ("042", 2, 2), ("060", 3, 1))
"""Patient, centre and split of each patch."""


def wilds_tree(root: Path) -> Path:
    """The published folder, with one patch of each centre."""
    rows = [",patient,node,x_coord,y_coord,tumor,slide,center,split"]
    for number, (patient, centre, split) in enumerate(WILDS):
        rows.append(f"{number},{patient},4,3328,2{number}792,{number % 2},0,{centre},{split}")
        node = f"patient_{patient}_node_4"
        put(root / f"camelyon17_v1.0/patches/{node}/patch_{node}_x_3328_y_2{number}792.png")
    put(root / "camelyon17_v1.0" / "metadata.csv", "\n".join(rows).encode())
    return root


def breakhis_tree(root: Path) -> Path:
    """The published folders."""
    slides = {
        "benign/SOB/adenosis/SOB_B_A_14-22549AB": "SOB_B_A-14-22549AB",
        "benign/SOB/adenosis/SOB_B_A_14-22549CD": "SOB_B_A-14-22549CD",
        "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523": "SOB_M_DC-14-2523",
    }
    for folder, name in slides.items():
        for power in (40, 400):
            place = root / "BreaKHis_v1/histology_slides/breast" / folder / f"{power}X"
            put(place / f"{name}-{power}-001.png")
    return root


def bracs_tree(root: Path) -> Path:
    """The published folders."""
    regions = ("train", 264, "0_N"), ("val", 7, "4_ADH"), ("test", 1003, "5_DCIS"), ("test", 3, "6_IC")
    for part, number, label in regions:
        put(root / "BRACS_RoI/latest_version" / part / label / f"BRACS_{number}_{label[2:]}_1.png")
    return root


PCAM = ("camelyon16_train_tumor_001", "camelyon16_train_normal_001", "camelyon16_test_002")


def pcam_tree(root: Path) -> Path:
    """Three parts of three patches; the meta table of one part is missing."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test"):
        stem = f"camelyonpatch_level_2_split_{part}"
        with h5py.File(root / f"{stem}_x.h5", "w") as file:
            file["x"] = random.integers(0, 255, (3, 96, 96, 3), dtype=np.uint8)
        with h5py.File(root / f"{stem}_y.h5", "w") as file:
            file["y"] = np.array([1, 0, 0], dtype=np.uint8).reshape(3, 1, 1, 1)
        if part != "valid":
            rows = ["coord_y,coord_x,tumor_patch,center_tumor_patch,wsi", *(f"1,2,a,b,{wsi}" for wsi in PCAM)]
            put(root / f"{stem}_meta.csv", "\n".join(rows).encode())
    return root


def hospital_tree(root: Path) -> Path:
    """Slides of three formats, with a table and outlines of two tools."""
    put(root / "slides" / "a 1.svs", svs())
    put(root / "slides" / "b2.tif", slide())
    put(root / "slides" / "c3.tiff", slide(1000.0))
    rows = [
        "slide,patient,site,label,spacing_um,annotation,annotated,pn,node,attr_stainer",
        "slides/a 1.svs,p1,north,malignant,,,yes,pN1,macro,X",
        "b2,p2,north,benign,,outlines\\b.geojson,yes,,,",
        "c3.tiff,,south,,0.25,,,,,",
    ]
    put(root / "slides.csv", "\n".join(rows).encode())
    drawn = [("tumor", TUMOUR), ("Hole", ISLAND), ("normal", ISLAND)]
    put(root / "annotations" / "a 1.xml", asap(*drawn).encode())
    ring = [list(point) for point in (*TUMOUR, TUMOUR[0])]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "Benign"}},
    }  # fmt: skip
    put(root / "outlines" / "b.geojson", json.dumps([feature]).encode())
    return root


TREES = {
    "camelyon16": camelyon16_tree, "camelyon17": camelyon17_tree, "bach_wsi": bach_wsi_tree,
    "tcga_brca": tcga_tree, "wilds_camelyon17": wilds_tree, "breakhis": breakhis_tree, "bracs": bracs_tree,
    "hospital": hospital_tree,
    "pcam": pcam_tree,
}  # fmt: skip
"""A tree for each source of histology beside those of ``source_trees``."""
