"""Parts of a report against what can be worked out by hand: overview, subgroups, answers, checklists."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from mammopath.cohort.cases import age_band, case_table
from mammopath.config import parse
from mammopath.errors import ConfigError
from mammopath.gallery import _picture, _records, worst_errors, write_gallery
from mammopath.objectives.methods import METHODS, recipe_with
from mammopath.prepare.sample import load_sample
from mammopath.report import pdf
from mammopath.report.ablation import ablation_rows
from mammopath.report.charts import SHAPES, dot_chart, gap_chart, rank_chart
from mammopath.report.checklists import checklists
from mammopath.report.comparisons import Comparison
from mammopath.report.figures import Axis
from mammopath.report.items import CLAIM_2024, TRIPOD_AI
from mammopath.report.markdown import ADAPTATION, END, RESULTS, made_again, put_tables, read_kept
from mammopath.report.overview import order_by_effect, overview, prominent
from mammopath.report.page import CONTENTS, write_report
from mammopath.report.study import read_study
from mammopath.report.subgroups import subgroup_rows
from mammopath.report.tables import summarise
from mammopath.report.trust import trust_rows
from mammopath.settings import PrepareSettings
from mammopath.sources.slides import SLIDE
from mammopath.types import Finding, Record, Spacing
from slide_cases import smooth, tiled
from study_folder import SITES, make_study

DOCS = Path(__file__).parents[1] / "docs" / "results"

LEAK = {"severity": "leak", "code": "patient", "what": "patient P7 is in cbis and mias"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make_study(
        tmp_path_factory.mktemp("parts") / "made",
        methods=("logreg", "erm", "mixstyle"),
        draws=100,
        check=(LEAK,),
    )
    for run in (made / "runs").iterdir():
        method = run.name.split("__")[1]
        if method in METHODS:
            facts = json.loads((run / "run.json").read_text()) | {"recipe": METHODS[method].model_dump()}
            (run / "run.json").write_text(json.dumps(facts))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder)


@pytest.fixture(scope="module")
def rows(study):
    return summarise(study.lines)


def _csv(folder, name):
    return list(csv.DictReader((folder / "tables" / f"{name}.csv").read_text().splitlines()))


def test_the_overview_has_both_readings_and_orders_by_their_mean(rows):
    seen = overview(rows, "erm")
    assert seen.readings == ["mammogram", "pathology", "all"]
    aucs = {r.label: [x.auc for x in rows if x.label == r.label] for r in seen.rows}
    assert [r.label for r in seen.rows] == sorted(aucs, key=lambda x: -np.mean(aucs[x]))
    for row in seen.rows:
        assert row.readings[-1].text == f"{np.mean(aucs[row.label]):.2f}"
        assert row.worst == min(aucs[row.label])
    assert sum(row.rank for row in seen.rows) == pytest.approx(6.0)
    assert seen.power.sites == 4
    assert seen.power.sign == 0.125
    assert {c.shade for r in seen.rows for c in r.cells} <= set(range(9))


def test_a_site_of_both_modalities_is_named_with_them(rows):
    both = [replace(r, site="bach") if r.site == "mias" else r for r in rows]
    assert overview(both, "erm").names == ["cbis", "bach (mammogram)", "bach (pathology)", "idc"]
    assert overview(rows, "erm").names == list(SITES)


def test_a_method_without_a_site_is_not_ranked_and_stands_last(rows):
    fewer = [r for r in rows if (r.label, r.site) != ("mixstyle", "bach")]
    seen = overview(fewer, "erm")
    assert seen.rows[-1].label == "mixstyle"
    assert math.isnan(seen.rows[-1].rank)
    assert seen.rows[-1].readings[-1].text == "–"
    assert seen.ranked == ["logreg", "erm"]
    assert prominent(fewer, "erm", 8) == ["erm", "logreg", "mixstyle"]
    assert overview([], "").rows == []


def test_forest_rows_fall_at_each_site(rows):
    ordered = order_by_effect(rows)
    for site in SITES:
        aucs = [r.auc for r in ordered if r.site == site]
        assert aucs == sorted(aucs, reverse=True)


def test_charts_say_what_they_show_and_tell_sites_apart_by_shape(rows):
    seen = overview(rows, "erm")
    gaps, ranks = gap_chart(rows, [r.label for r in seen.rows]), rank_chart(seen)
    assert gaps.count("<g transform") == 12
    assert all(shape in gaps for shape in SHAPES[:4])
    assert len(set(SHAPES)) == 8
    assert 'class="band"' in ranks
    assert "<x>" not in dot_chart("a", ["<x>"], Axis(0.0, 1.0, (0.0, 1.0)), {})
    assert gap_chart([], []) == ""


def test_the_ablation_matrix_tells_recipes_and_gains(folder, study):
    compared = [
        Comparison(
            r["scope"],
            r["label"],
            r["reference"],
            *(float(r[k]) for k in ("difference", "low", "high", "p", "p_holm", "p_patients")),
            p_delong=math.nan,
        )
        for r in _csv(folder, "comparisons")
    ]
    found = {r.label: r for r in ablation_rows(study, compared)}
    assert set(found) == {"erm", "mixstyle"}
    assert (found["mixstyle"].style, found["mixstyle"].invariance) == ("mixstyle", "")
    overall = next(c for c in compared if (c.scope, c.label) == ("all", "mixstyle"))
    assert found["mixstyle"].gain == overall.difference
    assert math.isnan(found["erm"].gain)


def test_methods_that_differ_in_any_key_differ_in_the_ablation_matrix(study):
    weaker = recipe_with(METHODS["align"], {"align": {"weight": 0.5}, "tasks": {"top_share": 0.1}})
    recipes = METHODS | {
        "weaker": weaker,
        "other": recipe_with(METHODS["irm"], {"invariance": {"anneal": 0.2}}),
    }
    lines = [study.lines[0] | {"run": name, "method": name} for name in recipes]
    runs = {name: {"recipe": recipe.model_dump(mode="json")} for name, recipe in recipes.items()}
    told = {}
    for row in ablation_rows(replace(study, lines=lines, runs=runs), []):
        shown = (row.modalities, row.alignment, row.style, row.invariance)
        shown += (row.tasks, row.averaging, row.settings)
        assert shown not in told, f"{row.label} looks like {told.get(shown)}"
        told[shown] = row.label
    assert len(told) == len(recipes)
    rows = {r.label: r for r in ablation_rows(replace(study, lines=lines, runs=runs), [])}
    assert rows["full"].tasks == "lesion 0.5, boxes 0.5, severity 0.5, ordinal 0.25, fusion (cross) 0.5"
    assert rows["top_tokens"].tasks == "boxes 1, score from the highest tokens"
    assert "tuned over 0.3x rate 1x steps" in rows["erm_plus"].settings
    assert "align weight 0.5" in rows["weaker"].settings
    assert rows["erm"].settings == ""


def test_subgroups_are_those_of_the_predictions_and_small_ones_get_no_auc(folder, study):
    found = subgroup_rows(study, "erm", draws=100)
    by = {(r.site, r.by) for r in found}
    assert {("cbis", "view"), ("cbis", "density"), ("mias", "lesion"), ("bach", "age band")} <= by
    assert ("mias", "density") not in by
    tables = [pl.read_parquet(folder / "runs" / f"cbis__erm__{s}" / "predictions.parquet") for s in (0, 1)]
    cells = [
        t.filter(pl.col("part") == "test", pl.col("view") == "CC", pl.col("malignant").is_not_nan())
        for t in tables
    ]
    mine = cells[0]
    mean = np.mean([roc_auc_score(c["malignant"], c["logit"]) for c in cells])
    row = next(r for r in found if (r.site, r.by, r.group) == ("cbis", "view", "CC"))
    assert row.auc == pytest.approx(mean), "the mean AUC over seeds, as in the headline"
    assert row.low < row.auc < row.high
    assert row.positives + row.negatives == mine.height
    assert all(math.isnan(r.auc) == (min(r.positives, r.negatives) < 10) for r in found)


def test_tissue_of_a_patient_does_not_change_the_group_of_the_mammograms(tmp_path):
    folder = make_study(tmp_path / "both", methods=("erm",), seeds=(0,), draws=100, unit="patient")
    before = subgroup_rows(read_study(folder), "erm", draws=100)
    path = folder / "runs" / "cbis__erm__0" / "predictions.parquet"
    table, cases = pl.read_parquet(path), pl.read_parquet(folder / "cases.parquet")
    tissue = table.filter(part="test").with_columns(
        image_id=pl.col("image_id") + "/tissue", modality=pl.lit("pathology"), view=pl.lit("")
    )
    pl.concat([table, tissue]).write_parquet(path)
    theirs = cases.head(len(tissue)).with_columns(image_id=tissue["image_id"], density=pl.lit(""))
    pl.concat([cases, theirs]).write_parquet(folder / "cases.parquet")
    after = subgroup_rows(read_study(folder), "erm", draws=100)
    assert [r for r in after if r.by == "density"] == [r for r in before if r.by == "density"] != []


def test_what_is_held_back_is_counted(study):
    found = trust_rows(study)
    assert {(r.site, r.label) for r in found} == {
        (s, m) for s in SITES for m in ("logreg", "erm", "mixstyle")
    }
    for row in found:
        assert row.unfamiliar == pytest.approx(0.05, abs=0.06)
        assert row.unfamiliar <= row.insufficient <= 1
        assert 0 <= row.wrong <= 1


def test_checklists_fill_what_the_folder_knows_and_name_blanks(study, rows):
    tripod, claim = checklists(study, rows, gallery=False)
    assert (len(tripod.rows), len(claim.rows)) == (len(TRIPOD_AI), len(CLAIM_2024)) == (52, 44)
    assert {r.number.rstrip("abcdefg") for r in tripod.rows} == {str(k) for k in range(1, 28)}
    assert [r.number for r in claim.rows] == [str(k) for k in range(1, 45)]
    blank = {r.number for r in tripod.rows if not r.answer}
    assert {"17", "18a", "18b", "25"} <= blank  # ethics, funding, interests, interpretation
    assert "bach" in next(r.answer for r in claim.rows if r.number == "21")
    assert not next(r.answer for r in claim.rows if r.number == "39")
    assert next(r.answer for r in checklists(study, rows, gallery=True)[1].rows if r.number == "39")
    assert 20 < tripod.filled < 52


def test_a_leak_stamps_every_output(folder, tmp_path):
    for path in (folder / "tables").glob("*.csv"):
        found = list(csv.DictReader(path.read_text().splitlines()))
        assert {r["stamp"] for r in found} <= {f"leak: {LEAK['what']}"}, path
    assert json.loads((folder / "report.json").read_text())["stamp"] == f"leak: {LEAK['what']}"
    assert LEAK["what"] in (folder / "report.html").read_text()
    assert f"**Leak: {LEAK['what']}**" in put_tables(folder, tmp_path / "page.md").read_text()


UNSTAMPED = {"config.json", "cases.parquet", "log.jsonl", "examples.json"}
"""Settings, where images lie, and logs."""

BESIDE = {"confidence.json", "familiarity.parquet", "diagnostics.json"}
"""Parts of a run, which say nothing without its run.json, and that is stamped."""


def test_every_file_of_a_study_that_holds_results_tells_of_a_leak(folder, tmp_path):
    made = Path(shutil.copytree(folder, tmp_path / "copy"))
    write_gallery(made, "erm")
    kinds = {".json", ".jsonl", ".csv", ".html", ".parquet"}
    looked = [p for p in made.rglob("*") if p.suffix in kinds and p.name not in UNSTAMPED | BESIDE]
    assert {p.name for p in looked} >= {"results.jsonl", "run.json", "predictions.parquet", "gallery.json"}
    silent = [str(p.relative_to(made)) for p in looked if p.stat().st_size and LEAK["what"] not in _text(p)]
    assert silent == []
    lines = (made / "results.jsonl").read_text().splitlines()
    assert all(LEAK["what"] in line for line in lines), "every line, as each may be taken out alone"


def _text(path):
    return str(pl.read_parquet_metadata(path)) if path.suffix == ".parquet" else path.read_text()


def test_putting_tables_twice_changes_nothing_and_keeps_the_words_around(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\nbefore\n{RESULTS}\nold\n<!-- end of what is made -->\nafter\n")
    once = put_tables(folder, page).read_text()
    assert put_tables(folder, page).read_text() == once
    assert once.startswith("# Mine\nbefore\n")
    assert once.endswith("after\n")
    assert "old" not in once
    write_report(folder)
    assert put_tables(folder, page).read_text() == once


def test_a_page_is_made_again_from_what_lies_beside_it(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n{RESULTS}\n{END}\nwords\n{ADAPTATION}\n{END}\n")
    made = put_tables(folder, page).read_text()
    kept = read_kept(tmp_path / "page.jsonl")
    assert "largest, all" in made
    assert made_again(made.replace("0.", "9."), kept) == made
    wrong = [dict(line) | {"auc": 0.111} for line in kept.lines]
    assert made_again(made, replace(kept, lines=wrong)) != made
    beside = (tmp_path / "page.jsonl").read_text()
    assert "/images/" not in beside, "no image is named"
    assert not any(patient in beside for patient in ("cbis-0001", "mias-0001"))


@pytest.mark.parametrize("beside", sorted(DOCS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_a_committed_page_of_results_is_what_its_lines_say(beside):
    page = beside.with_suffix(".md").read_text()
    assert made_again(page, read_kept(beside)) == page


def test_every_section_of_the_contents_is_on_the_page(folder):
    page = (folder / "report.html").read_text()
    for place, title, _ in CONTENTS:
        shown = f'id="{place}"' in page
        assert shown == (f'href="#{place}">{title}<' in page), place
    for place in ("ablations", "curves", "subgroups", "card", "checklists"):
        assert f'id="{place}"' in page
    assert "Not for diagnosis" in page
    assert "CC BY-NC-ND 4.0" in page
    assert len(page) < 2_000_000


def test_the_worst_errors_are_the_surest_ones_and_their_pictures_stay_in_the_folder(
    folder, tmp_path, monkeypatch
):
    made = Path(shutil.copytree(folder, tmp_path / "copy"))
    found = worst_errors(made, "erm", each=2)
    assert {(r["site"], r["kind"]) for r in found} == {
        (s, k) for s in SITES for k in ("false alarm", "missed")
    }
    tables = [pl.read_parquet(made / "runs" / f"idc__erm__{s}" / "predictions.parquet") for s in (0, 1)]
    score = (tables[0]["score"] + tables[1]["score"]) / 2
    mean = tables[0].with_columns(score=score).filter(pl.col("part") == "test", pl.col("malignant") == 0)
    first = next(r for r in found if (r["site"], r["kind"]) == ("idc", "false alarm"))
    assert first["score"] == pytest.approx(mean["score"].max())
    assert len({(r["kind"], r["patient"]) for r in found}) == len(found)
    paths = pl.read_parquet(made / "cases.parquet")
    example = made / "runs" / "idc__erm__0" / "examples" / "0_attention.png"
    target = pl.when(pl.col("image_id") == first["image_id"]).then(pl.lit(str(example))).otherwise("path")
    paths.with_columns(path=target).write_parquet(made / "cases.parquet")
    seen = []

    def load(record, settings, *, multiple):
        seen.append(record)
        return load_sample(record, settings, multiple=multiple)

    monkeypatch.setattr("mammopath.gallery.load_sample", load)
    gallery = write_gallery(made, "erm")
    assert all(r.attributes["age"] in ("55", "65") for r in seen)
    shown = [r for r in gallery if r["picture"]]
    assert [r["image_id"] for r in shown] == [first["image_id"]]
    assert (made / shown[0]["picture"]).exists()
    page = write_report(made).read_text()
    assert 'id="failures"' in page
    assert "picture not available" in page
    pl.read_parquet(made / "cases.parquet").select("image_id", "path").write_parquet(made / "cases.parquet")
    assert not any(r["picture"] for r in write_gallery(made, "erm")), "paths alone do not make the picture"
    (made / "cases.parquet").unlink()
    assert write_gallery(made, "erm") == []


def test_a_picture_of_an_error_is_prepared_as_the_network_got_the_image(tmp_path):
    pixels = (np.random.default_rng(0).random((400, 600, 3)) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    spacing = Spacing.square(0.42)
    full = Record(
        "a", tmp_path / "x.png", "p", "s", "pathology", spacing=spacing, attributes={"phantom": "yes"}
    )
    again = _records(case_table([full]), ["a"])["a"]
    prepare = parse(PrepareSettings, {"pathology": {"height": 400, "width": 600, "um": 1.0}})
    ours, theirs = (load_sample(r, prepare, multiple=1).sample.image for r in (full, again))
    assert torch.equal(ours, theirs)
    assert again.attributes == full.attributes


def test_a_slide_among_the_errors_is_shown_at_low_power(tmp_path):
    path = tiled(tmp_path / "a.tif", smooth(600, 900), "jpeg444")
    slide = Record(
        "a",
        path,
        "p",
        "s",
        "pathology",
        spacing=Spacing.square(0.5),
        spacing_source="header",
        attributes=SLIDE,
    )
    again = _records(case_table([slide]), ["a"])["a"]
    assert _picture(tmp_path / "0.jpg", again, PrepareSettings())
    with Image.open(tmp_path / "0.jpg") as shown, Image.open(path) as level_0:
        assert shown.size == (220, 147)
        small = np.asarray(level_0.convert("RGB").resize(shown.size, Image.Resampling.BOX)).astype(int)
        away = [np.abs(np.asarray(shown).astype(int) - other).mean() for other in (small, small[::-1])]
        assert away[0] < 12 < away[1] / 2
    path.unlink()
    assert not _picture(tmp_path / "1.jpg", again, PrepareSettings())


def test_cases_know_their_groups():
    box = Finding("box", ((0.0, 0.0), (1.0, 1.0)), name="mass")
    records = [
        Record("a", Path("a.png"), "p", "s", "mammogram", view="CC", attributes={"acr": "3", "age": "061Y"}),
        Record("b", Path("b.png"), "q", "s", "mammogram", findings=(box,), attributes={"vendor": "GE"}),
    ]
    table = case_table(records)
    assert table.select("view", "density", "age", "vendor", "lesion").rows() == [
        ("CC", "3", "60 to 69", "", ""),
        ("", "", "", "GE", "mass"),
    ]
    bands = [age_band(a) for a in ("39", "40.0", "80", "x", "0", "")]
    assert bands == ["under 40", "40 to 49", "80 and over", "", "", ""]


def test_pdf_without_a_browser_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="print it"):
        pdf.print_pdf(tmp_path / "report.html")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="no browser on the path")
def test_pdf_is_printed_beside_the_page(folder):
    out = pdf.print_pdf(folder / "report.html")
    assert out == folder / "report.pdf"
    assert out.read_bytes().startswith(b"%PDF")
