"""Data sets, one file each, that list their images as records."""

from mammopath.sources import (
    bach,
    bach_wsi,
    bracs,
    breakhis,
    camelyon16,
    camelyon17,
    cbis_ddsm,
    exams,
    hospital,
    idc,
    inbreast,
    mias,
    pcam,
    phantom,
    table,
    tcga_brca,
    vindr,
    wilds_camelyon17,
)
from mammopath.sources.source import Source

SOURCES: dict[str, Source] = {
    "mias": mias.SOURCE,
    "cbis_ddsm": cbis_ddsm.SOURCE,
    "inbreast": inbreast.SOURCE,
    "inbreast_b": inbreast.SOURCE_B,
    "vindr": vindr.SOURCE,
    "exams": exams.SOURCE,
    "bach": bach.SOURCE,
    "idc": idc.SOURCE,
    "bach_wsi": bach_wsi.SOURCE,
    "camelyon16": camelyon16.SOURCE,
    "camelyon17": camelyon17.SOURCE,
    "pcam": pcam.SOURCE,
    "wilds_camelyon17": wilds_camelyon17.SOURCE,
    "breakhis": breakhis.SOURCE,
    "bracs": bracs.SOURCE,
    "tcga_brca": tcga_brca.SOURCE,
    "table": table.SOURCE,
    "hospital": hospital.SOURCE,
    "phantom": phantom.SOURCE,
}
"""Name -> source. ``docs/datasets`` has a card for each."""
