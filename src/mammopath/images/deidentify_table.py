"""What becomes of each DICOM element by the basic profile: table E.1-1 of PS3.15, edition 2026c."""

from functools import cache
from typing import Literal

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.tag import BaseTag

Action = Literal["keep", "remove", "empty", "replace", "uid"]

_CURVES = range(0x5000, 0x5100)
"""Groups of curves, which the table removes whole."""

_OVERLAYS = range(0x6000, 0x6100)
"""Groups of overlays. The table removes data (3000) and comments (4000); without them the rest is of no use,
and labels and descriptions (1500, 0022) are free text."""

_REPEATING = {(0x0018, 0x7006)}
"""DetectorDescription, which the table keeps and vendors fill with the DetectorID that it removes."""


def action_of(tag: BaseTag) -> Action:
    """What becomes of an element. Where the table leaves a choice, the one that keeps an object valid.

    Overlays and detector descriptions, which may repeat what is removed elsewhere, go beyond the table.
    """
    if tag.group in _CURVES or tag.group in _OVERLAYS or (tag.group, tag.element) in _REPEATING:
        return "remove"
    return _actions().get((tag.group, tag.element), "keep")


@cache
def _actions() -> dict[tuple[int, int], Action]:
    lists: tuple[tuple[Action, list[tuple[int, ...]]], ...] = (
        ("remove", table.X_TAGS),
        ("empty", table.Z_TAGS + table.X_Z_TAGS + table.X_Z_D_TAGS),
        ("replace", table.D_TAGS + table.Z_D_TAGS + table.X_D_TAGS),
        ("uid", table.U_TAGS + table.X_Z_U_STAR_TAGS),
    )
    return {(tag[0], tag[1]): action for action, tags in lists for tag in tags if len(tag) == 2}
