"""How an adaptation changes the order of cases: pairs are counted as cases come and go, not all anew."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Swaps:
    """Pairs of cases whose order changes; one that becomes a tie, or was one, counts half.

    Attributes:
        among: pairs of two adapted scores. across: the same pairs, one score adapted and the other the
            source's, the mean of both ways. stable: of ``among``, those that all views order alike.
    """

    among: float = 0.0
    across: float = 0.0
    stable: float = 0.0

    def __add__(self, other: "Swaps") -> "Swaps":
        return Swaps(self.among + other.among, self.across + other.across, self.stable + other.stable)

    def __sub__(self, other: "Swaps") -> "Swaps":
        return Swaps(self.among - other.among, self.across - other.across, self.stable - other.stable)


@dataclass(frozen=True)
class Answers:
    """Malignancy logits of the same cases: of the adaptation, of the source, and of its styled views."""

    adapted: Float[Tensor, " n"]
    source: Float[Tensor, " n"]
    styled: Float[Tensor, "v n"]


def swaps_between(first: Answers, second: Answers) -> Swaps:
    """Over all pairs of a case of the one and a case of the other."""
    return _swaps(first, second, torch.ones(len(first.source), len(second.source)))


def swaps_within(cases: Answers) -> Swaps:
    """Over all pairs of two of these cases."""
    count = len(cases.source)
    return _swaps(cases, cases, torch.ones(count, count).triu(1))


def _swaps(first: Answers, second: Answers, pairs: Float[Tensor, "n m"]) -> Swaps:
    pairs = pairs.to(first.source)
    before = _order(first.source, second.source)
    among = _changed(_order(first.adapted, second.adapted), before) * pairs
    one, other = _order(first.adapted, second.source), _order(first.source, second.adapted)
    across = (_changed(one, before) + _changed(other, before)) / 2 * pairs
    stable = torch.ones_like(before, dtype=torch.bool)
    for mine, theirs in zip(first.styled, second.styled, strict=True):
        stable &= _order(mine, theirs) == before
    return Swaps(_sum(among), _sum(across), _sum(among * stable))


def _order(first: Float[Tensor, " n"], second: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
    return torch.sign(first[:, None] - second[None, :])


def _changed(after: Float[Tensor, "n m"], before: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    return (after - before).abs() / 2


def _sum(values: Float[Tensor, "n m"]) -> float:
    return values.sum(dtype=torch.double).item()
