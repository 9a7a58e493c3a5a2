"""T3A: a linear classifier whose rows become prototypes of sure test cases (Iwasawa & Matsuo 2021)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.adaptation.entropy import entropy


@dataclass(frozen=True)
class Supports:
    """What the prototypes are made of: first the rows of the classifier, then test cases.

    Attributes:
        features: of each support. label: the class it is called. entropy: of that call, in nats.
    """

    features: Float[Tensor, "s d"]
    label: Int[Tensor, " s"]
    entropy: Float[Tensor, " s"]


def begin(weight: Float[Tensor, "c d"], bias: Float[Tensor, " c"]) -> Supports:
    """The rows of the classifier as supports, called by the classifier itself."""
    return _called(weight, weight @ weight.T + bias)


def extend(
    supports: Supports, features: Float[Tensor, "b d"], logits: Float[Tensor, "b c"], keep: int | None
) -> Supports:
    """Add test cases with the class that ``logits`` call, and keep the ``keep`` surest of each class.

    Args:
        supports: so far.
        features: of the new cases.
        logits: of the source classifier for them.
        keep: supports per class; None keeps all (the published -1 drops one, by ``[:-1]``).
    """
    new = _called(features, logits)
    joined = Supports(
        torch.cat([supports.features, new.features]),
        torch.cat([supports.label, new.label]),
        torch.cat([supports.entropy, new.entropy]),
    )
    return joined if keep is None else _surest(joined, keep)


def prototypes(supports: Supports, classes: int) -> Float[Tensor, "c d"]:
    """Unit-length sum of the unit-length supports of each class; zero for a class without any."""
    units = F.normalize(supports.features, dim=1)
    sums = F.one_hot(supports.label, classes).to(units.dtype).T @ units
    return F.normalize(sums, dim=1)


def binary_rows(weight: Float[Tensor, "1 d"], bias: Float[Tensor, " 1"]) -> Float[Tensor, "2 d1"]:
    """A sigmoid head as the two rows of its two-class softmax, the bias as a last coordinate."""
    row = torch.cat([weight[0], bias]) / 2
    return torch.stack([-row, row])


def with_one(features: Float[Tensor, "b d"]) -> Float[Tensor, "b d1"]:
    """Features with a last coordinate 1, on which ``binary_rows`` act without a bias."""
    return F.pad(features, (0, 1), value=1.0)


def binary_head(
    rows: Float[Tensor, "2 d1"], weight: Float[Tensor, "1 d"], bias: Float[Tensor, " 1"]
) -> tuple[Float[Tensor, "1 d"], Float[Tensor, " 1"]]:
    """Two prototypes as the weight and bias of a sigmoid head as long as the source's.

    The published logits are unit-length prototypes times features, so their size, and with it the
    probability, means nothing. Here the direction comes from the prototypes and the length from the
    source: ranks are the published ones, and without test cases the head is the source's.
    """
    size = torch.cat([weight[0], bias]).norm()
    row = F.normalize(rows[1] - rows[0], dim=0) * size
    return row[None, :-1], row[-1:]


def _called(features: Tensor, logits: Tensor) -> Supports:
    return Supports(features.detach(), logits.detach().argmax(1), entropy(logits.detach()))


def _surest(supports: Supports, keep: int) -> Supports:
    order = torch.argsort(supports.entropy, stable=True)
    chosen = [order[supports.label[order] == c][:keep] for c in sorted(set(supports.label.tolist()))]
    picked = torch.cat(chosen)
    return Supports(supports.features[picked], supports.label[picked], supports.entropy[picked])
