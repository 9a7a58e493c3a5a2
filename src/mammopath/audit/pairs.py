"""Does the link find the right tissue: top patches of true pairs against permuted pairs and chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mammopath.audit.subjects import targets
from mammopath.case.links import By
from mammopath.cohort.loader import collate, label_table
from mammopath.errors import ImageReadError
from mammopath.maps.crossmodal import cross_link
from mammopath.metrics.intervals import Difference, Interval, bootstrap
from mammopath.metrics.maps import expected_hits
from mammopath.model.network import Network
from mammopath.prepare.sample import load_sample
from mammopath.settings import RunSettings
from mammopath.tensors import Batch
from mammopath.types import MODALITIES, Modality, Record

OTHERS = 3
"""Patients whose tissue is mixed in, so that the right tissue has rivals."""

TOP = 5

LEAST = 4
"""Malignant patients with lesions known in both modalities without whom the link cannot be judged."""


@dataclass(frozen=True)
class LinkFigures:
    """How often the best patches of a lesion's link are the patient's own lesion.

    Attributes:
        by: ``relevance`` or ``attention``. patients: malignant ones with lesions known in both modalities.
        within: share of the top patches on the lesion, among the patient's own tissue; within_chance: of
            random patches.
        among: the same with the tissue of ``OTHERS`` more patients mixed in; among_permuted: asked with
            another malignant patient's mammogram; among_chance: of random patches.
        gain: ``among`` minus ``among_permuted``, paired.
    """

    by: By
    patients: int
    within: Interval
    within_chance: float
    among: Interval
    among_permuted: Interval
    among_chance: float
    gain: Difference

    @property
    def verdict(self) -> str:
        """``passed`` where a patient's own mammogram finds the lesion more often than a stranger's does."""
        if self.gain.low > 0:
            return "passed"
        return (
            f"failed: no better than permuted pairs (gain {self.gain.value:+.2f}, from {self.gain.low:+.2f})"
        )


@dataclass(frozen=True)
class Person:
    """Tokens at the cut of one patient's images by modality."""

    name: str
    malignant: bool
    batches: Mapping[Modality, Batch]

    @property
    def annotated(self) -> bool:
        """Malignant, with a lesion known in both modalities."""
        return self.malignant and all(bool(_lesion(b).any()) for b in self.batches.values())


def people(network: Network, records: Sequence[Record], settings: RunSettings, *, most: int) -> list[Person]:
    """Patients with readable images of both modalities: malignant ones, and as many others."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.pair_key:
            groups.setdefault(record.pair_key, []).append(record)
    both = {k: g for k, g in groups.items() if {r.modality for r in g} == set(MODALITIES)}
    sick = [k for k, g in both.items() if any(r.malignant == 1 for r in g)][:most]
    well = [k for k, g in both.items() if all(r.malignant == 0 for r in g)][:most]
    found = []
    for key in [*sick, *well]:
        try:
            found.append(Person(key, key in sick, _batches(network, targets(both[key]), settings)))
        except ImageReadError:
            continue
    return found


def link_figures(network: Network, persons: Sequence[Person], *, by: By, draws: int = 1000) -> LinkFigures:
    """Measure the link of malignant patients.

    Args:
        network: with fusion.
        persons: of one site, malignant and others; ``LEAST`` of them annotated.
        by: ``relevance`` or ``attention``.
        draws: of the patient bootstrap.
    """
    names = [p.name for p in persons if p.annotated]
    return summary(hit_table(network, persons, by=by), names, by=by, draws=draws)


def hit_table(network: Network, persons: Sequence[Person], *, by: By) -> Float[np.ndarray, "p 5"]:
    """For each annotated person: hit rate within, among, among when permuted, and the two chances."""
    sick = [p for p in persons if p.annotated]
    return np.array([_measured(network, persons, sick, i, by) for i in range(len(sick))])


def summary(
    table: Float[np.ndarray, "p 5"], names: Sequence[str], *, by: By, draws: int = 1000
) -> LinkFigures:
    """Means of a table of hits with limits by patient bootstrap.

    Args:
        table: of ``hit_table``, or those of several networks one below the other.
        names: of its rows; rows of one name are resampled together.
        by: ``relevance`` or ``attention``.
        draws: of the bootstrap.
    """
    statistics = [
        (lambda weights, c=column: weights @ table[:, c] / weights.sum(axis=1)) for column in range(3)
    ]
    found = bootstrap(statistics, np.array(names), draws=draws)
    return LinkFigures(
        by=by,
        patients=len(names),
        within=found.interval(0),
        within_chance=float(table[:, 3].mean()),
        among=found.interval(1),
        among_permuted=found.interval(2),
        among_chance=float(table[:, 4].mean()),
        gain=found.difference(1, 2),
    )


def _measured(
    network: Network, persons: Sequence[Person], sick: Sequence[Person], place: int, by: By
) -> tuple[float, ...]:
    """Hit rates within, among, among when permuted, and the two chances."""
    person, stranger = sick[place], sick[(place + 1) % len(sick)]
    mammogram, tissue = person.batches["mammogram"], person.batches["pathology"]
    rng = np.random.default_rng(place)
    rivals = [p for p in persons if p.name not in (person.name, stranger.name)]
    chosen = [rivals[i] for i in rng.permutation(len(rivals))[:OTHERS]]
    pool = _joined([tissue, *(p.batches["pathology"] for p in chosen)])
    return (
        _hits(network, mammogram, tissue, len(tissue), by),
        _hits(network, mammogram, pool, len(tissue), by),
        _hits(network, stranger.batches["mammogram"], pool, len(tissue), by),
        float(_lesion(tissue).sum() / tissue.valid.sum()),
        float(_lesion(tissue).sum() / pool.valid.sum()),
    )


def _hits(network: Network, mammogram: Batch, pool: Batch, own: int, by: By) -> float:
    """Share of the top patches of a lesion's link that lie on lesions of the first ``own`` images."""
    cross = cross_link(network, {"mammogram": mammogram, "pathology": pool})
    region = _lesion(mammogram).flatten()[cross.mammogram]
    pull = getattr(cross, by)[region].sum(0)
    right = _lesion(pool)
    right[own:] = False
    inside = right.flatten()[cross.pathology]
    return expected_hits(pull.double().cpu().numpy(), inside.cpu().numpy(), top=TOP)


def _lesion(batch: Batch) -> Bool[Tensor, "b n"]:
    """Tokens at least half inside a lesion; of small lesions, those with the largest share."""
    share = batch.lesion.nan_to_num(0.0) * batch.valid
    return share >= share.max().clamp(0.01, 0.5)


def _batches(network: Network, records: Sequence[Record], settings: RunSettings) -> dict[Modality, Batch]:
    found: dict[Modality, Batch] = {}
    for modality in MODALITIES:
        own = [replace(r, pair_key="one", patient="one") for r in records if r.modality == modality]
        cell = network.cell(modality)
        samples = [load_sample(r, settings.prepare, multiple=cell).sample for r in own]
        batch = collate(label_table(own, {}), range(len(own)), samples, cell=cell).to(network.device())
        with torch.no_grad():
            found[modality] = network.with_tokens(batch, precision=settings.train.trunk_precision)
    return found


def _joined(batches: Sequence[Batch]) -> Batch:
    """Images of several batches in one batch, tokens padded to the longest, all of one pair."""
    padding: dict[str, float] = {"valid": False, "lesion": torch.nan, "tokens": 0.0}
    joined: dict[str, Any] = dict(vars(batches[0]))
    for name, value in joined.items():
        rows = [row for b in batches for row in getattr(b, name)] if isinstance(value, Tensor) else []
        if name in padding:
            joined[name] = pad_sequence(rows, batch_first=True, padding_value=padding[name])
        elif rows:
            joined[name] = torch.stack(rows)
    return Batch(**joined)
