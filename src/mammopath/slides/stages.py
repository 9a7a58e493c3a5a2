"""From slides to stages: train on some centres, map tumour on another, stage its patients."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.splits import fold
from mammopath.config import dump
from mammopath.errors import ConfigError, DataError
from mammopath.export.challenges import write_camelyon17
from mammopath.files import write_text
from mammopath.metrics.camelyon17 import pn_stage, stage_kappa
from mammopath.metrics.intervals import Interval
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.progress import Track, silent
from mammopath.runs import versions
from mammopath.slide_settings import BagSettings
from mammopath.slides.extract import extract
from mammopath.slides.job import Job, given_spacings, name_slides
from mammopath.slides.maps import map_of
from mammopath.slides.nodes import Node, choose_threshold, judged, missing_nodes, unjudged
from mammopath.slides.score import score_patient, score_slide
from mammopath.slides.train import train_bags
from mammopath.types import Record, Skipped

STUDY = "stages.json"
"""Appears last: a folder that holds it is finished."""


@dataclass(frozen=True)
class StageStudy:
    """Every centre left out in turn.

    Attributes:
        nodes: of all centres.
        patients: stage by patient. unstaged: why others have none: nodes of theirs could not be read.
        patient_logit: malignancy of each staged patient as the patient head tells it.
        unlabelled: slides of patients of whom neither a stage nor a node is known; they take no part.
        kappa: of the stages, with limits over patients; None where no stage is known.
        slide_auc: by centre. thresholds: that the validation slides of the other centres chose, by centre.
    """

    nodes: tuple[Node, ...]
    patients: Mapping[str, str]
    unstaged: Mapping[str, str]
    patient_logit: Mapping[str, float]
    unlabelled: int
    kappa: Interval | None
    slide_auc: Mapping[str, float]
    thresholds: Mapping[str, float]


def stage_study(
    records: Sequence[Record],
    out: Path,
    settings: BagSettings,
    *,
    skipped: Sequence[Skipped] = (),
    features: Path | None = None,
    workers: int = 0,
    track: Track = silent,
) -> StageStudy:
    """Leave each centre out, train on the rest, and stage its patients.

    Args:
        records: slides with the attribute ``node``, and ``pn`` of their patients (source ``camelyon17``).
        out: gets ``submission.csv`` and ``stages.json`` at the end; a finished study is never overwritten.
        settings: patches, trunk, training, lesions.
        skipped: what the source left out: a patient with a node among them has no stage.
        features: folder of `mammopath slides features` to take or fill; none is ``out/features``.
        workers: processes for features; 0 makes them in this one (``extract``).
        track: shows progress.

    Raises:
        ConfigError: ``out`` holds a finished study, or ``features`` was made with other settings.
        DataError: fewer than two centres with readable slides.
    """
    if (out / STUDY).exists():
        raise ConfigError(
            f"{out}: holds a finished study; name another folder (--features takes its features)"
        )
    used = _with_labels(records)
    _centres(used)
    names = {path: name for name, path in name_slides([r.path for r in used]).items()}
    spacings = given_spacings(used)
    job = Job(features or out / "features", settings, spacings)
    slides = {name: path for path, name in names.items()}
    found = {o.slide: o for o in extract(slides, job, workers=workers, track=track)}
    outcomes = [found[names[r.path.absolute()]] for r in used]
    nodes = [unjudged(r, o) for r, o in zip(used, outcomes, strict=True) if not o.patches]
    nodes += missing_nodes(skipped, used)
    readable = [(r, o.slide) for r, o in zip(used, outcomes, strict=True) if o.patches]
    judge = _Judge([r for r, _ in readable], [name for _, name in readable], job, settings, track)
    told = [judge.centre(centre) for centre in _centres(judge.records)]
    study = _study(
        used, [*nodes, *(n for t in told for n in t.nodes)], told, unlabelled=len(records) - len(used)
    )
    return _write(study, settings, out)


@dataclass(frozen=True)
class _Centre:
    """What was said of a centre: its nodes, the malignancy of its patients, the threshold."""

    name: str
    threshold: float
    nodes: tuple[Node, ...]
    patients: Mapping[str, float]


@dataclass(frozen=True)
class _Judge:
    """Trains without a centre and judges it, from readable slides."""

    records: Sequence[Record]
    names: Sequence[str]
    job: Job
    settings: BagSettings
    track: Track

    def centre(self, name: str) -> _Centre:
        """Train without a centre, and judge its slides, each of which is scored once."""
        network, threshold = self._learn(name)
        rows = [i for i, r in enumerate(self.records) if r.domain == name]
        scores = {i: score_slide(network, self._file(i)) for i in rows}
        nodes = tuple(
            judged(self.names[i], self.records[i], scores[i], self.settings, threshold=threshold)
            for i in rows
        )
        own = defaultdict(list)
        for i in rows:
            own[self.records[i].patient].append(scores[i])
        return _Centre(name, threshold, nodes, {p: score_patient(network, s) for p, s in own.items()})

    def _learn(self, centre: str) -> tuple[Network, float]:
        """A network, and the threshold that the slides choose that it was not trained on."""
        settings, records = self.settings, self.records
        part = fold(
            records, held_out=centre, validation=settings.validation, test_share=0.5, seed=settings.seed
        )
        files = {i: self._file(i) for i in range(len(records))}
        train = [i for i in part.train if not math.isnan(records[i].malignant)]
        trained = train_bags(records, files, train=train, val=part.val, settings=settings, track=self.track)
        chosen_by = [i for i in part.val if records[i].attributes.get("node")]
        maps = {i: map_of(score_slide(trained.network, files[i]), image_id=self.names[i]) for i in chosen_by}
        return trained.network, choose_threshold(maps, records, settings)

    def _file(self, row: int) -> Path:
        return self.job.features(self.names[row])


def _with_labels(records: Sequence[Record]) -> list[Record]:
    """Slides of patients of whom something is known: the test part's labels are not public."""
    known = {r.patient for r in records if r.attributes.get("node") or r.attributes.get("pn")}
    return [r for r in records if r.patient in known]


def _centres(records: Sequence[Record]) -> list[str]:
    """All of them, of which one can be left out."""
    found = sorted({r.domain for r in records})
    if len(found) < 2:
        told = ", ".join(found) or "none"
        raise DataError(f"staging leaves one centre out, so it needs two or more; here is {told}")
    return found


def _study(
    records: Sequence[Record], nodes: Sequence[Node], told: Sequence[_Centre], *, unlabelled: int
) -> StageStudy:
    own = defaultdict(list)
    for node in sorted(nodes, key=lambda n: n.slide):
        own[node.patient].append(node)
    unread = {p: "; ".join(f"{n.slide}: {n.note}" for n in found if not n.told) for p, found in own.items()}
    staged = {p: pn_stage([n.told for n in found]) for p, found in own.items() if not unread[p]}
    truth = {r.patient: r.attributes["pn"] for r in records if r.patient in staged and "pn" in r.attributes}
    logits = {p: logit for centre in told for p, logit in centre.patients.items() if p in staged}
    return StageStudy(
        tuple(node for found in own.values() for node in found),
        staged,
        {p: why for p, why in unread.items() if why},
        logits,
        unlabelled,
        stage_kappa(truth, staged) if truth else None,
        {centre.name: _slide_auc(nodes, centre.name) for centre in told},
        {centre.name: centre.threshold for centre in told},
    )


def _slide_auc(nodes: Sequence[Node], centre: str) -> float:
    known = [n for n in nodes if n.centre == centre and n.truth and n.told]
    labels = np.array([float(n.truth != "negative") for n in known])
    return float(auc(labels, np.array([n.score for n in known])))


def _write(study: StageStudy, settings: BagSettings, out: Path) -> StageStudy:
    submitted = {n.slide.lower(): n.told for n in study.nodes if n.patient in study.patients}
    write_camelyon17(out / "submission.csv", submitted)
    facts = {"notice": RESEARCH_USE_ONLY, "seed": settings.seed, "versions": versions()}
    told = facts | {"settings": dump(settings)} | _without_nan(asdict(study))
    write_text(out / STUDY, json.dumps(told, indent=1, allow_nan=False))
    return study


def _without_nan(value: Any) -> Any:
    """The same with null for what is not known, as JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
