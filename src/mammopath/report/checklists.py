"""TRIPOD+AI and CLAIM filled in where a study folder knows the answer; blanks are named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammopath.report.items import CLAIM_2024, TRIPOD_AI, Item
from mammopath.report.study import Study
from mammopath.report.tables import SiteRow

BLANK = ""


@dataclass(frozen=True, slots=True)
class ChecklistRow:
    """One item; ``answer`` is empty where only the authors can give it."""

    number: str
    topic: str
    answer: str


@dataclass(frozen=True)
class Checklist:
    """A filled checklist with its published name."""

    name: str
    source: str
    rows: Sequence[ChecklistRow]

    @property
    def filled(self) -> int:
        """How many items have an answer."""
        return sum(bool(row.answer) for row in self.rows)


def checklists(study: Study, rows: Sequence[SiteRow], *, gallery: bool) -> list[Checklist]:
    """Both checklists.

    Args:
        study: the folder.
        rows: of methods as trained.
        gallery: whether worst errors are shown.
    """
    known = answers(study, rows, gallery=gallery)
    return [
        Checklist("TRIPOD+AI", "Collins et al., BMJ 2024;385:e078378", _filled(TRIPOD_AI, known)),
        Checklist(
            "CLAIM 2024", "Tejani et al., Radiol Artif Intell 2024;6:e240300", _filled(CLAIM_2024, known)
        ),
    ]


def answers(study: Study, rows: Sequence[SiteRow], *, gallery: bool) -> dict[str, str]:
    """What the folder itself can answer, a sentence each; without its data or settings less is known."""
    found = _of_method(study, rows)
    found |= _of_data(study) if study.data.get("sites") else {}
    found |= _of_settings(study.config) if study.config else {}
    if gallery:
        found["failures"] = "Worst false alarms and misses of each site: section Failures."
    if any("adapted" in line for line in study.lines):
        found["adaptation"] = "Test-time adaptation without labels behind a guard: section Adaptation."
    else:
        found["adaptation"] = "None."
    return found


def _of_method(study: Study, rows: Sequence[SiteRow]) -> dict[str, str]:
    units = ", ".join(dict.fromkeys(r.unit for r in rows))
    seeds = max((r.seeds for r in rows), default=0)
    return {
        "purpose": "Research use only; not for diagnosis. Reading mammograms and breast histology.",
        "objective": "Development and evaluation at sites that took no part in training.",
        "predictors": "Pixels of the images alone; no clinical variable.",
        "heterogeneity": "Every site apart, worst site, ranks: sections Results and Held-out sites.",
        "measures": f"AUC, average precision, sensitivity, specificity, calibration; per {units}.",
        "uncertainty": "Patient bootstrap or DeLong; paired differences with retraining, Holm.",
        "prediction": "Logits of each held-out image by a model that never saw its site; stored per image.",
        "output": "Probability of malignancy; threshold of the best Youden index on source validation.",
        "shift": "In-domain gap, site probe, share of images unlike the training sites.",
        "performance": "Tables Results and Held-out sites, with 95 % limits.",
        "internal": "Source validation and the in-domain reference: columns of Held-out sites.",
        "external": "Each site held out in turn: section Held-out sites.",
        "robustness": f"{seeds} seeds, every site held out, ablations: sections Ablations and Comparisons.",
        "explanation": "Attention and lesion maps judged by pointing game and FROC: section Where it looks.",
        "limitations": "What so few sites can tell: section Ranks. Others are the authors'.",
        "protocol": "docs/explanation/protocol.md of mammopath, and the configuration below.",
        "code": "mammopath (Apache-2.0), version and configuration in section Reproduce.",
        "specification": "runs/*/model.safetensors with config.json, hash in run.json.",
        "fairness": "Subgroups by view, density, age band, vendor and lesion, where the data tell them.",
        "poor_input": "Unreadable files are listed; images unlike the training sites get no answer.",
        "ensembles": "None.",
    }


def _of_data(study: Study) -> dict[str, str]:
    sites = study.data["sites"]
    images = sum(s["images"] for s in sites)
    names = ", ".join(f"{s['site']} ({s['modality']}, {s['images']} images)" for s in sites)
    people = [s["patients"] for s in sites]
    known = sum(p for p in people if p is not None)
    unknown = [s["site"] for s in sites if s["patients"] is None]
    skipped = len(study.data.get("skipped", []))
    no_label = sum(s["unknown"] for s in sites)
    official = [s["site"] for s in sites if s["official_split"]]
    return {
        "sources": f"{', '.join(dict.fromkeys(s['sources'] for s in sites))}: section Data.",
        "centres": f"{len({s['site'] for s in sites})} sites: {names}.",
        "outcome": "Malignant or not, as each source publishes it; how it was found: its card.",
        "size": f"{images:,} images of {known:,} known patients"
        + (f"; patients of {', '.join(unknown)} are not published" if unknown else "")
        + "; not planned, all that the sources hold.",
        "missing": f"{no_label} images without a label take no part; {skipped} files could not be used.",
        "flow": f"{images:,} images kept, {skipped} left out with reasons: sections Data and Checks.",
        "characteristics": "Labels, spacing, pairing by site: section Data. Age and others where published.",
        "acquisition": "Pixel spacing by site: section Data. Scanners where published.",
        "availability": "Public data sets with their licences: section Model card.",
        "partition": "Leave one site out; validation patients by a hash of their name"
        + (f"; official test split of {', '.join(official)}." if official else "."),
        "disjoint": "Patient, checked before training: section Checks.",
    }


def _of_settings(config: Mapping[str, Any]) -> dict[str, str]:
    model, train, prepare = (config.get(name) or {} for name in ("model", "train", "prepare"))
    mammogram, pathology = (prepare.get(name) or {} for name in ("mammogram", "pathology"))
    limit = (config.get("data") or {}).get("limit", 0)
    return {
        "preparation": f"Mammograms cropped to the breast, {_size(mammogram)} pixels; histology"
        f" {_size(pathology)} pixels, {pathology.get('um') or 'no common'} um.",
        "augmentation": "Geometry, contrast, blur, noise, stain jitter; ranges in the configuration.",
        "model": f"Vision transformer {model.get('encoder')}, trained part: {model.get('train_trunk')},"
        f" adapter {model.get('adapter')}; one trunk for both modalities.",
        "initial": "Pretrained weights, named in the configuration." if model.get("weights") else "Random.",
        "training": f"{train.get('steps')} steps of {train.get('batch')} images a site; AdamW, rate"
        f" {train.get('lr')}.",
        "selection": f"Rule {config.get('select')}; the held-out site is "
        + ("looked at: an upper bound only." if config.get("select") == "oracle" else "never looked at."),
        "imbalance": f"Classes drawn {'equally' if train.get('balance') == 'label' else 'as they come'};"
        " temperature on source validation.",
        "subset": f"At most {limit} images a site." if limit else "All images of each source.",
        "software": "Versions in section Reproduce.",
    }


def _size(part: Mapping[str, Any]) -> str:
    return f"{part.get('height')} x {part.get('width')}"


def _filled(items: Sequence[Item], known: Mapping[str, str]) -> list[ChecklistRow]:
    return [ChecklistRow(number, topic, known.get(key, BLANK)) for number, topic, key in items]
