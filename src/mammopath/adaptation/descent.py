"""Steps downhill on parameters that are values: what a step changes is a new state, never a module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Params = Mapping[str, Tensor]
"""Moving parameters by their name in the network."""

Loss = Callable[[Params], Float[Tensor, ""]]


@dataclass(frozen=True)
class Descent:
    """How to step: plain gradient descent with momentum, or Adam (Kingma & Ba 2015, betas 0.9 and 0.999)."""

    kind: Literal["sgd", "adam"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9


@dataclass(frozen=True)
class Moving:
    """Parameters on their way, with the running averages of the optimiser.

    Attributes:
        params: where they are. first: average of gradients. second: average of their squares (Adam).
        steps: taken so far.
    """

    params: Params
    first: Params = field(default_factory=dict)
    second: Params = field(default_factory=dict)
    steps: int = 0


def gradient(loss: Float[Tensor, ""], params: Params) -> dict[str, Tensor]:
    """Gradient with respect to each parameter; zero for one that the loss does not depend on."""
    names = list(params)
    found = torch.autograd.grad(loss, [params[n] for n in names], allow_unused=True)
    return {n: torch.zeros_like(params[n]) if g is None else g for n, g in zip(names, found, strict=True)}


def leaves(params: Params) -> dict[str, Tensor]:
    """Copies of the parameters that record gradients."""
    return {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}


def descend(moving: Moving, slope: Params, rule: Descent) -> Moving:
    """Take one step against ``slope``, as ``torch.optim.SGD`` or ``torch.optim.Adam`` would."""
    steps = moving.steps + 1
    if rule.kind == "sgd":
        first = {n: rule.momentum * _old(moving.first, n, g) + g for n, g in slope.items()}
        params = {n: p.detach() - rule.lr * first[n] for n, p in moving.params.items()}
        return Moving(params, first, steps=steps)
    first = {n: 0.9 * _old(moving.first, n, g) + 0.1 * g for n, g in slope.items()}
    second = {n: 0.999 * _old(moving.second, n, g) + 0.001 * g * g for n, g in slope.items()}
    scale = rule.lr / (1 - 0.9**steps)
    params = {
        n: p.detach() - scale * first[n] / ((second[n] / (1 - 0.999**steps)).sqrt() + 1e-8)
        for n, p in moving.params.items()
    }
    return Moving(params, first, second, steps)


def climbed(params: Params, slope: Params, rho: float) -> dict[str, Tensor]:
    """Where the loss is about worst within ``rho`` (SAM, Foret et al. 2021, eq. 2)."""
    scale = rho / (length(slope) + 1e-12)
    return {n: p.detach() + scale * slope[n] for n, p in params.items()}


def length(values: Params) -> Float[Tensor, ""]:
    """Euclidean length of all values as one vector."""
    return torch.stack([v.norm() for v in values.values()]).norm()


def distance(params: Params, source: Params) -> Float[Tensor, ""]:
    """Euclidean distance of all parameters from where they started."""
    return length({n: p - source[n] for n, p in params.items()})


def within(moving: Moving, source: Params, radius: float) -> Moving:
    """Pull parameters back onto a ball around the source; ``radius`` is relative to the source's length."""
    far, allowed = distance(moving.params, source), radius * length(source)
    if far <= allowed:
        return moving
    params = {n: source[n] + (p - source[n]) * (allowed / far) for n, p in moving.params.items()}
    return Moving(params, moving.first, moving.second, moving.steps)


def _old(average: Params, name: str, like: Tensor) -> Tensor:
    return average[name] if name in average else torch.zeros_like(like)
