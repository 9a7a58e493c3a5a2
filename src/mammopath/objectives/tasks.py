"""Losses of the three tasks: malignancy, lesion map, severity. Pure; an unknown label masks its case."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def nothing(*tensors: Tensor) -> Float[Tensor, ""]:
    """A zero that still has a gradient: the loss of a batch without a known label."""
    return torch.stack([tensor.flatten()[:0].sum() for tensor in tensors]).sum()


def known_mean(losses: Float[Tensor, " n"], known: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over the known cases; zero with a gradient where there are none."""
    return losses[known].mean() if known.any() else nothing(losses)


def per_patient(
    values: Float[Tensor, " b"], patient: Int[Tensor, " b"], patients: Int[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Largest known value among each patient's images; NaN where none is known.

    A patient is malignant if any image is, and as severe as the worst image.
    """
    mine = (patient == patients[:, None]) & ~values.isnan()
    largest = values.expand(len(patients), -1).masked_fill(~mine, -math.inf).amax(1)
    return largest.masked_fill(~mine.any(1), math.nan)


def malignancy_loss(logits: Float[Tensor, " n"], labels: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy over the cases with a known label (1, 0 or NaN)."""
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return known_mean(losses, known)


# ---------------------------------------------------------------- severity


def corn_loss(logits: Float[Tensor, "n k"], levels: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Conditional ordinal regression (CORN, Shi et al. 2023).

    Logit k is of P(level > k | level > k - 1): it learns from the cases that passed k - 1 alone, which
    makes the probabilities of exceeding fall with k. Its optimum is the true level, unlike that of a
    cross-entropy weighted by distance, which is at the wrong one.

    Args:
        logits: one for each threshold.
        levels: 0..k, or NaN where unknown.
    """
    thresholds = torch.arange(logits.shape[1], device=logits.device)
    asked = levels[:, None] > thresholds - 1  # false for NaN
    losses = F.binary_cross_entropy_with_logits(
        logits, (levels[:, None] > thresholds).to(logits), reduction="none"
    )
    return known_mean(losses.flatten(), asked.flatten())


def exceedance(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """P(level > k) from CORN logits: the running product of the conditional probabilities."""
    return logits.sigmoid().cumprod(1)


def level_probabilities(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n levels"]:
    """Probability of each level 0..k from CORN logits; rows sum to 1."""
    beyond = F.pad(exceedance(logits), (1, 0), value=1.0)
    return beyond - F.pad(beyond[:, 1:], (0, 1))


def level(logits: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """Predicted level from CORN logits: how many thresholds are more likely exceeded than not."""
    return (exceedance(logits) > 0.5).sum(1)


# ---------------------------------------------------------------- lesion map


def image_logit_from_tokens(
    token_logit: Float[Tensor, "b n"], valid: Bool[Tensor, "b n"], *, top_share: float
) -> Float[Tensor, " b"]:
    """Mean of the highest lesion logits of an image: top-k pooling (as in GMIC, Shen et al. 2021).

    k is ``top_share`` of the image's valid tokens, at least one. An image without a valid token gets 0.
    """
    count = (valid.sum(1) * top_share).ceil().clamp(min=1)
    ranked = token_logit.masked_fill(~valid, -math.inf).sort(1, descending=True).values
    chosen = (torch.arange(valid.shape[1], device=valid.device) < count[:, None]) & ranked.isfinite()
    return ranked.masked_fill(~chosen, 0.0).sum(1) / count


def lesion_loss(
    token_logit: Float[Tensor, "b n"],
    valid: Bool[Tensor, "b n"],
    labels: Float[Tensor, " b"],
    *,
    top_share: float,
) -> Float[Tensor, ""]:
    """Lesion map from image labels alone: cross-entropy of the pooled highest tokens."""
    return malignancy_loss(image_logit_from_tokens(token_logit, valid, top_share=top_share), labels)


def box_loss(
    token_logit: Float[Tensor, "b n"], share: Float[Tensor, "b n"], labels: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Lesion map from annotated findings: cross-entropy plus soft Dice (Milletari et al. 2016).

    The map speaks of malignant lesions, so the findings of a benign image are background. Tokens whose
    share is NaN (padding, or not annotated) and images without a label are left out; Dice is taken over
    images with a malignant finding, since it says nothing of the others.

    Args:
        token_logit: lesion logit of each token.
        share: part of each token inside findings, 0..1, or NaN.
        labels: malignancy of each image, 1, 0 or NaN.
    """
    target = share * labels[:, None]  # NaN where either is
    known = ~target.isnan()
    target = target.nan_to_num()
    losses = F.binary_cross_entropy_with_logits(token_logit, target, reduction="none")
    guess = token_logit.sigmoid().masked_fill(~known, 0.0)
    overlap, size = (guess * target).sum(1), guess.sum(1) + target.sum(1)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return known_mean(losses.flatten(), known.flatten()) + known_mean(dice, target.sum(1) > 0)
