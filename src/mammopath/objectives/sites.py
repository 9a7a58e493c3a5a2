"""The training sites of a batch: their labelled cases, classes balanced."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mammopath.objectives.invariance import weighted_mean
from mammopath.tensors import Batch, Output


@dataclass(frozen=True)
class Site:
    """The labelled cases of one training site, benign ones first.

    Since the classes stand in a row, even and odd cases are two halves with both classes in each.

    Attributes:
        index: of the site.
        logits: malignancy of each image.
        labels: 1 or 0.
        features: what the head read.
        weights: balance the classes; they sum to 1.
    """

    index: int
    logits: Float[Tensor, " n"]
    labels: Float[Tensor, " n"]
    features: Float[Tensor, "n d"]
    weights: Float[Tensor, " n"]

    def weights_in_halves(self) -> Float[Tensor, " n"]:
        """Weights that balance the classes within the even and within the odd cases; each half sums to 1.

        With an odd number of a class the halves hold it in different shares. Two differently mixed halves
        are no two estimates of one gradient: their product would reward being wrong in opposite ways.
        """
        odd = torch.arange(len(self.labels), device=self.labels.device) % 2
        alike = (self.labels[:, None] == self.labels) & (odd[:, None] == odd)
        return 0.5 / alike.sum(1)

    def risk(self) -> Float[Tensor, ""]:
        """Class-balanced mean of the binary cross-entropy."""
        losses = F.binary_cross_entropy_with_logits(self.logits, self.labels, reduction="none")
        return weighted_mean(losses, self.weights)


def usable_sites(output: Output, batch: Batch) -> list[Site]:
    """Sites with at least 2 cases of each class, which is what two balanced halves need."""
    sites = (_site(output, batch, index) for index in torch.unique(batch.domain).tolist())
    return [site for site in sites if site is not None]


def risks(sites: Sequence[Site]) -> Float[Tensor, " e"]:
    """Class-balanced risk of each site."""
    return torch.stack([site.risk() for site in sites])


def _site(output: Output, batch: Batch, index: int) -> Site | None:
    here = batch.domain == index
    benign, malignant = ((here & (batch.malignant == label)).nonzero()[:, 0] for label in (0, 1))
    if min(len(benign), len(malignant)) < 2:
        return None
    rows = torch.cat([benign, malignant])
    labels = batch.malignant[rows]
    weights = torch.where(labels == 1, 0.5 / len(malignant), 0.5 / len(benign))
    return Site(index, output.logit[rows], labels, output.embedding[rows], weights)
