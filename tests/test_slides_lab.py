"""A laboratory's own slides: train on a manifest, predict new ones, and what is written of them."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mammopath import RESEARCH_USE_ONLY
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.errors import ConfigError, DataError, WeightsError
from mammopath.images.annotations_geojson import read_geojson
from mammopath.images.geometry import Frame, paint
from mammopath.maps.values import AttentionMap
from mammopath.phantom.camelyon import CamelyonPlan, make_camelyon
from mammopath.slides.apply import Asked, predict_slides, read_patients
from mammopath.slides.demo import demo_settings
from mammopath.slides.extract import extract
from mammopath.slides.job import Job, find_features, name_slides
from mammopath.slides.learn import load_slide_run, train_slides
from mammopath.slides.maps import pieces
from mammopath.slides.outlines import measures, polygons, write_geojson
from mammopath.slides.store import read_features
from mammopath.sources import SOURCES
from mammopath.types import Finding, Record, Spacing

SETTINGS = demo_settings(
    ["patches.side=16", "patches.um=4.0", "patches.mask_um=8.0", "train.steps=40", "train.validate_every=20"]
)
SITE = "camelyon17_centre_1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lab") / "phantom"
    make_camelyon(made, CamelyonPlan(centres=2, patients=4, side=1024, um=4.0))
    return made


@pytest.fixture(scope="module")
def records(root: Path) -> list[Record]:
    return [one for one in SOURCES["camelyon17"].index(root) if isinstance(one, Record)]


@pytest.fixture(scope="module")
def features(root: Path, records: list[Record]) -> Path:
    job = Job(root.parent / "features", SETTINGS, {})
    extract(name_slides([r.path for r in records]), job)
    return job.out


@pytest.fixture(scope="module")
def run(records: list[Record], features: Path) -> Path:
    out = features.parent / "run"
    train_slides(records, features, out, demo_settings(["train.steps=40"]), held_out=SITE)
    return out


@pytest.mark.slow
def test_a_run_of_slides_is_a_run(run: Path, records: list[Record], features: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    assert facts["held_out"] == SITE
    assert facts["sites"] == {"pathology": ["camelyon17_centre_0"]}
    assert facts["slides"]["recipe"] == json.loads((features / "recipe.json").read_text())["recipe"]
    assert facts["slides"]["settings"]["patches"]["side"] == 16  # of the features, not of the command
    assert facts["rows"]["test"] == 8
    assert (run / "predictions.parquet").exists()
    loaded = load_slide_run(run)
    assert loaded.settings.train.steps == 40
    with pytest.raises(ConfigError, match="something already"):
        train_slides(records, features, run, SETTINGS)
    assert 0 < loaded.threshold < 1


@pytest.mark.slow
def test_new_slides_are_scored_mapped_and_outlined(
    run: Path, root: Path, features: Path, tmp_path: Path
) -> None:
    """Through the command line, with features made on the way; one of the slides is damaged."""
    chosen = [root / "images" / f"patient_{n}.tif" for n in ("007_node_0", "007_node_1", "004_node_0")]
    (tmp_path / "bad.tif").write_bytes(chosen[0].read_bytes()[:5000])
    table = tmp_path / "patients.csv"
    rows = [f"{path.name},{path.stem[:11]}" for path in chosen]
    table.write_text("slide,patient\n" + "\n".join(rows) + "\n")
    paths = [*map(str, chosen), str(tmp_path / "bad.tif")]
    out = tmp_path / "out"
    given = ["slides", "predict", str(run), *paths, "--out", str(out), "--patients", str(table)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 1, result.output  # one of them cannot be read
    told = {row["slide"]: row for row in json.loads((out / "predictions.json").read_text())["slides"]}
    assert told["bad"]["score"] is None
    assert told["bad"]["note"].startswith("unreadable: ")
    assert {row["patient"] for row in told.values()} == {"patient_007", "patient_004", "bad"}
    assert told["patient_007_node_0"]["patient_score"] == told["patient_007_node_1"]["patient_score"]
    lines = list(csv.DictReader((out / "detections.csv").read_text().splitlines()))
    assert {line["slide"] for line in lines} <= set(told)
    lines += csv.DictReader((out / "predictions.csv").read_text().splitlines())
    assert {line["notice"] for line in lines} == {RESEARCH_USE_ONLY}
    with np.load(out / "maps" / "patient_007_node_0.npz") as kept:
        shown, origin, cell = kept["probability"], kept["origin_xy"], kept["cell_xy"]
        assert kept["spacing_um_xy"] == pytest.approx([4.0, 4.0], rel=1e-3)
        assert kept["cell_um"] == pytest.approx(64.0, rel=1e-3)
        own = read_features(features / "features" / "patient_007_node_0.h5")
        assert np.array_equal(kept["corners_xy"], own.corners)
        at = np.rint((own.corners - origin) / cell).astype(int)
        assert np.allclose(shown[at[:, 1], at[:, 0]], kept["patch_probability"])
    with Image.open(out / "maps" / "patient_007_node_0.png") as picture:
        assert picture.width > 256
    drawn = read_geojson(out / "maps" / "patient_007_node_0.geojson")
    assert len(drawn.outlines) >= int(told["patient_007_node_0"]["pieces"])
    assert not drawn.skipped
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 1
    assert isinstance(again.exception, ConfigError)


@pytest.mark.slow
def test_given_features_say_the_same_as_those_made_on_the_way(
    run: Path, records: list[Record], features: Path, tmp_path: Path
) -> None:
    loaded, paths = load_slide_run(run), [records[0].path, records[3].path]
    one = predict_slides(loaded, Asked(paths, {}, {}), tmp_path / "one")
    two = predict_slides(loaded, Asked(paths, {}, {}, features), tmp_path / "two")
    assert [a.score for a in one] == [a.score for a in two]
    assert [a.patient_score for a in one] == pytest.approx([a.score for a in one], abs=0.5)


@pytest.mark.slow
def test_another_trunk_than_that_of_training_is_refused(
    run: Path, records: list[Record], tmp_path: Path
) -> None:
    loaded = load_slide_run(run)
    other = replace(loaded, recipe="another")
    with pytest.raises(WeightsError, match="trunk"):
        predict_slides(other, Asked([records[0].path], {}, {}), tmp_path / "out")
    foreign = replace(loaded, recipe="")
    with pytest.raises(ConfigError, match="--features"):
        predict_slides(foreign, Asked([records[0].path], {}, {}), tmp_path / "out")


@pytest.mark.slow
def test_training_without_a_held_out_site_keeps_patients_apart(
    records: list[Record], root: Path, features: Path, tmp_path: Path
) -> None:
    found = manifest.collect(records, source="camelyon17", root=root)
    manifest.write(found, tmp_path / "lab.parquet")
    given = ["--features", str(features), "--out", str(tmp_path / "run"), "--set", "train.steps=4"]
    result = CliRunner().invoke(app, ["slides", "train", str(tmp_path / "lab.parquet"), *given])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["held_out"] is None
    assert facts["rows"]["test"] > 0
    assert set(facts["sites"]["pathology"]) == {"camelyon17_centre_0", SITE}
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["fingerprint"] == manifest.read(tmp_path / "lab.parquet").fingerprint


@pytest.mark.slow
def test_features_without_places_give_a_score_and_say_why_no_map(
    run: Path, records: list[Record], features: Path, tmp_path: Path
) -> None:
    """As the files of CLAM's second step, which keep no attributes."""
    own = read_features(features / "features" / f"{records[0].path.stem}.h5")
    (tmp_path / "clam").mkdir()
    with h5py.File(tmp_path / "clam" / f"{records[0].path.stem}.h5", "w") as file:
        file["features"], file["coords"] = own.values, own.corners
    loaded, path = load_slide_run(run), [records[0].path]
    (bare,) = predict_slides(loaded, Asked(path, {}, {}, tmp_path / "clam"), tmp_path / "one")
    (whole,) = predict_slides(loaded, Asked(path, {}, {}, features), tmp_path / "two")
    assert bare.score == whole.score
    assert "side of a patch" in bare.note
    assert not (tmp_path / "one" / "maps").exists()


def test_slides_without_features_are_told(tmp_path: Path) -> None:
    record = Record("a", tmp_path / "a.tif", "p", "d", "pathology", 1.0)
    with pytest.raises(DataError, match="slides features"):
        train_slides([record], tmp_path, tmp_path / "run", SETTINGS)


def test_features_of_another_width_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, 7), "f4"), np.zeros((3, 2), int)
    record = Record("a", tmp_path / "a.tif", "p", "d", "pathology", 1.0)
    with pytest.raises(DataError, match="width 7"):
        train_slides([record], tmp_path, tmp_path / "run", SETTINGS)


def test_features_are_found_by_the_file_that_was_read(tmp_path: Path) -> None:
    for name in ("c1_1", "c2_1"):
        (tmp_path / "features").mkdir(exist_ok=True)
        (tmp_path / "features" / f"{name}.h5").touch()
        (tmp_path / "slides").mkdir(exist_ok=True)
        told = {"slide": name, "path": f"/x/{name[:2]}/1.dcm"}
        (tmp_path / "slides" / f"{name}.json").write_text(json.dumps(told))
    alone = Path("/x/c2/1.dcm")  # called 1 where it comes alone
    assert find_features(tmp_path, [alone]) == {alone: tmp_path / "features" / "c2_1.h5"}


def test_a_table_of_patients_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("slide,patient,site\nslides\\a 1.svs,p1,north\nb2,p2,\nc3,,\n")
    assert read_patients(path) == {"a 1.svs": "p1", "b2": "p2"}
    path.write_text("slide,patient\na,p1\na,p2\n")
    with pytest.raises(DataError, match="different patients"):
        read_patients(path)
    path.write_text("name\na\n")
    with pytest.raises(DataError, match="slide,patient"):
        read_patients(path)


def test_outlines_run_along_cells_with_their_holes(tmp_path: Path) -> None:
    """What is written as GeoJSON and read back covers the cells of the piece, and nothing else."""
    mask = np.random.default_rng(3).random((17, 23)) < 0.6
    values = np.where(mask, 0.9, 0.1)
    frame = Frame(1 / 32, 1 / 32, -5.0, 2.0)
    found = AttentionMap("lesion", "probability", values, 1, frame, "a", Spacing.square(0.5))
    told = pieces(found)
    assert sum(int(piece.mask.sum()) for piece in told) == mask.sum()
    write_geojson(tmp_path / "a.geojson", found, told, facts={"slide": "a"})
    drawn = read_geojson(tmp_path / "a.geojson")
    assert not drawn.skipped
    findings = [Finding("polygon", o.points, holes=o.holes) for o in drawn.outlines]
    assert np.array_equal(paint(findings, frame, mask.shape), mask)
    assert measures(told[0], found)["area_um2"] == told[0].mask.sum() * 16.0**2


def test_a_ring_has_one_hole() -> None:
    ((outer, hole),) = polygons(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    assert set(outer) == {(0, 0), (3, 0), (3, 3), (0, 3)}
    assert set(hole) == {(1, 1), (2, 1), (2, 2), (1, 2)}
