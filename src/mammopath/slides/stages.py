"""From slides to stages: train on some centres, map tumour on another, stage its patients."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.splits import fold
from mammopath.errors import DataError
from mammopath.files import write_text
from mammopath.metrics.camelyon17 import lesion_lengths, node_class, pn_stage, stage_kappa
from mammopath.metrics.intervals import Interval
from mammopath.metrics.ordinal import quadratic_kappa
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.progress import Track, silent
from mammopath.settings import BagSettings
from mammopath.slides.extract import Job, extract, name_slides
from mammopath.slides.maps import TumourMap, detections, tumour_map
from mammopath.slides.score import score_patient, score_slide
from mammopath.slides.store import read_features
from mammopath.slides.train import train_bags
from mammopath.types import NODE_CLASSES, Record

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Probabilities of tumour among which the training centres choose."""


@dataclass(frozen=True)
class Node:
    """What is said of one slide of a centre that was left out.

    Attributes:
        slide: its name. patient, centre: whose it is. truth: class of the node, or empty.
        told: class by the map. score: probability of tumour somewhere.
        lengths_um: of the lesions found, longest first. detections: confidence, x, y at level 0.
        note: why nothing could be read.
    """

    slide: str
    patient: str
    centre: str
    truth: str
    told: str
    score: float
    lengths_um: tuple[float, ...]
    detections: tuple[tuple[float, float, float], ...]
    note: str = ""


@dataclass(frozen=True)
class StageStudy:
    """Every centre left out in turn.

    Attributes:
        nodes: of all centres. patients: stage by patient, and its malignancy as the patient head tells it.
        kappa: of the stages, with limits over patients. slide_auc: by centre.
        thresholds: that the other centres chose, by centre.
    """

    nodes: tuple[Node, ...]
    patients: Mapping[str, str]
    patient_logit: Mapping[str, float]
    kappa: Interval
    slide_auc: Mapping[str, float]
    thresholds: Mapping[str, float]


def stage_study(
    records: Sequence[Record], out: Path, settings: BagSettings, *, workers: int = 1, track: Track = silent
) -> StageStudy:
    """Leave each centre out, train on the rest, and stage its patients.

    Args:
        records: slides with the attribute ``node``, and ``pn`` of their patients (source ``camelyon17``).
        out: gets ``features``, and ``stages.json`` and ``submission.csv`` at the end.
        settings: patches, trunk, training, lesions.
        workers: processes for features.
        track: shows progress.

    Raises:
        DataError: fewer than two centres, or a patient without stage.
    """
    centres = sorted({r.domain for r in records})
    if len(centres) < 2:
        raise DataError(
            f"staging leaves one centre out, so it needs two or more; here is {', '.join(centres)}"
        )
    named = name_slides([r.path for r in records])
    spacings = {r.path.name: r.spacing for r in records if r.spacing and r.spacing_source != "header"}
    job = Job(out / "features", settings, spacings)
    found = {o.slide: o for o in extract(named, job, workers=workers, track=track)}
    readable = [r for r in records if found[r.path.stem].patches]
    files = {i: job.features(r.path.stem) for i, r in enumerate(readable)}
    nodes: list[Node] = []
    logits: dict[str, float] = {}
    chosen: dict[str, float] = {}
    for centre in centres:
        network, chosen[centre] = _learn(readable, files, centre, settings, track=track)
        rows = [i for i, r in enumerate(readable) if r.domain == centre]
        nodes += [_judge(network, readable[i], files[i], settings, threshold=chosen[centre]) for i in rows]
        logits |= _patients(network, readable, files, rows)
    nodes += [_unread(r, found[r.path.stem].verdict) for r in records if not found[r.path.stem].patches]
    return _write(_study(records, nodes, logits, chosen), out)


def _learn(
    records: Sequence[Record], files: Mapping[int, Path], centre: str, settings: BagSettings, *, track: Track
) -> tuple[Network, float]:
    part = fold(records, held_out=centre, validation=settings.validation, test_share=0.5, seed=settings.seed)
    trained = train_bags(records, files, train=part.train, val=part.val, settings=settings, track=track)
    source = [i for i in (*part.train, *part.val) if records[i].attributes.get("node")]
    maps = {i: read_map(trained.network, files[i])[1] for i in source}
    return trained.network, choose_threshold(maps, records, settings)


def choose_threshold(
    maps: Mapping[int, TumourMap], records: Sequence[Record], settings: BagSettings
) -> float:
    """The threshold that classes the nodes of the training centres best (kappa); the middle one of equals."""
    truth = np.array([NODE_CLASSES.index(records[i].attributes["node"]) for i in maps])
    scored = []
    for threshold in THRESHOLDS:
        told = [NODE_CLASSES.index(_class(found, threshold, settings)[0]) for found in maps.values()]
        scored.append(quadratic_kappa(truth, np.array(told), categories=len(NODE_CLASSES)))
    best = np.flatnonzero(np.isclose(scored, np.nanmax(scored)))
    return THRESHOLDS[int(best[len(best) // 2])] if len(best) else 0.5


def read_map(network: Network, path: Path) -> tuple[float, TumourMap]:
    """Malignancy logit of a slide, and its map of tumour."""
    score, features = score_slide(network, path), read_features(path, slice(0))
    if features.spacing is None:
        raise DataError(f"{path}: does not tell the spacing of its slide")
    step, span = features.step, features.span
    return score.logit, tumour_map(
        score.corners, score.tumour, span=span, step=step, spacing=features.spacing
    )


def _class(found: TumourMap, threshold: float, settings: BagSettings) -> tuple[str, tuple[float, ...]]:
    lengths = lesion_lengths(found.tumour(threshold), um=found.um, join_um=settings.join_um)
    return node_class(lengths.tolist()), tuple(round(float(v), 1) for v in lengths)


def _judge(network: Network, record: Record, path: Path, settings: BagSettings, *, threshold: float) -> Node:
    logit, found = read_map(network, path)
    told, lengths = _class(found, threshold, settings)
    rows = detections(found, threshold=threshold).round(4).tolist()
    truth = record.attributes.get("node", "")
    score = 1 / (1 + float(np.exp(-logit)))
    places = tuple((c, x, y) for c, x, y in rows)
    return Node(record.path.stem, record.patient, record.domain, truth, told, score, lengths, places)


def _unread(record: Record, verdict: str) -> Node:
    truth = record.attributes.get("node", "")
    return Node(record.path.stem, record.patient, record.domain, truth, "negative", 0.0, (), (), verdict)


def _patients(
    network: Network, records: Sequence[Record], files: Mapping[int, Path], rows: Iterable[int]
) -> dict[str, float]:
    own = defaultdict(list)
    for row in rows:
        own[records[row].patient].append(score_slide(network, files[row]))
    return {patient: score_patient(network, slides) for patient, slides in own.items()}


def _study(
    records: Sequence[Record], nodes: list[Node], logits: dict[str, float], chosen: dict[str, float]
) -> StageStudy:
    truth = {r.patient: r.attributes["pn"] for r in records if "pn" in r.attributes}
    own = defaultdict(list)
    for node in nodes:
        own[node.patient].append(node.told)
    told = {patient: pn_stage(classes) for patient, classes in own.items()}
    aucs = {}
    for centre in chosen:
        known = [n for n in nodes if n.centre == centre and n.truth]
        labels = np.array([float(n.truth != "negative") for n in known])
        aucs[centre] = auc(labels, np.array([n.score for n in known]))
    ordered = tuple(sorted(nodes, key=lambda n: n.slide))
    return StageStudy(ordered, told, logits, stage_kappa(truth, told), aucs, chosen)


def _write(study: StageStudy, out: Path) -> StageStudy:
    told: dict[str, Any] = {"notice": RESEARCH_USE_ONLY, **asdict(study)}
    write_text(out / "stages.json", json.dumps(told, indent=1))
    rows = ["patient,stage"]
    for patient, stage in sorted(study.patients.items()):
        rows.append(f"{patient}.zip,{stage}")
        rows += [f"{n.slide}.tif,{n.told}" for n in study.nodes if n.patient == patient]
    write_text(out / "submission.csv", "\n".join(r.removeprefix("camelyon17_") for r in rows) + "\n")
    return study
