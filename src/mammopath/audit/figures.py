"""Figures of one map method over the images of an audit, with intervals over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mammopath.audit.faithful import gains
from mammopath.audit.subjects import Subject, random_map
from mammopath.maps.scene import Scene
from mammopath.metrics.froc import pointing_hit
from mammopath.metrics.intervals import Interval, bootstrap
from mammopath.metrics.maps import Heat, Sanity, iou, rank_correlation, sanity
from mammopath.model.network import Network

Make = Callable[[Scene], Heat]

NONE = Interval(np.nan, np.nan, np.nan, "no images")


@dataclass(frozen=True)
class MapFigures:
    """What an audit says of one map method.

    Attributes:
        images: looked at; lesions: images with an annotated malignant lesion among them.
        sanity: constant, alike, and rank correlation with shuffled weights.
        deletion, insertion: area between the curves of a random order and of the map, in logits; above 0
            is better than random.
        deletion_edges, insertion_edges: the same for the map minus the same for the edge map.
        pointing: share of lesions that the highest place lies on; pointing_chance: of a random place.
        iou: overlap of the lesion and as many highest places; iou_chance: of random ones.
        stability: mean rank correlation with the map of the image moved by two pixels.
    """

    modality: str
    method: str
    images: int
    lesions: int
    sanity: Sanity
    deletion: Interval
    insertion: Interval
    deletion_edges: Interval
    insertion_edges: Interval
    pointing: Interval
    pointing_chance: float
    iou: Interval
    iou_chance: float
    stability: float

    @property
    def verdict(self) -> str:
        """Of the sanity checks; what the map shows is a matter of the other figures."""
        return self.sanity.verdict


def figures(
    subjects: Sequence[Subject], name: str, make: Make, *, noise: Network, draws: int = 1000
) -> MapFigures:
    """Audit one method.

    Args:
        subjects: images of one modality.
        name: of the method.
        make: its maps.
        noise: the network with shuffled weights.
        draws: of the patient bootstrap.
    """
    maps = [make(s.scene) for s in subjects]
    blind = [make(replace(s.scene, network=noise, known=None)) for s in subjects]
    moved = [make(s.shifted) for s in subjects]
    random = [random_map(s, seed) for seed, s in enumerate(subjects)]
    mine = [gains(s.scene, m, r) for s, m, r in zip(subjects, maps, random, strict=True)]
    edges = [gains(s.scene, s.edges, r) for s, r in zip(subjects, random, strict=True)]
    people = np.array([s.record.patient for s in subjects])
    sick = [i for i, s in enumerate(subjects) if _lesion(s)]
    pointed = np.array([_pointing(maps[i], subjects[i]) for i in sick])
    overlap = np.array([iou(maps[i], subjects[i].lesion) for i in sick])  # type: ignore[arg-type]
    shares = np.array([_share(subjects[i]) for i in sick])

    def over(values: Sequence[float] | np.ndarray, rows: Sequence[int] | None = None) -> Interval:
        return _interval(np.array(values, dtype=float), people if rows is None else people[list(rows)], draws)

    stable = [rank_correlation(a, b) for a, b in zip(maps, moved, strict=True)]
    return MapFigures(
        modality=subjects[0].record.modality,
        method=name,
        images=len(subjects),
        lesions=len(sick),
        sanity=sanity(maps, blind),
        deletion=over([g["deletion"] for g in mine]),
        insertion=over([g["insertion"] for g in mine]),
        deletion_edges=over([g["deletion"] - e["deletion"] for g, e in zip(mine, edges, strict=True)]),
        insertion_edges=over([g["insertion"] - e["insertion"] for g, e in zip(mine, edges, strict=True)]),
        pointing=over(pointed, sick),
        pointing_chance=float(shares.mean()) if sick else np.nan,
        iou=over(overlap, sick),
        iou_chance=float((shares / (2 - shares)).mean()) if sick else np.nan,
        stability=float(np.nanmean(stable)) if not np.isnan(stable).all() else np.nan,
    )


def _lesion(subject: Subject) -> bool:
    return subject.record.malignant == 1 and subject.lesion is not None and bool(subject.lesion.any())


def _share(subject: Subject) -> float:
    assert subject.lesion is not None
    return float(subject.lesion.sum() / (~np.isnan(subject.edges)).sum())


def _pointing(heat: Heat, subject: Subject) -> float:
    """A constant map points anywhere."""
    assert subject.lesion is not None
    hit = pointing_hit(heat, subject.lesion)
    return _share(subject) if np.isnan(hit) else hit


def _interval(values: Float[np.ndarray, " n"], people: np.ndarray, draws: int) -> Interval:
    known = ~np.isnan(values)
    if not known.any():
        return NONE
    kept = values[known]
    return bootstrap(
        [lambda weights: weights @ kept / weights.sum(axis=1)], people[known], draws=draws
    ).interval()
