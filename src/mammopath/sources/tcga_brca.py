"""TCGA-BRCA: whole slides of breast cancer of many hospitals, H&E (Cancer Genome Atlas Network 2012)."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mammopath.errors import DataError
from mammopath.images.slide_spacing import spacing_of
from mammopath.sources.slides import NO_SPACINGS, SLIDE, Header, files_by_name, read_header
from mammopath.sources.source import Source
from mammopath.types import UNKNOWN, Record, Skipped, Spacing

_NAME = re.compile(
    r"(?P<patient>tcga-(?P<site>\w\w)-\w{4})-(?P<sample>\d\d)[a-z]?-\d\d-(?P<kind>dx|ts|bs|ms)\w*(?:\..*)?",
    re.IGNORECASE,
)
"""``TCGA-A7-A0CD-01Z-00-DX2.609CED8D-...``: patient, tissue source site, kind of sample, kind of slide."""

_TUMOUR, _NORMAL = range(1, 10), range(10, 20)
"""Sample types of the barcode: 01 primary tumour, 06 metastasis; 10 to 19 normal tissue of the patient."""

KINDS = {"dx": "paraffin", "ts": "frozen", "bs": "frozen", "ms": "frozen"}


def index(root: Path, spacings: Mapping[str, Spacing] = NO_SPACINGS) -> Iterator[Record | Skipped]:
    """List the SVS slides, wherever they lie under ``root`` (the data portal gives each a folder of its own).

    All primary tumours of TCGA-BRCA are invasive. The site is the hospital that sent the tissue: the two
    characters after ``TCGA-``.

    Args:
        root: folder of the slides.
        spacings: by name of slide, in place of headers.

    Raises:
        DataError: no slide is found.
    """
    slides, doubles = files_by_name(root, (".svs",), _NAME)
    if not slides:
        raise DataError(f"{root}: holds no slide of TCGA (TCGA-A7-A0CD-01Z-00-DX2....svs)")
    yield from doubles
    for path in slides.values():
        header = read_header(path, spacing_of(path, spacings))
        yield header if isinstance(header, Skipped) else _record(path, header, root)


def _record(path: Path, header: Header, root: Path) -> Record:
    found = _NAME.fullmatch(path.stem)
    assert found is not None
    sample = int(found["sample"])
    malignant = 1.0 if sample in _TUMOUR else 0.0 if sample in _NORMAL else UNKNOWN
    return Record(
        image_id=f"tcga_brca/{path.relative_to(root).as_posix()}",
        path=path,
        patient=found["patient"].upper(),
        domain=f"tcga_{found['site'].upper()}",
        modality="pathology",
        malignant=malignant,
        severity=3.0 if sample == 1 else UNKNOWN,
        spacing=header.spacing,
        spacing_source=header.spacing_source,
        attributes=SLIDE | {"preparation": KINDS[found["kind"].lower()]},
    )


SOURCE = Source(
    index=index,
    index_spaced=index,
    about="TCGA-BRCA, whole slides of breast cancer, H&E, many hospitals",
    licence="open access; NIH Genomic Data Commons data-use terms, CC BY 3.0 in the Imaging Data Commons",
)
