"""What the names of outlines mean that pathologists of a laboratory give them."""

import math

from mammopath.images.outlines import Meaning, Outline
from mammopath.sources.words import LABELS, read_label
from mammopath.types import SEVERITIES

TUMOUR = ("tumour", "tumor", "cancer", "carcinoma", "metastasis", "metastases")
"""Further words for malignant; what kind of lesion they are is not said."""

HOLES = ("hole", "exclude", "exclusion", "cut out")
"""Cut out of what they overlap."""


def meaning(outline: Outline) -> Meaning | None:
    """By the group (class, layer) of an outline, else by its own name: a label, a tumour, or a hole.

    What is called normal is background; to cut it out of a tumour, call it a hole.
    """
    for text in (outline.group, outline.name):
        word = " ".join(text.replace("_", " ").replace("-", " ").lower().split())
        if word in HOLES:
            return Meaning(use="hole")
        if word in TUMOUR:
            return Meaning(word, 1.0)
        if word and word in LABELS:
            return _labelled(text)
    return None


def _labelled(text: str) -> Meaning | None:
    malignant, severity = read_label(text)
    if severity == 0:
        return Meaning(SEVERITIES[0], use="nothing")
    name = text.strip().lower() if math.isnan(severity) else SEVERITIES[int(severity)]
    return None if math.isnan(malignant) else Meaning(name, malignant)
