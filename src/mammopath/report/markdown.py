"""A study's tables in a Markdown page, between two marks; the words around them are kept."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammopath.errors import DataError
from mammopath.evaluate import stamp
from mammopath.files import read_lines, write_text
from mammopath.report.effects import effects, markdown_effects
from mammopath.report.gaps import GapRow, gap_rows
from mammopath.report.grid import (
    markdown_grid,
    markdown_knowledge,
    markdown_localisation,
    markdown_representation,
)
from mammopath.report.pairs import markdown_pairs, pair_rows
from mammopath.report.study import Study, read_study
from mammopath.report.tables import (
    Line,
    markdown_means,
    markdown_rows,
    markdown_table,
    means,
    signed_limits,
    summarise,
)

RESULTS = "<!-- results, made by: mammopath report --markdown -->"
ADAPTATION = "<!-- adaptation, made by: mammopath report --markdown -->"
METHODS = "<!-- methods, made by: mammopath report --markdown -->"
KNOWLEDGE = "<!-- knowledge, made by: mammopath report --markdown -->"
REPRESENTATION = "<!-- representation, made by: mammopath report --markdown -->"
LOCALISATION = "<!-- localisation, made by: mammopath report --markdown -->"
PAIRS = "<!-- pairs, made by: mammopath report --markdown -->"
END = "<!-- end of what is made -->"

UNSHOWN = ("counters", "idle")
"""Of a results line: what its tables do not show."""


@dataclass(frozen=True)
class Kept:
    """What the tables of results and of adaptations are made from; it lies beside the page as JSON lines.

    Attributes:
        lines: of results, without what no table shows; they name no image and no patient.
        gaps: with their limits, which took the predictions to work out.
    """

    lines: Sequence[Line]
    gaps: Sequence[GapRow]

    def text(self) -> str:
        """One JSON object a line."""
        gaps = [{"gap": {k: _plain(v) for k, v in asdict(row).items()}} for row in self.gaps]
        return "".join(json.dumps(one) + "\n" for one in [*self.lines, *gaps])


def read_kept(path: Path) -> Kept:
    """What ``Kept.text`` wrote."""
    found = [json.loads(line) for line in read_lines(path)]
    gaps: list[dict[str, Any]] = [
        {k: math.nan if v is None else v for k, v in one["gap"].items()} for one in found if "gap" in one
    ]
    return Kept([one for one in found if "gap" not in one], [GapRow(**row) for row in gaps])


def put_tables(folder: Path, page: Path) -> Path:
    """Write the tables of a study between the marks of a page; a page that is not there is made.

    A page has one mark or several: for the results of the methods as trained, one row a site or one row a
    method; for what their networks know beside the label, one row a method, or site by site (representation,
    localisation); for patients with both modalities; for what adaptation did to the methods. What the first
    and the last are made from goes beside the page (``PAGE.jsonl``), so that the page can be made again
    without the study.

    Raises:
        DataError: the study has no results, or the page has no marks.
    """
    study = read_study(folder)
    told = stamp(study.data)
    folder_tables: dict[str, Callable[[], str]] = {
        METHODS: lambda: markdown_grid(study),
        KNOWLEDGE: lambda: markdown_knowledge(study),
        REPRESENTATION: lambda: markdown_representation(study),
        LOCALISATION: lambda: markdown_localisation(study),
        PAIRS: lambda: markdown_pairs(pair_rows(study)) or "No patient has both modalities at one site.\n",
    }
    text = page.read_text() if page.exists() else f"# {folder.name}\n\n{RESULTS}\n{END}\n"
    if not any(mark in text for mark in (RESULTS, ADAPTATION, *folder_tables)):
        raise DataError(f"{page}: has no place for the tables; put these two lines there:\n{RESULTS}\n{END}")
    for mark in [mark for mark in folder_tables if mark in text]:
        text = _put(text, mark, _head(told) + folder_tables[mark]())
    if RESULTS in text or ADAPTATION in text:
        beside = page.with_suffix(".jsonl")
        write_text(beside, _keep(study, adapted=ADAPTATION in text).text())
        text = made_again(text, read_kept(beside))
    write_text(page, text)
    return page


def made_again(text: str, kept: Kept) -> str:
    """A page with its tables of results and adaptations made from what lies beside it."""
    told = next((str(line["stamp"]) for line in kept.lines if line.get("stamp")), "")
    rows = summarise([line for line in kept.lines if line["adaptation"] in ("", "none")])
    results = [markdown_table(rows), markdown_means(means(rows)), *filter(None, [markdown_gaps(kept.gaps)])]
    text = _put(text, RESULTS, _head(told) + "\n".join(results))
    return _put(text, ADAPTATION, _head(told) + markdown_effects(effects(kept.lines)))


def markdown_gaps(gaps: Sequence[GapRow]) -> str:
    """The gap of every site and method with its limits, then mean and largest over sites; empty for none."""
    head = ("over", "site", "method", "test cases", "gap, in-domain [95 %]")
    names = {"site": "", "mean": "mean, ", "worst": "largest, "}
    cells = [
        (
            f"{names[g.scope]}{g.modality}",
            g.site,
            g.label,
            str(g.cases),
            signed_limits(g.gap, g.low, g.high),
        )
        for g in gaps
    ]
    return markdown_rows(head, cells) if cells else ""


def _keep(study: Study, *, adapted: bool) -> Kept:
    told = stamp(study.data)
    lines = [line for line in study.lines if adapted or line["adaptation"] in ("", "none")]
    kept = [{k: v for k, v in {"stamp": told, **line}.items() if k not in UNSHOWN} for line in lines]
    return Kept(kept, gap_rows(study))


def _head(told: str) -> str:
    return f"**{told[0].upper()}{told[1:]}**\n\n" if told else ""


def _plain(value: Any) -> Any:
    """JSON has no NaN; six decimals are far below the noise."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def _put(text: str, mark: str, table: str) -> str:
    before, found, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    return f"{before}{mark}\n\n{table}\n{END}{after}" if found and end else text
