"""The alignment term: patients of both modalities, a memory of earlier ones, a learned temperature."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.objectives.align import Side, contrast_loss, links, sigmoid_loss
from mammopath.objectives.ledger import Ledger
from mammopath.objectives.recipe import AlignRecipe
from mammopath.objectives.supervision import pair_of
from mammopath.objectives.tasks import per_patient
from mammopath.tensors import Batch, Output
from mammopath.types import MODALITIES, Modality

MAX_SCALE = 100.0
"""Largest inverse temperature (CLIP, Radford et al. 2021)."""


class Memory(nn.Module):
    """The last patients of one modality: a ring of detached projections (Wang et al. 2020, XBM)."""

    projection: Tensor
    label: Tensor
    pair: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size, self.pushed = size, 0
        self.register_buffer("projection", torch.zeros(size, width), persistent=False)
        self.register_buffer("label", torch.full((size,), math.nan), persistent=False)
        self.register_buffer("pair", torch.full((size,), -1), persistent=False)

    def push(self, side: Side) -> None:
        """Remember these patients in place of the oldest."""
        first = max(0, len(side) - self.size)
        places = (torch.arange(first, len(side)) + self.pushed) % max(1, self.size)
        self.projection[places] = side.projection[first:].detach().to(self.projection)
        self.label[places] = side.label[first:]
        self.pair[places] = side.pair[first:]
        self.pushed += len(side)

    def read(self) -> Side:
        """What is remembered so far."""
        count = min(self.pushed, self.size)
        return Side(self.projection[:count], self.label[:count], self.pair[:count])


class Alignment(nn.Module):
    """Contrast of each modality's patients with those of the other, in this batch and remembered."""

    def __init__(self, recipe: AlignRecipe, *, width: int, ledger: Ledger) -> None:
        super().__init__()
        self.recipe, self.ledger = recipe, ledger
        self.log_scale = nn.Parameter(torch.tensor(-math.log(recipe.temperature)))
        self.bias = nn.Parameter(torch.tensor(recipe.bias)) if recipe.kind == "siglip" else None
        self.memories = nn.ModuleDict({m: Memory(recipe.memory, width) for m in MODALITIES})

    def forward(
        self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch], *, step: int
    ) -> Float[Tensor, ""] | None:
        """Mean of the two directions; None where nobody is linked.

        Args:
            outputs: what the network says of each modality.
            batches: what is known of it.
            step: seeds the permuted control, together with who is in the batch.
        """
        sides = {m: side_of(output, batches[m]) for m, output in outputs.items()}
        if self.recipe.permuted_label and "pathology" in sides:
            seed = step + int(batches["pathology"].row.sum()) * 100_003  # differs between seeds of a study
            sides["pathology"] = sides["pathology"].shuffled(torch.Generator().manual_seed(seed))
        losses = [
            loss
            for here, there in (MODALITIES, MODALITIES[::-1])
            if here in sides
            and (loss := self._direction(sides[here], self._columns(sides, there))) is not None
        ]
        if self.training:
            self._remember(sides)
        return torch.stack(losses).mean() if losses else None

    def _columns(self, sides: Mapping[Modality, Side], modality: Modality) -> Side:
        memory = self.memories[modality]
        assert isinstance(memory, Memory)
        now = [sides[modality]] if modality in sides else []
        return _joined([*now, memory.read()])

    def _direction(self, rows: Side, columns: Side) -> Float[Tensor, ""] | None:
        known = links(rows, columns, pairing=self.recipe.pairing)
        linked = int(known.positive.any(1).sum())
        if self.training and linked:
            self.ledger.ran("align", linked)
        elif self.training:
            pairing = " or ".join(self.recipe.pairing) or "nothing"
            self.ledger.idle("align", f"a step without a link by {pairing}")
        if not linked:
            return None
        similarity = rows.projection @ columns.projection.T * self._scale()
        if self.bias is None:
            return contrast_loss(similarity, known)
        return sigmoid_loss(similarity + self.bias, known)

    def _scale(self) -> Float[Tensor, ""]:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.exp()

    def _remember(self, sides: Mapping[Modality, Side]) -> None:
        for modality, side in sides.items():
            memory = self.memories[modality]
            assert isinstance(memory, Memory)
            memory.push(side)


def side_of(output: Output, batch: Batch) -> Side:
    """The patients of a batch as one side of the contrast."""
    return Side(
        projection=output.projection,
        label=per_patient(batch.malignant, batch.patient, output.patients),
        pair=pair_of(batch, output.patients),
    )


def _joined(sides: list[Side]) -> Side:
    return Side(
        torch.cat([side.projection for side in sides]),
        torch.cat([side.label for side in sides]),
        torch.cat([side.pair for side in sides]),
    )
