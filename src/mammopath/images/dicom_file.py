"""The elements of a DICOM file; a deflated one is inflated piece by piece, up to a limit."""

import io
import zlib
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag

from mammopath.errors import ImageReadError
from mammopath.images.guard import MAX_PIXELS, check_size

DEFLATED = "1.2.840.10008.1.2.1.99"

MAX_INFLATED = 2 * MAX_PIXELS + (1 << 24)
"""Bytes that a deflated file may inflate to: the largest image that is read, of 16 bits, and a header."""

_PREAMBLE = 132
"""Bytes in front of the first element of a DICOM file (PS3.10 section 7.1)."""

_GROUP_LENGTH = 12
"""Bytes of the first element, which says how long the others of the file meta information are."""

_PIECE = 1 << 16
"""Bytes of a compressed stream that are inflated at a time."""


def open_dicom(path: Path, *, pixels: bool) -> FileDataset:
    """Elements of a DICOM file, with or without those from the pixels on.

    Raises:
        ImageReadError: ``format`` (not DICOM), ``truncated`` (ends in its header), ``too_large``, or as
            ``check_size``. Other errors of the parser pass through; read inside ``decoding``.
    """
    check_size(path)
    try:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DEFLATED and "FileMetaInformationGroupLength" in meta:
            return _inflated(path, meta, pixels=pixels)
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError:
        if path.stat().st_size <= _PREAMBLE:
            raise ImageReadError(path, "ends in its header", code="truncated", hint="copy it again") from None
        raise ImageReadError(path, "is not a DICOM file", code="format", hint="export it again") from None


def _inflated(path: Path, meta: FileMetaDataset, *, pixels: bool) -> FileDataset:
    """As ``pydicom.dcmread``, which inflates the whole of a file at once, however large that is."""
    with path.open("rb") as file:
        preamble = file.read(128)
        file.seek(_PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength))
        stream = _Inflated(file, path)
        data = read_dataset(stream, False, True, stop_when=None if pixels else _is_pixels)
    found = FileDataset(str(path), data, preamble, meta, is_implicit_VR=False, is_little_endian=True)
    found.set_original_encoding(False, True, data.original_character_set)
    return found


def _is_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


class _Inflated(io.BufferedIOBase):
    """A deflated stream (RFC 1951) as a file to read and to seek in, inflated as far as needed."""

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        self._file, self._path, self._at = file, path, 0
        self._inflate, self._bytes = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()

    def read(self, size: int | None = -1) -> bytes:
        end = None if size is None or size < 0 else self._at + size
        while (end is None or len(self._bytes) < end) and self._more():
            pass
        found = bytes(memoryview(self._bytes)[self._at : end])
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self._more():
                pass
        self._at = offset + (0, self._at, len(self._bytes))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def _more(self) -> bool:
        """Inflate one piece; False at the end."""
        piece = self._inflate.unconsumed_tail or self._file.read(_PIECE)
        if not piece:
            if not self._inflate.eof:
                raise ImageReadError(self._path, "ends early", code="truncated", hint="copy it again")
            return False
        self._bytes += self._inflate.decompress(piece, 16 * _PIECE)
        if len(self._bytes) > MAX_INFLATED:
            raise ImageReadError(
                self._path, f"inflates to more than {MAX_INFLATED:,} bytes", code="too_large"
            )
        return not self._inflate.eof
