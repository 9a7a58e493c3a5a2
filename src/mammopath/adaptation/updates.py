"""Methods that move weights: one step of each, from a state and a batch to a new state.

Dropout is off (the network is in evaluation mode), nothing is drawn at random, and the scores are
those of the state before the update, as in the published code.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mammopath.adaptation import entropy as e
from mammopath.adaptation.descent import Moving, Params, climbed, descend, gradient, leaves, within
from mammopath.adaptation.heads import trim_batch
from mammopath.adaptation.values import Reading, Seen, State, Stepped, Task
from mammopath.tensors import Batch

SHARPNESS = 0.05
"""Radius in which SAR looks for the worst loss (rho of SAM)."""

REMEMBERED = 64
"""Cases of which the running mean prediction remembers, so that one batch is not a site."""


WIDER = 0.1
"""DeYO learns from cases of so much more entropy, a share of ln C (its margins are 0.5 and 0.4 of ln C)."""


def tent(task: Task, state: State, seen: Seen) -> Stepped:
    """Entropy of every case (Wang et al. 2021)."""
    params, reading = _read(task, state, seen.views.plain)
    choice = e.all_cases(reading.logits)
    return _step(task, state, params, reading, choice.mean(e.entropy(reading.logits)), choice)


def style(task: Task, state: State, seen: Seen) -> Stepped:
    """Entropy and an anchor: the paper's form, with an anchor that binds.

    The public code matching the paper anchors running statistics that its network does not have, so its
    anchor is identically zero. Here the anchor is the squared distance of the moving parameters from the
    source, and they stay in a ball around it.
    """
    params, reading = _read(task, state, seen.views.plain)
    choice, settings = e.all_cases(reading.logits), task.settings
    away = e.anchor([params[n] - task.source[n] for n in params])
    loss = settings.entropy * choice.mean(e.entropy(reading.logits)) + settings.anchor * away
    stepped = _step(task, state, params, reading, loss, choice)
    moving = within(stepped.state.moving, task.source, settings.radius)
    return replace(stepped, state=replace(stepped.state, moving=moving))


def eata(task: Task, state: State, seen: Seen) -> Stepped:
    """Entropy of reliable, non-redundant cases, and a Fisher-weighted anchor (Niu et al. 2022)."""
    params, reading = _read(task, state, seen.views.plain)
    classes = reading.logits.shape[1]
    limit = task.reliable
    choice = e.fresh(reading.logits, state.mean, limit, e.redundancy(classes))
    loss = choice.mean(e.entropy(reading.logits)) + task.settings.fisher * _forgotten(task, params)
    mean = e.running_mean(state.mean, reading.logits.softmax(1)[choice.used])
    return _step(task, replace(state, mean=mean), params, reading, loss, choice)


def sar(task: Task, state: State, seen: Seen) -> Stepped:
    """Entropy of reliable cases at the worst point nearby, with recovery (Niu et al. 2023)."""
    params, reading = _read(task, state, seen.views.plain)
    classes, limit = reading.logits.shape[1], task.reliable
    first = e.reliable(reading.logits, limit)
    if not first.used.any():
        return Stepped(state, state, reading.score.detach(), 0.0, first.used)
    slope = gradient(first.mean(e.entropy(reading.logits)), params)
    params, worse = _read_at(task, climbed(params, slope, SHARPNESS), seen.views.plain)
    again = e.reliable(worse.logits, limit)
    choice = e.Choice(first.used & again.used, first.weight * again.weight)
    loss = choice.mean(e.entropy(worse.logits))
    if not choice.used.any():
        return Stepped(state, state, reading.score.detach(), 0.0, choice.used)
    surprise = loss.item() if state.surprise is None else 0.9 * state.surprise + 0.1 * loss.item()
    if surprise < e.margin(classes, e.RESET):
        recovered = State(Moving(task.source))
        return Stepped(recovered, state, reading.score.detach(), loss.item(), choice.used)
    return _step(task, replace(state, surprise=surprise), params, reading, loss, choice)


def deyo(task: Task, state: State, seen: Seen) -> Stepped:
    """Entropy of sure cases whose call depends on shape (Lee et al. 2024).

    Shape is hidden in the image where the stream brings such views, else in the tokens at the cut, which
    only blocks above the cut can notice.
    """
    params, reading = _read(task, state, seen.views.plain)
    views = seen.views
    with torch.no_grad():
        hidden = task.read(state.moving.params, views.hidden or middle_hidden(views.plain))
    choice = e.shape_bound(
        reading.logits,
        hidden.logits,
        limit=task.reliable + e.margin(reading.logits.shape[1], WIDER),
        centre=task.reliable,
        drop=task.settings.drop,
    )
    return _step(task, state, params, reading, choice.mean(e.entropy(reading.logits)), choice)


def shot_im(task: Task, state: State, seen: Seen) -> Stepped:
    """Sure predictions whose mean is the source's prior: information maximisation (Liang et al. 2020)."""
    params, reading = _read(task, state, seen.views.plain)
    choice = e.all_cases(reading.logits)
    spread, state = _imbalance(task, state, reading.logits)
    return _step(task, state, params, reading, choice.mean(e.entropy(reading.logits)) + spread, choice)


def tact_adapt(task: Task, state: State, seen: Seen) -> Stepped:
    """Learn the calls of causal trimming, with information maximisation (Liu et al. 2025, TACT-adapt)."""
    trimmed = trim_batch(task, state, seen)
    params, reading = _read(task, state, seen.views.plain)
    choice = e.all_cases(reading.logits)
    called = (trimmed.score > 0).long()
    spread, state = _imbalance(task, replace(state, trimmed=trimmed.state.trimmed), reading.logits)
    learned = F.cross_entropy(e.two_class(reading.score), called)
    loss = learned + task.settings.balance * (choice.mean(e.entropy(reading.logits)) + spread)
    return _step(task, state, params, reading, loss, choice)


def middle_hidden(batch: Batch) -> Batch:
    """The batch with the middle half of each image's patch tokens replaced by their mean.

    DeYO shuffles patches; behind the position embedding that changes nothing for a transformer, so this
    is its occlusion variant: the rows in the middle of the image hold no shape any more.
    """
    assert batch.tokens is not None
    patches = batch.tokens[:, batch.prefix :]
    valid = batch.valid if batch.valid.any() else torch.ones_like(batch.valid)
    count = valid.sum(1, keepdim=True).clamp(min=1)
    place = valid.cumsum(1) - 1
    hidden = valid & (place >= count // 4) & (place < count - count // 4)
    mean = (patches * valid[..., None]).sum(1, keepdim=True) / count[..., None]
    patches = torch.where(hidden[..., None], mean, patches)
    return batch.with_tokens(torch.cat([batch.tokens[:, : batch.prefix], patches], dim=1))


def fisher(task: Task) -> dict[str, Tensor]:
    """Mean squared gradient of the source's own calls on its probe (EATA, eq. 9), one batch at a time."""
    total = {n: torch.zeros_like(p) for n, p in task.source.items()}
    for seen in task.probe:
        params, reading = _read_at(task, task.source, seen.views.plain)
        loss = F.cross_entropy(reading.logits, reading.logits.detach().argmax(1))
        for name, slope in gradient(loss, params).items():
            total[name] = total[name] + slope.square() / len(task.probe)
    return total


def _read(task: Task, state: State, batch: Batch) -> tuple[Params, Reading]:
    return _read_at(task, state.moving.params, batch)


def _read_at(task: Task, params: Params, batch: Batch) -> tuple[Params, Reading]:
    params = leaves(params)
    with torch.enable_grad():
        return params, task.read(params, batch)


def _step(
    task: Task, state: State, params: Params, reading: Reading, loss: Float[Tensor, ""], choice: e.Choice
) -> Stepped:
    after = state
    if choice.used.any():
        after = replace(state, moving=descend(state.moving, gradient(loss, params), task.rule))
    return Stepped(after, state, reading.score.detach(), loss.item(), choice.used)


def _forgotten(task: Task, params: Params) -> Float[Tensor, ""]:
    terms = [(f * (params[n] - task.source[n]).square()).sum() for n, f in task.fisher.items()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _imbalance(task: Task, state: State, logits: Float[Tensor, "b c"]) -> tuple[Float[Tensor, ""], State]:
    """Distance of the mean prediction from the prior, over this batch and what is remembered of others."""
    new, count = logits.softmax(1).mean(0), len(logits)
    old = min(state.counted, REMEMBERED)
    mean = new if state.mean is None else (state.mean * old + new * count) / (old + count)
    return e.imbalance(mean, task.prior), replace(state, mean=mean.detach(), counted=state.counted + count)
