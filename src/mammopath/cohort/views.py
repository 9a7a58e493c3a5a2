"""Which images of a cohort are used: not the special views and earlier takes that their sources flag."""

from dataclasses import replace

from mammopath.cohort.manifest import Manifest
from mammopath.sources.flags import flags_of
from mammopath.types import Record, Skipped

LEFT_OUT = ("special_view", "retake")
"""Flags of images that are none of the standard views of a screening exam."""


def not_standard(record: Record) -> str:
    """Why a mammogram is no standard view, by the flags of its source; empty where it is one."""
    flags = [flag for flag in flags_of(record.attributes) if flag in LEFT_OUT]
    return f"is flagged {' and '.join(flags)}" if flags else ""


def standard_views(cohort: Manifest) -> Manifest:
    """The cohort without images flagged ``LEFT_OUT``, which are among the skipped with the code ``view``.

    A spot view is made because something was seen, so that its kind tells the label; and a second take of a
    view counts a breast twice. Sources that tell nothing of this keep all their images.
    """
    kept, gone = [], []
    for record, size in zip(cohort.records, cohort.sizes, strict=True):
        if why := not_standard(record):
            gone.append(Skipped(record.image_id, "view", f"{why}; data.standard_views: false uses it"))
        else:
            kept.append((record, size))
    return replace(
        cohort,
        records=tuple(record for record, _ in kept),
        sizes=tuple(size for _, size in kept),
        skipped=(*cohort.skipped, *gone),
    )
