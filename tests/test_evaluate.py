"""From predictions to result lines: units, intervals, thresholds from validation only."""

import json
import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from mammopath.evaluate import Resampling, Units, by_unit, result_lines, source_val_auc, stamp


def table(n: int = 80, *, images_per_patient: int = 2, seed: int = 0, part: str = "test") -> pl.DataFrame:
    """Predictions of one site whose logits carry some signal."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // images_per_patient
    label = (patient % 3 == 0).astype(float)
    logit = label + rng.normal(size=n)
    return pl.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient": [f"{part}{p}" for p in patient],
            "site": ["here" if part == "test" else "there"] * n,
            "modality": ["mammogram"] * n,
            "laterality": ["L" if i % 2 else "R" for i in range(n)],
            "view": ["MLO"] * n,
            "malignant": label,
            "logit": logit,
            "patient_logit": logit,
            "score": 1 / (1 + np.exp(-logit)),
            "part": [part] * n,
            "in_test_split": [p % 2 == 0 for p in patient],
        }
    )


FEW = Resampling(draws=200)
BOTH = pl.concat([table(), table(60, seed=1, part="val")])


def test_a_line_tells_what_sklearn_finds() -> None:
    (line,) = result_lines(BOTH, {"method": "erm"}, units=Units("image"), resampling=FEW)
    test, split = table(), table().filter(pl.col("in_test_split"))
    assert line["auc"] == pytest.approx(roc_auc_score(test["malignant"], test["logit"]), abs=1e-6)
    assert line["auc_test_split"] == pytest.approx(
        roc_auc_score(split["malignant"], split["logit"]), abs=1e-6
    )
    assert line["auc_low"] < line["auc"] < line["auc_high"]
    assert (line["method"], line["n"], line["patients"], line["positives"]) == ("erm", 80, 40, 28)


def test_the_threshold_comes_from_validation_alone() -> None:
    (line,) = result_lines(BOTH, {}, units=Units("image"), resampling=FEW)
    shifted = BOTH.with_columns(
        logit=pl.when(pl.col("part") == "test").then(pl.col("logit") * 3 + 5).otherwise("logit")
    )
    (moved,) = result_lines(shifted, {}, units=Units("image"), resampling=FEW)
    assert moved["threshold"] == line["threshold"]
    test = table()
    expected = balanced_accuracy_score(test["malignant"], test["score"] >= line["threshold"])
    assert line["balanced_accuracy"] == pytest.approx(expected, abs=1e-5)


def test_independent_units_get_delong_and_clustered_ones_the_bootstrap() -> None:
    (clustered,) = result_lines(BOTH, {}, units=Units("image"), resampling=FEW)
    single = pl.concat([table(images_per_patient=1), table(60, seed=1, part="val")])
    (independent,) = result_lines(single, {}, units=Units("image"), resampling=FEW)
    assert "200 draws" in clustered["interval"]
    assert "DeLong" in independent["interval"]


@pytest.mark.parametrize(("unit", "count"), [("image", 80), ("breast", 80), ("patient", 40)])
def test_units(unit: str, count: int) -> None:
    assert by_unit(table(), Units(unit)).height == count


def test_a_patient_is_malignant_where_any_image_is() -> None:
    mixed = table(4, images_per_patient=4).with_columns(malignant=pl.Series([0.0, 0.0, 1.0, 0.0]))
    assert by_unit(mixed, Units("patient"))["malignant"].to_list() == [1.0]


def test_unknown_labels_are_left_out() -> None:
    rows = table().with_columns(
        malignant=pl.when(pl.col("image_id") == "i0").then(math.nan).otherwise("malignant")
    )
    assert by_unit(rows, Units()).height == 79


def test_a_site_of_one_class_gives_no_auc_and_valid_json() -> None:
    one = BOTH.with_columns(malignant=pl.when(pl.col("part") == "test").then(0.0).otherwise("malignant"))
    (line,) = result_lines(one, {}, units=Units("image"), resampling=FEW)
    assert line["auc"] is None
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_source_validation_is_the_mean_over_sites_with_both_classes() -> None:
    second = table(60, seed=3, part="val").with_columns(site=pl.lit("elsewhere"))
    one_class = table(60, seed=4, part="val").with_columns(site=pl.lit("single"), malignant=pl.lit(0.0))
    val = table(60, seed=1, part="val")
    expected = np.mean([roc_auc_score(t["malignant"], t["logit"]) for t in (val, second)])
    rows = pl.concat([val, second, one_class])
    assert source_val_auc(rows, Units()) == pytest.approx(expected)
    assert math.isnan(source_val_auc(one_class, Units()))


LIMITED = ("average_precision", "balanced_accuracy", "sensitivity", "specificity", "sensitivity_at_90", "ece")


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_every_measure_has_limits_of_the_patient_bootstrap(kind: str) -> None:
    (line,) = result_lines(BOTH, {}, units=Units(), resampling=Resampling(300, 0, kind))
    assert all(line[f"{name}_low"] < line[name] < line[f"{name}_high"] for name in LIMITED[:-1])
    assert line["ece_low"] < line["ece_high"]
    (wider,) = result_lines(
        BOTH.with_columns(patient=pl.col("part") + pl.col("patient").str.slice(-1)),
        {},
        units=Units(),
        resampling=Resampling(300, 0, kind),
    )
    assert wider["balanced_accuracy"] == line["balanced_accuracy"]
    assert wider["patients"] < line["patients"], "fewer patients with more images each"
    assert ("BCa" in line["interval"]) == (kind == "bca")


def test_limits_of_the_carried_operating_points_are_those_of_literally_resampled_patients() -> None:
    (line,) = result_lines(BOTH, {}, units=Units(), resampling=Resampling(4000))
    test, val = table(), table(60, seed=1, part="val")
    scores, labels = test["score"].to_numpy(), test["malignant"].to_numpy()
    rng = np.random.default_rng(3)
    found = []
    for _ in range(2000):
        rows = (rng.integers(0, 40, 40)[:, None] * 2 + np.arange(2)).ravel()
        found.append((scores[rows] >= line["threshold_at_90"])[labels[rows] == 1].mean())
    expected = tuple(np.quantile(found, [0.025, 0.975]))
    assert (line["sensitivity_at_90_low"], line["sensitivity_at_90_high"]) == pytest.approx(
        expected, abs=0.03
    )
    healthy = val.filter(malignant=0.0)["score"].to_numpy()
    assert (healthy < line["threshold_at_90"]).mean() >= 0.9, "fixed on source validation"
    reached = (scores[labels == 0] < line["threshold_at_90"]).mean()
    assert line["specificity_at_90"] == pytest.approx(reached, abs=1e-6)


def test_large_sites_get_fewer_draws_and_no_jackknife() -> None:
    asked = Resampling(2000, 7, "bca")
    assert asked.of(500) == asked
    assert asked.of(300_000) == Resampling(200, 7, "percentile")


def test_severity_has_its_kappa_where_truth_and_prediction_are_known() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 80).astype(float)
    level = np.clip(truth + rng.integers(-1, 2, 80), 0, 3)
    truth[:5], level[5:9] = np.nan, np.nan
    graded = table().with_columns(severity=pl.Series(truth), severity_level=pl.Series(level))
    both = pl.concat([graded, table(60, seed=1, part="val")], how="diagonal")
    (line,) = result_lines(both, {}, units=Units(), resampling=FEW)
    assert line["severity_cases"] == 71
    assert line["qwk"] == pytest.approx(
        cohen_kappa_score(truth[9:], level[9:], weights="quadratic"), abs=1e-6
    )
    assert line["qwk_low"] < line["qwk"] < line["qwk_high"]
    (without,) = result_lines(BOTH, {}, units=Units(), resampling=FEW)
    assert "qwk" not in without
    worst = by_unit(graded.filter(pl.col("severity").is_not_nan()), Units("patient"))
    assert worst.filter(patient="test20")["severity"].item() == max(truth[40:42])


def test_sites_are_judged_in_units_of_their_own() -> None:
    units = Units("image", {"cam*": "slide", "north": "patient"})
    assert [units.of(site) for site in ("camelyon17_3", "north", "south")] == ["slide", "patient", "image"]
    two = pl.concat([table(), table(40, seed=2).with_columns(site=pl.lit("north"))])
    rows = by_unit(two, units)
    assert rows.filter(site="here").height == 80
    assert rows.filter(site="north").height == 20


def test_the_stamp_tells_leaks_errors_and_phantoms() -> None:
    check = [{"severity": s, "what": f"a {s}"} for s in ("leak", "error", "warning", "info")]
    assert stamp({"phantom": True, "check": check}) == (
        "synthetic phantom: not clinical; leak: a leak; error: a error"
    )
    assert stamp({}) == ""


def test_permuted_labels_give_half_within_the_interval() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(20):
        labels = rng.permutation(table(images_per_patient=1)["malignant"].to_numpy())
        rows = table(images_per_patient=1, seed=trial).with_columns(malignant=pl.Series(labels))
        (line,) = result_lines(
            pl.concat([rows, BOTH.filter(part="val")]), {}, units=Units("image"), resampling=FEW
        )
        inside += line["auc_low"] <= 0.5 <= line["auc_high"]
    assert inside >= 16  # nominal 19 of 20; P(inside < 16) < 0.3 % at 95 % coverage
