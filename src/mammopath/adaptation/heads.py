"""Methods that leave the weights alone and change how embeddings become a malignancy logit."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.adaptation import causal, prototypes
from mammopath.adaptation.entropy import two_class
from mammopath.adaptation.values import Head, Seen, State, Stepped, Task
from mammopath.errors import AdaptationError

MOST_SUPPORTS = 4096
"""Supports per class that are ever kept."""


def nothing(task: Task, state: State, seen: Seen) -> Stepped:
    """The source's answer."""
    return _stepped(state, seen.plain.score)


def support_batch(task: Task, state: State, seen: Seen) -> Stepped:
    """T3A: take the batch into the supports, then score it by the prototypes."""
    supports = state.supports or begin_supports(task.head)
    features = prototypes.with_one(seen.plain.embedding)
    keep = task.settings.supports or MOST_SUPPORTS
    supports = prototypes.extend(supports, features, two_class(seen.plain.score), keep)
    score = prototype_head(task, supports).score(seen.plain.embedding)
    return _stepped(replace(state, supports=supports), score)


def trim_batch(task: Task, state: State, seen: Seen) -> Stepped:
    """TACT: find each case's style directions, remove them from its embedding and from the running head.

    Embeddings are taken relative to the mean of the source's probe: a style direction is then set to what
    the source is used to, and the operating point stays. Without a probe this is the published formula,
    which sets it to zero, plus the source's bias, which the published code drops.

    Raises:
        AdaptationError: the cases come without style-only views.
    """
    if len(seen.styled) < max(1, task.settings.directions):
        raise AdaptationError(
            f"{len(seen.styled)} style-only views of each case span fewer than the {task.settings.directions}"
            " directions that tact removes: raise views or lower directions"
        )
    views = torch.stack([reading.embedding for reading in (seen.plain, *seen.styled)], dim=1) - task.centre
    directions = causal.style_directions(views, task.settings.directions)
    trimmed = state.trimmed or causal.begin(task.head.weight)
    trimmed = causal.extend(trimmed, views, rows=task.head.weight, directions=directions)
    logits = causal.trimmed_logits(views[:, 0], directions, trimmed)
    score = logits[:, 0] + task.head.bias[0] + task.head.weight[0] @ task.centre
    return _stepped(replace(state, trimmed=trimmed), score)


def prototype_fold(task: Task, state: State) -> Head:
    """The prototypes as a head of the network."""
    return task.head if state.supports is None else prototype_head(task, state.supports)


def trimmed_fold(task: Task, state: State) -> Head:
    """The head without the style directions of all cases seen; it needs no augmented views any more."""
    if state.trimmed is None:
        return task.head
    head, directions = task.head, causal.site_directions(state.trimmed, task.settings.directions)
    weight = causal.trim(head.weight[None], directions[None])[0]
    return replace(head, weight=weight, bias=head.bias + (head.weight - weight) @ task.centre)


def source_head(task: Task, state: State) -> Head:
    """The head of the source: what methods that move weights leave alone."""
    return task.head


def begin_supports(head: Head) -> prototypes.Supports:
    """The source's head as the first support of each class."""
    rows = prototypes.binary_rows(head.weight, head.bias)
    return prototypes.begin(rows, torch.zeros(2, dtype=rows.dtype, device=rows.device))


def prototype_head(task: Task, supports: prototypes.Supports) -> Head:
    """The head that two prototypes make."""
    rows = prototypes.prototypes(supports, 2)
    weight, bias = prototypes.binary_head(rows, task.head.weight, task.head.bias)
    return replace(task.head, weight=weight, bias=bias)


def _stepped(state: State, score: Float[Tensor, " b"]) -> Stepped:
    return Stepped(state, state, score, 0.0, torch.ones_like(score, dtype=torch.bool))
