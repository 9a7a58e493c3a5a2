"""Site probe, retrieval between modalities and localisation against brute force; all of it on a phantom."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mammopath.bench import prepare_bench
from mammopath.cohort.loader import label_table, training_sites
from mammopath.config import parse
from mammopath.diagnostics import FILE, headlines, retrievals, write_diagnostics
from mammopath.experiment import run
from mammopath.localisation import PEAKS, View, localise, marked, peaks, views
from mammopath.model.weights import build_network
from mammopath.objectives.align import Side
from mammopath.objectives.retrieval import chance_precision
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.representation import FOLDS, Cohort, deal, joined, matches, probed, site_from_label, site_probe
from mammopath.seen import Seen, people
from mammopath.settings import LodoSettings
from mammopath.tensors import Batch, Output
from mammopath.types import Finding, Record

# ---------------------------------------------------------------- site probe


def cohort(sites: dict[str, int], *, images: int = 2, prevalence: float = 0.5) -> Cohort:
    """So many patients per site with so many images each."""
    names = [(s, f"{s}-{p:03d}") for s, count in sites.items() for p in range(count) for _ in range(images)]
    malignant = np.arange(len(names)) // images % 10 < 10 * prevalence
    return Cohort(np.array([s for s, _ in names]), np.array([p for _, p in names]), malignant.astype(float))


@pytest.mark.parametrize("sites", [{"a": 60, "b": 40}, {"a": 40, "b": 30, "c": 50}])
def test_the_probe_reads_a_site_signal_and_nothing_where_there_is_none(sites: dict[str, int]) -> None:
    who = cohort(sites)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(who.sites), 20))
    signal = noise + 4 * np.eye(20)[np.unique(who.sites, return_inverse=True)[1]]
    without, with_signal = site_probe(noise, who), site_probe(signal, who)
    assert with_signal.value > 0.95
    assert without.low < 1 / len(sites) < without.high
    assert with_signal.low <= with_signal.value <= with_signal.high


def test_a_patient_who_looks_alike_in_all_images_does_not_help_the_probe() -> None:
    who = cohort({"a": 30, "b": 30}, images=4)
    rng = np.random.default_rng(1)
    own = {p: rng.normal(size=40) for p in np.unique(who.patients)}
    features = np.stack([own[p] for p in who.patients]) + 0.01 * rng.normal(size=(len(who.patients), 40))
    found = site_probe(features, who)
    assert found.low < 0.5 < found.high
    fold = deal(who)
    for patient in own:
        assert len(set(fold[who.patients == patient])) == 1


def test_balanced_accuracy_does_not_reward_the_larger_site() -> None:
    who = cohort({"a": 90, "b": 10})
    found = site_probe(np.random.default_rng(2).normal(size=(len(who.sites), 5)), who)
    assert found.value < 0.75


def test_sites_without_patients_for_every_fold_are_left_out() -> None:
    who = cohort({"a": 5, "b": 4, "small": FOLDS - 1})
    assert set(who.sites[probed(who)]) == {"a", "b"}
    alone = cohort({"a": 5, "small": FOLDS - 1})
    assert not probed(alone).any()
    shared = Cohort(np.array(["a"] * 4 + ["b"] * 4), np.array(list("pqrs") * 2), np.zeros(8))
    assert not probed(shared).any()


def test_every_fold_trains_on_every_site() -> None:
    who = cohort({"a": 3, "b": 7, "c": 4})
    fold = deal(who)
    for k in range(FOLDS):
        assert set(who.sites[fold != k]) == {"a", "b", "c"} == set(who.sites[fold == k])


def test_the_label_alone_tells_the_site_where_prevalences_differ() -> None:
    def two(a: list[float], b: list[float]) -> float:
        sites = np.array(["a"] * len(a) + ["b"] * len(b))
        return site_from_label(Cohort(sites, sites, np.array(a + b, dtype=float)))

    assert two([1, 0, 1, 0], [1, 0]) == 0.5
    assert two([1, 1], [0, 0, 0]) == 1.0
    assert two([1, 1, 1, 0], [1, 0, 0, 0]) == 0.75
    assert two([math.nan, math.nan], [0, 1]) == 1.0


# ---------------------------------------------------------------- retrieval


def side(count: int, *, seed: int, pairs: bool = True, width: int = 6) -> Side:
    generator = torch.Generator().manual_seed(seed)
    projection = F.normalize(torch.randn(count, width, generator=generator), dim=1)
    label = torch.tensor([0.0, 1.0, 1.0, 0.0, torch.nan]).repeat(count)[:count]
    pair = torch.arange(count) if pairs else torch.full((count,), -1)
    return Side(projection, label, pair)


def brute(similarity: np.ndarray, right: np.ndarray) -> tuple[int, float, float]:
    """Queries, mean average precision and recall at 1, from their definitions."""
    precisions, firsts = [], []
    for row, relevant in zip(similarity, right, strict=True):
        if relevant.any():
            order = np.argsort(-row)
            places = np.flatnonzero(relevant[order])
            precisions.append(np.mean([(n + 1) / (place + 1) for n, place in enumerate(places)]))
            firsts.append(relevant[order][0])
    return len(precisions), float(np.mean(precisions)), float(np.mean(firsts))


def test_retrieval_is_that_of_the_definitions() -> None:
    left, right = side(20, seed=0), side(23, seed=1)
    similarity = (left.projection @ right.projection.T).numpy()
    a, b = left.label.numpy(), right.label.numpy()
    pairs = left.pair.numpy()[:, None] == right.pair.numpy()
    known = ~np.isnan(b)
    expected = {
        "label": brute(similarity[:, known], (a[:, None] == b)[:, known]),
        "patient": brute(similarity, pairs),
        "patient_in_class": brute(np.where(a[:, None] == b, similarity, -9), pairs & (a[:, None] == b)),
    }
    found = matches(left, right)
    assert found.keys() == expected.keys()
    for link, (queries, precision, first) in expected.items():
        assert found[link].queries == queries
        assert found[link].mean_precision == pytest.approx(precision)
        assert found[link].recall[1] == pytest.approx(first)


def test_chance_within_a_class_is_that_of_the_class() -> None:
    left, right = side(20, seed=0), side(20, seed=1)
    found = matches(left, right)["patient_in_class"]
    assert found.chance_recall[1] == pytest.approx(1 / 8)
    assert found.chance_precision == pytest.approx(chance_precision(1, 8))


def test_true_partners_are_found_and_random_projections_are_at_chance() -> None:
    left = side(400, seed=0, width=16)
    same = matches(left, left)
    assert same["patient"].recall[1] == 1.0
    other = matches(left, side(400, seed=1, width=16))
    for found in other.values():
        assert found.mean_precision == pytest.approx(found.chance_precision, abs=0.02)


def test_without_pairing_keys_there_is_no_patient_to_find() -> None:
    assert matches(side(9, seed=0, pairs=False), side(9, seed=1, pairs=False)).keys() == {"label"}
    unknown = replace(side(9, seed=0, pairs=False), label=torch.full((9,), torch.nan))
    assert matches(unknown, unknown) == {}


def test_a_collapsed_space_is_at_chance_whatever_the_order_of_the_patients() -> None:
    label = torch.tensor([1.0] * 30 + [0.0] * 70)
    flat = Side(F.normalize(torch.ones(100, 4), dim=1), label, torch.full((100,), -1))
    found = matches(flat, joined([flat]))["label"]
    assert found.mean_precision == pytest.approx(found.chance_precision, abs=0.05)


def test_validation_stands_in_for_the_modality_that_a_site_does_not_have() -> None:
    tested = Seen(people={"mammogram": [side(8, seed=0, pairs=False), side(6, seed=1, pairs=False)]})
    validated = Seen(people={m: [side(9, seed=2, pairs=False)] for m in ("mammogram", "pathology")})
    found = retrievals(validated, tested)
    rows = [(r["modality"], r["query_part"], r["gallery_part"], r["queries"]) for r in found["retrieval"]]
    assert rows == [("mammogram", "test", "val", 12), ("pathology", "val", "test", 8)]
    left = joined(tested.people["mammogram"]).projection.mean(0)
    right = validated.people["pathology"][0].projection.mean(0)
    assert found["modality_gap"] == pytest.approx(float((left - right).norm()))
    assert retrievals(Seen(), tested) == {"retrieval": []}


def test_a_patient_is_malignant_if_any_image_is() -> None:
    nan = math.nan
    output, batch = maps(
        np.zeros((4, 1, 2)), patient=[7, 3, 7, 5], malignant=[0, nan, 1, nan], pair=[2, -1, 2, 4]
    )
    found = people(output, batch)
    assert output.patients.tolist() == [3, 5, 7]
    np.testing.assert_equal(found.label.numpy(), [nan, nan, 1])
    assert found.pair.tolist() == [-1, 4, 2]


# ---------------------------------------------------------------- localisation


def maps(
    attention: np.ndarray,
    *,
    lesion: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    token_logit: np.ndarray | None = None,
    malignant: list[float] | None = None,
    patient: list[int] | None = None,
    pair: list[int] | None = None,
) -> tuple[Output, Batch]:
    """An output whose maps are given on their grid, and the batch that it was made from."""
    count, rows, columns = attention.shape

    def flat(values: np.ndarray | None, default: float) -> torch.Tensor:
        filled = np.full(attention.shape, default) if values is None else values
        return torch.from_numpy(np.asarray(filled, dtype=np.float32).reshape(count, -1))

    patients = torch.tensor(patient or list(range(count)))
    here = flat(valid, 1).bool()
    output = Output(
        modality="mammogram",
        logit=torch.zeros(count),
        severity=torch.zeros(count, 3),
        token_logit=flat(token_logit, 0),
        attention=flat(attention, 0),
        embedding=torch.zeros(count, 6),
        valid=here,
        patients=patients.unique(),
        patient_logit=torch.zeros(len(patients.unique())),
        projection=torch.zeros(len(patients.unique()), 4),
    )
    batch = Batch(
        modality="mammogram",
        malignant=torch.tensor(malignant or [1.0] * count),
        severity=torch.zeros(count),
        domain=torch.zeros(count, dtype=torch.long),
        patient=patients,
        pair=torch.tensor(pair or [-1] * count),
        row=torch.arange(count),
        valid=here,
        lesion=flat(lesion, 0),
        tokens=torch.zeros(count, 1 + rows * columns, 4),
        grid=torch.tensor([[rows, columns]] * count),
    )
    return output, batch


def record(number: int, malignant: float = 1.0, *, findings: int = 1) -> Record:
    found = tuple(Finding("point", ((1.0, 1.0),)) for _ in range(findings))
    name = f"p{number}"
    return Record(name, Path(name), name, "site", "mammogram", malignant=malignant, findings=found)


def view(heat: np.ndarray, lesion: np.ndarray, *, number: int = 0, malignant: float = 1.0) -> View:
    return View("mammogram", "site", f"p{number}", malignant, {"lesion": heat}, lesion.astype(bool))


def test_views_are_the_maps_on_their_grid_without_padding() -> None:
    attention = np.array([[[0.1, 0.2, 0.0], [0.3, 0.4, 0.0]]])
    valid = np.array([[[1, 1, 0], [1, 1, 0]]])
    lesion = np.array([[[0, 0.01, np.nan], [0, 0, np.nan]]])
    output, batch = maps(attention, lesion=lesion, valid=valid, token_logit=np.full((1, 2, 3), 2.0))
    (found,) = views(output, batch, [record(0)], lesion_map=True)
    assert list(found.heat) == ["lesion", "attention"]
    np.testing.assert_allclose(found.heat["attention"], [[0.4, 0.8, np.nan], [1.2, 1.6, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(found.heat["lesion"][:, :2], 1 / (1 + math.exp(-2)), rtol=1e-6)
    np.testing.assert_array_equal(found.lesion, [[False, True, False], [False, False, False]])
    np.testing.assert_array_equal(found.valid, valid[0] == 1)
    assert not found.lost
    assert list(views(output, batch, [record(0)], lesion_map=False)[0].heat) == ["attention"]


def test_images_whose_annotation_is_not_complete_are_left_out_and_lost_lesions_are_told() -> None:
    lesion = np.zeros((3, 2, 2))
    lesion[0, 0, 0] = np.nan
    output, batch = maps(np.full((3, 2, 2), 0.25), lesion=lesion)
    found = views(output, batch, [record(0), record(1), record(2, 0.0, findings=0)], lesion_map=False)
    assert [(v.patient, v.lost) for v in found] == [("p1", True), ("p2", False)]


def test_peaks_are_the_local_maxima_one_for_each_plateau() -> None:
    heat = np.array(
        [
            [0.9, 0.1, 0.1, 0.1, 0.5],
            [0.1, 0.1, 0.1, 0.1, 0.5],
            [0.1, 0.1, 0.7, 0.1, 0.1],
            [np.nan, np.nan, 0.1, 0.1, 0.8],
        ]
    )
    np.testing.assert_array_equal(
        peaks(heat)[:4], [[0.9, 0.5, 0.5], [0.8, 4.5, 3.5], [0.7, 2.5, 2.5], [0.5, 4.5, 0.5]]
    )
    assert len(peaks(np.full((6, 6), 0.3))) == 1
    isolated = np.zeros((12, 12))
    isolated[::2, ::2] = 1 + np.arange(36).reshape(6, 6)
    assert len(peaks(isolated)) == PEAKS
    assert peaks(isolated)[:, 0].tolist() == list(range(36, 36 - PEAKS, -1))


def test_pointing_game_on_a_hand_made_set() -> None:
    heat = np.array([[0.9, 0.2], [0.1, 0.1]])
    on, off = np.array([[1, 0], [0, 0]]), np.array([[0, 0], [0, 1]])
    images = [view(heat, on, number=0), view(heat, off, number=1), view(heat, off, number=2, malignant=0.0)]
    every = localise(images, "lesion", malignant=False)
    assert every is not None
    assert (every.images, every.with_lesion, every.lesions) == (3, 3, 3)
    assert every.pointing.value == pytest.approx(1 / 3)
    assert every.pointing_chance == 0.25
    malignant = localise(images, "lesion", malignant=True)
    assert malignant is not None
    assert (malignant.images, malignant.with_lesion) == (3, 2)
    assert malignant.pointing.value == 0.5
    assert localise(images[2:], "lesion", malignant=True) is None


def test_a_map_is_compared_with_chance_and_with_attention_on_the_same_patients() -> None:
    rng = np.random.default_rng(5)
    images = []
    for number in range(60):
        lesion = np.zeros((6, 6), dtype=bool)
        lesion[tuple(rng.integers(0, 6, 2))] = True
        noise = rng.random((6, 6))
        one = view(noise + 2 * lesion, lesion, number=number)
        images.append(replace(one, heat={"lesion": one.heat["lesion"], "attention": noise}))
    lesions, attention = (localise(images, name, malignant=True) for name in ("lesion", "attention"))
    assert lesions is not None
    assert attention is not None
    assert attention.over_attention is None
    over = lesions.over_attention
    assert over is not None
    assert over.pointing.value == pytest.approx(1 - attention.pointing.value)
    assert over.froc.value == pytest.approx(lesions.froc.value - attention.froc.value)
    assert lesions.over_chance.pointing.value == pytest.approx(1 - 1 / 36)
    for gap in (over.pointing, over.froc, lesions.over_chance.pointing, lesions.over_chance.froc):
        assert 0 < gap.low <= gap.value <= gap.high
    nothing = attention.over_chance
    assert nothing.pointing.low < 0 < nothing.pointing.high
    assert nothing.froc.value == pytest.approx(0, abs=0.1), "one map of noise against another"


def test_chance_of_the_pointing_game_is_the_hit_rate_of_random_maps() -> None:
    rng = np.random.default_rng(0)
    lesion = rng.random((8, 6)) < 0.2
    heat = np.where(np.arange(6) < 5, 1.0, np.nan)
    images = [view(heat * rng.random((8, 6)), lesion, number=i) for i in range(300)]
    found = localise(images, "lesion", malignant=True, draws=100)
    assert found is not None
    assert found.pointing_chance == pytest.approx(lesion[:, :5].mean())
    assert found.pointing.value == pytest.approx(found.pointing_chance, abs=0.06)
    assert found.froc.value == pytest.approx(found.froc_chance, abs=0.05)


def test_a_constant_map_points_anywhere_and_a_lost_lesion_is_missed() -> None:
    lesion = np.array([[1, 0], [0, 0]])
    flat = localise([view(np.full((2, 2), 0.5), lesion)], "lesion", malignant=True)
    assert flat is not None
    assert flat.pointing.value == flat.pointing_chance == 0.25
    lost = replace(view(np.eye(2), np.zeros((2, 2))), lost=True)
    found = localise([lost, view(np.eye(2), lesion)], "lesion", malignant=True)
    assert found is not None
    assert (found.lesions, found.pointing.value, found.froc.value) == (2, 0.5, 0.5)


def test_froc_of_a_perfect_map_is_one_and_of_a_misleading_one_nought() -> None:
    lesion = np.zeros((5, 5), dtype=bool)
    lesion[1:3, 1:3] = lesion[4, 4] = True
    heat = np.full((5, 5), 0.1)
    heat[1, 1], heat[4, 4] = 0.9, 0.8
    assert len(marked(view(heat, lesion), heat).hits) == 2
    wrong = np.full((5, 5), 0.1)
    wrong[0, 4] = 0.9
    found = [
        localise([view(h, lesion, number=i) for i in range(4)], "lesion", malignant=True)
        for h in (heat, wrong)
    ]
    assert [f and f.froc.value for f in found] == [1.0, 0.0]


def test_froc_is_the_count_of_hits_above_each_threshold() -> None:
    rng = np.random.default_rng(3)
    images = []
    for i in range(12):
        lesion = np.zeros((6, 6), dtype=bool)
        if i % 3:
            lesion[tuple(rng.integers(0, 6, 2))] = True
        images.append(view(rng.random((6, 6)), lesion, number=i))
    found = localise(images, "lesion", malignant=True)
    marks = [(v, p) for v in images for p in peaks(v.heat["lesion"])]
    points = []
    for threshold in sorted({p[0] for _, p in marks} | {2.0}):
        above = [(v, p) for v, p in marks if p[0] >= threshold]
        hit = {v.patient for v, p in above if v.lesion[int(p[2]), int(p[1])]}
        alarms = sum(not v.lesion[int(p[2]), int(p[1])] for v, p in above)
        points.append((alarms / 12, len(hit) / 8))
    expected = np.mean([np.interp(r, *zip(*reversed(points), strict=True)) for r in (0.5, 1, 2, 4)])
    assert found is not None
    assert found.froc.value == pytest.approx(expected)


# ---------------------------------------------------------------- a run


SMALL = {
    "prepare": {
        "mammogram": {"height": 64, "width": 32},
        "pathology": {"height": 32, "width": 32},
        "draws": 0,
    },
    "model": {"train_trunk": "all", "readout": {"mammogram": [1], "pathology": [1]}},
    "train": {"steps": 2, "batch": 2, "validate_every": 2, "method": "full"},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LodoSettings:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    generate(root, PhantomSettings(sites=("site_a", "site_b"), patients=8, fields=1))
    return parse(LodoSettings, SMALL | {"data": {"sources": [{"source": "phantom", "root": str(root)}]}})


@pytest.fixture(scope="module")
def folder(settings: LodoSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "site_b"
    bench = prepare_bench(settings, cache=folder.parent / "cache")
    run(bench, settings, held_out="site_b", folder=folder)
    return folder


def test_a_run_tells_what_its_network_knows(folder: Path) -> None:
    found = json.loads((folder / FILE).read_text())
    assert {(r["modality"], r["link"], r["query_part"]) for r in found["retrieval"]} == {
        (query, link, "test")
        for query in ("mammogram", "pathology")
        for link in ("label", "patient", "patient_in_class")
    }
    assert all(r["queries"] == 8 for r in found["retrieval"])
    assert 0 <= found["modality_gap"] <= 2
    assert {(r["modality"], r["map"], r["target"]) for r in found["localisation"]} == {
        (modality, name, target)
        for modality in ("mammogram", "pathology")
        for name in ("lesion", "attention")
        for target in ("malignant", "any")
    }
    for row in found["localisation"]:
        assert row["site"] == "site_b"
        assert row["pointing_low"] <= row["pointing"] <= row["pointing_high"]
        assert 0 < row["pointing_chance"] <= 1


def test_headlines_are_the_numbers_of_the_file_and_none_where_there_are_none(
    folder: Path, tmp_path: Path
) -> None:
    found = json.loads((folder / FILE).read_text())
    line = headlines(folder, site="site_b", modality="mammogram")
    row = next(r for r in found["localisation"] if (r["modality"], r["map"]) == ("mammogram", "lesion"))
    assert line["pointing_lesion"] == row["pointing"] == round(row["pointing"], 6)
    assert line["modality_gap"] == found["modality_gap"]
    assert set(headlines(tmp_path, site="site_b", modality="mammogram").items()) == {(k, None) for k in line}


def test_the_probe_compares_the_embedding_with_the_frozen_trunk(
    settings: LodoSettings, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    trunk = build_network(settings.model).trunk
    save_file({k: v.contiguous() for k, v in trunk.state_dict().items()}, tmp_path / "tiny.safetensors")
    model = {"weights": str(tmp_path / "tiny.safetensors"), "readout": {"mammogram": [2], "pathology": [2]}}
    frozen = parse(LodoSettings, SMALL | {"data": settings.data.model_dump(), "model": model})
    bench = prepare_bench(frozen, cache=tmp_path / "cache")
    rows = range(len(bench.records))
    network = build_network(frozen.model)
    bank = bench.bank(label_table(bench.records, training_sites(bench.records, rows)), frozen, network)
    write_diagnostics(tmp_path, network, bank, bench.records, val=rows, test=[], lesion_map=False)
    found = json.loads((tmp_path / FILE).read_text())
    assert [r["modality"] for r in found["site_probe"]] == ["mammogram", "pathology"]
    for row in found["site_probe"]:
        assert (row["sites"], row["chance"], row["patients"]) == (["site_a", "site_b"], 0.5, row["patients"])
        assert row["after_low"] <= row["after"] <= row["after_high"]
        assert row["before_low"] <= row["before"] <= row["before_high"]
    assert found["localisation"] == []
