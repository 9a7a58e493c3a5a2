"""The link of a case: which tissue stands behind a mammogram region, and back; or the closest reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.case.evidence import Evidence, Known
from mammopath.case.values import Link, Links, Patch, Spot
from mammopath.errors import ImageReadError
from mammopath.maps.crossmodal import CrossLink
from mammopath.maps.values import AttentionMap, Box
from mammopath.model.network import Network
from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.tensors import Batch, Output
from mammopath.types import Modality

TOP = 5
"""Patches that a region points to."""

OWN, REFERENCE = "this patient", "reference case, not this patient"

Cell = tuple[int, int, int]
"""Image, row, column of a token in its batch."""


@dataclass(frozen=True)
class Side:
    """One modality of a case as links see it.

    Attributes:
        batch, output: of its images.
        maps: one of each image, in the order of the batch: where its tokens lie.
        spots: suspicious regions of all its images.
    """

    batch: Batch
    output: Output
    maps: Sequence[AttentionMap]
    spots: Sequence[Spot]

    def cell(self, place: int) -> Cell:
        """Where a flat place (image * tokens + token) is."""
        image, token = divmod(place, self.batch.valid.shape[1])
        columns = self.maps[image].values.shape[1]
        return image, token // columns, token % columns

    def places(self, spot: Spot) -> set[int]:
        """Flat places of the tokens of a region."""
        image = next(i for i, m in enumerate(self.maps) if m.image_id == spot.image_id)
        columns, tokens = self.maps[image].values.shape[1], self.batch.valid.shape[1]
        return {image * tokens + row * columns + column for row, column in spot.cells}


def own_links(cross: CrossLink, mammogram: Side, tissue: Side) -> Links:
    """Links within one patient, by relevance; by attention where nothing raises the malignancy."""
    by = "relevance" if bool(cross.relevance.sum() > 0) else "attention"
    weight = cross.relevance if by == "relevance" else cross.attention
    forth = [
        _link(spot, weight, cross.mammogram, cross.pathology, mammogram, tissue) for spot in mammogram.spots
    ]
    back = [
        _link(spot, weight.T, cross.pathology, cross.mammogram, tissue, mammogram) for spot in tissue.spots
    ]
    return Links(OWN, "", by, tuple(forth), tuple(back))


def reference_links(
    network: Network, evidence: Evidence, modality: Modality, side: Side, *, settings: PrepareSettings
) -> Links:
    """Links of a lone modality to training images of the other one, clearly not of this patient.

    Args:
        network: with fusion.
        evidence: of its run.
        modality: which the patient has.
        side: of the patient.
        settings: how images are prepared, to say where a reference place lies.
    """
    other: Modality = "pathology" if modality == "mammogram" else "mammogram"
    if not evidence.known.get(other):
        return Links(why=f"the run keeps no reference {other}")
    found = tuple(_reference(network, evidence, spot, side, other, settings) for spot in side.spots)
    by, why = "similarity", f"there is no {other} of this patient"
    if modality == "mammogram":
        return Links(REFERENCE, why, by, to_tissue=found)
    return Links(REFERENCE, why, by, to_mammogram=found)


def top_patches(
    weight: Float[Tensor, " n"], cells: Sequence[Cell], *, count: int = TOP
) -> list[tuple[int, float]]:
    """Places of the largest weights, as shares of all; neighbours of a chosen one are passed over."""
    total = float(weight.sum())
    chosen: list[int] = []
    for place in weight.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count or float(weight[place]) <= 0:
            break
        if not any(_touch(cells[place], cells[c]) for c in chosen):
            chosen.append(place)
    return [(place, float(weight[place]) / total) for place in chosen]


def _touch(one: Cell, other: Cell) -> bool:
    return one[0] == other[0] and abs(one[1] - other[1]) <= 1 and abs(one[2] - other[2]) <= 1


def _link(
    spot: Spot,
    weight: Float[Tensor, "a b"],
    here: Int[Tensor, " a"],
    there: Int[Tensor, " b"],
    near: Side,
    far: Side,
) -> Link:
    inside = near.places(spot)
    rows = torch.tensor([int(p) in inside for p in here.tolist()])
    pull = weight[rows].sum(0)
    cells = [far.cell(int(p)) for p in there.tolist()]
    patches = [_patch(far, cells[place], share) for place, share in top_patches(pull, cells)]
    return Link(spot.image_id, spot.number, spot.box, tuple(patches))


def _patch(side: Side, cell: Cell, share: float) -> Patch:
    image, row, column = cell
    found = side.maps[image]
    return Patch(found.image_id, found.box(row, column), share, (row, column))


def _reference(
    network: Network,
    evidence: Evidence,
    spot: Spot,
    side: Side,
    other: Modality,
    settings: PrepareSettings,
) -> Link:
    """Reference places by how much a region's tokens and they attend to each other, best first."""
    known = evidence.known[other]
    assert network.fusion is not None
    assert side.output.tokens is not None
    here = side.output.tokens.flatten(0, 1)[sorted(side.places(spot))].float()
    there = evidence.tokens[other].to(here)
    layers: Mapping[bool, Callable[[Tensor], Tensor]] = {
        True: network.fusion.query,
        False: network.fusion.key,
    }
    asks = other == "pathology"  # mammogram tokens ask, tissue tokens answer
    score = (layers[asks](here) @ layers[not asks](there).T).mean(0)
    pull = torch.softmax(score / network.fusion.query.out_features**0.5, dim=0)
    best: dict[str, tuple[Known, float]] = {}
    for place in pull.argsort(descending=True, stable=True).tolist():
        best.setdefault(known[place].image_id, (known[place], float(pull[place] / pull.max())))
    patches = [
        Patch(
            image_id=k.image_id,
            box=_placed(k, other, settings, cell=network.cell(other)),
            weight=share,
            cell=(k.row, k.column),
            whose=f"{k.patient}, {k.site}",
            malignant=k.malignant,
            path=k.path,
        )
        for k, share in list(best.values())[:TOP]
    ]
    return Link(spot.image_id, spot.number, spot.box, tuple(patches))


def _placed(known: Known, modality: Modality, settings: PrepareSettings, *, cell: int) -> Box | None:
    """Where a reference place lies in its image, if that can still be read."""
    try:
        frame = load_sample(known.record(modality), settings, multiple=cell).frame
    except ImageReadError:
        return None
    left, top = known.column * cell, known.row * cell
    return frame.inverse().box(left, top, left + cell, top + cell)
