"""Which images of an exam are its four standard views, and what is odd about the others."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mammopath.sources.exams_files import Shot
from mammopath.types import Skipped

STANDARD = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
"""Side and view of the four standard images of a screening exam."""

_VIEWS = {"CC", "MLO"}


def chosen(exam: Sequence[Shot]) -> tuple[set[Path], list[Skipped]]:
    """Files of the standard views of an exam, and what is left out since it only repeats one of them.

    For presentation goes before for processing, then the later exposure before the earlier one.
    """
    takes: defaultdict[tuple[str, str], list[Shot]] = defaultdict(list)
    for shot in exam:
        facts = shot.facts
        if (facts.laterality, facts.view) in STANDARD and not facts.is_special:
            takes[facts.laterality, facts.view].append(shot)
    best: set[Path] = set()
    left: list[Skipped] = []
    for group in takes.values():
        first = max(group, key=lambda shot: (shot.facts.intent != "processing", shot.facts.taken, shot.path))
        best.add(first.path)
        if first.facts.intent != "processing":
            why = "is for processing; the same view for presentation is used"
            left += [Skipped(str(s.path), "annotation", why) for s in group if s.facts.intent == "processing"]
    return best, left


def odd(shot: Shot, exam: Sequence[Shot]) -> set[str]:
    """Flags of one image among those of its exam."""
    facts = shot.facts
    rivals = [
        other.facts
        for other in exam
        if (other.facts.laterality, other.facts.view) == (facts.laterality, facts.view)
        and not other.facts.is_special
    ]
    found = {
        "special_view": facts.is_special,
        "view_unknown": not facts.view,
        "side_unknown": not facts.laterality,
        "burned_in": facts.has_text,
        "no_spacing": facts.spacing is None,
        "for_processing": facts.intent == "processing",
        "window_ignored": "window" in facts.warnings,
        "size_differs": facts.size[1] > facts.size[0] and not facts.is_special,
        "retake": not facts.is_special
        and facts.view in _VIEWS
        and any(r.intent == facts.intent and r.taken > facts.taken for r in rivals),
    }
    return {name for name, so in found.items() if so}
