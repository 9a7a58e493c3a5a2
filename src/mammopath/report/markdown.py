"""A study's tables in a Markdown page, between two marks; the words around them are kept."""

import json
from pathlib import Path

from mammopath.errors import DataError
from mammopath.files import read_lines, write_text
from mammopath.report.effects import effects, markdown_effects
from mammopath.report.tables import markdown_means, markdown_table, means, summarise

RESULTS = "<!-- results, made by: mammopath report --markdown -->"
ADAPTATION = "<!-- adaptation, made by: mammopath report --markdown -->"
END = "<!-- end of what is made -->"


def put_tables(folder: Path, page: Path) -> Path:
    """Write the tables of a study between the marks of a page; a page that is not there is made.

    A page has a mark for the results of the methods as trained, for what adaptation did to them, or both.

    Raises:
        DataError: the study has no results, or the page has no marks.
    """
    lines = [json.loads(line) for line in read_lines(folder / "results.jsonl")]
    if not lines:
        raise DataError(f"{folder}: no results.jsonl with results; run mammopath lodo first")
    rows = summarise([line for line in lines if line["adaptation"] == "none"])
    tables = {
        RESULTS: f"{markdown_table(rows)}\n{markdown_means(means(rows))}",
        ADAPTATION: markdown_effects(effects(lines)),
    }
    text = page.read_text() if page.exists() else f"# {folder.name}\n\n{RESULTS}\n{END}\n"
    if not any(mark in text for mark in tables):
        raise DataError(f"{page}: has no place for the tables; put these two lines there:\n{RESULTS}\n{END}")
    for mark, table in tables.items():
        text = _put(text, mark, table)
    write_text(page, text)
    return page


def _put(text: str, mark: str, table: str) -> str:
    before, found, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    return f"{before}{mark}\n\n{table}\n{END}{after}" if found and end else text
