"""Tables of slides as CSV, each row with the notice; the table of what became of the slides of a job."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from mammopath import RESEARCH_USE_ONLY
from mammopath.files import write_text
from mammopath.slides.job import Outcome

COLUMNS = (
    "slide", "verdict", "patches", "skipped", "um_x", "um_y", "spacing_source", "share", "pen", "sharpness",
    "code", "why", "notes", "path",
)  # fmt: skip


def write_summary(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write ``slides.csv``, a row for each slide."""
    told = [vars(o) | {"um_x": o.um[0], "um_y": o.um[1], "notes": "; ".join(o.notes)} for o in outcomes]
    write_csv(out / "slides.csv", COLUMNS, [{name: one[name] for name in COLUMNS} for one in told])
    return out / "slides.csv"


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, whole or not at all; text that a spreadsheet would run is quoted.

    A column ``notice`` comes last: a line of comment would break readers, and a file beside gets lost.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, (*columns, "notice"), lineterminator="\n")
    writer.writeheader()
    notice = {"notice": RESEARCH_USE_ONLY}
    writer.writerows({k: plain(v) for k, v in row.items()} | notice for row in rows)
    write_text(path, text.getvalue())


def plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets a quote in front (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
