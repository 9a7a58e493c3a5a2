"""Contrast of two modalities: who is linked to whom, and the losses that pull them together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mammopath.objectives.tasks import nothing


@dataclass(frozen=True)
class Side:
    """Patients of one modality in the alignment space, and what links them to the other.

    Attributes:
        projection: L2-normalised.
        label: malignancy, 1, 0 or NaN.
        pair: index of the pairing key, -1 for none.
    """

    projection: Float[Tensor, "p a"]
    label: Float[Tensor, " p"]
    pair: Int[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.label)

    def shuffled(self, generator: torch.Generator) -> "Side":
        """The same projections with labels and pairing keys dealt out anew: the permuted control."""
        order = torch.randperm(len(self), generator=generator).to(self.pair.device)
        return Side(self.projection, self.label[order], self.pair[order])


@dataclass(frozen=True)
class Links:
    """What the contrast knows of each row (one modality) and column (the other).

    Attributes:
        positive: to be pulled together.
        counted: takes part at all; what is counted and not positive is pushed apart.
    """

    positive: Bool[Tensor, "a b"]
    counted: Bool[Tensor, "a b"]


def links(rows: Side, columns: Side, *, pairing: Sequence[Literal["same_patient", "same_label"]]) -> Links:
    """Link each row to columns by the first kind of pairing that it has a column for.

    Where labels may link, patients of the same class, or of an unknown one, are never pushed apart. Where
    only true pairs do, every other patient is.

    Args:
        rows: patients of one modality.
        columns: patients of the other.
        pairing: kinds of link, in order of preference.
    """
    same_patient = (rows.pair[:, None] == columns.pair) & (rows.pair[:, None] >= 0)
    same_label = rows.label[:, None] == columns.label  # false for NaN
    found = {"same_patient": same_patient, "same_label": same_label}
    positive = torch.zeros_like(same_patient)
    for kind in pairing:
        positive = positive | (found[kind] & ~positive.any(1, keepdim=True))
    other_label = (rows.label[:, None] - columns.label).abs() > 0  # false for NaN
    negative = other_label if "same_label" in pairing else torch.ones_like(same_patient)
    return Links(positive=positive, counted=positive | (negative & ~same_patient))


def contrast_loss(logits: Float[Tensor, "a b"], known: Links) -> Float[Tensor, ""]:
    """Softmax contrast with one or many positives.

    For each row with a positive, the mean over its positives of ``-log softmax``: InfoNCE (van den Oord
    et al. 2018) where it has one, SupCon (Khosla et al. 2020, equation 2) or UniCL (Yang et al. 2022)
    where it has many. Rows without a positive do not count. One direction: call it again with the
    transpose for the other.

    Args:
        logits: similarities over the temperature.
        known: the links.
    """
    linked = known.positive.any(1)
    if not linked.any():
        return nothing(logits)
    log_share = logits.masked_fill(~known.counted, -torch.inf).log_softmax(1)
    chosen = log_share.masked_fill(~known.positive, 0.0).sum(1)[linked]
    return -(chosen / known.positive.sum(1)[linked]).mean()


def sigmoid_loss(logits: Float[Tensor, "a b"], known: Links) -> Float[Tensor, ""]:
    """Sigmoid contrast: each counted pair on its own (SigLIP, Zhai et al. 2023, algorithm 1).

    Summed over columns, averaged over rows that have a positive.

    Args:
        logits: similarities over the temperature, plus the bias.
        known: the links.
    """
    linked = known.positive.any(1)
    if not linked.any():
        return nothing(logits)
    signed = torch.where(known.positive, logits, -logits)
    losses = -F.logsigmoid(signed).masked_fill(~known.counted, 0.0)
    return losses[linked].sum(1).mean()
