"""The leak guard: what would make the results of a cohort untrue, from its records and its pixels."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mammopath.cohort.contradictions import contradictions
from mammopath.cohort.duplicates import Look, look, nearly_same, same
from mammopath.cohort.manifest import Manifest, concat
from mammopath.cohort.rules import Fault, Severity, check_table, fault, flag_fault
from mammopath.cohort.splits import person_names
from mammopath.errors import ImageReadError
from mammopath.images.dicom import DECODED
from mammopath.images.dicom_facts import flags_of_warnings
from mammopath.images.read import Pixels, assumes_mg, read_image
from mammopath.images.slide import open_slide
from mammopath.prepare.overview import overview
from mammopath.sources.flags import flags_of
from mammopath.sources.slides import SLIDE
from mammopath.types import Record

Track = Callable[[Iterable[int], str, int], Iterable[int]]
"""Goes through an iterable of known length and shows how far it is."""

_ORDER: Mapping[Severity, int] = {"leak": 0, "error": 1, "warning": 2, "info": 3}

_TROUBLES: Mapping[str, tuple[Severity, str, str]] = {
    "unreadable": ("error", "unreadable", "{n} files cannot be read; index again to leave them out"),
    "flat": ("error", "flat", "{n} images have (nearly) the same value everywhere"),
    "outside": ("error", "finding_outside", "{n} images have a finding that lies outside them"),
    "inverted": (
        "warning",
        "inverted",
        "{n} mammograms are bright where there is air: their photometric interpretation is wrong",
    ),
    "side": (
        "warning",
        "side_unlike_pixels",
        "{n} mammograms show the chest wall where the other breast has it: wrong side, or mirrored",
    ),
    "beyond": ("info", "finding_beyond_edge", "{n} images have a finding that reaches beyond their edge"),
}
"""What can be wrong with one image: severity, code and sentence."""

_OVERVIEW = 1024
"""Longest side of the overview of a slide, in pixels."""

_EDGE = 1.0
"""Pixels by which a finding may reach beyond the edge without a word: rounding."""


@dataclass(frozen=True)
class CheckReport:
    """What was found, worst first.

    Attributes:
        images: records looked at; read: those whose pixels could be read.
    """

    findings: tuple[Fault, ...]
    images: int
    read: int

    @property
    def has_leaks(self) -> bool:
        """Whether patients are shared between sites, or pixels between patients or sites."""
        return any(found.severity == "leak" for found in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check(manifests: Sequence[Manifest], *, track: Track | None = None) -> CheckReport:
    """Check manifests together: see ``check_records``.

    Raises:
        DataError: two of them hold the same image.
    """
    return check_records(concat(manifests).records, track=track)


def check_records(
    records: Sequence[Record], *, pixels: bool = True, track: Track | None = None
) -> CheckReport:
    """Check records, and every image that they name, one at a time; only hashes stay in memory.

    Args:
        records: of one or several manifests.
        pixels: also decode every image: unreadable files, the same pixels twice, findings outside.
        track: shows progress over the images.
    """
    found = check_table(records)
    looks: dict[int, Look] = {}
    if pixels:
        numbers: Iterable[int] = range(len(records))
        looks, troubles = _look_at(
            records, track(numbers, "checking images", len(records)) if track else numbers
        )
        found += [
            fault(*_TROUBLES[code], where) if code in _TROUBLES else flag_fault(code, where)
            for code, where in troubles.items()
        ]
        found += _shared_pixels(records, looks)
    return CheckReport(tuple(sorted(found, key=lambda f: _ORDER[f.severity])), len(records), len(looks))


def _look_at(
    records: Sequence[Record], numbers: Iterable[int]
) -> tuple[dict[int, Look], dict[str, list[str]]]:
    """What each readable image looks like, and by trouble or flag the images that have it."""
    looks: dict[int, Look] = {}
    troubles: defaultdict[str, list[str]] = defaultdict(list)
    for i in numbers:
        try:
            pixels, size, flags = _shown(records[i])
        except ImageReadError as error:
            troubles["unreadable"].append(f"{records[i].image_id} ({error.code}): {error.why}")
            continue
        looks[i] = look(pixels)
        told = contradictions(records[i], pixels) if _is_film(records[i], pixels, looks[i]) else ()
        for code in (*_troubles(records[i], size, looks[i]), *told, *flags):
            troubles[code].append(records[i].image_id)
    return looks, troubles


def _is_film(record: Record, pixels: Pixels, seen: Look) -> bool:
    return record.modality == "mammogram" and pixels.ndim == 2 and not seen.is_flat


def _shown(record: Record) -> tuple[Pixels, tuple[int, int], list[str]]:
    """Pixels of an image, of a slide those of its overview; height and width at level 0; flags of the reader.

    The flags are of what decoding alone shows; the record has those that its header called for.
    """
    if not record.attributes.items() >= SLIDE.items():
        image = read_image(record.path, assume_mg=assumes_mg(record))
        new = flags_of_warnings(DECODED.intersection(image.header.warnings)) - set(
            flags_of(record.attributes)
        )
        return image.pixels, image.pixels.shape[:2], sorted(new)
    with open_slide(record.path, record.spacing) as slide:
        longest = max(slide.width * slide.spacing.um_x, slide.height * slide.spacing.um_y)
        return overview(slide, longest / min(_OVERVIEW, slide.width)), (slide.height, slide.width), []


def _troubles(record: Record, size: tuple[int, int], seen: Look) -> Iterator[str]:
    if seen.is_flat:
        yield "flat"
    height, width = size
    boxes = [finding.box() for finding in record.findings]
    if any(right < 0 or bottom < 0 or left > width or top > height for left, top, right, bottom in boxes):
        yield "outside"
    elif any(min(left, top, width - right, height - bottom) < -_EDGE for left, top, right, bottom in boxes):
        yield "beyond"


def _shared_pixels(records: Sequence[Record], looks: Mapping[int, Look]) -> Iterator[Fault]:
    """Images that show the same: of several persons or sites a leak, otherwise a double."""
    rows, persons = list(looks), person_names(records)
    groups = [tuple(rows[i] for i in group) for group in same(list(looks.values()))]
    near = [(rows[a], rows[b]) for a, b in nearly_same(list(looks.values()))]
    pairs = [pair for group in groups for pair in itertools.combinations(group, 2)]

    def apart(pair: tuple[int, int]) -> bool:
        a, b = pair
        return persons[a] != persons[b] or records[a].domain != records[b].domain

    def names(chosen: Iterable[tuple[int, int]]) -> list[str]:
        return [f"{records[a].image_id} = {records[b].image_id}" for a, b in chosen]

    differ = [pair for pair in pairs if {records[i].malignant for i in pair} == {0.0, 1.0}]
    kinds: tuple[tuple[Severity, str, str, Iterable[tuple[int, int]]], ...] = (
        ("leak", "same_pixels", "of different patients or sites have the same pixels", filter(apart, pairs)),
        ("error", "same_pixels_other_label", "with the same pixels have different labels", differ),
        (
            "warning",
            "double_image",
            "of one patient have the same pixels",
            itertools.filterfalse(apart, pairs),
        ),
        (
            "leak",
            "similar_images",
            "of different patients or sites look the same",
            filter(apart, near),
        ),
    )
    for severity, code, what, chosen in kinds:
        if told := names(chosen):
            yield fault(severity, code, f"{{n}} pairs of images {what}", told)
