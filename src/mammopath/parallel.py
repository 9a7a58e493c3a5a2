"""Where work runs: processes that end with their parent, a fixed number of threads in each, the device."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
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
    pool = _pool(workers)
    try:
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            yield future.result()
    finally:
        # Not a ``with`` block: its end would take the cancelling back, and an error wait for every task.
        pool.shutdown(wait=True, cancel_futures=True)


def past_crashes(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[tuple[Task, Result | None]]:
    """Every task with its result as they are finished; None where the process that had it died.

    For work that may crash in native code, or be killed for its memory. Each worker is a pool of one process,
    which takes the next task when it is free, so it is known what it died of.

    Args:
        work: a function that can be sent to another process.
        tasks: what it is called with.
        workers: processes at the same time.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    found: queue.SimpleQueue[tuple[Task, Future[Result]]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    serving = [threading.Thread(target=_serve, args=(work, waiting, found)) for _ in range(workers)]
    for thread in serving:
        thread.start()
    try:
        for _ in tasks:
            task, future = found.get()
            died = isinstance(future.exception(), BrokenProcessPool)
            yield task, None if died else future.result()
    finally:
        while not waiting.empty():  # after an error: no further task is begun
            with suppress(queue.Empty):
                waiting.get_nowait()
        for thread in serving:
            thread.join()


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


def _serve(
    work: Callable[[Task], Result],
    waiting: "queue.SimpleQueue[Task]",
    found: "queue.SimpleQueue[tuple[Task, Future[Result]]]",
) -> None:
    """Take tasks until there are none, in one process after another."""
    pool = _pool(1)
    with suppress(queue.Empty):
        while True:
            task = waiting.get_nowait()
            try:
                future = pool.submit(work, task)
            except BrokenProcessPool:  # it died between two tasks
                pool = _pool(1)
                future = pool.submit(work, task)
            if isinstance(future.exception(), BrokenProcessPool):
                pool.shutdown()
                pool = _pool(1)
            found.put((task, future))
    pool.shutdown()


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker must not outlive a parent that was killed: it would write into a study that goes on."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
