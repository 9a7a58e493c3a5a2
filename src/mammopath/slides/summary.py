"""The table of what became of the slides of a job."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mammopath.files import write_text
from mammopath.slides.job import Outcome

COLUMNS = (
    "slide", "verdict", "patches", "skipped", "um_x", "um_y", "spacing_source", "share", "pen", "sharpness",
    "code", "why", "notes", "path",
)  # fmt: skip


def write_summary(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write ``slides.csv``, a row for each slide."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for outcome in outcomes:
        told = vars(outcome) | {
            "um_x": outcome.um[0],
            "um_y": outcome.um[1],
            "notes": "; ".join(outcome.notes),
        }
        rows.writerow([plain(told[name]) for name in COLUMNS])
    write_text(out / "slides.csv", text.getvalue())
    return out / "slides.csv"


def plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets a quote in front (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
