"""The error tree: every message says what is wrong, where, and what to do.

MammopathError
  ConfigError       a key or value in a configuration
  DataError         a data set, manifest or table
    LeakError       patients or pixels shared where they must not be
  ImageReadError    a file that cannot be read as the image it claims to be
  WeightsError      a weights file or run folder that does not fit
  AdaptationError   an adaptation that cannot be carried out
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

ReasonCode = Literal[
    "missing", "empty", "truncated", "format", "unsupported", "pixels", "geometry", "too_large", "annotation",
    "view",
]  # fmt: skip
"""Why one file was left out; stands in every list of skipped files."""


class MammopathError(Exception):
    """Base of all errors that a user can act on; the command line prints them without a traceback."""


class ConfigError(MammopathError):
    """A key or value in a configuration is wrong."""


class DataError(MammopathError):
    """A data set, manifest or table is not what it should be."""


class LeakError(DataError):
    """Patients or pixels are shared between parts that must be disjoint."""


class WeightsError(MammopathError):
    """A weights file or run folder does not fit the model."""


class AdaptationError(MammopathError):
    """A test-time adaptation cannot be carried out on these cases.

    Attributes:
        rows: of the cases that are to blame, where some are.
    """

    def __init__(self, message: str, *, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class ImageReadError(MammopathError):
    """A file could not be read as the image it claims to be.

    Attributes:
        path: the file.
        why: what is wrong with it.
        code: the reason code for lists of skipped files.
        hint: what to do about it.
    """

    def __init__(self, path: Path, why: str, *, code: ReasonCode = "format", hint: str = "") -> None:
        super().__init__(f"{path}: {why}" + (f"\n  try: {hint}" if hint else ""))
        self.path, self.why, self.code, self.hint = path, why, code, hint
