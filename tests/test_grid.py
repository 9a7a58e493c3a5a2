"""The grid of a study's methods: numbers of the results, a row for each method, the same when made again."""

import json
import shutil
from pathlib import Path

import pytest

from mammopath.report.grid import (
    markdown_grid,
    markdown_knowledge,
    markdown_localisation,
    markdown_representation,
)
from mammopath.report.knowledge import GAINS
from mammopath.report.markdown import END, KNOWLEDGE, LOCALISATION, METHODS, REPRESENTATION, put_tables
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


def test_maps_stand_site_by_site_with_limits_where_the_runs_kept_them(folder: Path, tmp_path: Path) -> None:
    made = Path(shutil.copytree(folder, tmp_path / "made"))
    head, _, *body = map(cells, markdown_localisation(read_study(made)).splitlines())
    assert {row[0] for row in body} == {"cbis", "mias"}
    by_map = {(row[0], row[1], row[2]): row for row in body}
    lesion, attention = (by_map["mias", "`erm`", name] for name in ("lesion", "attention"))
    pointing = [float(row[4].split()[0]) for row in (lesion, attention)]
    assert float(lesion[7]) == pytest.approx(pointing[0] - pointing[1], abs=0.011)
    assert "[" not in lesion[7], "these runs kept no limits of differences"
    assert attention[7] == "–", "no map is compared with itself"
    for path in (made / "runs").glob("mias__erm__*/diagnostics.json"):
        found = json.loads(path.read_text())
        for row in found["localisation"]:
            row |= {f"{n}{end}": v for n in GAINS for end, v in (("", 0.2), ("_low", 0.1), ("_high", 0.3))}
        path.write_text(json.dumps(found))
    body = [cells(line) for line in markdown_localisation(read_study(made)).splitlines()[2:]]
    kept = next(row for row in body if row[:3] == ["mias", "`erm`", "lesion"])
    assert [kept[head.index("minus attention")], kept[-1]] == ["+0.20 [+0.10, +0.30]"] * 2


def test_the_representation_stands_site_by_site_with_recall_gap_and_probe(folder: Path) -> None:
    head, _, *body = map(cells, markdown_representation(read_study(folder)).splitlines())
    assert {row[0] for row in body} == set(SITES)
    runs = [
        json.loads((folder / "runs" / f"cbis__erm__{seed}" / "diagnostics.json").read_text())
        for seed in (0, 1)
    ]
    row = dict(zip(head, next(r for r in body if r[:3] == ["cbis", "mammogram", "`erm`"]), strict=True))
    mean = sum(run["retrieval"][0]["recall"]["5"] for run in runs) / 2
    assert row["R@5"] == f"{mean:.2f} (0.58)"
    assert row["modality gap"] == f"{sum(run['modality_gap'] for run in runs) / 2:.2f}"
    assert row["site probe after [95 %]"].startswith(
        f"{sum(r['site_probe'][0]['after'] for r in runs) / 2:.2f} ["
    )


def test_both_have_a_place_of_their_own_on_a_page(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Known\n\n{REPRESENTATION}\n{END}\n\n{LOCALISATION}\n{END}\n")
    put_tables(folder, page)
    assert page.read_text().count("| `erm` |") == 4 + 2 * 2
