"""Progress on standard error: a bar for people, a line now and then for logs."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import track as rich_track

Track = Callable[[Iterable[int], str, int], Iterable[int]]
"""Goes through an iterable of known length and shows how far it is."""

LINE_EVERY = 15.0
"""Seconds between two lines where standard error is not a terminal."""


def track(items: Iterable[int], label: str, total: int) -> Iterator[int]:
    """Go through ``items`` and show how far it is."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from rich_track(items, label, total=total, console=console, transient=True)
    else:
        yield from _lines(items, label, total)


def silent(items: Iterable[int], label: str, total: int) -> Iterable[int]:
    """Go through ``items`` without a word; same shape as ``track``."""
    del label, total
    return items


def _lines(items: Iterable[int], label: str, total: int) -> Iterator[int]:
    last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            sys.stderr.write(f"{label}: {number} of {total}\n")
            sys.stderr.flush()
