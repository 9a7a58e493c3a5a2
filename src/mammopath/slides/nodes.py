"""Lymph nodes: the class of each by its map, the threshold of that, and nodes that were not read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mammopath.maps.values import AttentionMap
from mammopath.metrics.camelyon17 import lesion_lengths, node_class
from mammopath.metrics.ordinal import quadratic_kappa
from mammopath.slide_settings import BagSettings
from mammopath.slides.job import Outcome
from mammopath.slides.maps import TUMOUR, cell_um, detections, map_of, tumour_cells
from mammopath.slides.score import SlideScore
from mammopath.types import NODE_CLASSES, UNKNOWN, Record, Skipped

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Probabilities of tumour among which the validation slides choose."""

_NODE = re.compile(r"(patient_\d{3})_node_\d")


@dataclass(frozen=True)
class Node:
    """What is said of one slide of a centre that was left out.

    Attributes:
        slide: its name. patient, centre: whose it is. truth: class of the node, or empty.
        told: class by the map; empty where the slide could not be read.
        score: probability of tumour somewhere; NaN where the slide could not be read.
        lengths_um: of the lesions found, longest first. detections: confidence, x, y at level 0.
        note: why nothing could be read.
    """

    slide: str
    patient: str
    centre: str
    truth: str
    told: str
    score: float
    lengths_um: tuple[float, ...] = ()
    detections: tuple[tuple[float, float, float], ...] = ()
    note: str = ""


def choose_threshold(
    maps: Mapping[int, AttentionMap], records: Sequence[Record], settings: BagSettings
) -> float:
    """The threshold that classes nodes best (kappa); the middle one of equals, the usual one if none tells.

    Args:
        maps: of slides that the network was not trained on, by row.
        records: all of them, with the attribute ``node``.
        settings: how lesions are joined.
    """
    truth = np.array([NODE_CLASSES.index(records[i].attributes["node"]) for i in maps], dtype=np.int64)
    scored = []
    for threshold in THRESHOLDS:
        told = [NODE_CLASSES.index(_class(found, threshold, settings)[0]) for found in maps.values()]
        scored.append(
            quadratic_kappa(truth, np.array(told), categories=len(NODE_CLASSES)) if told else UNKNOWN
        )
    known = np.isfinite(scored)
    if not known.any():
        return TUMOUR
    best = np.flatnonzero(np.isclose(scored, np.max(np.array(scored)[known])))
    return THRESHOLDS[int(best[len(best) // 2])]


def judged(name: str, record: Record, score: SlideScore, settings: BagSettings, *, threshold: float) -> Node:
    """The class of a node whose slide was scored."""
    found = map_of(score, image_id=name)
    told, lengths = _class(found, threshold, settings)
    rows = detections(found, threshold=threshold).round(4).tolist()
    places = tuple((c, x, y) for c, x, y in rows)
    probability = 1 / (1 + float(np.exp(-score.logit)))
    return Node(name, record.patient, record.domain, _truth(record), told, probability, lengths, places)


def unjudged(record: Record, outcome: Outcome) -> Node:
    """A node without a patch: negative where its slide has no tissue, else not known."""
    is_empty = outcome.verdict == "empty"
    told, score = ("negative", 0.0) if is_empty else ("", UNKNOWN)
    note = f"{outcome.verdict}: {outcome.why}".removesuffix(": ")
    return Node(outcome.slide, record.patient, record.domain, _truth(record), told, score, note=note)


def missing_nodes(skipped: Sequence[Skipped], records: Sequence[Record]) -> list[Node]:
    """Nodes of patients at hand whose slides the source left out, or that its table alone tells of."""
    centres = {record.patient: record.domain for record in records}
    found = {}
    for entry in skipped:
        name = _NODE.fullmatch(Path(entry.where).stem.lower())
        if name is None or entry.code == "annotation":
            continue
        patient = f"camelyon17_{name[1]}"
        if patient in centres or entry.code == "missing":
            note = f"{entry.code}: {entry.why}"
            found[name[0]] = Node(name[0], patient, centres.get(patient, ""), "", "", UNKNOWN, note=note)
    return list(found.values())


def _class(found: AttentionMap, threshold: float, settings: BagSettings) -> tuple[str, tuple[float, ...]]:
    lengths = lesion_lengths(tumour_cells(found, threshold), um=cell_um(found), join_um=settings.join_um)
    return node_class(lengths.tolist()), tuple(round(float(v), 1) for v in lengths)


def _truth(record: Record) -> str:
    return record.attributes.get("node", "")
