"""The rules of CAMELYON16, CAMELYON17 and BACH against second implementations and known answers."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from mammopath.errors import DataError
from mammopath.export.challenges import (
    read_camelyon16_detections,
    write_bach,
    write_camelyon16_detections,
    write_camelyon16_slides,
    write_camelyon17,
)
from mammopath.metrics.bach import accuracy, slide_score
from mammopath.metrics.camelyon16 import lesion_task, slide_name, slide_task
from mammopath.metrics.camelyon17 import STAGES, lesion_lengths, node_class, pn_stage, stage_kappa
from mammopath.metrics.froc import RATES, camelyon16_regions
from mammopath.types import NODE_CLASSES

UM = 0.243


def disc(mask, x, y, radius):
    rows, columns = np.indices(mask.shape)
    mask |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


# --- CAMELYON16 ---------------------------------------------------------------------------------------------


def brute_froc(slides, detections, tumours):
    """The rule as it is written, with loops: flood fill, one detection and one threshold at a time."""
    alarms, best = [], {}
    for slide in slides:
        regions = brute_regions(tumours[slide]) if slide in tumours else []
        best |= {(slide, k): 0.0 for k, (_, is_lesion) in enumerate(regions) if is_lesion}
        for score, x, y in detections.get(slide, []):
            inside = [k for k, (region, _) in enumerate(regions) if (int(y // 32), int(x // 32)) in region]
            if not inside:
                alarms.append(score)
            elif (slide, inside[0]) in best:
                best[slide, inside[0]] = max(best[slide, inside[0]], score)
    curve = [(0.0, 0.0)]
    for threshold in sorted({*alarms, *best.values()} - {0.0}):
        hits = sum(s >= threshold for s in best.values())
        curve.append((sum(s >= threshold for s in alarms) / len(slides), hits / len(best)))
    return np.mean([_at(rate, curve) for rate in RATES])


def brute_regions(tumour):
    """Grown regions as sets of (row, column), and whether each is a lesion rather than isolated cells."""
    um = UM * 32
    ys, xs = np.nonzero(tumour)
    near = np.zeros(tumour.shape, bool)
    for y, x in np.ndindex(tumour.shape):
        near[y, x] = ((ys - y) ** 2 + (xs - x) ** 2).min() < (75 / (um * 2)) ** 2
    found = []
    for region in _flood(~_outer(near)):
        spread = np.cov(np.array(sorted(region), float).T, bias=True)
        found.append((region, 4 * np.sqrt(np.linalg.eigvalsh(spread)[-1]) >= 275 / um))
    return found


def _at(rate, curve):
    """Sensitivity at a rate of false positives, on the straight line between two points of the curve."""
    x0, y0 = max(p for p in curve if p[0] <= rate)
    beyond = [p for p in curve if p[0] > rate]
    if not beyond or x0 == rate:
        return y0
    x1, y1 = min(beyond)
    return y0 + (y1 - y0) * (rate - x0) / (x1 - x0)


def _flood(mask):
    """8-connected regions as sets of (row, column)."""
    todo, regions = set(map(tuple, np.argwhere(mask).tolist())), []
    while todo:
        region, edge = set(), [todo.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & todo
            todo -= around
            edge.extend(around)
        regions.append(region)
    return regions


def _outer(mask):
    """Background that touches the border, 4-connected: all else is region or hole."""
    height, width = mask.shape
    outer = np.zeros_like(mask)
    edge = [(y, x) for y, x in np.ndindex(mask.shape) if y in (0, height - 1) or x in (0, width - 1)]
    while edge:
        y, x = edge.pop()
        if 0 <= y < height and 0 <= x < width and not mask[y, x] and not outer[y, x]:
            outer[y, x] = True
            edge += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return outer


@pytest.mark.parametrize("seed", range(4))
def test_froc_is_that_of_a_brute_force_second_implementation(seed):
    rng = np.random.default_rng(seed)
    side, tumours, detections = 72, {}, {}
    slides = [f"test_{i:03d}" for i in range(1, 7)]
    for slide in slides[:4]:
        mask = np.zeros((side, side), bool)
        for _ in range(rng.integers(1, 5)):
            disc(mask, *rng.integers(0, side, 2), rng.choice([2, 5, 22, 28]))
        if rng.random() < 0.5:
            mask[20:24, 20:24] = False
        tumours[slide] = mask
    for slide in slides[:-1]:
        n = rng.integers(0, 14)
        rows = np.stack([rng.integers(1, 9, n) / 10, *rng.integers(0, side * 32, (2, n))], axis=1)
        detections[slide] = rows.astype(float)
    found = lesion_task(
        slides, detections, {slide: camelyon16_regions(mask, um=UM) for slide, mask in tumours.items()}
    )
    assert found.slides == 6
    assert found.curve.score == pytest.approx(brute_froc(slides, detections, tumours))


def grown(mask):
    return camelyon16_regions(mask, um=UM)


def one_lesion():
    mask = np.zeros((100, 100), bool)
    disc(mask, 50, 50, 20)
    return {"test_001": grown(mask)}


@pytest.mark.parametrize(
    ("alarms", "score"), [(0, 1), (1, 5 / 6), (2, 4 / 6), (5, 2 / 6), (16, 1 / 6), (17, 0)]
)
def test_froc_of_one_lesion_on_two_slides_by_hand(alarms, score):
    """It is found after louder false alarms, half as many per slide: the rates from there on have it."""
    rows = np.array([[0.9, 100.0, 100.0]] * alarms + [[0.5, 1600.0, 1600.0], [0.4, 1600.0, 1700.0]])
    found = lesion_task(["test_001", "test_002"], {"test_001": rows}, one_lesion())
    assert (found.curve.score, found.lesions) == (pytest.approx(score), 1)
    on_normal = lesion_task(
        ["test_001", "test_002"], {"test_001": rows[alarms:], "test_002": rows[:alarms]}, one_lesion()
    )
    assert on_normal.curve.score == found.curve.score


def test_a_lesion_without_any_detection_is_missed():
    assert lesion_task(["test_001"], {}, one_lesion()).curve.score == 0


def test_isolated_tumour_cells_are_neither_lesion_nor_false_positive():
    mask = np.zeros((100, 100), bool)
    disc(mask, 50, 50, 20)
    disc(mask, 10, 90, 3)
    rows = np.array([[0.9, 320.0, 2880.0], [0.5, 1600.0, 1600.0]])
    found = lesion_task(["test_001"], {"test_001": rows}, {"test_001": grown(mask)})
    assert (found.lesions, found.curve.score) == (1, 1.0)


def test_excluded_slides_count_in_neither_task():
    slides = ["Test_001.tif", "Test_049.tif", "Test_114.tif", "Test_002.tif"]
    wrong = np.array([[0.99, 5.0, 5.0]])
    found = lesion_task(slides, {"test_049": wrong, "Test_114": wrong}, one_lesion())
    assert (found.slides, len(found.curve.false_positives)) == (2, 1)
    truth = {"test_001": 1.0, "test_002": 0.0, "test_003": 0.0, "test_049": 1.0, "test_114": 1.0}
    scores = {"Test_001": 0.9, "Test_002": 0.1, "Test_003": 0.2, "Test_114": 0.8, "Test_049": 0.0}
    assert slide_task(truth, scores).value == 1.0
    del scores["Test_114"]
    with pytest.raises(DataError, match="1 slides have no score, the first: test_114"):
        slide_task(truth, scores)


def test_slides_that_are_not_in_the_test_or_worthless_confidences_are_refused():
    with pytest.raises(DataError, match="test_009: is not among"):
        lesion_task(["test_001"], {"test_009": np.ones((1, 3))}, {})
    with pytest.raises(DataError, match="above 0"):
        lesion_task(["test_001"], {"test_001": np.zeros((1, 3))}, {})
    assert [slide_name(n) for n in ("a/Test_7.tif", "normal_86", "tumor_111.xml")] == [
        "test_007", "normal_086", "tumor_111",
    ]  # fmt: skip


def test_slide_task_is_the_auc_of_another_implementation():
    rng = np.random.default_rng(0)
    truth = {f"test_{i:03d}": float(i % 2) for i in range(1, 49)}
    scores = {name: round(rng.random() + 0.3 * label, 1) for name, label in truth.items()}
    found = slide_task(truth, scores)
    assert found.value == pytest.approx(roc_auc_score(list(truth.values()), list(scores.values())))
    assert found.low < found.value < found.high


@pytest.mark.data
def test_golden_froc_of_the_authors_code(shared_data):
    golden = json.loads((shared_data.parent / "reference" / "golden.json").read_text())["froc.camelyon16"]
    y, x = np.mgrid[:256, :256] * 32.0
    discs = [(2000, 2000, 900), (6000, 2500, 500), (3000, 6500, 120), (6500, 6500, 1100)]
    tumour = np.any([(x - cx) ** 2 + (y - cy) ** 2 <= r**2 for cx, cy, r in discs], axis=0)
    regions = camelyon16_regions(tumour)
    assert len(regions.ignored) == golden["regions"]
    rows = {name: np.array(found, float) for name, found in golden["detections_prob_x_y_level0"].items()}
    curve = lesion_task(list(rows), rows, {"tumor_001": regions}, draws=50)
    np.testing.assert_allclose(curve.curve.false_positives, golden["total_FPs"])
    np.testing.assert_allclose(curve.curve.sensitivity, golden["sens"])
    np.testing.assert_allclose(curve.curve.at, golden["at"])
    assert curve.curve.score == pytest.approx(golden["froc"])
    assert curve.interval.value == pytest.approx(golden["froc"])


def test_submissions_of_camelyon16_come_back(tmp_path):
    rows = {"test_001": np.array([[0.5, 10.0, 20.0], [0.25, 30.0, 40.0]]), "test_002": np.empty((0, 3))}
    write_camelyon16_detections(tmp_path / "d", rows)
    assert (tmp_path / "d" / "test_001.csv").read_text() == "0.5,10,20\n0.25,30,40\n"
    back = read_camelyon16_detections(tmp_path / "d")
    assert back.keys() == rows.keys()
    for name, expected in rows.items():
        np.testing.assert_array_equal(back[name], expected)
    write_camelyon16_slides(tmp_path / "s.csv", {"test_002": 0.25, "test_001": 1.0})
    assert (tmp_path / "s.csv").read_text() == "test_001,1\ntest_002,0.25\n"
    with pytest.raises(DataError, match="no probability"):
        write_camelyon16_slides(tmp_path / "s.csv", {"test_001": float("nan")})
    (tmp_path / "d" / "test_003.csv").write_text("confidence,x,y\n")
    with pytest.raises(DataError, match=r"test_003\.csv:1"):
        read_camelyon16_detections(tmp_path / "d")
    with pytest.raises(DataError, match="no detections"):
        read_camelyon16_detections(tmp_path / "none")


# --- CAMELYON17 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "stage"),
    [
        ("negative " * 5, "pN0"),
        ("itc negative negative negative negative", "pN0(i+)"),
        ("micro itc", "pN1mi"),
        ("micro " * 5, "pN1mi"),
        ("macro", "pN1"),
        ("macro micro micro itc itc", "pN1"),
        ("macro micro micro micro itc", "pN2"),
        ("macro " * 5, "pN2"),
    ],
)
def test_stages_by_the_table_of_the_challenge(nodes, stage):
    assert pn_stage(nodes.split()) == stage


@given(st.lists(st.sampled_from(NODE_CLASSES), min_size=1, max_size=5), st.randoms())
def test_stages_do_not_depend_on_the_order_and_a_worse_node_is_never_better(nodes, random):
    shuffled = random.sample(nodes, len(nodes))
    assert pn_stage(shuffled) == pn_stage(nodes)
    worse = [NODE_CLASSES[min(3, NODE_CLASSES.index(shuffled[0]) + 1)], *shuffled[1:]]
    assert STAGES.index(pn_stage(worse)) >= STAGES.index(pn_stage(nodes))


@pytest.mark.parametrize("nodes", [[], ["Macro"], ["pN0"]])
def test_nodes_of_another_form_are_refused(nodes):
    with pytest.raises(DataError, match="negative, itc, micro, macro"):
        pn_stage(nodes)


@pytest.mark.parametrize(
    ("lengths", "cells", "found"),
    [
        ([], 0, "negative"), ([0.5], 0, "itc"), ([200.0], 0, "itc"), ([200.1, 50.0], 0, "micro"),
        ([150.0], 201, "micro"), ([150.0], 200, "itc"), ([2000.0], 0, "micro"), ([30.0, 2000.1], 0, "macro"),
    ],
)  # fmt: skip
def test_a_node_is_as_bad_as_its_longest_lesion(lengths, cells, found):
    assert node_class(lengths, cells=cells) == found


def test_a_length_of_nothing_is_refused():
    with pytest.raises(DataError, match="above 0"):
        node_class([0.0])


def test_lengths_are_longest_diameters_whatever_the_direction():
    mask = np.zeros((60, 80), bool)
    mask[5, 5] = True
    mask[10:20, 10:50] = True
    for i in range(30):
        mask[25 + i, 10 + i : 13 + i] = True
    lengths = lesion_lengths(mask, um=2.0)
    slope = np.hypot(30, 32)
    np.testing.assert_allclose(
        lengths, [slope * 2, np.hypot(10, 40) * 2, np.sqrt(2) * 2][: len(lengths)], atol=1e-9
    )
    assert lesion_lengths(np.zeros((4, 4), bool), um=1.0).shape == (0,)


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1))
def test_lengths_are_those_of_all_pairs_of_corners(seed):
    mask = np.random.default_rng(seed).random((10, 10)) < 0.3
    label, count = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = []
    for k in range(1, count + 1):
        corners = [(y + i, x + j) for y, x in np.argwhere(label == k) for i in (0, 1) for j in (0, 1)]
        expected.append(max(np.hypot(a - c, b - d) for a, b in corners for c, d in corners))
    np.testing.assert_allclose(lesion_lengths(mask, um=1.0), sorted(expected, reverse=True))


def test_near_lesions_join_where_that_is_asked_for():
    mask = np.zeros((20, 60), bool)
    mask[5:15, 5:20] = mask[5:15, 24:40] = True
    assert len(lesion_lengths(mask, um=10.0)) == 2
    np.testing.assert_allclose(lesion_lengths(mask, um=10.0, join_um=75.0), [np.hypot(10, 35) * 10])


@pytest.mark.data
def test_real_stages_of_all_hundred_patients_follow_from_their_nodes(shared_data):
    nodes, stages = defaultdict(list), {}
    with (shared_data / "formats" / "camelyon17" / "stage_labels.csv").open() as file:
        for row in csv.DictReader(file):
            name, _, suffix = row["patient"].partition(".")
            if suffix == "zip":
                stages[name] = row["stage"]
            else:
                nodes[name[:11]].append(row["stage"])
    assert len(stages) == 100
    assert {name: pn_stage(nodes[name]) for name in stages} == stages
    assert Counter(stages.values()) == {"pN0": 24, "pN0(i+)": 12, "pN1mi": 20, "pN1": 25, "pN2": 19}


@pytest.mark.data
def test_kappa_of_the_published_example(shared_data):
    def stages(name):
        with (shared_data / "formats" / "camelyon17" / name).open() as file:
            rows = [(row["patient"], row["stage"]) for row in csv.DictReader(file)]
        return {name.removesuffix(".zip"): stage for name, stage in rows if name.endswith(".zip")}

    truth, told = stages("reference_example.csv"), stages("submission_example.csv")
    places = [[STAGES.index(table[name]) for name in truth] for table in (truth, told)]
    expected = cohen_kappa_score(*places, labels=range(5), weights="quadratic")
    assert stage_kappa(truth, told).value == pytest.approx(expected)
    assert stage_kappa(truth, truth).value == 1.0


def test_kappa_needs_every_patient_and_known_stages():
    with pytest.raises(DataError, match="1 patients have no predicted stage, the first: p2"):
        stage_kappa({"p1": "pN0", "p2": "pN1"}, {"p1": "pN0"})
    with pytest.raises(DataError, match="'pN3' is none"):
        stage_kappa({"p1": "pN0"}, {"p1": "pN3"})


def test_the_submission_of_camelyon17_has_patients_and_nodes(tmp_path):
    nodes = {f"patient_007_node_{i}": node for i, node in enumerate(["negative"] * 4 + ["micro"])}
    write_camelyon17(tmp_path / "s.csv", nodes | {"patient_004_node_4": "itc"})
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[:3] == ["patient,stage", "patient_004.zip,pN0(i+)", "patient_004_node_4.tif,itc"]
    assert lines[3] == "patient_007.zip,pN1mi"
    assert lines[-1] == "patient_007_node_4.tif,micro"
    with pytest.raises(DataError, match="not the name of a node"):
        write_camelyon17(tmp_path / "s.csv", {"patient_7": "micro"})


@pytest.mark.data
def test_the_published_submission_is_written_again(shared_data, tmp_path):
    published = (shared_data / "formats" / "camelyon17" / "reference_example.csv").read_text()
    rows = [line.split(",") for line in published.split()]
    write_camelyon17(tmp_path / "s.csv", {n.removesuffix(".tif"): s for n, s in rows if n.endswith(".tif")})
    assert (tmp_path / "s.csv").read_text().split() == published.split()


# --- BACH ---------------------------------------------------------------------------------------------------


def test_accuracy_of_fields():
    assert accuracy(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])) == 0.75
    assert np.isnan(accuracy(np.array([]), np.array([])))


def literal_score(truth, told):
    above = below = 0.0
    for gt, pred in zip(truth.ravel().tolist(), told.ravel().tolist(), strict=True):
        above += abs(pred - gt)
        below += max(abs(gt - 0), abs(gt - 3)) * (1 - (1 - (pred > 0)) * (1 - (gt > 0)))
    return 1 - above / (below + 1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_score_of_a_slide_is_the_formula_of_the_paper(seed, share):
    rng = np.random.default_rng(seed)
    truth, told = rng.integers(0, 4, (2, 9, 7)) * (rng.random((2, 9, 7)) < share)
    assert slide_score(truth, told) == pytest.approx(literal_score(truth, told), abs=1e-6)
    assert slide_score(truth, truth) == 1.0


def test_the_score_of_a_slide_by_hand():
    truth = np.array([[0, 0, 3, 1]])
    assert slide_score(truth, np.zeros_like(truth)) == pytest.approx(1 - 4 / 5)
    assert slide_score(truth, np.array([[3, 0, 3, 1]])) == pytest.approx(1 - 3 / 8)
    assert slide_score(truth, np.array([[0, 0, 0, 3]])) == pytest.approx(0.0, abs=1e-8)
    for wrong in (np.array([[0, 0, 4, 1]]), np.array([[-1, 0, 3, 1]]), np.zeros((2, 2), int)):
        with pytest.raises(DataError):
            slide_score(truth, wrong)


def test_the_submission_of_bach(tmp_path):
    write_bach(tmp_path / "b.csv", {"1": 3, "0": 0})
    assert (tmp_path / "b.csv").read_text() == "case,class\n0,0\n1,3\n"
    with pytest.raises(DataError, match="class 4"):
        write_bach(tmp_path / "b.csv", {"1": 4})
