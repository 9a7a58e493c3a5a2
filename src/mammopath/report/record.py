"""The record of a study: its cohort, the card of its models, and how to make it again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammopath.evaluate import stamp
from mammopath.report.sections import CostRow, versions
from mammopath.report.study import Study, read_json
from mammopath.report.tables import SiteRow

NO_DATA = {"sites": [], "check": [], "skipped": [], "pairing": "", "fingerprint": ""}
"""Facts of the cohort where data.json is missing."""


@dataclass(frozen=True)
class Cohort:
    """Sections Data and Checks.

    Attributes:
        facts: of the cohort, as data.json tells them.
        warnings: of the runs: held-out site and text.
        notes: what is missing in the folder or does not agree.
    """

    facts: Mapping[str, Any]
    warnings: Sequence[tuple[str, str]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Card:
    """Section Model card.

    Attributes:
        facts: name and value. licences: part, what it is, on whose terms. methods: their captions by name.
    """

    facts: Sequence[tuple[str, str]]
    licences: Sequence[tuple[str, str, str]]
    methods: Mapping[str, str]


@dataclass(frozen=True)
class Reproduce:
    """Section Reproduce; ``hours`` are of all runs together, ``config`` is JSON."""

    hours: float
    costs: Sequence[CostRow]
    versions: Mapping[str, str]
    config: str


def cohort(study: Study) -> Cohort:
    """What the study was made on, and what was found wrong with it."""
    return Cohort(NO_DATA | dict(study.data), _warnings(study), study.notes)


def card(study: Study, rows: Sequence[SiteRow]) -> Card:
    """The card of the study's models, from what the folder tells."""
    told = read_json(study.folder / "card.json")
    return Card(model_card(study, rows, stamp(study.data)), licences(told), told.get("methods", {}))


def reproduce(study: Study, costs: Sequence[CostRow]) -> Reproduce:
    """What it took, and what it takes to make it again."""
    known = [c.total_seconds for c in costs if c.total_seconds == c.total_seconds]
    return Reproduce(sum(known) / 3600, costs, versions(study), json.dumps(study.config, indent=2))


def model_card(study: Study, rows: Sequence[SiteRow], stamp: str) -> list[tuple[str, str]]:
    """What a model card says in a few lines."""
    sites = study.data.get("sites", [])
    found = [
        ("Intended use", "Research on domain generalisation in breast imaging. Not for diagnosis."),
        (
            "Not intended",
            "Decisions on patients; screening; other organs; sites unlike those of section Data",
        ),
        ("Trained on", ", ".join(f"{s['site']} ({s['modality']})" for s in sites) or "not recorded"),
        ("Judged at", "each site by models that never saw it; see the worst site, not the mean"),
        ("Input", "mammograms (DICOM, PNG, TIFF, ...) and histology; unpaired or paired by patient"),
        (
            "Output",
            "probability of malignancy, or insufficient; maps as good as section Where it looks says",
        ),
        ("Pairing", str(study.data.get("pairing") or "not recorded").replace("_", " ")),
        ("Known faults", stamp or "none found by the checks"),
    ]
    worst = min((r for r in rows if r.auc == r.auc), key=lambda r: r.auc, default=None)
    if worst:
        found.append(("Worst seen", f"AUC {worst.auc:.2f} at {worst.site} ({worst.label})"))
    return found


def licences(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Encoder, data sets and program with their licences, as card.json tells them; none without it."""
    if not card:
        return []
    encoder = card["encoder"]
    start = "pretrained" if encoder["pretrained"] else "from random weights"
    return [
        ("encoder", f"{encoder['name']}, {start}; {encoder['source']}".rstrip("; "), encoder["licence"]),
        *(("data", f"{s['name']}: {s['about']}", s["licence"]) for s in card["sources"]),
        ("program", "mammopath", card["licence"]),
    ]


def _warnings(study: Study) -> list[tuple[str, str]]:
    found = {
        (str(w), f.get("held_out") or "in-domain") for f in study.runs.values() for w in f.get("warnings", [])
    }
    return sorted((site, text) for text, site in found)
