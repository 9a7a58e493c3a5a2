"""Changes of token statistics: MixStyle, EFDMix, DSU. Pure: the draw is given, the tokens come back new.

Statistics are over the valid tokens of an image, separately for each channel, with the unbiased
variance, and detached: a gradient through them would undo the change. The caller leaves out CLS and
registers, which carry the label rather than the style.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EPSILON = 1e-6
"""Added to the variance (Zhou et al. 2021, original code)."""

Tokens = Float[Tensor, "b n d"]
Moment = Float[Tensor, "b 1 d"]


def moments(tokens: Tokens, valid: Bool[Tensor, "b n"]) -> tuple[Moment, Moment]:
    """Detached mean and standard deviation of each image's valid tokens, by channel."""
    real = valid[..., None].to(tokens)
    count = real.sum(1, keepdim=True)
    fixed = tokens.detach()
    mean = (fixed * real).sum(1, keepdim=True) / count.clamp(min=1)
    variance = ((fixed - mean).square() * real).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    return mean, (variance + EPSILON).sqrt()


def mix_style(
    tokens: Tokens, valid: Bool[Tensor, "b n"], *, partner: Int[Tensor, " b"], keep: Float[Tensor, " b"]
) -> Tokens:
    """Normalise each image and give it a mean and spread between its own and a partner's.

    MixStyle (Zhou et al. 2021), with the token axis in place of the spatial axes.

    Args:
        tokens: patch tokens.
        valid: which are real.
        partner: index of the image whose statistics are mixed in.
        keep: share kept of the image's own statistics; 1 changes nothing.
    """
    mean, std = moments(tokens, valid)
    own = keep[:, None, None]
    new_mean = own * mean + (1 - own) * mean[partner]
    new_std = own * std + (1 - own) * std[partner]
    return (tokens - mean) / std * new_std + new_mean


def match_values(
    tokens: Tokens, valid: Bool[Tensor, "b n"], *, partner: Int[Tensor, " b"], keep: Float[Tensor, " b"]
) -> Tokens:
    """Move each value towards the partner's value of the same rank (EFDMix, Zhang et al. 2022).

    Matches every moment, not only the first two. Where the numbers of valid tokens differ, the ranks are
    matched as quantiles. The gradient is that of the unchanged tokens.
    """
    order = tokens.detach().masked_fill(~valid[..., None], math.inf).sort(1)
    rank = order.indices.argsort(1)
    count = valid.sum(1).clamp(min=1)[:, None, None]
    quantile = (rank + 0.5) / count
    place = (quantile * count[partner]).long().minimum(count[partner] - 1)
    target = order.values[partner].gather(1, place)
    moved = tokens + (1 - keep)[:, None, None] * (target - tokens.detach())
    known = valid & valid.any(1)[partner, None]  # a partner without a valid token has nothing to give
    return torch.where(known[..., None], moved, tokens)


def perturb_style(
    tokens: Tokens,
    valid: Bool[Tensor, "b n"],
    *,
    mean_noise: Float[Tensor, "b d"],
    std_noise: Float[Tensor, "b d"],
) -> Tokens:
    """Shift mean and spread by noise as large as they vary in the batch (DSU, Li et al. 2022).

    Args:
        tokens: patch tokens.
        valid: which are real.
        mean_noise: standard normal draws for the mean.
        std_noise: standard normal draws for the spread.
    """
    mean, std = moments(tokens, valid)
    new_mean = mean + mean_noise[:, None] * _batch_spread(mean)
    new_std = std + std_noise[:, None] * _batch_spread(std)
    return (tokens - mean) / std * new_std + new_mean


def _batch_spread(moment: Moment) -> Float[Tensor, "1 1 d"]:
    unbiased = len(moment) > 1
    return (moment.var(0, keepdim=True, unbiased=unbiased) + EPSILON).sqrt()
