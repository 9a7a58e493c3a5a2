"""Work in several processes: every result comes, and an error does not wait for the work behind it."""

import time
from functools import partial
from pathlib import Path

import pytest

from mammopath.parallel import in_processes


def mark(folder: Path, number: int) -> int:
    """Leave a file; the first task fails."""
    if number == 0:
        raise ValueError("the first task fails")
    (folder / str(number)).touch()
    time.sleep(0.2)
    return number


def test_every_result_comes(tmp_path: Path) -> None:
    assert sorted(in_processes(partial(mark, tmp_path), [1, 2, 3], workers=2)) == [1, 2, 3]


def test_an_error_cancels_the_tasks_behind_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first task"):
        list(in_processes(partial(mark, tmp_path), list(range(40)), workers=2))
    assert len(list(tmp_path.iterdir())) < 20
