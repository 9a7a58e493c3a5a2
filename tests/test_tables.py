"""Rows of results against hand-made lines."""

import csv
import io
import math
import re

import pytest

from mammopath import RESEARCH_USE_ONLY
from mammopath.report.tables import (
    csv_text,
    markdown_means,
    markdown_table,
    means,
    method_label,
    number,
    signed,
    summarise,
    with_limits,
)


def _line(site, method="erm", *, held_out=None, seed=0, auc=0.7, split=0.7, **more):
    facts = {"held_out": site if held_out is None else held_out, "site": site, "method": method, "seed": seed}
    facts |= {
        "modality": "mammogram",
        "adaptation": "none",
        "select": "source_val",
        "unit": "image",
        "run": "r",
    }
    facts |= {"n": 100, "patients": 50, "positives": 20, "auc": auc, "auc_test_split": split}
    return facts | {"auc_low": 0.6, "auc_high": 0.8, "source_val_auc": 0.85} | more


def test_seeds_are_averaged_and_their_spread_stands_apart():
    (row,) = summarise([_line("mias", seed=0, auc=0.6), _line("mias", seed=1, auc=0.7)])
    assert row.auc == pytest.approx(0.65)
    assert row.seed_sd == pytest.approx(0.0707, abs=1e-4)
    assert (row.seeds, row.n, row.patients, row.positives) == (2, 100, 50, 20)
    assert math.isnan(row.in_domain_auc)
    assert math.isnan(summarise([_line("mias")])[0].seed_sd)


def test_both_gaps_are_worked_out_seed_by_seed():
    lines = [_line("mias", seed=s, auc=0.6 + s / 10, split=0.5 + s / 10) for s in (0, 1)]
    lines += [_line("mias", held_out="", seed=s, auc=0.9, split=0.8 + s / 10) for s in (0, 1, 2)]
    (row,) = summarise(lines)
    assert row.in_domain_auc == pytest.approx(0.9)  # of three seeds
    assert row.gap_in_domain == pytest.approx(0.3)  # of the two seeds that both have, on the same test split
    assert row.gap_source == pytest.approx(0.85 - 0.65)


def test_an_adapted_row_falls_back_to_the_plain_in_domain_reference():
    lines = [_line("mias", adaptation="tent", split=0.6), _line("mias", held_out="", split=0.9)]
    (row,) = summarise(lines)
    assert row.label == "erm + tent"
    assert row.gap_in_domain == pytest.approx(0.3)


def test_a_repeated_line_replaces_the_earlier_one_and_other_sites_do_not_count():
    (row,) = summarise([_line("mias", auc=0.1), _line("cbis", held_out="mias"), _line("mias", auc=0.7)])
    assert (row.site, row.auc, row.seeds) == ("mias", 0.7, 1)


def test_unknown_values_stay_unknown():
    (row,) = summarise([_line("mias", auc=None, auc_low=None, split=None, ece=None)])
    assert all(math.isnan(v) for v in (row.auc, row.gap_source, row.gap_in_domain, row.ece, row.brier))
    (mean,) = means([row])
    assert (mean.sites, mean.worst_site) == (0, "")
    text = markdown_table([row]) + markdown_means([mean]) + csv_text([row])
    assert not re.search(r"\bnan\b", text)


def test_means_name_the_worst_site_and_count_sites_per_scope():
    lines = [_line("mias", auc=0.6), _line("cbis", auc=0.7), _line("cbis", "irm", auc=0.5)]
    lines.append(_line("bach", auc=0.9) | {"modality": "pathology"})
    found = {(r.scope, r.label): r for r in means(summarise(lines))}
    assert found["mammogram", "erm"].mean_auc == pytest.approx(0.65)
    assert found["mammogram", "erm"].worst_site == "mias"
    assert found["all", "erm"].mean_auc == pytest.approx((0.6 + 0.7 + 0.9) / 3)
    assert (found["all", "erm"].sites, found["all", "irm"].sites) == (3, 1)
    assert ("pathology", "irm") not in found


def test_csv_reads_back_with_empty_cells_for_the_unknown():
    rows = summarise([_line("mias"), _line("cbis", auc=0.123456)])
    back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [r["site"] for r in back] == ["mias", "cbis"]
    assert float(back[1]["auc"]) == 0.123456
    assert back[0]["seed_sd"] == ""
    assert {r["notice"] for r in back} == {RESEARCH_USE_ONLY}
    assert csv_text([]) == ""


def test_markdown_is_a_table():
    head, rule, body = markdown_table(summarise([_line("mias")])).splitlines()
    assert head.count("|") == rule.count("|") == body.count("|")
    assert "| mias | mammogram | erm | 100 (20) | 0.70 [0.60, 0.80] |" in body


def test_numbers_for_people():
    assert (number(0.126), number(math.nan), number(1.0, 3)) == ("0.13", "–", "1.000")
    assert (signed(0.126), signed(-0.126), signed(-0.001), signed(math.nan)) == (
        "+0.13",
        "−0.13",
        "0.00",
        "–",
    )
    assert with_limits(1.0, math.nan, math.nan) == "1.00 [no interval]"
    assert method_label("erm", "none", "oracle") == "erm (oracle selection)"
