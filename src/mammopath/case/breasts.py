"""Which breast the tissue is of: what of the mammograms it is compared and linked with."""

from collections.abc import Sequence
from dataclasses import dataclass

from mammopath.types import Record

UNKNOWN_SIDE = "The side of the tissue is not known, so the mammograms of both breasts were compared with it."

BOTH = "tissue of both breasts"


@dataclass(frozen=True)
class Breast:
    """The breast that tissue is compared with.

    Attributes:
        side: ``L`` or ``R``; empty where all mammograms are compared.
        note: what a reader must know of the comparison, or empty.
        why: what makes a comparison impossible, or empty.
    """

    side: str = ""
    note: str = ""
    why: str = ""

    def has(self, record: Record) -> bool:
        """Whether an image belongs to the comparison; one whose side is unknown may, and does."""
        return record.modality == "pathology" or not self.side or record.laterality in (self.side, "")


def biopsied(records: Sequence[Record]) -> Breast:
    """The breast of a case's tissue, as far as the records tell."""
    tissue, shown = (
        {r.laterality for r in records if r.modality == m} - {""} for m in ("pathology", "mammogram")
    )
    if len(tissue) > 1:
        return Breast(why=f"{BOTH}: give each breast a case of its own")
    if tissue and shown:
        return Breast(side=tissue.pop())
    has_tissue = any(r.modality == "pathology" for r in records)
    return Breast(note=UNKNOWN_SIDE if has_tissue and not tissue and len(shown) > 1 else "")
