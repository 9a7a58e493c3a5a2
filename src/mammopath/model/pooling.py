"""Gated-attention pooling: tokens to an image, images to a patient, bags of any size."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

TINY = 1e-6
"""Smallest variance: keeps the gradient of the standard deviation finite on constant tokens."""


class Gate(nn.Module):
    """Score of each element of a bag: w^T (tanh(V h) * sigmoid(U h)) (Ilse et al. 2018, equation 9).

    ``w`` starts at zero, so that fresh attention is uniform.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.both, self.score = nn.Linear(width, 2 * hidden), nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, h: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """Unnormalised attention score of each element."""
        value, gate = self.both(h).chunk(2, dim=-1)
        return self.score(torch.tanh(value) * torch.sigmoid(gate)).squeeze(-1)


@dataclass(frozen=True)
class Pooled:
    """Attention-weighted statistics of one bag (or of a batch of bags, with a leading axis).

    Attributes:
        mean, std: per channel. weights: of each element; sum to 1 per bag, 0 on padding.
    """

    mean: Float[Tensor, "*b d"]
    std: Float[Tensor, "*b d"]
    weights: Float[Tensor, "*b n"]


def pool(gate: Gate, h: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Pooled:
    """Attentive statistics (Okabe et al. 2018) of bags that are padded to one length.

    A bag without any valid element gives zero weights, a zero mean and the smallest std.
    """
    weights = masked_softmax(_scores(gate, h, valid), valid)
    mean = torch.einsum("bn,bnd->bd", weights, h)
    variance = torch.einsum("bn,bnd->bd", weights, (h - mean[:, None]).square())
    return Pooled(mean, variance.clamp_min(TINY).sqrt(), weights)


def _scores(gate: Gate, h: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Scores of the valid elements alone; small patches padded to large fields would cost as much as they."""
    if bool(valid.all()):
        return gate(h)
    scores = gate(h[valid])
    return scores.new_zeros(valid.shape).masked_scatter(valid, scores)


def pool_streamed(gate: Gate, chunks: Iterable[Float[Tensor, "_ d"]]) -> Pooled:
    """The same for one bag that comes in chunks, holding one chunk at a time.

    Each chunk is summed up under its own largest score; sums are merged under the larger of the two (Chan
    et al. 1979 with weights), so no score can overflow and no chunk can vanish into 0 / 0.

    Raises:
        ValueError: there are no elements.
    """
    scores: list[Tensor] = []
    total: _Sums | None = None
    for h in chunks:
        scores.append(gate(h))
        found = _sums(h, scores[-1])
        total = found if total is None else _merged(total, found)
    if total is None:
        raise ValueError("cannot pool an empty bag")
    weights = torch.cat(scores).sub(total.top).exp() / total.mass
    return Pooled(total.mean, (total.square / total.mass).clamp_min(TINY).sqrt(), weights)


def pool_segments(
    gate: Gate, h: Float[Tensor, "n d"], segment: Int[Tensor, " n"], count: int
) -> tuple[Float[Tensor, "s d"], Float[Tensor, " n"]]:
    """Gated-attention mean of each of ``count`` bags; ``segment`` says whose each element is.

    Returns:
        Means (zero for a bag without elements), and the weight of each element in its bag.
    """
    score = gate(h)
    top = score.new_full((count,), -torch.inf).scatter_reduce(0, segment, score.detach(), "amax")
    weight = torch.exp(score - top[segment])
    weight = weight / torch.zeros_like(top).index_add(0, segment, weight)[segment]
    return h.new_zeros(count, h.shape[1]).index_add(0, segment, weight[:, None] * h), weight


def segment_means(values: Float[Tensor, " n"], segment: Int[Tensor, " n"], count: int) -> Float[Tensor, " s"]:
    """Plain mean of each of ``count`` bags; zero for a bag without elements."""
    total = values.new_zeros(count).index_add(0, segment, values)
    return total / torch.bincount(segment, minlength=count).clamp(min=1)


def masked_softmax(score: Float[Tensor, "*b n"], valid: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """Softmax over the valid elements of the last axis; all zero where none is valid."""
    # The finite floor, not -inf, keeps a bag without valid elements free of NaN.
    weights = F.softmax(score.masked_fill(~valid, torch.finfo(score.dtype).min), dim=-1)
    return weights * valid


@dataclass(frozen=True)
class _Sums:
    """Of a piece of a bag: largest score, sum of weights relative to it, mean, sum of squared deviations."""

    top: Float[Tensor, ""]
    mass: Float[Tensor, ""]
    mean: Float[Tensor, " d"]
    square: Float[Tensor, " d"]


def _sums(h: Float[Tensor, "n d"], score: Float[Tensor, " n"]) -> _Sums:
    top = score.max()
    weight = torch.exp(score - top)
    mass = weight.sum()
    mean = weight @ h / mass
    return _Sums(top, mass, mean, weight @ (h - mean).square())


def _merged(a: _Sums, b: _Sums) -> _Sums:
    top = torch.maximum(a.top, b.top)
    fade_a, fade_b = torch.exp(a.top - top), torch.exp(b.top - top)
    mass_a, mass_b = a.mass * fade_a, b.mass * fade_b
    mass, delta = mass_a + mass_b, b.mean - a.mean
    square = a.square * fade_a + b.square * fade_b + delta.square() * mass_a * mass_b / mass
    return _Sums(top, mass, a.mean + delta * mass_b / mass, square)
