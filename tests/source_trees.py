"""Small trees of every data set, laid out as published, with made-up pixels."""

from collections.abc import Callable, Iterable
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset

from cbis_tree import TABLES, build
from exam_tree import exam, mammogram, save
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
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


def inbreast_tree(root: Path) -> Path:
    """Four images of two patients, with the table and an outline."""
    for n, (side, view) in enumerate([("R", "CC"), ("L", "ML"), ("R", "CC"), ("L", "ML")]):
        name = f"2000000{n}_{'61b13c59bcba149e' if n < 2 else '0a'}_MG_{side}_{view}_ANON.dcm"
        save(put(root / "AllDICOMs" / name), mammogram(ImageLaterality=None, ViewPosition=None))
    (root / "INbreast.csv").write_text(
        "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads\n"
        "removed;removed;R;CC;201001;20000000;4;4a\nremoved;removed;L;MLO;201001;20000001;    ;1\n"
        "removed;removed;R;CC;200801;20000002;2;3\nremoved;removed;R;MLO;200801;20000003;2;2\n"
        ";;;;;;;\n;;;;;total;;\n"
    )
    put(root / "AllXML" / "20000000.xml", OSIRIX.encode())
    return root


OSIRIX = """<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict><key>Images</key><array><dict>
<key>ImageIndex</key><integer>0</integer><key>NumberOfROIs</key><integer>3</integer><key>ROIs</key><array>
<dict><key>Name</key><string>MASS </string><key>Point_px</key><array><string>(10.5, 20.0)</string>
<string>(20.5, 20.0)</string><string>(15.0, 30.25)</string></array></dict>
<dict><key>Name</key><string>Point 1</string><key>Point_px</key><array><string>(5, 6)</string></array></dict>
<dict><key>Name</key><string>Espiculated  Region</string><key>Point_px</key><array/></dict>
</array></dict></array></dict></plist>"""


def exams_tree(root: Path) -> Path:
    (root / "exams.csv").write_text("patient,side,label\n4711,L,malignant\n4711,R,benign\n")
    return exam(root)


def cbis_ddsm_tree(root: Path) -> Path:
    return build(root, "kaggle", TABLES, share=False)


def vindr_tree(root: Path) -> Path:
    """Two images of one exam: with two findings, one of which starts beside the image, and without."""
    for name, side in (("a1", "L"), ("b2", "R")):
        save(put(root / "images" / "e0" / f"{name}.dicom"), mammogram(ImageLaterality=side))
    (root / "finding_annotations.csv").write_text(
        "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,"
        "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split\n"
        "e0,s,a1,L,CC,96,64,BI-RADS 4,DENSITY C,\"['Nipple Retraction', 'Mass']\","
        "BI-RADS 4,-6.25,9,20,30,training\n"
        "e0,s,a1,L,CC,96,64,BI-RADS 4,DENSITY C,['Mass'],BI-RADS 4,22.5,40,70,60,training\n"
        "e0,s,b2,R,MLO,96,64,BI-RADS 3,DENSITY C,['No Finding'],,,,,,training\n"
    )
    return root


CMMD = """ID1,LeftRight,Age,number,abnormality,classification,subtype
D1-0001,R,44,2,calcification,Benign,
D2-0001,L,61,2,mass,Malignant,Luminal A
D2-0001,L,61,2,calcification,Benign,
D2-0002,R,50,2,mass,Malignant,
"""


def cmmd_tree(root: Path) -> Path:
    """A patient with one breast, one with both of which one has no row, and one without images."""
    top = root / "manifest-1616439774456"
    (top / "CMMD").mkdir(parents=True)
    (root / "CMMD_clinicaldata_revision.csv").write_text(CMMD)
    for patient, side in (("D1-0001", "R"), ("D2-0001", "L"), ("D2-0001", "R")):
        for n, code in enumerate(("399162004", "399368009"), start=1):
            view = Dataset()
            view.CodeValue = code
            data = mammogram(
                ImageLaterality=side, PatientID=patient, ViewPosition=None, ViewCodeSequence=[view]
            )
            save(top / "CMMD" / patient / "07-18-2010-NA" / f"{side}.000000-NA" / f"1-{n}.dcm", data)
    return root


RSNA_COLUMNS = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case\n"
)
RSNA = """2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False
2,10006,1459541791,L,MLO,61.0,0,1,0,,0,,29,False
1,10011,220375232,R,CC,55.0,1,1,1,0.0,0,C,21,False
1,10011,541722628,R,AT,55.0,1,1,0,0.0,1,C,21,False
1,10011,541722629,L,MLO,55.0,0,0,0,1.0,0,C,21,True
"""


def rsna_tree(root: Path) -> Path:
    (root / "train.csv").write_text(RSNA_COLUMNS + RSNA)
    for row in RSNA.splitlines():
        _, patient, image, side, *_ = row.split(",")
        data = mammogram(ImageLaterality=side, PatientID=patient, ImagerPixelSpacing=None)
        save(root / "train_images" / patient / f"{image}.dcm", data)
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "mias": mias_tree, "cbis_ddsm": cbis_ddsm_tree, "exams": exams_tree, "vindr": vindr_tree,
    "cmmd": cmmd_tree, "rsna": rsna_tree,
    "inbreast": inbreast_tree, "inbreast_b": inbreast_tree,
    "bach": bach_tree, "idc": idc_tree, "table": table_tree,
    "phantom": phantom_tree,
}  # fmt: skip
