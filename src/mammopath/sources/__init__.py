"""Data sets, one file each, that list their images as records."""

from mammopath.sources import bach, idc, mias, phantom, table
from mammopath.sources.source import Source

SOURCES: dict[str, Source] = {
    "mias": mias.SOURCE,
    "bach": bach.SOURCE,
    "idc": idc.SOURCE,
    "table": table.SOURCE,
    "phantom": phantom.SOURCE,
}
"""Name -> source. ``docs/datasets`` has a card for each."""
