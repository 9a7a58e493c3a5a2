"""A fixed number of threads for a prediction: the same numbers from wherever it is called."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from threadpoolctl import threadpool_limits


@dataclass
class _Pin:
    """What the process is pinned to at the moment, and by how many calls."""

    turn: threading.Condition = field(default_factory=threading.Condition)
    calls: int = 0
    number: int = 0
    before: int = 0
    limits: threadpool_limits | None = None


_PIN = _Pin()
"""Numbers of threads belong to the process, not to a predictor: so does the count of who asked for them."""


@contextmanager
def pinned(number: int) -> Iterator[None]:
    """So many threads for torch and for linear algebra inside the block; as before once the last call leaves.

    Calls that ask for the same number run side by side; one that asks for another waits for them to end.
    """
    _enter(number)
    torch.set_num_threads(number)  # torch keeps it for each thread that calls
    try:
        yield
    finally:
        _leave()


def _enter(number: int) -> None:
    with _PIN.turn:
        _PIN.turn.wait_for(lambda: not _PIN.calls or _PIN.number == number)
        if not _PIN.calls:
            _PIN.number, _PIN.before = number, torch.get_num_threads()
            _PIN.limits = threadpool_limits(number)
        _PIN.calls += 1


def _leave() -> None:
    with _PIN.turn:
        _PIN.calls -= 1
        if not _PIN.calls:
            torch.set_num_threads(_PIN.before)
            if _PIN.limits is not None:
                _PIN.limits.restore_original_limits()
            _PIN.turn.notify_all()
