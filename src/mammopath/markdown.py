"""A study's tables in a Markdown page, between two marks; the words around them are kept."""

import json
from pathlib import Path

from mammopath.errors import DataError
from mammopath.files import read_lines, write_text
from mammopath.tables import markdown_means, markdown_table, means, summarise

BEGIN, END = "<!-- made by: mammopath report --markdown -->", "<!-- end of what is made -->"


def put_tables(folder: Path, page: Path) -> Path:
    """Write the tables of a study between the marks of a page; a page that is not there is made.

    Raises:
        DataError: the study has no results, or the page has no marks.
    """
    lines = [json.loads(line) for line in read_lines(folder / "results.jsonl")]
    if not lines:
        raise DataError(f"{folder}: no results.jsonl with results; run mammopath lodo first")
    text = page.read_text() if page.exists() else f"# {folder.name}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise DataError(f"{page}: has no place for the tables; put these two lines there:\n{BEGIN}\n{END}")
    rows = summarise(lines)
    tables = f"\n\n{markdown_table(rows)}\n\n{markdown_means(means(rows))}\n\n"
    write_text(page, before + begin + tables + end + after)
    return page
