"""How large a slide's pixels are: from its header or a table, within what microscopes can do."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from mammopath.errors import DataError, ImageReadError
from mammopath.types import Spacing, SpacingSource

FINEST_UM, COARSEST_UM = 0.05, 5.0
"""A header that claims level-0 pixels outside of this range is not believed: a TIFF without a resolution, for
one, is written as 1000 um by libvips, and as 353 um by whoever means 72 dots per inch."""

_HINT = "give the size of its pixels, in a table with the columns slide,um (option --spacings)"


def settle_spacing(
    path: Path, um: tuple[float, float] | None, override: Spacing | None
) -> tuple[Spacing, SpacingSource]:
    """The spacing to use, and where it comes from; an override is believed whatever it is.

    Args:
        path: for errors.
        um: width and height of a level-0 pixel as the header has it, or None.
        override: what a person says.

    Raises:
        ImageReadError: ``geometry``: the header has none, or one outside of 0.05 to 5 um.
    """
    if override is not None:
        return override, "override"
    if um is None:
        raise ImageReadError(path, "does not say how large its pixels are", code="geometry", hint=_HINT)
    if not all(math.isfinite(side) and FINEST_UM <= side <= COARSEST_UM for side in um):
        raise ImageReadError(
            path,
            f"claims pixels of {um[0]:.4g} x {um[1]:.4g} um; slides have {FINEST_UM} to {COARSEST_UM:g}",
            code="geometry",
            hint=_HINT,
        )
    return Spacing(*um), "header"


def read_spacings(path: Path) -> dict[str, Spacing]:
    """Spacings by slide: a CSV with the columns ``slide`` (file name, with or without suffix) and ``um``.

    A third column ``um_y`` is for pixels that are not square.

    Raises:
        DataError: no such file, a column is missing, a row is no positive number, or a slide stands twice.
    """
    try:
        table = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True)
        named, rows = table.fieldnames or (), list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of spacings ({error})") from None
    if not {"slide", "um"} <= set(named):
        raise DataError(
            f"{path}: needs the columns slide,um in its first line, has {','.join(named) or 'nothing'}"
        )
    found: dict[str, Spacing] = {}
    for line, row in enumerate(rows, start=2):
        name = (row["slide"] or "").strip()
        if not name:
            raise DataError(f"{path}, line {line}: names no slide")
        try:
            spacing = Spacing(float(row["um"]), float(row.get("um_y") or row["um"]))
        except (TypeError, ValueError):
            raise DataError(f"{path}, line {line}: {row['um']!r} is no size in micrometres") from None
        if found.setdefault(name, spacing) != spacing:
            raise DataError(f"{path}, line {line}: {name} stands twice, with different sizes")
    return found


def spacing_of(path: Path, spacings: Mapping[str, Spacing]) -> Spacing | None:
    """The override for a slide, by its whole path, its file name, or its name without suffix."""
    return spacings.get(str(path)) or spacings.get(path.name) or spacings.get(path.stem)
