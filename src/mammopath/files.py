"""Files that appear whole or not at all: atomic writing, appended lines, hashes."""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
"""Bytes read at a time by ``sha256``."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, which becomes ``path`` when the block succeeds.

    The temporary file is flushed to disk before it is renamed, and the folder after it, so a crash at any
    moment leaves either the old file or the new one. If the block fails, the temporary file is removed.
    Missing parent folders are made. The temporary name keeps the suffix of ``path``.

    Raises:
        OSError: the folder cannot be written; the file at ``path`` is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what writers of ``path`` that were killed have left; only while nobody writes it."""
    left = re.compile(rf"\.{re.escape(path.stem)}\.\d+\.[0-9a-f]{{8}}\.part{re.escape(path.suffix)}")
    for other in path.parent.glob(".*.part*"):
        if left.fullmatch(other.name):
            other.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 without translating line ends, whole or not at all."""
    write_bytes(path, text.encode())


def append_line(path: Path, line: str) -> None:
    """Append one line to ``path`` and flush it to disk.

    Writers take turns by a lock on the file, so lines do not mix. A torn line that a crash has left at the
    end is cut off first: it was never acknowledged.

    Raises:
        ValueError: ``line`` holds a line break.
    """
    if "\n" in line or "\r" in line:
        raise ValueError(f"one line at a time, got {line!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(_end_of_last_line(file))
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        _flush(path.parent)


def read_lines(path: Path) -> list[str]:
    """Lines of a file written by ``append_line``, without a torn last one; none if there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    *whole, _torn = path.read_bytes().split(b"\n")
    return [line.decode() for line in whole if line]


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _end_of_last_line(file: IO[bytes]) -> int:
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
