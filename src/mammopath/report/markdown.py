"""A study's tables in a Markdown page, between two marks; the words around them are kept."""

import json
from collections.abc import Callable
from pathlib import Path

from mammopath.errors import DataError
from mammopath.evaluate import stamp
from mammopath.files import read_lines, write_text
from mammopath.report.effects import effects, markdown_effects
from mammopath.report.grid import markdown_grid, markdown_knowledge
from mammopath.report.study import read_study
from mammopath.report.tables import markdown_means, markdown_table, means, summarise

RESULTS = "<!-- results, made by: mammopath report --markdown -->"
ADAPTATION = "<!-- adaptation, made by: mammopath report --markdown -->"
METHODS = "<!-- methods, made by: mammopath report --markdown -->"
KNOWLEDGE = "<!-- knowledge, made by: mammopath report --markdown -->"
END = "<!-- end of what is made -->"


def put_tables(folder: Path, page: Path) -> Path:
    """Write the tables of a study between the marks of a page; a page that is not there is made.

    A page has one mark or several: for the results of the methods as trained, one row a site or one row a
    method, for what their networks know beside the label, and for what adaptation did to them.

    Raises:
        DataError: the study has no results, or the page has no marks.
    """
    lines = [json.loads(line) for line in read_lines(folder / "results.jsonl")]
    if not lines:
        raise DataError(f"{folder}: no results.jsonl with results; run mammopath lodo first")
    rows = summarise([line for line in lines if line["adaptation"] == "none"])
    facts = folder / "data.json"
    told = stamp(json.loads(facts.read_text())) if facts.exists() else ""
    head = f"**{told[0].upper()}{told[1:]}**\n\n" if told else ""
    tables: dict[str, Callable[[], str]] = {
        RESULTS: lambda: f"{markdown_table(rows)}\n{markdown_means(means(rows))}",
        ADAPTATION: lambda: markdown_effects(effects(lines)),
        METHODS: lambda: markdown_grid(read_study(folder)),
        KNOWLEDGE: lambda: markdown_knowledge(read_study(folder)),
    }
    text = page.read_text() if page.exists() else f"# {folder.name}\n\n{RESULTS}\n{END}\n"
    if not any(mark in text for mark in tables):
        raise DataError(f"{page}: has no place for the tables; put these two lines there:\n{RESULTS}\n{END}")
    for mark in [mark for mark in tables if mark in text]:
        text = _put(text, mark, head + tables[mark]())
    write_text(page, text)
    return page


def _put(text: str, mark: str, table: str) -> str:
    before, found, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    return f"{before}{mark}\n\n{table}\n{END}{after}" if found and end else text
