"""Averages of the weights along training: exponential (EMA), or dense over the loss valley (SWAD)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

State = dict[str, Tensor]


@runtime_checkable
class Trained(Protocol):
    """A network whose trained part can be read and replaced."""

    def trained_state(self) -> Mapping[str, Tensor]:
        """The trained weights."""

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the trained weights."""


def mixed(old: Mapping[str, Tensor], new: Mapping[str, Tensor], *, share: float) -> State:
    """``old`` moved towards ``new`` by ``share``; integer weights are taken from ``new``."""
    return {
        name: torch.lerp(old[name], value.detach(), share) if value.is_floating_point() else value.clone()
        for name, value in new.items()
    }


def loss_valley(
    losses: Sequence[float], *, converge: int = 3, tolerate: int = 6, ratio: float = 0.3
) -> tuple[int, int]:
    """First and last validation of the valley of SWAD (Cha et al. 2021, algorithm 1).

    It starts where a loss is the lowest of the ``converge`` from it on. It ends before ``tolerate``
    losses in a row that are all above ``1 + ratio`` times the mean of those first ones, or with training.
    Without such a start it is the last validation alone.

    Args:
        losses: at each validation, in order; at least one.
        converge: patience for the start.
        tolerate: patience for the end.
        ratio: how far above its start a loss still belongs to the valley.
    """
    last = len(losses) - 1
    windows = ((i, losses[i : i + converge]) for i in range(len(losses) - converge + 1))
    start = next((i for i, window in windows if window[0] == min(window)), None)
    if start is None:
        return last, last
    limit = (1 + ratio) * sum(losses[start : start + converge]) / converge
    ends = range(start + converge, len(losses) - tolerate + 1)
    end = next((i - 1 for i in ends if min(losses[i : i + tolerate]) > limit), last)
    return start, end


@dataclass
class Running:
    """Mean of the weights of several steps."""

    count: int = 0
    state: State = field(default_factory=dict)

    def add(self, state: Mapping[str, Tensor], times: int = 1) -> None:
        """Take in weights that stand for so many steps."""
        self.count += times
        self.state = mixed(self.state, state, share=times / self.count) if self.state else _copy(state)


class WeightAverage:
    """Average of the trained weights; ``none`` leaves everything as it is.

    The decay of the moving average rises with the step, ``min(decay, (1 + t) / (10 + t))``, so that the
    first, random weights are forgotten. SWAD averages each step between two validations, and over the
    valley of their losses at the end; ``validated`` must be called after each validation.

    Attributes:
        averaged: steps whose weights went into the average that is in use; for SWAD, known at the end.
    """

    def __init__(self, kind: Literal["none", "ema", "swad"], *, decay: float = 0.99) -> None:
        self.kind, self.decay = kind, decay
        self.moving: State = {}
        self.segment, self.segments, self.losses = Running(), list[Running](), list[float]()
        self.awaited = False
        self.averaged = 0

    def update(self, state: Mapping[str, Tensor], *, step: int) -> None:
        """Take in the weights after a step (counted from 1)."""
        self.averaged += self.kind != "none"
        if self.kind == "swad":
            self.segment.add(state)
        if self.kind == "ema":
            decay = min(self.decay, (1 + step) / (10 + step))
            self.moving = mixed(self.moving, state, share=1 - decay) if self.moving else _copy(state)

    def validated(self, loss: float) -> None:
        """Tell the loss at a validation, lower is better; it ends a segment of SWAD."""
        self.awaited = False
        if self.kind == "swad":
            self.segments.append(self.segment)
            self.losses.append(loss)
            self.segment = Running()

    def final(self) -> State | None:
        """Weights that a run ends with in place of its best step: those of the valley; None but for SWAD."""
        if not self.segments:
            return None
        start, end = loss_valley(self.losses)
        valley = Running()
        for segment in self.segments[start : end + 1]:
            valley.add(segment.state, times=segment.count)
        self.averaged = valley.count
        return valley.state

    @contextmanager
    def applied(self, network: Trained) -> Iterator[None]:
        """The network with the moving average; its own weights come back afterwards.

        Raises:
            RuntimeError: the last validation was not told to SWAD.
        """
        if self.kind == "swad" and self.awaited:
            raise RuntimeError("SWAD needs the loss of every validation: call validated()")
        self.awaited = True
        own = _copy(network.trained_state()) if self.moving else {}
        try:
            if own:
                network.load_trained_state(self.moving)
            yield
        finally:
            if own:
                network.load_trained_state(own)


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: value.detach().clone() for name, value in state.items()}
