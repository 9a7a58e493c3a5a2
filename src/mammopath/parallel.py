"""Where work runs: processes that end with their parent, a fixed number of threads in each, the device."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """Results of ``work`` as they are finished; with one worker they are made here, one after the other.

    Args:
        work: a function that can be sent to another process.
        tasks: what it is called with.
        workers: processes at the same time.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            yield future.result()
    finally:
        # Not a ``with`` block: its end would take the cancelling back, and an error wait for every task.
        pool.shutdown(wait=True, cancel_futures=True)


def processes(asked: int, *, threads: int) -> int:
    """Processes at the same time: as asked, or for 0 as many as there are cores for their threads."""
    return asked or max(1, (os.cpu_count() or 1) // threads)


def device_of(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to compute on; ``auto`` is CUDA where there is one."""
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for torch and for linear algebra inside the block; as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed: it would write into a study that goes on."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
