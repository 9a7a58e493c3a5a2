"""What records alone tell of leaks and faults, before any pixel is read."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mammopath.cohort.splits import person_names
from mammopath.sources.flags import FLAGS, flags_of
from mammopath.sources.slides import MATERIAL, SLIDE
from mammopath.types import SEVERITIES, Modality, Record

Severity = Literal["leak", "error", "warning", "info"]
"""``leak``: patients or pixels where they must not be; ``error``: results would be wrong; ``warning``: they
may mislead; ``info``: good to know."""

SENSIBLE_UM: dict[Modality, tuple[float, float]] = {"mammogram": (10.0, 2000.0), "pathology": (0.05, 10.0)}
"""Sizes of a pixel in micrometres that occur; a slide without resolution often claims 1000."""

MAX_ASPECT = 3.0
"""Largest ratio of a pixel's sides that occurs, in squashed copies."""

TIED = 0.5
"""Cramer's V of site and label from which on a model can do well by telling the sites apart: an error, which
every output of a study is stamped with."""

_EXAMPLES = 5


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a cohort.

    Attributes:
        code: short name of the rule.
        what: a sentence for people.
        where: a few of the images, patients or sites concerned.
        count: how many are concerned.
    """

    severity: Severity
    code: str
    what: str
    where: tuple[str, ...] = ()
    count: int = 0


def fault(severity: Severity, code: str, what: str, where: Iterable[str]) -> Fault:
    """A fault with its count and first examples; ``{n}`` in ``what`` becomes the count."""
    names = list(where)
    return Fault(severity, code, what.replace("{n}", str(len(names))), tuple(names[:_EXAMPLES]), len(names))


def flag_fault(flag: str, where: Iterable[str]) -> Fault:
    """The fault of images that have a flag, of ``sources.flags``."""
    return fault("warning", f"flag_{flag}", f"{{n}} images {FLAGS.get(flag, flag)}", where)


def check_table(records: Sequence[Record]) -> list[Fault]:
    """Everything that is wrong with records by what they say: patients, labels, spacing."""
    return [found for rule in RULES for found in rule(records)]


def _shared_patients(records: Sequence[Record]) -> Iterator[Fault]:
    sites, splits = defaultdict(set), defaultdict(set)
    for record, person in zip(records, person_names(records), strict=True):
        sites[person].add(record.domain)
        splits[person, record.domain].add(record.official_split)
    several = sorted(person for person, found in sites.items() if len(found) > 1)
    if several:
        what = "{n} patients are at several sites; each of them leaves training when any of their sites tests"
        yield fault("leak", "patient_at_several_sites", what, several)
    both = sorted(person for (person, _), found in splits.items() if {"train", "test"} <= found)
    if both:
        what = "{n} patients are in the published training and test part of a site; they only test"
        yield fault("warning", "patient_in_both_splits", what, both)


def _unknown_patients(records: Sequence[Record]) -> Iterator[Fault]:
    for site, rows in _by_site(records):
        if unknown := [r.image_id for r in rows if not r.patient_known]:
            what = f"patients of {{n}} images of {site} are not known: its splits may share patients"
            yield fault("warning", "patient_unknown", what, unknown)


def _labels_of_sites(records: Sequence[Record]) -> Iterator[Fault]:
    for site, rows in _by_site(records):
        known = {r.malignant for r in rows} & {0.0, 1.0}
        if not known:
            yield fault("warning", "no_labels", f"{site} has no label; it can neither train nor test", [site])
        elif len(known) == 1:
            what = (
                f"{site} has only label {known.pop():.0f}: it has no AUC, and the site gives the label away"
            )
            yield fault("warning", "one_class_site", what, [site])
        if (missing := [r.image_id for r in rows if math.isnan(r.malignant)]) and known:
            yield fault(
                "info", "missing_labels", f"{{n}} of {len(rows)} images of {site} have no label", missing
            )


def _labels_tied_to_sites(records: Sequence[Record]) -> Iterator[Fault]:
    for modality, rows in _by_modality(records):
        known = [(r.domain, r.malignant) for r in rows if r.malignant in (0.0, 1.0)]
        tie = cramers_v(known)
        if tie >= TIED:
            shares = ", ".join(f"{site} {share:.0%}" for site, share in _shares(known))
            what = (
                f"label and site of {modality} images go together (Cramer's V {tie:.2f}); malignant: {shares}"
            )
            yield fault("error", "label_tied_to_site", what, sorted({site for site, _ in known}))
        yield from _severities_of_one_site(modality, rows)


def _severities_of_one_site(modality: str, rows: Sequence[Record]) -> Iterator[Fault]:
    sites = {r.domain for r in rows}
    only: defaultdict[str, list[str]] = defaultdict(list)
    for severity, name in enumerate(SEVERITIES):
        holders = {r.domain for r in rows if r.severity == severity}
        if len(holders) == 1 < len(sites):
            only[holders.pop()].append(name)
    for site, names in sorted(only.items()):
        told = " and ".join(names)
        what = f"{told} {modality} images come from {site} only: what is learnt of them may be the site"
        yield fault("warning", "severity_of_one_site", what, [site])


def _too_few_sites(records: Sequence[Record]) -> Iterator[Fault]:
    for modality, rows in _by_modality(records):
        sites = {r.domain for r in rows}
        if len(sites) == 1:
            what = f"all {modality} images come from {min(sites)}: no site can be left out"
            yield fault("warning", "single_site", what, sites)


def _spacings(records: Sequence[Record]) -> Iterator[Fault]:
    for site, rows in _by_site(records):
        if missing := [r.image_id for r in rows if r.spacing is None]:
            yield fault("warning", "spacing_missing", f"{{n}} images of {site} have no spacing", missing)
        if absurd := [_told(r) for r in rows if _is_absurd(r)]:
            what = f"{{n}} images of {site} have a spacing that does not occur; correct it in their table"
            yield fault("error", "spacing_absurd", what, absurd)
        if nominal := [_told(r) for r in rows if r.spacing_source == "nominal"]:
            yield fault("info", "spacing_nominal", f"{{n}} images of {site} have a nominal spacing", nominal)


def _same_tissue_twice(records: Sequence[Record]) -> Iterator[Fault]:
    """Slides, and patches that another data set has cut from the same slides."""
    slides: defaultdict[str, list[str]] = defaultdict(list)
    patches: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        is_slide = record.attributes.items() >= SLIDE.items()
        (slides if is_slide else patches)[record.attributes.get(MATERIAL, "")].append(record.image_id)
    for material in sorted((slides.keys() & patches.keys()) - {""}):
        what = f"{{n}} patches are cut from slides of {material}, which are here too: use either of them"
        yield fault("error", "same_tissue_twice", what, patches[material])


def _flags(records: Sequence[Record]) -> Iterator[Fault]:
    """What a source found odd about images that it lists all the same."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        for flag in flags_of(record.attributes):
            found[flag].append(record.image_id)
    for flag, where in sorted(found.items()):
        yield flag_fault(flag, where)


def _is_absurd(record: Record) -> bool:
    if record.spacing is None:
        return False
    low, high = SENSIBLE_UM[record.modality]
    sides = (record.spacing.um_x, record.spacing.um_y)
    return min(sides) < low or max(sides) > high or max(sides) / min(sides) > MAX_ASPECT


def _told(record: Record) -> str:
    spacing = record.spacing
    return record.image_id + (f": {spacing.um_x:g} x {spacing.um_y:g} um" if spacing else "")


def cramers_v(pairs: Sequence[tuple[str, float]]) -> float:
    """Association of site and binary label, 0 to 1 (Cramer 1946); 0 where either does not vary."""
    sites, labels = Counter(site for site, _ in pairs), Counter(label for _, label in pairs)
    if len(sites) < 2 or len(labels) < 2:
        return 0.0
    seen, n = Counter(pairs), len(pairs)
    squared = sum(seen[s, y] ** 2 / (sites[s] * labels[y]) for s in sites for y in labels) - 1
    return math.sqrt(max(0.0, squared)) if n else 0.0


def _shares(pairs: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    counts: defaultdict[str, list[float]] = defaultdict(list)
    for site, label in pairs:
        counts[site].append(label)
    return [(site, sum(labels) / len(labels)) for site, labels in sorted(counts.items())]


def _by_site(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.domain].append(record)
    return sorted(groups.items())


def _by_modality(records: Sequence[Record]) -> list[tuple[Modality, list[Record]]]:
    groups: defaultdict[Modality, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.modality].append(record)
    return sorted(groups.items())


RULES: tuple[Callable[[Sequence[Record]], Iterator[Fault]], ...] = (
    _shared_patients,
    _unknown_patients,
    _labels_of_sites,
    _labels_tied_to_sites,
    _too_few_sites,
    _spacings,
    _same_tissue_twice,
    _flags,
)
"""Rules in the order of the report."""
