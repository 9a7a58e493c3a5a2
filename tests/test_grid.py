"""The grid of a study's methods: numbers of the results, a row for each method, the same when made again."""

from pathlib import Path

import pytest

from mammopath.report.grid import markdown_grid, markdown_knowledge
from mammopath.report.markdown import END, KNOWLEDGE, METHODS, put_tables
from mammopath.report.study import read_study
from mammopath.report.tables import summarise
from study_folder import SITES, make_study

METHODS_MADE = ("logreg", "erm", "mixstyle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "made", methods=METHODS_MADE)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_a_row_for_each_method_and_a_column_for_each_site(folder: Path) -> None:
    head, _, *body = map(cells, markdown_grid(read_study(folder), draws=200).splitlines())
    assert set(head[1:5]) == set(SITES)
    assert [row[0] for row in body] == [f"`{name}`" for name in METHODS_MADE]
    known = {(r.method, r.site): r.auc for r in summarise(read_study(folder).lines)}
    for name, row in zip(METHODS_MADE, body, strict=True):
        aucs = [known[name, site] for site in head[1:5]]
        assert [cell.split()[0] for cell in row[1:5]] == [f"{auc:.2f}" for auc in aucs]
        assert float(row[5]) == pytest.approx(sum(aucs) / 4, abs=1e-3)


def test_the_difference_is_that_of_the_means_and_the_reference_has_none(folder: Path) -> None:
    head, _, *body = map(cells, markdown_grid(read_study(folder), draws=200).splitlines())
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in body}
    assert rows["`erm`"]["difference [95 %]"] == "–"
    gap = float(rows["`logreg`"]["mean"]) - float(rows["`erm`"]["mean"])
    assert float(rows["`logreg`"]["difference [95 %]"].split()[0]) == pytest.approx(gap, abs=2e-3)


def test_knowledge_has_a_row_for_each_method(folder: Path) -> None:
    body = markdown_knowledge(read_study(folder)).splitlines()[2:]
    assert {cells(line)[0] for line in body} <= {f"`{name}`" for name in METHODS_MADE}
    assert all(len(cells(line)) == 11 for line in body)


def test_made_again_the_page_is_the_same(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Kept\n\n{METHODS}\n{END}\n\nAnd this.\n\n{KNOWLEDGE}\n{END}\n")
    first = put_tables(folder, page).read_text()
    assert put_tables(folder, page).read_text() == first
    assert first.startswith("# Kept")
    assert "And this." in first
    assert first.count("`mixstyle`") >= 1
