"""Gradient-weighted relevance: which tokens made the image malignant (Chefer et al. 2021, ICCV)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.maps.scene import Scene, packed


def relevance(scene: Scene) -> Float[np.ndarray, "rows cols"]:
    """Relevance of each token for the malignancy logit, at least 0, without unit.

    Attention counts where more of it would raise the logit (equation 5). Pooling is one more layer of
    attention, from the readout to CLS and tokens; an image score read from single tokens starts at those.
    """
    one = packed(scene.network, scene.batch)
    with torch.enable_grad():
        watch: list[Tensor] = []
        leaf = _leaf(one.batch.tokens)
        output = scene.network.upper(one.batch.with_tokens(leaf), watch=watch)
        asked = [*watch, output.attention, output.token_logit]
        slopes = torch.autograd.grad(output.logit.sum(), asked, allow_unused=True)
    prefix = scene.batch.prefix
    row = leaf.detach().new_zeros(leaf.shape[1])
    if slopes[-2] is not None:
        row[0] = 1.0
        row[prefix:] = helping(output.attention, slopes[-2])[0]
    if slopes[-1] is not None:
        row[prefix:] += slopes[-1][0].clamp_min(0)
    for weights, slope in zip(reversed(watch), reversed(slopes[:-2]), strict=True):
        row = row + row @ mean_of_heads(weights, slope)[0]
    return scene.spread(row[prefix:], one)


def chained(watch: Sequence[Tensor], slopes: Sequence[Tensor | None]) -> Float[Tensor, "b m m"]:
    """Relevance of every token for every token through all blocks, starting from each for itself (eq. 6)."""
    size = watch[0].shape[-1]
    found = torch.eye(size, dtype=watch[0].dtype, device=watch[0].device).expand(len(watch[0]), -1, -1)
    for weights, slope in zip(watch, slopes, strict=True):
        found = found + mean_of_heads(weights, slope) @ found
    return found


def mean_of_heads(weights: Float[Tensor, "b h m n"], slope: Tensor | None) -> Float[Tensor, "b m n"]:
    """Attention that helps, averaged over heads (equation 5)."""
    return helping(weights, slope).mean(dim=1)


def helping(weights: Float[Tensor, "*any"], slope: Tensor | None) -> Float[Tensor, "*any"]:
    """Weights times what one more of each adds to the logit, where that is positive."""
    if slope is None:
        return torch.zeros_like(weights.detach())
    return (weights * slope).detach().clamp_min(0)


def _leaf(tokens: Tensor | None) -> Tensor:
    assert tokens is not None
    return tokens.detach().clone().requires_grad_(True)
