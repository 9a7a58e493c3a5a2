"""One of the many images that an HDF5 file holds: its path is ``FILE.h5/NUMBER``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import UInt8

from mammopath.errors import ImageReadError
from mammopath.images.guard import decoding

SUFFIXES = (".h5", ".hdf5")


def is_packed(path: Path) -> bool:
    """Whether a path leads into an HDF5 file."""
    return path.name.isdigit() and path.parent.suffix.lower() in SUFFIXES and path.parent.is_file()


def file_of(path: Path) -> Path:
    """The file on disk that holds an image: the HDF5 file of a packed one, else the path itself."""
    return path.parent if is_packed(path) else path


def read_packed(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read one image.

    Raises:
        ImageReadError: the file is damaged, has no stack of RGB images, or not so many.
    """
    with _stack(path) as images:
        return np.asarray(images[int(path.name)])


def packed_size(path: Path) -> tuple[int, int]:
    """Height and width of one image.

    Raises:
        ImageReadError: as ``read_packed``, except for faults that only decoding shows.
    """
    with _stack(path) as images:
        return int(images.shape[1]), int(images.shape[2])


def stack_shape(path: Path) -> tuple[int, ...]:
    """Number, height, width and channels of the images of a file.

    Raises:
        ImageReadError: as ``packed_size``.
    """
    with _stack(path / "0") as images:
        return tuple(int(n) for n in images.shape)


@contextmanager
def _stack(path: Path) -> Iterator[h5py.Dataset]:
    """The only data set of RGB images in the file, which has at least as many as the path says."""
    with decoding(path), h5py.File(path.parent, "r") as file:
        found = [item for item in file.values() if _is_stack(item)]
        if len(found) != 1:
            why = f"is in a file with {len(found)} stacks of 8-bit RGB images, not one"
            raise ImageReadError(path, why, code="format")
        if int(path.name) >= len(found[0]):
            raise ImageReadError(path, f"there are only {len(found[0])} images in the file", code="missing")
        yield found[0]


def _is_stack(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 4 and item.shape[3] == 3 and item.dtype == np.uint8
