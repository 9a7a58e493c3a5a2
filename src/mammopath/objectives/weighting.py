"""How several tasks share one set of weights: learned uncertainty, or projected gradients. Pure."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def uncertainty_weighted(loss: Float[Tensor, ""], log_variance: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Loss divided by a learned variance, plus the price of a large one (Kendall et al. 2018).

    ``L exp(-s) / 2 + s / 2``. Leave the whole term out for a task without a label in the batch: with a
    loss of 0 the second part alone would drive ``s`` to minus infinity.
    """
    return 0.5 * (loss * torch.exp(-log_variance) + log_variance)


def without_conflicts(gradients: Float[Tensor, "t d"], generator: torch.Generator) -> Float[Tensor, " d"]:
    """Sum of task gradients, each projected off those it opposes (PCGrad, Yu et al. 2020, algorithm 1).

    Args:
        gradients: one row for each task.
        generator: draws the order in which a task meets the others.
    """
    total = torch.zeros_like(gradients[0])
    for task, own in enumerate(gradients):
        projected = own
        for other in torch.randperm(len(gradients), generator=generator).tolist():
            overlap = projected @ gradients[other]
            if other != task and overlap < 0:
                projected = projected - overlap / gradients[other].square().sum() * gradients[other]
        total = total + projected
    return total


def flat_gradient(loss: Float[Tensor, ""], parameters: Sequence[Tensor]) -> Float[Tensor, " d"]:
    """Gradient of a loss with respect to all parameters, as one vector; keeps the graph."""
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])
