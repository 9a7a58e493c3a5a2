"""The link of a case: which tissue stands behind a mammogram region, and back; or the closest reference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.case.breasts import Breast
from mammopath.case.evidence import Evidence, Known
from mammopath.case.values import Link, Links, Patch, Spot
from mammopath.errors import ImageReadError
from mammopath.images.read import assumes_mg, read_header
from mammopath.maps.crossmodal import CrossLink
from mammopath.maps.values import AttentionMap, Box, within
from mammopath.model.network import Network
from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.tensors import Batch, Output
from mammopath.types import Modality, Record

TOP = 5
"""Patches that a region points to."""

By = Literal["relevance", "attention"]

BY: tuple[By, ...] = ("relevance", "attention")
"""What links within a patient can be made of."""

OWN, REFERENCE = "this patient", "reference case, not this patient"

Cell = tuple[str, int, int]
"""Image, row, column of a token on its map."""


@dataclass(frozen=True)
class Piece:
    """Where the tokens of one picture lie: on all of an image's map, or, of a field of a slide, on a part.

    Attributes:
        map: of the image. first: row and column of the picture's first token.
        shape: rows and columns of its tokens.
    """

    map: AttentionMap
    first: tuple[int, int]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Side:
    """One modality of a case as links see it.

    Attributes:
        records: of its pictures. batch, output: of the same, in the same order.
        pieces: where the tokens of each lie.
        spots: suspicious regions of all its images, the worst first.
    """

    records: Sequence[Record]
    batch: Batch
    output: Output
    pieces: Sequence[Piece]
    spots: Sequence[Spot]

    def of(self, breast: Breast) -> "Side | None":
        """The same with images of one breast alone; others lose their pairing key, which fusion reads."""
        mine = [breast.has(r) for r in self.records]
        if not any(mine):
            return None
        kept = torch.tensor(mine, device=self.batch.pair.device)
        names = {p.map.image_id for p, own in zip(self.pieces, mine, strict=True) if own}
        return replace(
            self,
            batch=replace(self.batch, pair=self.batch.pair.masked_fill(~kept, -1)),
            spots=[s for s in self.spots if s.image_id in names],
        )

    def cell(self, place: int) -> Cell:
        """Where a flat place (picture * tokens + token) is."""
        picture, token = divmod(place, self.batch.valid.shape[1])
        piece = self.pieces[picture]
        row, column = divmod(token, piece.shape[1])
        return piece.map.image_id, piece.first[0] + row, piece.first[1] + column

    def places(self, spot: Spot) -> set[int]:
        """Flat places of the tokens of a region; of a slide, of those in fields that are here."""
        tokens, found = self.batch.valid.shape[1], set()
        for picture, piece in enumerate(self.pieces):
            if piece.map.image_id != spot.image_id:
                continue
            for row, column in spot.cells:
                down, across = row - piece.first[0], column - piece.first[1]
                if 0 <= down < piece.shape[0] and 0 <= across < piece.shape[1]:
                    found.add(picture * tokens + down * piece.shape[1] + across)
        return found

    def regions(self) -> list[Spot]:
        """Suspicious regions whose tokens are here, in part at least."""
        return [spot for spot in self.spots if self.places(spot)]

    def box(self, cell: Cell) -> Box:
        """The square of a token on level 0 of its image."""
        image, row, column = cell
        return next(p.map for p in self.pieces if p.map.image_id == image).box(row, column)


def own_links(cross: CrossLink, mammogram: Side, tissue: Side, *, by: By) -> Links:
    """Links within one patient.

    Args:
        cross: of the patient.
        mammogram: one side of it.
        tissue: the other.
        by: which weights; in place of relevance, attention where nothing raises the malignancy.
    """
    by = by if bool(cross.relevance.sum() > 0) else "attention"
    weight = cross.relevance if by == "relevance" else cross.attention
    forth = [
        _link(spot, weight, cross.mammogram, cross.pathology, mammogram, tissue)
        for spot in mammogram.regions()
    ]
    back = [
        _link(spot, weight.T, cross.pathology, cross.mammogram, tissue, mammogram)
        for spot in tissue.regions()
    ]
    return Links(OWN, "", by, tuple(forth), tuple(back))


def reference_links(
    network: Network,
    evidence: Evidence,
    modality: Modality,
    side: Side,
    *,
    settings: PrepareSettings,
    fused: bool,
) -> Links:
    """Links of a lone modality to training images of the other one, clearly not of this patient.

    Args:
        network: trained.
        evidence: of its run.
        modality: which the patient has.
        side: of the patient.
        settings: how images are prepared, to say where a reference place lies.
        fused: whether the network learnt to read both modalities together; else tokens are compared.
    """
    other: Modality = "pathology" if modality == "mammogram" else "mammogram"
    if not evidence.known.get(other):
        return Links(why=f"the run keeps no reference {other}")
    cell = network.cell(other)
    found = []
    for spot in side.regions():
        here = _tokens_of(side, spot)
        score = _attraction(network, evidence, here, other) if fused else _likeness(evidence, here, other)
        patches = _references(evidence.known[other], score, other, settings, cell=cell)
        found.append(Link(spot.image_id, spot.number, spot.box, patches))
    by, why = "similarity" if fused else "token similarity", f"there is no {other} of this patient"
    if modality == "mammogram":
        return Links(REFERENCE, why, by, to_tissue=tuple(found))
    return Links(REFERENCE, why, by, to_mammogram=tuple(found))


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
    return Patch(cell[0], side.box(cell), share, cell[1:])


def _tokens_of(side: Side, spot: Spot) -> Float[Tensor, "k d"]:
    assert side.output.tokens is not None
    return side.output.tokens.flatten(0, 1)[sorted(side.places(spot))].float()


def _attraction(
    network: Network, evidence: Evidence, here: Float[Tensor, "k d"], other: Modality
) -> Float[Tensor, " n"]:
    """How much a region's tokens and reference places attend to each other in the fusion, 0 to 1."""
    assert network.fusion is not None
    there = evidence.tokens[other].to(here)
    ask, answer = network.fusion.query, network.fusion.key  # mammogram tokens ask, tissue tokens answer
    if other == "pathology":
        score = (ask(here) @ answer(there).T).mean(0)
    else:
        score = (ask(there) @ answer(here).T).mean(1)
    return torch.softmax(score / ask.out_features**0.5, dim=0)


def _likeness(evidence: Evidence, here: Float[Tensor, "k d"], other: Modality) -> Float[Tensor, " n"]:
    """Cosine of a region's mean token and reference places, each without its modality's mean, on 0 to 1.

    The trunk is shared, so tokens of both modalities lie in one space, but each in a part of its own.
    """
    own: Modality = "pathology" if other == "mammogram" else "mammogram"
    there = evidence.tokens[other].to(here)
    mine = evidence.tokens[own].to(here)
    middle = mine.mean(0) if len(mine) else torch.zeros_like(here[0])
    cosine = torch.cosine_similarity(here.mean(0)[None] - middle, there - there.mean(0), dim=1)
    return (1 + cosine) / 2


def _references(
    known: Sequence[Known],
    score: Float[Tensor, " n"],
    modality: Modality,
    settings: PrepareSettings,
    *,
    cell: int,
) -> tuple[Patch, ...]:
    """The best place of each of the best reference images; a number stands for whose they are."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(k.image_id for k in known), start=1)}
    best: dict[int, tuple[Known, float]] = {}
    for place in score.argsort(descending=True, stable=True).tolist():
        one = known[place]
        best.setdefault(numbers[one.image_id], (one, float(score[place] / score.max())))
    return tuple(
        Patch(
            image_id=f"reference {number}",
            box=_placed(k, modality, settings, cell=cell),
            weight=share,
            cell=(k.row, k.column),
            whose=f"training case of {k.site}",
            malignant=k.malignant,
            path=k.path,
        )
        for number, (k, share) in list(best.items())[:TOP]
    )


def _placed(known: Known, modality: Modality, settings: PrepareSettings, *, cell: int) -> Box | None:
    """Where a reference place lies in its image, if that can still be read."""
    record = known.record(modality)
    try:
        frame = load_sample(record, settings, multiple=cell).frame
        header = read_header(record.path, assume_mg=assumes_mg(record))
    except ImageReadError:
        return None
    left, top = known.column * cell, known.row * cell
    box = frame.inverse().box(left, top, left + cell, top + cell)
    return within(box, (header.height, header.width))
