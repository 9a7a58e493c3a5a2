"""Averages of the weights along training: exponential (EMA), or dense over the loss valley (SWAD)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: value.detach().clone() for name, value in state.items()}


class WeightAverage:
    """Exponential moving average of the trained weights; ``none`` leaves everything as it is.

    The decay rises from 0 with the step, ``min(decay, (1 + t) / (10 + t))``, so that the first,
    random weights are forgotten.
    """

    def __init__(self, kind: Literal["none", "ema", "swad"], *, decay: float = 0.99) -> None:
        self.kind, self.decay = kind, decay
        self.state: State = {}

    def update(self, state: Mapping[str, Tensor], *, step: int) -> None:
        """Take in the weights after a step (counted from 1)."""
        if self.kind == "none":
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        self.state = mixed(self.state, state, share=1 - decay) if self.state else _copy(state)

    @contextmanager
    def applied(self, network: Trained) -> Iterator[None]:
        """The network with the averaged weights; its own come back afterwards."""
        if not self.state:
            yield
            return
        own = _copy(network.trained_state())
        network.load_trained_state(self.state)
        try:
            yield
        finally:
            network.load_trained_state(own)
