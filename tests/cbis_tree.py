"""A tree of CBIS-DDSM in each of its four layouts, from any of its tables, with tiny made-up pixels."""

import csv
import io
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

LAYOUTS = ("descriptive", "classic", "idc", "kaggle")

FILM = np.add.outer(np.arange(60, dtype=np.uint16) * 300, np.arange(40, dtype=np.uint16) * 200)
CROP = FILM[20:30, 10:24]


def mask(height=60, width=40):
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = 255
    return pixels


def dicom(pixels, *, series="1.2.3", patient="", description=""):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3")
    data.SeriesInstanceUID, data.PatientID = series, patient
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "MG", "MONOCHROME2", 1
    if description:
        data.SeriesDescription = description
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data["PixelData"].VR = "OW"
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True, little_endian=True, implicit_vr=True)
    return file.getvalue()


def jpeg(pixels):
    top = 255 if pixels.dtype == np.uint8 else 65535
    return imagecodecs.jpeg8_encode((pixels.astype(float) * 255 / top).astype(np.uint8), level=95)


class Tree:
    """Writes series into a folder; files of the same content may be one file with many names."""

    def __init__(self, root: Path, layout: str, share: bool) -> None:
        self.root, self.layout, self.share = root, layout, share
        self.known, self.rows, self.places = {}, [], set()
        self.encode = jpeg if layout == "kaggle" else dicom

    def add(self, path, pictures, description):
        """The series of a path ``folder/study/series/file`` of the tables, with these pictures."""
        folder, study, series, _ = path.split("/")
        if series in self.places:
            return
        self.places.add(series)
        names = [f"1-{n}.dcm" for n in range(1, len(pictures) + 1)]
        place = {
            "descriptive": f"manifest-1/CBIS-DDSM/{folder}/08-29-2017-DDSM-NA-{study[-5:]}"
            f"/1.000000-{description}-{series[-5:]}",
            "classic": f"{folder}/{study}/{series}",
            "idc": f"cbis_ddsm/{folder}/{study}/MG_{series}",
            "kaggle": f"jpeg/{series}",
        }[self.layout]
        if self.layout == "classic":
            names = [f"{n:06d}.dcm" for n in range(len(pictures))]
        elif self.layout == "kaggle":
            names = [f"{n}-{len(self.places):03d}.jpg" for n in range(1, len(pictures) + 1)]
        self.rows.append((series, "./" + place.removeprefix("manifest-1/")))
        (self.root / place).mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, pictures, strict=True):
            self.put(self.root / place / name, picture)

    def put(self, path, picture):
        key = (picture.shape, picture.tobytes())
        if self.share and key in self.known:
            path.hardlink_to(self.known[key])
        else:
            path.write_bytes(self.encode(picture))
            self.known[key] = path

    def finish(self):
        if self.layout == "descriptive":
            with (self.root / "manifest-1" / "metadata.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["Series UID", "Collection", "File Location"])
                writer.writerows(
                    (uid, "CBIS-DDSM", place.replace("/", "\\") if n % 2 else place)
                    for n, (uid, place) in enumerate(self.rows)
                )


def build(root, layout, tables, *, films=None, masks=None, share=True):
    """Write the tables and every series that they name; ``films``, ``masks`` change single pictures."""
    tree = Tree(root, layout, share)
    folder = root / "csv" if layout == "kaggle" else root
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / name).write_text(text)
        for n, row in enumerate(csv.DictReader(io.StringIO(text))):
            image, crop, roi = (
                row[c].strip() for c in ("image file path", "cropped image file path", "ROI mask file path")
            )
            tree.add(image, [(films or {}).get(image.split("/")[0], FILM)], "full mammogram images")
            painted = (masks or {}).get(roi.split("/")[0], mask())
            if crop.split("/")[2] == roi.split("/")[2]:
                both = [painted, CROP] if n % 2 else [CROP, painted]
                tree.add(roi, both, "cropped images" if n % 3 else "ROI mask images")
            else:
                tree.add(roi, [painted], "ROI mask images")
                tree.add(crop, [CROP], "cropped images")
    tree.finish()
    return root


MASS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
CALC = MASS.replace("breast_density", "breast density").replace("mass shape", "calc type")
CALC = CALC.replace("mass margins", "calc distribution")
SETS = {"train": "Training", "test": "Test"}


def row(kind, part, patient, side, view, number, pathology, *, assessment=4, shape="ROUND", alone=False):
    """A row as published: a line break inside the last quotes, crop and mask in one series or in two."""
    name = f"{kind.title()}-{SETS[part]}_P_{patient:05d}_{side}_{view}"
    uid = f"1.3.6.{kind == 'mass':d}.{part == 'train':d}.{patient}.{side == 'LEFT':d}.{view == 'CC':d}"
    image = f"{name}/{uid}.1/{uid}.2/000000.dcm"
    roi = f"{name}_{number}/{uid}.{number}.3/{uid}.{number}.4/000001.dcm"
    crop = f"{name}_{number}/{uid}.{number}.3/{uid}.{number}.{5 if alone else 4}/000000.dcm"
    told = f"P_{patient:05d},3,{side},{view},{number},{kind},{shape},NA,{assessment},{pathology},2,{image},"
    return told + (f'{crop},"{roi}\n"\n' if kind == "mass" else f'"{crop}\n",{roi}\n')


TABLES = {
    "mass_case_description_train_set.csv": MASS
    + row("mass", "train", 1, "LEFT", "CC", 1, "MALIGNANT")
    + row("mass", "train", 1, "LEFT", "CC", 2, "BENIGN", assessment=0)
    + row("mass", "train", 1, "LEFT", "MLO", 1, "BENIGN", alone=True)
    + row("mass", "train", 2, "RIGHT", "CC", 1, "BENIGN_WITHOUT_CALLBACK", assessment=0)
    + row("mass", "train", 3, "RIGHT", "CC", 1, "BENIGN"),
    "calc_case_description_train_set.csv": CALC
    + row("calc", "train", 3, "RIGHT", "CC", 1, "MALIGNANT", shape="AMORPHOUS"),
    "calc_case_description_test_set.csv": CALC
    + row("calc", "test", 2, "RIGHT", "CC", 1, "BENIGN")
    + row("calc", "test", 38, "LEFT", "CC", 1, "MALIGNANT"),
}
