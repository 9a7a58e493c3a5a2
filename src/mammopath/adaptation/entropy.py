"""Entropy objectives: which cases count, how much, and what is minimised. Pure functions of logits.

Every threshold is a share of ln C, the largest entropy of C classes. The published code has ln 1000.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

RESET = 0.2 / math.log(1000)
"""SAR's reset threshold 0.2 as a share of ln 1000."""

REDUNDANT = 0.05 * math.sqrt(1000)
"""EATA's cosine threshold 0.05 relative to 1/sqrt(1000), the cosine of a sure and a uniform prediction."""


@dataclass(frozen=True)
class Choice:
    """Which cases of a batch enter the loss, and with what weight; weights are 0 where not used."""

    used: Bool[Tensor, " b"]
    weight: Float[Tensor, " b"]

    def mean(self, losses: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Weighted losses averaged over the used cases; 0 where none is used."""
        return (self.weight * losses).sum() / self.used.sum().clamp(min=1)


def two_class(logit: Float[Tensor, " b"]) -> Float[Tensor, "b 2"]:
    """A sigmoid logit as two softmax logits: softmax of (-z/2, z/2) is (1 - sigmoid z, sigmoid z)."""
    return torch.stack([-logit / 2, logit / 2], dim=1)


def entropy(logits: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
    """Entropy of the softmax in nats, 0 to ln c."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def margin(classes: int, share: float) -> float:
    """Share of the largest entropy: 0.4 of it is 0.277 for two classes, 2.76 for a thousand."""
    return share * math.log(classes)


def reliable_limit(logits: Float[Tensor, "b c"], share: float, quantile: float) -> float:
    """Largest entropy of a reliable case: ``share`` of ln C, or more where the source itself is seldom sure.

    The published 0.4 ln C takes a network that is sure of most cases for granted. Of a source that is not,
    no case would be learned from; then the limit is the ``quantile`` of the entropy of its own cases.

    Args:
        logits: of the source's probe; may hold no case.
        share: of ln C.
        quantile: of the probe; 0 for the published rule.
    """
    limit = margin(logits.shape[1], share)
    if not len(logits) or not quantile:
        return limit
    return max(limit, torch.quantile(entropy(logits), quantile).item())


def all_cases(logits: Float[Tensor, "b c"]) -> Choice:
    """Tent (Wang et al. 2021): every case counts the same."""
    ones = torch.ones(len(logits), device=logits.device)
    return Choice(ones.bool(), ones)


def reliable(logits: Float[Tensor, "b c"], limit: float) -> Choice:
    """SAR (Niu et al. 2023, eq. 2): only cases of entropy under ``limit``."""
    used = entropy(logits).detach() < limit
    return Choice(used, used.float())


def fresh(
    logits: Float[Tensor, "b c"], mean: Float[Tensor, " c"] | None, limit: float, near: float
) -> Choice:
    """EATA (Niu et al. 2022, eq. 3-6): reliable cases unlike the running mean prediction, weighted.

    Args:
        logits: of the batch.
        mean: running mean of the predicted probabilities of used cases, None at the start.
        limit: largest entropy; a surer case weighs exp(limit - entropy).
        near: largest absolute cosine between a prediction and the running mean.
    """
    sure = entropy(logits).detach()
    used = sure < limit
    if mean is not None:
        used = used & (F.cosine_similarity(mean[None], logits.detach().softmax(1), dim=1).abs() < near)
    return Choice(used, used * torch.exp(limit - sure))


def redundancy(classes: int) -> float:
    """EATA's cosine threshold: 0.05 for 1000 classes; over 1 for two, where no case is redundant."""
    return REDUNDANT / math.sqrt(classes)


def running_mean(
    mean: Float[Tensor, " c"] | None, probabilities: Float[Tensor, "b c"], keep: float = 0.9
) -> Float[Tensor, " c"] | None:
    """EATA (eq. 4): exponential moving average of batch means; an empty batch changes nothing."""
    if not len(probabilities):
        return mean
    new = probabilities.detach().mean(0)
    return new if mean is None else keep * mean + (1 - keep) * new


def shape_bound(
    logits: Float[Tensor, "b c"], destroyed: Float[Tensor, "b c"], *, limit: float, centre: float, drop: float
) -> Choice:
    """DeYO (Lee et al. 2024, eq. 6-8): sure cases whose class loses probability when shape is destroyed.

    Args:
        logits: of the cases as they are.
        destroyed: of the same cases with their shape destroyed.
        limit: largest entropy.
        centre: entropy at which a case weighs 1.
        drop: smallest loss of probability of the predicted class (PLPD).
    """
    sure, p = entropy(logits).detach(), logits.detach().softmax(1)
    called = p.argmax(1, keepdim=True)
    lost = (p.gather(1, called) - destroyed.detach().softmax(1).gather(1, called))[:, 0]
    used = (sure < limit) & (lost > drop)
    return Choice(used, used * (torch.exp(centre - sure) + torch.exp(lost)))


def imbalance(mean: Float[Tensor, " c"], prior: Float[Tensor, " c"]) -> Float[Tensor, ""]:
    """Divergence KL(mean prediction || prior).

    With a uniform prior it is SHOT's diversity term (Liang et al. 2020, eq. 3) plus ln c; a screening
    site is far from uniform, so the prior is the source's.
    """
    return (mean * (mean.clamp(min=1e-5) / prior.clamp(min=1e-5)).log()).sum()


def anchor(distances: list[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """Squared Euclidean distance from the source, summed over all moving parameters."""
    return torch.stack([d.square().sum() for d in distances]).sum()
