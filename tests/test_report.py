"""The report: self-contained, true to the predictions, patient with missing pieces."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from mammopath import RESEARCH_USE_ONLY
from mammopath.errors import DataError
from mammopath.metrics.auc import auc_by_group, auc_interval
from mammopath.metrics.delong import delong_test
from mammopath.metrics.transfer import transfer
from mammopath.report.comparisons import compare, draw_sites, mean_intervals
from mammopath.report.figures import Axis, Series, fitted_axis, forest_axis, forest_row, panel
from mammopath.report.gaps import gap_rows
from mammopath.report.page import write_report
from mammopath.report.study import Cases, read_study
from mammopath.report.tables import summarise, with_limits
from study_folder import SITES, make_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("study") / "made", methods=("erm", "mixstyle"), draws=100)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("template") / "small", methods=("erm",), seeds=(0,), draws=100)


@pytest.fixture
def small(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "small"))


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


class _Outline(HTMLParser):
    """Tags, ids, links and everything that a browser would fetch."""

    VOID = ("meta", "img", "br", "wbr", "link")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.targets, self.loads, self.pictures = [], [], [], [], 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [v for k, v in attrs if k in ("src", "srcset", "data", "action")] + [tag] * (
            tag == "script"
        )
        if tag == "a":
            self.targets.append(values["href"])
        if tag == "img":
            self.pictures += 1
            assert values["alt"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("line", "circle", "path", "polyline", "rect")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _outline(page):
    outline = _Outline()
    outline.feed(page)
    return outline


def test_it_loads_nothing_and_is_small(page):
    outline = _outline(page)
    assert all(load.startswith("data:image/") for load in outline.loads)
    assert not re.search(r"url\(|@import|<link|https?://", page)
    assert len(page) < 10_000_000


def test_it_is_well_formed_and_every_contents_entry_leads_somewhere(page):
    outline = _outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {t.lstrip("#") for t in outline.targets} <= set(outline.ids)
    assert all(t.startswith("#") for t in outline.targets)


def test_it_says_research_use_and_shows_twelve_examples(page):
    assert page.count(RESEARCH_USE_ONLY) == 2
    assert _outline(page).pictures == 24
    assert not re.search(r"\bnan\b", re.sub(r"<style>.*?</style>|base64,[^\"]*", "", page, flags=re.S))


def _by_hand(folder, site, method, seeds=(0, 1)):
    """Mean over seeds of scikit-learn's AUC on the stored predictions: held out, on its split, in-domain."""
    found = []
    for seed in seeds:
        outside = pl.read_parquet(folder / "runs" / f"{site}__{method}__{seed}" / "predictions.parquet")
        inside = pl.read_parquet(folder / "runs" / f"in_domain__{method}__{seed}" / "predictions.parquet")
        test = outside.filter(pl.col("site") == site, pl.col("malignant").is_not_nan())
        split = test.filter("in_test_split")
        own = inside.filter(
            pl.col("site") == site, pl.col("malignant").is_not_nan(), pl.col("part") == "test"
        )
        found.append([roc_auc_score(t["malignant"], t["logit"]) for t in (test, split, own)])
    return np.mean(found, axis=0)


def test_every_auc_and_gap_in_the_tables_follows_from_the_predictions(folder, page):
    rows = list(csv.DictReader((folder / "tables" / "sites.csv").read_text().splitlines()))
    assert len(rows) == len(SITES) * 2
    for row in rows:
        outside, split, inside = _by_hand(folder, row["site"], row["method"])
        assert float(row["auc"]) == pytest.approx(outside, abs=1e-5)
        assert float(row["in_domain_auc"]) == pytest.approx(inside, abs=1e-5)
        assert float(row["gap_in_domain"]) == pytest.approx(inside - split, abs=1e-5)
        assert with_limits(*(float(row[k]) for k in ("auc", "auc_low", "auc_high"))) in page


def test_means_and_comparisons_follow_from_the_site_rows(folder):
    sites = summarise(read_study(folder).lines)
    means = {
        (r["scope"], r["label"]): r
        for r in csv.DictReader((folder / "tables" / "means.csv").read_text().splitlines())
    }
    for label in ("erm", "mixstyle"):
        aucs = [r.auc for r in sites if r.label == label]
        assert float(means["all", label]["mean_auc"]) == pytest.approx(np.mean(aucs))
        assert float(means["all", label]["worst_auc"]) == pytest.approx(min(aucs))
    for row in csv.DictReader((folder / "tables" / "comparisons.csv").read_text().splitlines()):
        if row["scope"] in SITES:
            ours, theirs = (
                next(r.auc for r in sites if (r.site, r.label) == (row["scope"], label))
                for label in (row["label"], "erm")
            )
            assert float(row["difference"]) == pytest.approx(ours - theirs, abs=1e-5)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert 0 < float(row["p"]) <= float(row["p_holm"]) <= 1
        assert 0 < float(row["p_patients"]) <= 1
        assert row["p_delong"] == "", "patients have two images each, for which DeLong does not hold"


def test_ingredients_tell_what_ran(folder):
    rows = list(csv.DictReader((folder / "tables" / "ingredients.csv").read_text().splitlines()))
    assert [(r["label"], r["name"], r["times"], r["active_runs"], r["runs"]) for r in rows] == [
        ("mixstyle", "mixstyle", "1200", "10", "10")
    ]


def test_diagnostics_are_means_over_seeds_of_what_the_runs_say_of_the_held_out_modality(folder, page):
    def runs(site, table, **where):
        found = [
            json.loads((folder / "runs" / f"{site}__erm__{seed}" / "diagnostics.json").read_text())
            for seed in (0, 1)
        ]
        return [next(r for r in f[table] if where.items() <= r.items()) for f in found]

    def table(name):
        return list(csv.DictReader((folder / "tables" / f"{name}.csv").read_text().splitlines()))

    probes = table("site_probe")
    assert {(r["site"], r["modality"]) for r in probes} == {(s, m) for s, (m, _) in SITES.items()}
    row = next(r for r in probes if (r["site"], r["label"]) == ("mias", "erm"))
    after = np.mean([r["after"] for r in runs("mias", "site_probe", modality="mammogram")])
    assert float(row["after"]) == pytest.approx(after)
    row = next(r for r in table("retrieval") if (r["site"], r["label"]) == ("bach", "erm"))
    right = runs("bach", "retrieval", modality="pathology")
    assert float(row["recall_5"]) == pytest.approx(np.mean([r["recall"]["5"] for r in right]))
    assert float(row["recall_5_chance"]) == pytest.approx(0.58)
    maps = [
        r
        for r in table("localisation")
        if (r["site"], r["label"], r["target"]) == ("cbis", "erm", "malignant")
    ]
    assert [r["map"] for r in maps] == ["lesion", "attention"]
    limits = [maps[0][k] for k in ("pointing", "pointing_low", "pointing_high")]
    assert with_limits(*map(float, limits)) in page
    assert 'id="knows"' in page
    assert 'id="looks"' in page


def test_stamps_for_phantom_and_leak(small):
    leak = {"severity": "leak", "code": "patient", "what": "patient <P7> is in cbis & mias"}
    facts = json.loads((small / "data.json").read_text())
    (small / "data.json").write_text(json.dumps(facts | {"check": [leak], "phantom": True}))
    page = write_report(small).read_text()
    assert "Synthetic phantom: not clinical" in page
    rows = csv.DictReader((small / "tables" / "sites.csv").read_text().splitlines())
    assert {r["stamp"] for r in rows} == {
        "synthetic phantom: not clinical; leak: patient <P7> is in cbis & mias"
    }
    assert "Leak: patient &lt;P7&gt; is in cbis &amp; mias" in page


def test_missing_pieces_leave_their_section_out_and_are_named(small):
    for path in (
        "data.json",
        "config.json",
        "runs/mias__erm__0/predictions.parquet",
        "runs/mias__erm__0/run.json",
    ):
        (small / path).unlink()
    (small / "runs" / "cbis__erm__0" / "examples" / "0.png").write_bytes(b"no picture")
    for run in (small / "runs").iterdir():
        (run / "log.jsonl").unlink()
        (run / "diagnostics.json").unlink(missing_ok=True)
    page = write_report(small).read_text()
    for text in ("data.json is missing", "run mias__erm__0 has no predictions", "picture missing"):
        assert text in page
    for section in ("training", "knows", "looks"):
        assert f'id="{section}"' not in page
    assert 'id="comparisons"' not in page


def test_results_that_do_not_follow_from_the_predictions_are_named(small):
    lines = [json.loads(line) for line in (small / "results.jsonl").read_text().splitlines()]
    lines[0]["auc"] += 0.1
    (small / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = json.loads((small / "data.json").read_text())
    (small / "data.json").write_text(json.dumps(facts | {"fingerprint": "other"}))
    notes = read_study(small).notes
    assert any("results say AUC" in note for note in notes)
    assert any("fingerprints differ" in note for note in notes)
    assert "agrees" not in write_report(small).read_text()


@pytest.mark.parametrize("unit", ["breast", "patient"])
def test_other_units_of_evaluation_agree_with_their_predictions(tmp_path, unit):
    made = make_study(tmp_path / "s", methods=("erm",), seeds=(0,), draws=100, unit=unit)
    study = read_study(made)
    assert study.notes == []
    assert {j.line["n"] for j in study.judged} == {len(j.test.labels) for j in study.judged}
    assert f" {unit}" in write_report(made).read_text()


def test_no_results_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="mammopath lodo"):
        write_report(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"held_out": "a"}\n')
    with pytest.raises(DataError, match=r"line 1: no .*method"):
        write_report(tmp_path)
    (tmp_path / "results.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="line 1"):
        write_report(tmp_path)


def test_the_report_loads_no_torch():
    code = "import sys, mammopath.report.page; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_runs_on_other_cases_are_not_compared(folder):
    study = read_study(folder)
    cbis = [j for j in study.judged if j.line["site"] == "cbis"]
    idc = next(j for j in study.judged if j.line["site"] == "idc")
    wrong = type(idc)(
        idc.line | {"site": "cbis", "modality": "mammogram", "method": "other"}, idc.test, idc.validation
    )
    (site,) = draw_sites([*cbis, wrong], draws=100)
    assert "other" not in site.labels
    one_class = replace(idc.test, labels=np.ones(len(idc.test.labels)))
    assert draw_sites([replace(idc, test=one_class)], draws=100) == []
    assert compare([site], "absent") == []
    assert mean_intervals([site]) == []


def test_differences_of_independent_cases_have_delongs_p_beside_the_bootstraps(folder):
    cbis = [j for j in read_study(folder).judged if j.line["site"] == "cbis" and j.line["seed"] == 0]
    alone = [replace(j, test=replace(j.test, patients=np.arange(len(j.test.labels)))) for j in cbis]
    site = draw_sites(alone, draws=4000)
    for row in compare(site, "erm"):
        ours, theirs = (next(j.test for j in alone if j.label == x) for x in (row.label, "erm"))
        paired = delong_test(ours.labels, ours.logits, theirs.logits)
        assert row.p_delong == pytest.approx(paired.p)
        assert row.p_patients == pytest.approx(paired.p, abs=0.05)
        assert np.isnan(row.p), "one seed says nothing of training again"
        assert row.low < row.difference < row.high


def test_seeds_of_one_method_do_not_win_over_one_another(folder):
    erm = [j for j in read_study(folder).judged if j.line["site"] == "cbis" and j.label == "erm"]
    rng = np.random.default_rng(0)
    labels, latent = np.arange(3000.0) % 2, rng.normal(size=3000)

    def run(method, effect):
        line = erm[0].line | {"method": method}
        return replace(erm[0], line=line, test=Cases("x", np.arange(3000), labels, latent + effect * labels))

    better, worse = ([run(m, e) for e in effects] for m, effects in (("b", (1, 1.4)), ("erm", (0.9, 1.1))))
    (row,) = compare(draw_sites([*worse, *better], draws=500), "erm")
    assert row.p_patients < 0.01
    assert row.p_delong < 0.01
    assert row.p > 0.05


def test_gaps_are_paired_on_the_test_split_and_have_limits(folder):
    found = gap_rows(read_study(folder), draws=300)
    table = {(r.site, r.label): r for r in summarise(read_study(folder).lines)}
    sites = [r for r in found if r.scope == "site"]
    assert {(r.site, r.label) for r in sites} == set(table)
    for row in sites:
        assert row.gap == pytest.approx(table[row.site, row.label].gap_in_domain, abs=1e-5)
        assert row.low < row.gap < row.high
    over = {(r.modality, r.scope): r for r in found if r.label == "erm" and r.scope != "site"}
    erm = {r.site: r for r in sites if r.label == "erm"}
    assert over["all", "mean"].gap == pytest.approx(np.mean([r.gap for r in erm.values()]))
    wide = np.mean([r.high - r.low for r in erm.values()])
    assert over["all", "mean"].high - over["all", "mean"].low < wide, "a mean over sites is surer"
    worst = max(erm.values(), key=lambda r: r.gap)
    assert over["all", "worst"] == replace(worst, modality="all", scope="worst")


def test_coverage_at_home_stands_beside_that_of_held_out_sites(folder):
    rows = list(csv.DictReader((folder / "tables" / "calibration.csv").read_text().splitlines()))
    home = [r for r in rows if r["site"] == "at home"]
    methods = {r["label"] for r in rows}
    assert {(r["modality"], r["label"]) for r in home} == {
        (m, label) for m in ("mammogram", "pathology") for label in methods
    }
    assert rows[-len(home) :] == home
    covered = [float(r[k]) for r in home for k in ("coverage_negative", "coverage_positive")]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)


def test_transfer_at_home_is_near_nominal():
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.4).astype(float)
    logits = rng.normal(size=4000) + 2 * labels - 1
    found = transfer((labels[::2], 3 * logits[::2]), (labels[1::2], 3 * logits[1::2]))
    assert found.ece_scaled < found.ece
    assert (found.coverage_negative, found.coverage_positive) == pytest.approx((0.9, 0.9), abs=0.03)
    assert 0 < found.undecided < 1


def test_small_subgroups_get_no_auc():
    labels = np.array([0.0, 1.0] * 30)
    groups = np.array(["CC"] * 50 + ["MLO"] * 10)
    large, small = auc_by_group(groups, labels, np.arange(60.0)[None] % 7, np.arange(60))
    assert large.auc.value == auc_interval(labels[:50], np.arange(50.0) % 7, np.arange(50)).value
    assert (small.positives, small.negatives) == (5, 5)
    assert np.isnan(small.auc.value)


@pytest.mark.parametrize(
    "values", [[0.3, 0.71], [5.0], [], [0.0, 12_345.0], [-1e-9, 1e-9], [0.0, float("nan")]]
)
def test_axes_hold_their_values_between_round_ticks(values):
    axis = fitted_axis(values, "x")
    assert all(axis.low <= v * (1 - 1e-9) or axis.low <= v for v in values if np.isfinite(v))
    assert all(axis.high >= v for v in values if np.isfinite(v))
    assert 2 <= len(axis.ticks) <= 12


def test_figures_escape_their_labels_and_leave_gaps_for_nan():
    axis = Axis(0.0, 1.0, (0.0, 1.0), "<x>")
    drawn = panel('a "quoted" <name>', axis, axis, [Series([(0.0, 0.5), (0.5, float("nan")), (1.0, 1.0)], 9)])
    assert "<x>" not in drawn
    assert "<name>" not in drawn
    assert "nan" not in drawn
    nothing = forest_row(
        forest_axis([]), float("nan"), float("nan"), float("nan"), reference=float("nan"), index=0
    )
    assert "unknown" in nothing
    assert "<circle" not in nothing
