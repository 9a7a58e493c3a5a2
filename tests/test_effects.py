"""What adaptation did: pairs of lines, hurt rate, guard, and the page they are put into."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mammopath.errors import DataError
from mammopath.report.effects import HURT, IDLE, effects, markdown_effects
from mammopath.report.markdown import ADAPTATION, END, RESULTS, put_tables


def line(
    adaptation: str, auc: float, *, seed: int = 0, site: str = "a", decision: str = "adapted"
) -> dict[str, Any]:
    told = {"decision": decision, "reasons": ["flips"] if decision == "source" else [], "relative": 0.1}
    found = {
        **{"held_out": site, "site": site, "modality": "mammogram", "method": "erm", "seed": seed},
        **{"adaptation": adaptation, "auc": auc, "ece": 0.2, "unit": "image", "select": "source_val"},
        "run": f"{site}__erm__{seed}__{adaptation}",
        **{"auc_low": auc - 0.1, "auc_high": auc + 0.1, "auc_test_split": auc, "source_val_auc": 0.8},
        **{"n": 10, "patients": 5, "positives": 4, "interval": "patient bootstrap"},
    }
    return found if adaptation == "none" else found | {"adapted": {"mammogram": told}}


LINES = [
    *(line("none", 0.70, seed=s) for s in (0, 1)),
    line("tent", 0.60, seed=0),
    line("tent", 0.74, seed=1),
    *(line("style", 0.70, seed=s, decision="source") for s in (0, 1)),
]


def test_a_row_for_each_site_and_one_over_all() -> None:
    rows = {(row.label, row.site): row for row in effects(LINES)}
    assert set(rows) == {(f"erm + {a}", s) for a in ("tent", "style") for s in ("a", "all")}
    tent = rows["erm + tent", "a"]
    assert (tent.before, tent.after) == (pytest.approx(0.70), pytest.approx(0.67))
    assert tent.worst == pytest.approx(-0.10)
    assert (tent.hurt, tent.adapted, tent.reason) == (0.5, 1.0, "")
    style = rows["erm + style", "all"]
    assert (style.hurt, style.adapted, style.reason) == (0.0, 0.0, "flips")
    assert (tent.gap_before, tent.gap_after) == (pytest.approx(0.10), pytest.approx(0.13))
    assert math.isnan(tent.changed)


def test_an_idle_method_is_not_called_adapted() -> None:
    idle = line("eata", 0.7)
    idle["adapted"]["mammogram"] |= {"relative": 1e-9, "changed": 0.0}
    (row, _) = effects([line("none", 0.7), idle])
    assert (row.adapted, row.changed, row.reason) == (0.0, 0.0, IDLE)
    online = line("eata", 0.7)
    online["adapted"]["mammogram"] |= {"relative": 0.0, "changed": 0.5}
    assert effects([line("none", 0.7), online])[0].adapted == 1.0
    assert "| 50% |" in markdown_effects(effects([line("none", 0.7), online]))


@pytest.mark.parametrize(("fall", "hurt"), [(HURT + 1e-6, 1.0), (HURT - 1e-6, 0.0)])
def test_hurt_is_a_fall_of_more_than_half_a_point(fall: float, hurt: float) -> None:
    rows = effects([line("none", 0.7), line("tent", 0.7 - fall)])
    assert rows[0].hurt == hurt


def test_a_run_without_an_auc_is_left_out() -> None:
    assert effects([line("none", 0.7) | {"auc": None}, line("tent", 0.7)]) == []


def test_nothing_adapted_gives_no_rows() -> None:
    assert effects([line("none", 0.7)]) == []


def test_tables_go_between_the_marks_and_the_words_stay(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    page = tmp_path / "page.md"
    page.write_text(f"# A\nabove\n{RESULTS}\nold\n{END}\nbetween\n{ADAPTATION}\n{END}\nbelow\n")
    put_tables(tmp_path, page)
    first = page.read_text()
    put_tables(tmp_path, page)
    assert page.read_text() == first
    assert "old" not in first
    assert all(word in first for word in ("above", "between", "below", markdown_effects(effects(LINES))))
    assert "erm + tent" not in first.split("between")[0]


def test_a_page_without_marks_is_told_where_to_put_them(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    (tmp_path / "page.md").write_text("# no marks\n")
    with pytest.raises(DataError, match="put these two lines"):
        put_tables(tmp_path, tmp_path / "page.md")
    with pytest.raises(DataError, match="mammopath lodo"):
        put_tables(tmp_path / "none", tmp_path / "page.md")
