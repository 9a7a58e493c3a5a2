"""Parts of a prediction against brute force and by their rules: concordance, severity, intervals, regions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from mammopath.case.breasts import biopsied
from mammopath.case.concordance import MISSED, OCCULT, compare, concordance
from mammopath.case.findings import MOST, spots
from mammopath.case.links import top_patches
from mammopath.case.page import _score
from mammopath.case.scores import answered, severities, venn_abers, worst
from mammopath.case.values import Score, Spot
from mammopath.confidence import Settled
from mammopath.images.geometry import Frame
from mammopath.images.read import read_image
from mammopath.maps.overlay import overlay, picture
from mammopath.maps.values import AttentionMap
from mammopath.phantom.cohort import Case as Person
from mammopath.phantom.files import write_dicom
from mammopath.phantom.sites import SITES
from mammopath.prepare.sample import load_sample
from mammopath.settings import MammogramSettings, PrepareSettings
from mammopath.types import Record, Spacing


def said(answer: str, probability: float) -> Score:
    why = "both answers are possible" if answer == "insufficient" else ""
    return Score("patient", "p", "mammogram", 0.0, probability, answer, why, calibrated=True)


M, B, U = said("malignant", 0.9), said("not malignant", 0.2), said("insufficient", 0.5)


@pytest.mark.parametrize(
    ("mammogram", "tissue", "verdict", "direction", "strength"),
    [
        (M, M, "concordant malignant", "", None),
        (B, B, "concordant benign", "", None),
        (M, B, "discordant", MISSED, 0.9 * 0.8),
        (B, M, "discordant", OCCULT, 0.9 * 0.8),
        (U, M, "insufficient", "mammogram: both answers are possible", None),
        (B, U, "insufficient", "tissue: both answers are possible", None),
        (None, M, "insufficient", "no mammogram", None),
        (M, None, "insufficient", "no tissue", None),
    ],
)
def test_the_rule(mammogram, tissue, verdict: str, direction: str, strength: float | None) -> None:
    found = concordance(mammogram, tissue)
    assert (found.verdict, found.direction) == (verdict, direction)
    assert found.strength == (None if strength is None else pytest.approx(strength))
    assert bool(found.look) == (not verdict.startswith("concordant"))


def test_a_missed_lesion_says_where_to_look() -> None:
    spot = Spot("R_CC.dcm", 1, 0.9, (0.0, 0.0, 9.0, 9.0), (), (4.0, 4.0), (11.6, 8.2), 60.0)
    look = " ".join(concordance(M, B, [spot]).look)
    assert "Region 1 of R_CC.dcm (12 x 8 mm)" in look


def tissue_of(*sides: str) -> list[Record]:
    return [Record(f"t{i}", Path(f"t{i}"), "p", "s", "pathology", laterality=s) for i, s in enumerate(sides)]


def views_of(*sides: str) -> list[Record]:
    return [Record(f"m{i}", Path(f"m{i}"), "p", "s", "mammogram", laterality=s) for i, s in enumerate(sides)]


def test_tissue_is_compared_with_its_own_breast() -> None:
    records = [*views_of("L", "R", ""), *tissue_of("L")]
    breast = biopsied(records)
    assert breast.side == "L"
    assert [breast.has(r) for r in records] == [True, False, True, True]
    assert compare(M, B, [], breast).basis == "mammograms of the L breast"


def test_tissue_of_an_unknown_side_or_of_both_breasts_is_told_of() -> None:
    unknown = compare(M, B, [], biopsied([*views_of("L", "R"), *tissue_of("")]))
    assert unknown.verdict == "discordant"
    assert "both breasts" in unknown.look[-1]
    assert biopsied([*views_of("L", "L"), *tissue_of("")]).note == ""
    assert biopsied(views_of("L", "R")).note == ""
    both = compare(M, M, [], biopsied([*views_of("L", "R"), *tissue_of("L", "R")]))
    assert both.verdict == "insufficient"
    assert "tissue of both breasts" in both.direction


def test_the_severity_of_a_patient_is_that_of_the_worse_breast() -> None:
    logits = torch.tensor([[-3.0, -3.0, -3.0], [4.0, 4.0, 4.0], [-3.0, -3.0, -3.0]])
    assert worst(logits, ["L", "R", "L"]) == severities(logits[1])
    assert worst(logits[:2], ["", ""]) == severities(logits[:2].mean(0))


def test_severity_probabilities_are_chained_conditionals() -> None:
    logits = torch.tensor([1.0, -0.5, 2.0])
    p = logits.sigmoid().tolist()
    expected = [1 - p[0], p[0] * (1 - p[1]), p[0] * p[1] * (1 - p[2]), p[0] * p[1] * p[2]]
    assert list(severities(logits).values()) == pytest.approx(expected, abs=1e-6)
    assert list(severities(logits)) == ["normal", "benign", "in situ", "invasive"]


def test_without_calibration_there_is_a_probability_but_no_answer() -> None:
    found = answered("image", "i", "mammogram", 1.0, None, None)
    assert found.answer == "insufficient"
    assert found.why == "not calibrated"
    assert found.probability == pytest.approx(1 / (1 + np.exp(-1)))


def test_an_unfamiliar_image_is_not_answered() -> None:
    settled = Settled(100, 50, 1.0, 0.5, 0.4, 0.4)
    assert answered("image", "i", "mammogram", 3.0, settled, 0.6).answer == "malignant"
    refused = answered("image", "i", "mammogram", 3.0, settled, 0.01)
    assert (refused.answer, refused.why) == ("insufficient", "unlike the training sites")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=1, max_size=12), st.integers(-6, 6))
def test_venn_abers_is_two_isotonic_fits(known: list[tuple[bool, int]], new: int) -> None:
    labels = np.array([float(y) for y, _ in known])
    logits = np.array([float(x) for _, x in known])
    fits = []
    for taken in (0.0, 1.0):
        model = IsotonicRegression(out_of_bounds="clip").fit(np.append(logits, new), np.append(labels, taken))
        fits.append(float(model.predict([float(new)])[0]))
    low, high = venn_abers(labels, logits, float(new))
    assert (low, high) == pytest.approx((min(fits), max(fits)), abs=1e-6)
    assert 0 <= low <= high <= 1


# ---------------------------------------------------------------- regions


def lesion_map(values: np.ndarray, *, spacing: Spacing | None = None) -> AttentionMap:
    frame = Frame().scaled(0.5, 0.5).padded(0, 10)
    return AttentionMap("lesion", "p", values, cell=10, frame=frame, image_id="i", spacing=spacing)


def test_regions_are_connected_ordered_and_in_level_0_pixels_and_millimetres() -> None:
    values = np.zeros((8, 6))
    values[1:3, 1] = [0.7, 0.9]
    values[5, 4] = 0.8
    values[7, 0] = np.nan
    first, second = spots(lesion_map(values, spacing=Spacing(100.0, 50.0)), 0.6)
    assert (first.number, first.score, second.score) == (1, 0.9, 0.8)
    assert first.box == pytest.approx((20, 0, 40, 40))
    assert first.mm == pytest.approx((2.0, 2.0))
    assert first.area_mm2 == pytest.approx(4.0)
    assert first.point == pytest.approx((30, 30))
    assert first.cells == ((1, 1), (2, 1))
    xs, ys = zip(*first.contour, strict=True)
    assert min(xs) >= 20 - 1e-6
    assert max(xs) <= 40 + 1e-6
    assert min(ys) >= -1e-6
    assert max(ys) <= 40 + 1e-6
    assert spots(lesion_map(values), 0.95) == ()
    assert spots(lesion_map(values), float("nan")) == ()
    assert spots(lesion_map(values), 0.6)[0].mm is None


def test_the_contour_goes_around_parts_that_touch_in_a_corner() -> None:
    values = np.zeros((6, 6))
    for k, value in enumerate((0.9, 0.8, 0.7), start=1):
        values[k, k] = value
    (spot,) = spots(AttentionMap("lesion", "p", values, 10, Frame(), "i"), 0.5)
    xs, ys = zip(*spot.contour, strict=True)
    assert (min(xs), max(xs)) == pytest.approx((10, 40), abs=1e-3)
    assert (min(ys), max(ys)) == pytest.approx((10, 40), abs=1e-3)


def test_regions_end_at_the_edges_of_the_image() -> None:
    values = np.zeros((4, 4))
    values[0, 0] = values[3, 3] = 0.9
    whole = AttentionMap(
        "lesion", "p", values, 10, Frame().padded(4, 4), "i", Spacing.square(100.0), size=(30, 33)
    )
    first, second = spots(whole, 0.5)
    assert first.box == (0, 0, 6, 6)
    assert first.area_mm2 == pytest.approx(0.6 * 0.6)
    assert second.box == (26, 26, 33, 30)
    assert second.mm == pytest.approx((0.7, 0.4))
    for spot in (first, second):
        left, top, right, bottom = spot.box
        assert left <= spot.point[0] <= right
        assert top <= spot.point[1] <= bottom
        assert all(0 <= x <= 33 and 0 <= y <= 30 for x, y in spot.contour)


@pytest.mark.parametrize(
    ("probability", "told"), [(0.61, "0.60 to 0.62"), (0.54, "0.60 to 0.62 (disagrees)")]
)
def test_a_probability_outside_its_interval_is_told_beside_it(probability: float, told: str) -> None:
    one = replace(said("insufficient", probability), low=0.6, high=0.62)
    assert _score(one)["interval"] == told
    assert _score(replace(one, low=None))["interval"] == "unknown"


def test_of_many_regions_the_strongest_are_told() -> None:
    values = np.zeros((6, 20))
    values[::2, ::2] = np.linspace(0.5, 1.0, 30).reshape(3, 10)
    found = spots(lesion_map(values), 0.4)
    assert len(found) == MOST
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


@pytest.mark.parametrize("side", "LR")
@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("site", ["site_a", "site_c"])
def test_a_painted_lesion_is_found_again_through_dicom_map_and_overlay(
    side: str, view: str, site: str, tmp_path
) -> None:
    style = SITES[site].mammogram
    person = Person("p", site, 0, 0.5, 0.1, side, False, (1, 2))
    rows, columns = round(205 / style.mm), round(154 / style.mm)
    y, x = np.mgrid[:rows, :columns] * style.mm
    breast = np.hypot(x / 110, (y - 100) / 80) < 1
    blob = np.hypot(x - 40, y - 130) < 9
    light = 0.35 * breast * (1 - 0.2 * x / 110) + 0.6 * blob
    if side == ("L" if style.film else "R"):
        light, blob = light[:, ::-1], blob[:, ::-1]
    stored = 1 - light if style.inverted else light
    write_dicom(
        tmp_path / "a.dcm",
        np.round(stored * (2**style.bits - 1)).astype(np.uint16),
        person,
        view=view,
        style=style,
    )

    record = Record("i", tmp_path / "a.dcm", "p", site, "mammogram", laterality=side)
    settings_ = PrepareSettings(mammogram=MammogramSettings(height=192, width=96))
    prepared = load_sample(record, settings_, multiple=8)
    sample = prepared.sample
    values = sample.image[0].unfold(0, 8, 8).unfold(1, 8, 8).mean((2, 3)).double().numpy()
    valid = sample.valid.unfold(0, 8, 8).unfold(1, 8, 8).float().mean((2, 3)).numpy() > 0.5
    image = read_image(record.path)
    found = AttentionMap(
        "lesion", "p", np.where(valid, values, np.nan), 8, prepared.frame, "i", image.header.spacing
    )
    (spot, *_) = spots(found, 0.8)
    centre = np.argwhere(blob).mean(0)[::-1]
    assert np.hypot(*(np.array(spot.point) - centre)) * style.mm < 9
    assert spot.mm == pytest.approx((18, 18), abs=18)

    seen = picture(image.pixels, spacing=image.header.spacing, mark=side)
    change = np.abs(overlay(found, seen).astype(int) - seen.pixels).sum(-1)
    hot = np.argwhere(change > 0.8 * change.max())
    there = np.array([seen.frame.inverse().point(float(c) + 0.5, float(r) + 0.5) for r, c in hot])
    assert np.hypot(*(there.mean(0) - centre)) * style.mm < 9


# ---------------------------------------------------------------- links


def test_top_patches_pass_over_neighbours_and_nothing() -> None:
    cells = [("a", r, c) for r in range(3) for c in range(3)] + [("b", 1, 1)]
    weight = torch.tensor([0.0, 0.1, 0.0, 0.2, 0.4, 0.0, 0.0, 0.0, 0.0, 0.3])
    assert [p for p, _ in top_patches(weight, cells)] == [4, 9]
    assert [w for _, w in top_patches(weight, cells)] == pytest.approx([0.4, 0.3])
    assert top_patches(torch.zeros(10), cells) == []
    spread = [("a", 2 * k, 0) for k in range(8)]
    assert [p for p, _ in top_patches(torch.arange(8.0), spread, count=3)] == [7, 6, 5]
