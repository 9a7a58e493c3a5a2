"""What an audit looks at: images in front of the network, with their lesions and shifted copies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from mammopath.cohort.loader import collate, label_table
from mammopath.errors import ImageReadError
from mammopath.maps.scene import Scene, at_cut
from mammopath.metrics.maps import Heat, edge_map
from mammopath.model.network import Network
from mammopath.prepare.sample import load_sample
from mammopath.settings import RunSettings
from mammopath.tensors import Sample
from mammopath.types import Modality, Record

SHIFT = 2
"""Pixels by which a copy is shifted, down and across: less than a token."""


@dataclass(frozen=True)
class Subject:
    """One image of an audit.

    Attributes:
        record: of the image.
        scene: the image in front of the network.
        shifted: the same image moved by ``SHIFT`` pixels.
        edges: control map that knows nothing of the network.
        lesion: tokens that touch an annotated finding that is not known to be benign; None where the image is
            not annotated.
    """

    record: Record
    scene: Scene
    shifted: Scene
    edges: Heat
    lesion: Bool[np.ndarray, "rows cols"] | None


def targets(records: Sequence[Record]) -> list[Record]:
    """The records without findings that are known to be benign: no map should point at those."""
    return [replace(r, findings=tuple(f for f in r.findings if f.malignant != 0)) for r in records]


def subjects(
    network: Network, records: Sequence[Record], settings: RunSettings, *, modality: Modality, most: int
) -> list[Subject]:
    """Up to ``most`` readable images of a modality, three in four malignant, evenly over the list."""
    own = [r for r in records if r.modality == modality]
    share = max(1, most * 3 // 4)
    sick = [r for r in own if r.malignant == 1]
    well = [r for r in own if r.malignant != 1]
    chosen = _evenly(sick, share) + _evenly(well, most - min(share, len(sick)))
    found = []
    for record in chosen:
        try:
            found.append(_subject(network, record, settings))
        except ImageReadError:
            continue
    return found


def _evenly(records: Sequence[Record], count: int) -> list[Record]:
    if len(records) <= count:
        return list(records)
    return [records[i * len(records) // count] for i in range(count)]


def _subject(network: Network, record: Record, settings: RunSettings) -> Subject:
    cell = network.cell(record.modality)
    [told] = targets([record])
    sample = load_sample(told, settings.prepare, multiple=cell).sample
    scene = scene_of(network, record, sample, settings)
    lesion = None
    if not sample.lesion.isnan().any():
        lesion = scene.on_grid((scene.batch.lesion[0] > 0).double()) == 1
    edges = edge_map(sample.image.mean(0).numpy(), cell)
    edges = np.where(np.isnan(scene.on_grid(torch.zeros(scene.batch.valid.shape[1]))), np.nan, edges)
    return Subject(record, scene, scene_of(network, record, _moved(sample), settings), edges, lesion)


def scene_of(network: Network, record: Record, sample: Sample, settings: RunSettings) -> Scene:
    """One prepared image in front of a network."""
    labels = label_table([record], {})
    batch = collate(labels, [0], [sample], cell=network.cell(record.modality)).to(network.device())
    with torch.no_grad():
        batch = network.with_tokens(batch, precision=settings.train.trunk_precision)
    return Scene(network, at_cut(network, batch))


def _moved(sample: Sample) -> Sample:
    moved = torch.roll(sample.image, (SHIFT, SHIFT), (1, 2))
    moved[:, :SHIFT], moved[:, :, :SHIFT] = sample.image[:, :SHIFT], sample.image[:, :, :SHIFT]
    return replace(sample, image=moved)


def random_map(subject: Subject, seed: int) -> Float[np.ndarray, "rows cols"]:
    """A map of noise on the image's grid."""
    noise = np.random.default_rng(seed).random(subject.edges.shape)
    return np.where(np.isnan(subject.edges), np.nan, noise)
