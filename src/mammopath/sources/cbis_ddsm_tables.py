"""The four published tables of CBIS-DDSM: one row per lesion and view."""

import re
from dataclasses import dataclass
from pathlib import Path

from mammopath.errors import DataError
from mammopath.sources.columns import Row, read_cells
from mammopath.types import Skipped

PATTERN = "*_case_description_*_set.csv"

_NAME = re.compile(r"(?P<kind>mass|calc)_case_description_(?P<part>train|test)_set\.csv")
_PATIENT = re.compile(r"P_\d{5}")
_SERIES = re.compile(r"\d+(\.\d+)+")
_SIDES = {"LEFT": "L", "RIGHT": "R"}
_PATHOLOGY = {"MALIGNANT": 1.0, "BENIGN": 0.0, "BENIGN_WITHOUT_CALLBACK": 0.0}
_TRAITS = ("mass shape", "mass margins", "calc type", "calc distribution")


@dataclass(frozen=True)
class Roi:
    """One lesion as seen in one mammogram.

    Attributes:
        patient: ``P_00001``; side: L or R; view: CC or MLO. The three together are one film.
        part: ``train`` or ``test``; kind: ``mass`` or ``calcification``.
        number: of the lesion among those of its film and kind.
        malignant: 1 or 0, proven by pathology (or by follow-up, where the patient was not called back).
        pathology, density, assessment, subtlety: as published; empty where the row does not say.
        traits: shape, margins, type and distribution, by our name.
        name: folder of the full mammogram, which names one image of one part in every layout.
        image, masks: series of the full mammogram, and those that may hold the mask of the lesion.
    """

    patient: str
    side: str
    view: str
    part: str
    kind: str
    number: int
    malignant: float
    pathology: str
    density: str
    assessment: str
    subtlety: str
    traits: tuple[tuple[str, str], ...]
    name: str
    image: str
    masks: tuple[str, ...]

    @property
    def film(self) -> tuple[str, str, str]:
        """What names the mammogram, in whichever table it stands."""
        return self.patient, self.side, self.view


def find_tables(root: Path) -> list[Path]:
    """The tables that lie in ``root`` or up to two folders below it, those of masses first.

    Raises:
        DataError: there is none.
    """
    for pattern in (PATTERN, f"*/{PATTERN}", f"*/*/{PATTERN}"):
        if found := sorted((p for p in root.glob(pattern) if _NAME.fullmatch(p.name)), reverse=True):
            return found
    raise DataError(
        f"{root}: holds no table such as mass_case_description_train_set.csv; put the four CSV files of the "
        "CBIS-DDSM page of TCIA beside the images"
    )


def read_rois(path: Path) -> tuple[list[Roi], list[Skipped]]:
    """Lesions of one table, and the rows that cannot be used.

    Cells are stripped: the last path of each row ends in a line break inside its quotes. The columns of
    density are called ``breast_density`` for masses and ``breast density`` for calcifications.

    Raises:
        DataError: not such a table.
    """
    told = _NAME.fullmatch(path.name)
    if told is None:
        raise DataError(f"{path}: its name is not that of a table of CBIS-DDSM")
    rows = read_cells(path)
    if missing := {"patient_id", "pathology", "image file path", "ROI mask file path"} - rows[0].keys():
        raise DataError(f"{path}: columns {', '.join(sorted(missing))} are missing; download it again")
    rois, bad = [], []
    for number, row in enumerate(rows, start=1):
        try:
            rois.append(_roi(row, told["kind"], told["part"]))
        except (KeyError, ValueError) as error:
            bad.append(Skipped(f"{path}: row {number}", "annotation", f"cannot be used: {error}"))
    return rois, bad


def _roi(row: Row, kind: str, part: str) -> Roi:
    name, image = _parts(row["image file path"])
    _, mask = _parts(row["ROI mask file path"])
    _, crop = _parts(row["cropped image file path"])
    if not _PATIENT.fullmatch(row["patient_id"]):
        raise ValueError(f"patient {row['patient_id']!r} is not like P_00001")
    traits = tuple((c.replace(" ", "_"), row[c]) for c in _TRAITS if row.get(c) not in ("NA", "", None))
    return Roi(
        patient=row["patient_id"],
        side=_SIDES[row["left or right breast"]],
        view=row["image view"],
        part=part,
        kind="calcification" if kind == "calc" else kind,
        number=int(row["abnormality id"]),
        malignant=_PATHOLOGY[row["pathology"]],
        pathology=row["pathology"],
        density=row.get("breast_density") or row.get("breast density", ""),
        assessment=row["assessment"],
        subtlety=row.get("subtlety", ""),
        traits=traits,
        name=name,
        image=image,
        masks=tuple(dict.fromkeys((mask, crop))),
    )


def _parts(path: str) -> tuple[str, str]:
    """First folder and series of a path ``folder/study/series/file``."""
    folder, _, series, _ = path.replace("\\", "/").split("/")
    if not _SERIES.fullmatch(series):
        raise ValueError(f"{path!r} holds no series")
    return folder, series
