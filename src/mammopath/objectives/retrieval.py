"""How well one modality finds the other in the alignment space, against chance. Diagnostics, not losses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Retrieval:
    """Retrieval of one modality by the other, and what a random order would give on the same cases.

    Attributes:
        queries: that have anything to find; the others are left out.
        mean_precision: mean average precision, 0..1; chance_precision: its expectation by chance.
        recall: k -> share of queries with a relevant case among the first k; chance_recall: by chance.
    """

    queries: int
    mean_precision: float
    chance_precision: float
    recall: dict[int, float]
    chance_recall: dict[int, float]


def retrieval(
    similarity: Float[Tensor, "q g"], relevant: Bool[Tensor, "q g"], *, ks: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """Rank the gallery for each query by similarity.

    With relevance by label, chance is what the class prior gives. Ties are kept in the order of the
    gallery: shuffle it if its order tells anything.

    Args:
        similarity: higher is nearer.
        relevant: same patient, or same label.
        ks: depths at which recall is taken.
    """
    asked = relevant.any(1)
    order = similarity[asked].argsort(dim=1, descending=True, stable=True)
    hits = relevant[asked].gather(1, order).double()
    counts, size = hits.sum(1), relevant.shape[1]
    precision = hits.cumsum(1) / torch.arange(1, size + 1, device=hits.device)
    average = (precision * hits).sum(1) / counts
    found = [int(n) for n in counts]
    return Retrieval(
        queries=len(hits),
        mean_precision=_mean(average.tolist()),
        chance_precision=_mean([chance_precision(n, size) for n in found]),
        recall={k: _mean(hits[:, :k].amax(1).tolist()) for k in ks},
        chance_recall={k: _mean([chance_recall(n, size, k) for n in found]) for k in ks},
    )


def chance_precision(relevant: int, size: int) -> float:
    """Expected average precision of a random order (Bestgen 2015).

    ``((R - 1) (N - H) / (N - 1) + H) / N`` with R relevant of N cases and the N-th harmonic number H.
    """
    harmonic = sum(1 / i for i in range(1, size + 1))
    return harmonic if size == 1 else ((relevant - 1) * (size - harmonic) / (size - 1) + harmonic) / size


def chance_recall(relevant: int, size: int, k: int) -> float:
    """Probability of a relevant case among the first k of a random order (hypergeometric)."""
    k = min(k, size)
    return 1 - math.comb(size - relevant, k) / math.comb(size, k)


def modality_gap(left: Float[Tensor, "p a"], right: Float[Tensor, "q a"]) -> float:
    """Distance of the centres of two modalities in the alignment space (Liang et al. 2022), 0..2."""
    return float((left.mean(0) - right.mean(0)).norm())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
