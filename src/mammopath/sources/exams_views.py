"""Which images of an exam are its four standard views, and what is odd about the others."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mammopath.images.dicom_facts import Facts, flags_of_facts
from mammopath.sources.exams_files import Shot
from mammopath.types import Skipped

STANDARD = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
"""Side and view of the four standard images of a screening exam."""


def judged(exam: Sequence[Shot]) -> Iterator[tuple[Shot, set[str]] | Skipped]:
    """Images of an exam with their flags; one for processing beside one for presentation is skipped.

    Of several takes of a standard view, one for presentation goes before one for processing, then the later
    exposure before the earlier; the others are flagged ``retake``.
    """
    best = _best(exam)
    for shot in exam:
        first = best.get(_view(shot), shot)
        if _is_raw(shot) and not _is_raw(first):
            why = "is for processing; the same view for presentation is used"
            yield Skipped(str(shot.path), "annotation", why)
        else:
            yield shot, _odd(shot.facts) | ({"retake"} if first != shot else set())


def _best(exam: Sequence[Shot]) -> dict[tuple[str, str], Shot]:
    """The take of each standard view that is used."""
    takes: defaultdict[tuple[str, str], list[Shot]] = defaultdict(list)
    for shot in exam:
        if _view(shot) in STANDARD:
            takes[_view(shot)].append(shot)
    return {
        view: max(group, key=lambda shot: (not _is_raw(shot), shot.facts.taken, shot.path))
        for view, group in takes.items()
    }


def _view(shot: Shot) -> tuple[str, str]:
    """Side and view; nothing of the kind of a special view, which stands for no other image."""
    return ("", "") if shot.facts.is_special else (shot.facts.laterality, shot.facts.view)


def _is_raw(shot: Shot) -> bool:
    return shot.facts.intent == "processing"


def _odd(facts: Facts) -> set[str]:
    """Flags of one image by itself. A special view may be wider than tall; a breast in one piece is not."""
    height, width = facts.size
    return flags_of_facts(facts) | ({"wide"} if width > height and not facts.is_special else set())
