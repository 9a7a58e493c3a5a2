"""Whatever a decoder throws becomes one ImageReadError; empty and absurdly large files never reach it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mammopath.errors import ImageReadError, ReasonCode

MAX_PIXELS = 80_000_000
"""Pixels of the largest image that is read whole. Film mammograms have at most about 30 million; a whole
slide has more, and is read in tiles."""

MAX_BYTES = 1_000_000_000
"""Bytes of the largest file that is read whole."""


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in the block into an ImageReadError that names ``path``.

    Native decoders raise many kinds of errors on broken files, panics that are no ``Exception`` among them.
    A request to stop passes through.

    Raises:
        ImageReadError: in place of every other error.
    """
    try:
        yield
    except (ImageReadError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except FileNotFoundError:
        raise ImageReadError(path, "there is no such file", code="missing") from None
    except MemoryError:
        raise ImageReadError(path, "decoding it needs more memory than there is", code="too_large") from None
    except BaseException as error:
        code: ReasonCode = "truncated" if _sounds_short(error) else "pixels"
        raise ImageReadError(
            path,
            f"cannot be decoded: {error or type(error).__name__}",
            code=code,
            hint="copy or export it again",
        ) from None


def contents(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        ImageReadError: there is no such file (``missing``), it is a folder (``format``), has no bytes
            (``empty``) or more than ``MAX_BYTES`` (``too_large``).
    """
    check_size(path)
    with decoding(path):
        return path.read_bytes()


def check_size(path: Path) -> int:
    """Number of bytes of a file that may be read.

    Raises:
        ImageReadError: as ``contents``.
    """
    with decoding(path):
        size = path.stat().st_size
    if path.is_dir():
        raise ImageReadError(path, "is a folder, not an image", code="format")
    if size == 0:
        raise ImageReadError(path, "the file has no bytes", code="empty", hint="copy it again")
    if size > MAX_BYTES:
        raise ImageReadError(path, f"has {size:,} bytes, more than {MAX_BYTES:,}", code="too_large")
    return size


def check_shape(path: Path, height: int, width: int) -> None:
    """Refuse an image without pixels, or with more than ``MAX_PIXELS``, before it is decoded.

    Raises:
        ImageReadError: ``pixels`` or ``too_large``.
    """
    if height < 1 or width < 1:
        raise ImageReadError(path, f"claims a size of {width} x {height}", code="pixels")
    if height * width > MAX_PIXELS:
        raise ImageReadError(
            path,
            f"claims a size of {width} x {height}, more than {MAX_PIXELS:,} pixels",
            code="too_large",
            hint="read whole slides as slides, or reduce it first",
        )


def _sounds_short(error: BaseException) -> bool:
    return any(
        word in str(error).lower() for word in ("truncated", "too small", "unexpected end", "end of file")
    )
