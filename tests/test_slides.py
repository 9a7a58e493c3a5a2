"""The room of slides: files of features, restarts, workers, bags, streamed scores, maps and detections."""

import csv
import json
import multiprocessing
import os
import signal
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.loader import Pick, label_table
from mammopath.errors import ConfigError, DataError
from mammopath.images.slide import open_slide
from mammopath.images.slide_files import find_slides
from mammopath.model.weights import build_network
from mammopath.parallel import past_crashes
from mammopath.prepare.patches import patch_grid
from mammopath.prepare.tissue import find_tissue
from mammopath.settings import PatchSettings, TrainSettings
from mammopath.slide_settings import BagSettings, SlideSettings
from mammopath.slides.bags import BagBank, bag_steps, tumour_share
from mammopath.slides.embed import embed, frozen_trunk, model_settings
from mammopath.slides.extract import extract
from mammopath.slides.job import Job, given_spacings, name_slides
from mammopath.slides.maps import cell_um, detections, map_of, tumour_cells, tumour_map
from mammopath.slides.score import score_patient, score_slide
from mammopath.slides.store import Features, read_features, read_places, writing_features
from mammopath.slides.summary import write_summary
from mammopath.tensors import Sample
from mammopath.types import Finding, Record, Spacing
from slide_cases import TUMOUR_AT, damage, small_plan, small_slide
from test_slide import noise, pyramid

SETTINGS = SlideSettings(patches=PatchSettings(side=32, um=4.0, mask_um=16.0))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One with a tumour, one without, one of glass."""
    root = tmp_path_factory.mktemp("slides")
    small_slide(root / "with.tif")
    small_slide(root / "without.tif", radius=0)
    pyramid(root / "glass.tif", (noise(300, 300) % 5 + 240).astype(np.uint8), um=2.0)
    return name_slides(find_slides([root]))


@pytest.fixture(scope="module")
def job(slides: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = Job(tmp_path_factory.mktemp("out"), SETTINGS, {})
    extract(slides, made)
    return made


def test_every_slide_gets_features_or_a_verdict(job: Job, slides: dict[str, Path]) -> None:
    found = {o.slide: o for o in extract(slides, job)}
    assert {name: o.verdict for name, o in found.items()} == {
        "with": "good",
        "without": "good",
        "glass": "empty",
    }
    assert not job.features("glass").exists()
    assert {p.stem for p in (job.out / "thumbnails").iterdir()} == set(slides)
    features = read_features(job.features("with"))
    assert len(features) == found["with"].patches > 100
    assert features.span == pytest.approx(128, rel=1e-3)
    assert features.size == (2048, 2048)
    assert features.spacing is not None
    rows = list(csv.DictReader(write_summary(job.out, list(found.values())).read_text().splitlines()))
    assert {row["slide"] for row in rows} == set(slides)
    assert {row["notice"] for row in rows} == {RESEARCH_USE_ONLY}


def test_two_workers_give_the_features_of_one(job: Job, slides: dict[str, Path], tmp_path: Path) -> None:
    other = Job(tmp_path, SETTINGS.model_copy(update={"workers": 2}), {})
    extract(slides, other, workers=2)
    for name in ("with", "without"):
        one, two = read_features(job.features(name)), read_features(other.features(name))
        assert np.array_equal(one.values, two.values)
        assert np.array_equal(one.corners, two.corners)


def test_a_job_goes_on_where_it_stopped(slides: dict[str, Path], job: Job) -> None:
    kept = job.features("without").stat().st_mtime_ns
    job.outcome("with").unlink()
    job.features("with").unlink()
    extract(slides, job)
    assert job.features("with").exists()
    assert job.features("without").stat().st_mtime_ns == kept


def test_a_slide_that_another_worker_has_is_left_to_it(slides: dict[str, Path], tmp_path: Path) -> None:
    import fcntl

    job = Job(tmp_path, SETTINGS, {})
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / "glass.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [o.verdict for o in extract({"glass": slides["glass"]}, job)] == ["busy"]
    assert [o.verdict for o in extract({"glass": slides["glass"]}, job)] == ["empty"]


def test_one_bad_slide_is_told_and_tried_again(slides: dict[str, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(slides["glass"].read_bytes()[:200])
    job = Job(tmp_path / "out", SETTINGS, {})
    both = {"bad": bad, "glass": slides["glass"]}
    assert {o.slide: o.verdict for o in extract(both, job)} == {"bad": "unreadable", "glass": "empty"}
    assert json.loads(job.outcome("bad").read_text())["code"]
    bad.write_bytes(slides["glass"].read_bytes())
    assert {o.slide: o.verdict for o in extract(both, job)} == {"bad": "empty", "glass": "empty"}


def test_a_corrupt_tile_in_the_middle_costs_its_patches(slides: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(slides["with"].read_bytes())
    damage(path, 3, page=2)  # 4 um: the level that patches are read from
    found = extract({"a": path}, Job(tmp_path / "out", SETTINGS, {}))[0]
    assert found.verdict == "good"
    assert found.skipped > 20
    assert len(found.damage) == 20
    assert "a.tif at 10" in found.damage[0]
    whole = 8 * 8 * 4
    assert found.skipped + found.patches < 4 * whole


def test_other_settings_need_another_folder(slides: dict[str, Path], job: Job) -> None:
    other = SETTINGS.model_copy(update={"patches": PatchSettings(side=64, um=4.0)})
    with pytest.raises(ConfigError, match="other settings"):
        extract(slides, Job(job.out, other, {}))


def test_another_file_of_the_same_name_is_read_anew(slides: dict[str, Path], tmp_path: Path) -> None:
    """Features of one slide were kept for another that came in its place, or for another spacing."""
    job = Job(tmp_path / "out", SETTINGS, {})
    (first,) = extract({"a": slides["with"]}, job)
    small = small_slide(tmp_path / "small.tif", side=1024, radius=0)
    (second,) = extract({"a": small}, job)
    assert second.patches < first.patches / 2
    assert len(read_features(job.features("a"))) == second.patches
    (third,) = extract({"a": small}, replace(job, spacings={"small": Spacing.square(2.0)}))
    assert third.um == (2.0, 2.0)
    assert third.patches > 2 * second.patches
    small.unlink()
    (kept,) = extract({"a": small}, job)  # a slide that was put away keeps its features
    assert kept == third


def test_a_slide_that_turned_bad_loses_its_features(slides: dict[str, Path], tmp_path: Path) -> None:
    job, path = Job(tmp_path / "out", SETTINGS, {}), tmp_path / "a.tif"
    path.write_bytes(slides["without"].read_bytes())
    extract({"a": path}, job)
    path.write_bytes(path.read_bytes()[:3000])
    assert extract({"a": path}, job)[0].verdict == "unreadable"
    assert not job.features("a").exists()


def test_a_given_spacing_is_that_of_its_own_file(tmp_path: Path) -> None:
    """Slides of DICOM folders are all called 1.dcm; one's spacing was given to the other."""
    paths = [small_slide(tmp_path / folder / "1.tif", side=512, radius=0) for folder in "ab"]
    given = [
        Record(p.parent.name, p, "p", "d", "pathology", spacing=Spacing.square(um), spacing_source="override")
        for p, um in zip(paths, (1.0, 2.0), strict=True)
    ]
    found = extract(name_slides(paths), Job(tmp_path / "out", SETTINGS, given_spacings(given)))
    assert {o.slide: o.um[0] for o in found} == {"a_1": 1.0, "b_1": 2.0}


def test_features_that_were_removed_are_made_again(slides: dict[str, Path], tmp_path: Path) -> None:
    job = Job(tmp_path, SETTINGS, {})
    extract({"a": slides["without"]}, job)
    job.features("a").unlink()
    extract({"a": slides["without"]}, job)
    assert job.features("a").exists()


def test_only_what_features_depend_on_ties_a_folder(slides: dict[str, Path], job: Job) -> None:
    """Folders of `slides features` serve training with any settings of its own."""
    for change in ({"threads": 2}, {"seed": 3}, {"join_um": 80.0}, {"train": TrainSettings(steps=7)}):
        other = BagSettings(patches=SETTINGS.patches).model_copy(update=change)
        assert len(extract(slides, Job(job.out, other, {}))) == 3
    with pytest.raises(ConfigError, match="other settings"):
        extract(slides, Job(job.out, SETTINGS.model_copy(update={"precision": "bf16"}), {}))


def test_what_a_killed_worker_has_left_is_swept_up(slides: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    left = tmp_path / "features" / ".glass.123.0a1b2c3d.part.h5"
    others = tmp_path / "features" / ".glass.2.123.0a1b2c3d.part.h5"  # of a slide called glass.2
    left.touch()
    others.touch()
    extract({"glass": slides["glass"]}, Job(tmp_path, SETTINGS, {}))
    assert not left.exists()
    assert others.exists()


def test_a_process_that_dies_costs_its_task_alone() -> None:
    found = dict(past_crashes(_dies_at_two, [1, 2, 3, 4, 5], workers=2))
    assert found == {1: 1, 2: None, 3: 9, 4: 16, 5: 25}


def test_errors_of_work_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(past_crashes(_inverse, [1, 0, 2, 3], workers=1))


def _dies_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def _inverse(number: int) -> float:
    return 1 / number


def test_a_slide_that_kills_its_process_is_told(
    slides: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(work: object, tasks: list[tuple[str, Path]], *, workers: int) -> Iterator[tuple[object, None]]:
        assert workers == 2
        yield from ((task, None) for task in tasks)

    monkeypatch.setattr("mammopath.slides.extract.past_crashes", died)
    job = Job(tmp_path, SETTINGS, {})
    (outcome,) = extract({"glass": slides["glass"]}, job, workers=2)
    assert (outcome.verdict, outcome.code) == ("unreadable", "crashed")
    assert [o.verdict for o in extract({"glass": slides["glass"]}, job)] == ["empty"]


class _Deadly(type(Path())):  # type: ignore[misc]
    """A slide whose decoder crashes the process that opens it, though not the one that asked for it."""

    def __fspath__(self) -> str:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__fspath__()


def test_one_worker_survives_a_slide_that_kills_it(slides: dict[str, Path], tmp_path: Path) -> None:
    job = Job(tmp_path / "out", SETTINGS, {})
    tasks = {"deadly": _Deadly(slides["without"]), "with": slides["with"], "glass": slides["glass"]}
    found = {o.slide: o for o in extract(tasks, job, workers=1)}
    assert {name: (o.verdict, o.code) for name, o in found.items()} == {
        "deadly": ("unreadable", "crashed"), "with": ("good", ""), "glass": ("empty", ""),
    }  # fmt: skip
    assert json.loads(job.outcome("deadly").read_text())["code"] == "crashed"
    here = Job(tmp_path / "here", SETTINGS, {})
    extract({"with": slides["with"]}, here)
    one, other = (read_features(j.features("with")).values for j in (job, here))
    assert np.array_equal(one, other)


def test_slides_of_one_name_take_those_of_their_folders() -> None:
    paths = [Path("/x/c1/1.dcm"), Path("/x/c2/1.dcm"), Path("/x/a.svs"), Path("/x/a.tif"), Path("/y/b.svs")]
    named = name_slides([*paths, paths[0]])
    assert list(named) == ["c1_1", "c2_1", "a.svs", "a.tif", "b"]
    assert list(named.values()) == paths


def test_slides_that_no_name_tells_apart_are_refused() -> None:
    with pytest.raises(DataError, match="rename it"):
        name_slides([Path("/c1/1.dcm"), Path("/c2/1.dcm"), Path("/c1_1.dcm")])


def test_a_side_that_is_no_multiple_of_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="take 96"):
        frozen_trunk(SlideSettings(patches=PatchSettings(side=100)))


def test_features_are_what_the_network_gives_one_by_one() -> None:
    network, pixels = frozen_trunk(SETTINGS), noise(32, 32 * 5).reshape(32, 5, 32, 3).swapaxes(0, 1)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    ones = torch.ones(32, 32, dtype=torch.bool)
    tokens = network.lower([Sample(i, ones, i[0]) for i in images], "pathology")
    found = embed(network, np.ascontiguousarray(pixels), SETTINGS.patches)
    assert np.allclose(found, torch.stack([t[1:].mean(0) for t in tokens]).numpy(), atol=1e-3)
    cls = embed(network, np.ascontiguousarray(pixels), PatchSettings(side=32, read="cls"))
    assert np.allclose(cls, torch.stack([t[0] for t in tokens]).numpy(), atol=2e-3)


def test_the_layout_is_that_of_clam_and_trident(job: Job) -> None:
    with h5py.File(job.features("with")) as file:
        assert file["features"].shape == (file["coords"].shape[0], 96)
        attributes = dict(file["coords"].attrs)
    assert attributes["patch_size"] == 32
    assert attributes["patch_size_level0"] == 128
    assert attributes["target_magnification"] == pytest.approx(2.5)
    assert attributes["level0_magnification"] == pytest.approx(10, rel=1e-3)
    assert attributes["overlap"] == 0
    assert attributes["name"] == "with"


@pytest.mark.parametrize("shape", [(7, 5), (1, 7, 5)])
def test_features_of_others_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.arange(35, dtype=np.float16).reshape(shape)
        file["coords"] = np.arange(14).reshape(7, 2)
        told = {"patch_size": 256, "patch_size_level0": 512, "overlap": 64, "level0_magnification": 40}
        file["coords"].attrs.update(told | {"level0_width": 9, "level0_height": 8})
    found = read_features(tmp_path / "x.h5", np.array([3, 0, 3]))
    assert found.values[:, 0].tolist() == [15, 0, 15]
    assert (found.span, found.step, found.spacing, found.size) == (512, 384, Spacing.square(0.25), (9, 8))


def clam(path: Path, told: dict[str, object]) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(0).random((1, 6, 96), dtype=np.float32)
        file["coords"] = np.arange(12).reshape(6, 2) * 1024
        file["coords"].attrs.update(told)
    return path


@pytest.mark.parametrize(
    ("told", "span"),
    [
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 2}, np.nan),
        ({}, np.nan),
    ],
)
def test_the_span_of_patches_of_clam_counts_its_level(
    tmp_path: Path, told: dict[str, object], span: float
) -> None:
    places = read_places(clam(tmp_path / "x.h5", told))
    assert np.array_equal([places.span, places.step], [span, span], equal_nan=True)
    assert places.values.shape == (6, 0)


def test_without_geometry_there_is_a_score_and_no_map(tmp_path: Path) -> None:
    """Files with an axis in front are scored as others; what places are needed for says so."""
    path = clam(tmp_path / "x.h5", {})
    network = build_network(model_settings(SETTINGS.trunk)).eval()
    score = score_slide(network, path, chunk=4)
    assert score.tumour.shape == (6,)
    with pytest.raises(DataError, match="side of a patch"):
        map_of(score, image_id="x")
    outline = Finding("polygon", small_plan().tumours[0], malignant=1.0)
    with pytest.raises(DataError, match="patch_size_level0"):
        tumour_share(Record("x", path, "p", "d", "pathology", 1.0, findings=(outline,)), read_places(path))
    assert np.isnan(tumour_share(Record("x", path, "p", "d", "pathology", 1.0), read_places(path))).all()


def test_a_score_never_holds_all_features(tmp_path: Path) -> None:
    network = build_network(model_settings(SETTINGS.trunk)).eval()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((40_000, 96), "f4"), np.zeros((40_000, 2), int)
    tracemalloc.start()
    score_slide(network, tmp_path / "x.h5", chunk=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 96 * 4 / 3


def test_files_that_hold_no_features_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, 2)), np.zeros((4, 2))
    for name in "abc":
        with pytest.raises(DataError, match=f"{name}.h5"):
            read_features(tmp_path / f"{name}.h5")


def test_a_file_of_features_appears_whole_or_not_at_all(slides: dict[str, Path], tmp_path: Path) -> None:
    slide = open_slide(slides["with"])
    grid = patch_grid(slide, find_tissue(slide, 16.0), side=32, um=4.0)

    def fail() -> None:
        with writing_features(tmp_path / "a.h5", slide, grid, {}) as file:
            file.add(np.zeros((3, 4), np.float32), grid.corners[:3])
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- bags


def records(slides: dict[str, Path]) -> list[Record]:
    outline = Finding("polygon", small_plan().tumours[0], malignant=1.0)
    return [
        Record("with", slides["with"], "p0", "a", "pathology", 1.0, findings=(outline,)),
        Record("without", slides["without"], "p0", "a", "pathology", 0.0),
    ]


def bank_of(job: Job, slides: dict[str, Path], patches: int = 50) -> BagBank:
    rows = records(slides)
    files = {i: job.features(r.image_id) for i, r in enumerate(rows)}
    return BagBank(files, rows, label_table(rows, {"pathology": ("a",)}), prefix=1, patches=patches)


def test_a_step_sees_fresh_patches_and_a_look_sees_all(job: Job, slides: dict[str, Path]) -> None:
    bank = bank_of(job, slides)
    whole = bank.batch("pathology", [Pick(0, 0), Pick(1, 0)])
    sizes = [len(read_features(job.features(name))) for name in ("with", "without")]
    assert whole.valid.sum(1).tolist() == sizes
    first, second = (bank.batch("pathology", [Pick(0, 1)]) for _ in range(2))
    assert first.valid.shape == (1, 50)
    assert first.tokens is not None
    assert second.tokens is not None
    assert not torch.equal(first.tokens, second.tokens)
    steps = bag_steps(bank.records, [0, 1], TrainSettings(batch=2), seed=0)
    assert {p.draw for p in next(steps)["pathology"]} == {1}


def test_beyond_its_budget_a_bank_reads_what_it_draws(
    job: Job, slides: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def reading(path: Path, rows: np.ndarray | slice = slice(None)) -> Features:
        asked.append(rows)
        return read_features(path, rows)

    monkeypatch.setattr("mammopath.slides.bags.read_features", reading)
    within, beyond = bank_of(job, slides), bank_of(job, slides)
    beyond.memory.budget = 0
    for _ in range(3):
        one, two = (bank.batch("pathology", [Pick(0, 1)]) for bank in (within, beyond))
        assert one.tokens is not None
        assert two.tokens is not None
        assert torch.equal(one.tokens, two.tokens)
        assert torch.equal(one.lesion.nan_to_num(9), two.lesion.nan_to_num(9))
    sizes = [len(rows) if isinstance(rows, np.ndarray) else 0 for rows in asked]
    assert sizes == [
        0,
        50,
        50,
        50,
    ]  # one whole file for the bank that may keep it, 50 rows a draw for the other


def test_the_share_of_tumour_of_patches_is_that_of_the_outline(job: Job, slides: dict[str, Path]) -> None:
    features = read_features(job.features("with"))
    share = tumour_share(records(slides)[0], features)
    middle = features.corners + features.span / 2
    far = np.hypot(*(middle - TUMOUR_AT).T)
    assert (share[far < 100] == 1).all()
    assert np.isnan(share[far > 300]).all()  # malignant, and not known to be outlined exhaustively
    assert np.nansum(share) * features.span**2 == pytest.approx(np.pi * 180**2, rel=0.1)
    assert (tumour_share(records(slides)[1], read_features(job.features("without"))) == 0).all()


@pytest.mark.parametrize("score", ["pooled", "top_tokens"])
def test_a_streamed_score_is_that_of_the_whole_bag(job: Job, slides: dict[str, Path], score: str) -> None:
    torch.manual_seed(0)
    network = build_network(model_settings(SETTINGS.trunk).model_copy(update={"image_score": score})).eval()
    with torch.no_grad():
        for parameter in network.of("pathology").heads.parameters():
            parameter.normal_(0, 0.3)
        output = network(bank_of(job, slides).batch("pathology", [Pick(0, 0), Pick(1, 0)]))
    found = [score_slide(network, job.features(name), chunk=37) for name in ("with", "without")]
    for i, one in enumerate(found):
        n = len(one.tumour)
        assert one.logit == pytest.approx(float(output.logit[i]), abs=1e-4)
        assert np.allclose(one.tumour, output.token_logit[i, :n].sigmoid().numpy(), atol=1e-5)
        assert np.allclose(one.attention, output.attention[i, :n].numpy(), atol=1e-6)
    assert score_patient(network, found) == pytest.approx(float(output.patient_logit[0]), abs=1e-4)


# ---------------------------------------------------------------- maps


def lattice(step: int, columns: int = 20, rows: int = 12) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * step + [
        130,
        70,
    ]


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_square_of_tumour_comes_back_as_one_detection(overlap: int) -> None:
    corners, span = lattice(64 // overlap, 20 * overlap, 12 * overlap), 64.0
    middle = corners + span / 2
    inside = (np.abs(middle - (130 + 8 * 64, 70 + 5 * 64)) < 96).all(axis=1)
    found = tumour_map(
        corners, np.where(inside, 0.9, 0.1), span=span, step=span / overlap, spacing=Spacing.square(0.5)
    )
    assert cell_um(found) == 32 / overlap
    (row,) = detections(found)
    assert row[0] == pytest.approx(0.9)
    assert np.abs(row[1:] - (130 + 8 * 64, 70 + 5 * 64)).max() <= span
    assert tumour_cells(found).sum() * (span / overlap) ** 2 == pytest.approx(
        inside.sum() * (span / overlap) ** 2, rel=0.5
    )


def test_pieces_that_touch_by_a_corner_are_one_and_others_are_not() -> None:
    corners = lattice(10, 6, 6)
    cells = (corners - corners.min(axis=0)) // 10
    chosen = {(0, 0), (1, 1), (4, 4)}
    value = np.array([0.8 if tuple(c) in chosen else 0.0 for c in cells.tolist()])
    found = tumour_map(corners, value, span=10.0, step=10.0, spacing=Spacing.square(1.0))
    assert len(detections(found)) == 2


def test_where_no_patch_was_read_the_map_says_nothing() -> None:
    corners = np.array([[0, 0], [30, 0], [0, 20]])
    found = tumour_map(corners, np.array([0.2, 0.9, 0.7]), span=10.0, step=10.0, spacing=Spacing.square(1.0))
    assert found.values.shape == (3, 4)
    assert np.isnan(found.values).sum() == 9
    assert detections(found, threshold=0.95).shape == (0, 3)


def test_a_map_without_patches_is_empty() -> None:
    found = tumour_map(np.zeros((0, 2), int), np.zeros(0), span=1.0, step=1.0, spacing=Spacing.square(1.0))
    assert not tumour_cells(found).any()
