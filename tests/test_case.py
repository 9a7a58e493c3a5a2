"""One patient through a real run folder: the same by every way in, right about places, clear about faults."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from case_run import files, lines
from mammopath.case.folder import BATCH, FAILED, LINES, predict_cases
from mammopath.case.inputs import case_of_files
from mammopath.case.links import REFERENCE
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.errors import ConfigError, DataError, WeightsError
from mammopath.files import sha256
from mammopath.progress import Track

# ---------------------------------------------------------------- the same by every way in


def test_command_and_python_and_batch_say_the_same(
    phantom_run: tuple[Path, manifest.Manifest], predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    few = Case(cases[1].name, cases[1].records), Case(cases[2].name, cases[2].records)
    together = predict_cases(predictor, few, tmp_path / "batch")
    alone = predictor(few[0])
    assert alone.to_json() == together.predictions[0].to_json() == lines(tmp_path / "batch")[few[0].name]
    arguments = ["predict", str(phantom_run[0] / "run"), "--out", str(tmp_path / "cli")]
    for option, modality in (("--mammogram", "mammogram"), ("--slide", "pathology")):
        for path in files(few[0], modality):
            arguments += [option, str(path)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    by_files = lines(tmp_path / "cli")[few[0].name]
    from_files = predictor(case_of_files(files(few[0], "mammogram"), files(few[0], "pathology")))
    assert by_files == from_files.to_json()
    for one, other in zip(by_files["scores"], alone.to_json()["scores"], strict=True):
        assert one == other
    saved = json.loads((tmp_path / "cli" / few[0].name / "prediction.json").read_text())
    assert saved == by_files


def test_threads_share_a_predictor(predictor: Predictor, cases: list[Case]) -> None:
    few = cases[:3]
    one_by_one = [predictor(c).to_json() for c in few]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda c: predictor(c).to_json(), few)) == one_by_one


def test_any_subset_of_images_will_do(predictor: Predictor, cases: list[Case]) -> None:
    case = cases[0]
    mammograms = tuple(r for r in case.records if r.modality == "mammogram")
    tissue = tuple(r for r in case.records if r.modality == "pathology")
    one_view = predictor(Case("one", mammograms[:1]))
    assert [s.unit for s in one_view.scores] == ["breast", "patient"]
    assert one_view.concordance.verdict == "insufficient"
    assert one_view.concordance.direction == "no tissue"
    only_tissue = predictor(Case("two", tissue))
    assert [s.unit for s in only_tissue.scores] == ["patient"]
    both = predictor(case)
    assert [s.unit for s in both.scores] == ["breast", "patient", "patient", "both"]
    same = next(i for i in both.images if i.record.image_id == mammograms[0].image_id)
    assert one_view.images[0].score.logit == pytest.approx(same.score.logit, abs=1e-5)


def test_everything_that_is_said_has_its_meaning_beside_it(predictor: Predictor, cases: list[Case]) -> None:
    said = predictor(cases[0])
    for image in said.images:
        assert sum(image.severity.values()) == pytest.approx(1.0)
        assert set(image.maps) == {"lesion", "attention"}
        assert {m.verdict for m in image.maps.values()} == {"not tested"}
        for spot in image.spots:
            left, top, right, bottom = spot.box
            assert left < spot.point[0] < right
            assert top < spot.point[1] < bottom
            assert spot.mm == pytest.approx(
                (
                    (right - left) * image.record.spacing.um_x / 1000,
                    (bottom - top) * image.record.spacing.um_y / 1000,
                )
            )
    for score in said.scores:
        assert 0 <= score.probability <= 1
        assert score.unit == "both" or 0 <= score.low <= score.high <= 1
    json.dumps(said.to_json(), allow_nan=False)
    assert said.provenance["model_sha256"] == predictor.run.facts["model_sha256"]
    assert said.stamp == said.to_json()["stamp"] == predictor.run.facts["stamp"]


# ---------------------------------------------------------------- links and pages


def test_links_join_regions_to_places_of_the_same_patient(predictor: Predictor, cases: list[Case]) -> None:
    said = predictor(cases[0])
    own = {i.record.image_id: i.record.modality for i in said.images}
    assert said.links.kind == "this patient"
    for links, here, there in (
        (said.links.to_tissue, "mammogram", "pathology"),
        (said.links.to_mammogram, "pathology", "mammogram"),
    ):
        for link in links:
            assert own[link.image_id] == here
            assert len(link.patches) <= 5
            weights = [p.weight for p in link.patches]
            assert weights == sorted(weights, reverse=True)
            assert 0 < sum(weights) <= 1 + 1e-6
            assert {own[p.image_id] for p in link.patches} <= {there}


@pytest.mark.parametrize("modality", ["mammogram", "pathology"])
def test_without_a_partner_references_are_marked_as_not_this_patient(
    modality: str, predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    eager = replace(predictor, evidence=replace(predictor.evidence, thresholds={modality: 0.0}))
    lone = Case("lone", tuple(r for r in cases[0].records if r.modality == modality))
    found = predict_cases(eager, [lone], tmp_path / "out").predictions[0]
    assert found.links.kind == REFERENCE
    links = found.links.to_tissue or found.links.to_mammogram
    assert links
    for patch in (p for link in links for p in link.patches):
        assert patch.whose == "training case of site_a", "references come from the training sites"
        assert re.fullmatch(r"reference \d+", patch.image_id)
        assert patch.malignant in (0, 1)
        assert patch.box is not None
    kept = json.loads((tmp_path / "out" / "lone" / "links.json").read_text())
    assert kept["kind"] == REFERENCE
    page = (tmp_path / "out" / "lone" / "report.html").read_text()
    assert "not this patient" in page
    people = {k.patient for known in predictor.evidence.known.values() for k in known}
    paths = {k.path for known in predictor.evidence.known.values() for k in known}
    for file in (f for f in (tmp_path / "out").rglob("*") if f.suffix in (".json", ".jsonl", ".html")):
        assert not [name for name in people | paths if name in file.read_text()], file
    assert (tmp_path / "out" / "lone" / "links.png").exists()


def test_the_page_needs_nothing_beside_itself(
    predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    predict_cases(predictor, cases[:1], tmp_path / "out")
    folder = tmp_path / "out" / cases[0].name
    page = (folder / "report.html").read_text()
    assert "For research use only" in page
    assert "Synthetic phantom" in page
    assert "://" not in page
    assert "<script" not in page
    assert page.count('<img src="data:image/png;base64,') == page.count("<img ")
    assert len(list((folder / "maps").glob("*.png"))) == 2 * len(cases[0].records)
    for headline in ("Concordan", "Provenance", "Venn-Abers", "conformal"):
        assert headline in page


# ---------------------------------------------------------------- impossible and unreadable


def test_a_case_needs_an_image(phantom_run: tuple[Path, manifest.Manifest], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs an image"):
        case_of_files([], [])
    told = CliRunner().invoke(app, ["predict", str(phantom_run[0] / "run"), "--out", str(tmp_path / "o")])
    assert isinstance(told.exception, DataError)
    assert not (tmp_path / "o").exists()


def test_two_patients_are_never_mixed(predictor: Predictor, cases: list[Case]) -> None:
    mixed = case_of_files([files(cases[0], "mammogram")[0], files(cases[1], "mammogram")[0]], [])
    with pytest.raises(DataError, match=f"several patients are mixed: {cases[0].name}, {cases[1].name}"):
        predictor(mixed)


def test_a_side_that_the_header_denies_is_an_error(predictor: Predictor, cases: list[Case]) -> None:
    wrong = tuple(replace(r, laterality={"L": "R", "R": "L"}.get(r.laterality, "")) for r in cases[0].records)
    with pytest.raises(DataError, match="header says"):
        predictor(Case("wrong", wrong))
    side = next(r.laterality for r in cases[0].records if r.laterality)
    other = {"L": "R", "R": "L"}[side]
    tissue = tuple(replace(r, laterality=r.laterality or other) for r in cases[0].records)
    with pytest.raises(DataError, match=f"tissue of the {other} breast"):
        predictor(Case("tissue", tissue))


def test_one_bad_image_leaves_the_rest_and_one_bad_case_the_others(
    predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.tiff"
    torn.write_bytes(b"II*\0 not a slide")
    ruined = tuple(replace(r, path=torn) if r.modality == "pathology" else r for r in cases[0].records)
    hopeless = Case("hopeless", tuple(replace(r, path=torn, laterality="") for r in cases[1].records))
    found = predict_cases(predictor, [hopeless, Case("half", ruined), cases[2]], tmp_path / "out")
    assert [p.case for p in found.predictions] == ["half", cases[2].name]
    assert [s.where for s in found.predictions[0].skipped] == [r.image_id for r in ruined if r.path == torn]
    assert [s.where for s in found.failed] == ["hopeless"]
    assert set(lines(tmp_path / "out")) == {"half", cases[2].name}
    assert json.loads((tmp_path / "out" / "failed.json").read_text())["failed"][0]["case"] == "hopeless"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"half", cases[2].name, LINES, FAILED, BATCH}


def test_running_out_of_memory_fails_one_case_and_leaves_nothing_behind(
    predictor: Predictor, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Predictor.__call__

    def starved(self: Predictor, case: Case, *, track: Track):
        if case.name == cases[0].name:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, case, track=track)

    monkeypatch.setattr(Predictor, "__call__", starved)
    found = predict_cases(predictor, cases[:2], tmp_path / "out")
    assert [(s.where, s.code) for s in found.failed] == [(cases[0].name, "memory")]
    assert not (tmp_path / "out" / cases[0].name).exists()
    assert len(found.predictions) == 1


def test_a_fault_while_writing_leaves_no_folder(
    predictor: Predictor, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("mammopath.case.folder.write_page", full)
    found = predict_cases(predictor, cases[:1], tmp_path / "out")
    assert [(s.where, s.code) for s in found.failed] == [(cases[0].name, "fault")]
    assert "OSError: No space left on device (test_case.py, line " in found.failed[0].why
    assert {p.name for p in (tmp_path / "out").iterdir()} == {FAILED, BATCH}
    monkeypatch.undo()
    again = predict_cases(predictor, cases[:1], tmp_path / "out")
    assert (len(again.predictions), again.failed) == (1, ())
    assert not (tmp_path / "out" / FAILED).exists()


def test_predictions_are_never_written_over_others(
    predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        predict_cases(predictor, cases[:1], tmp_path / "here")
    with pytest.raises(ConfigError, match="names of their own"):
        predict_cases(predictor, [cases[0], cases[0]], tmp_path / "there")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        predict_cases(predictor, cases[:1], tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", "confidence.json", "evidence.json", "predictions.parquet"])
def test_a_run_folder_changed_by_hand_is_refused(
    name: str, phantom_run: tuple[Path, manifest.Manifest], tmp_path: Path
) -> None:
    shutil.copytree(phantom_run[0] / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=f"{name} is not the file"):
        Predictor.load(tmp_path / "run")


def test_weights_of_another_architecture_are_refused(
    phantom_run: tuple[Path, manifest.Manifest], tmp_path: Path
) -> None:
    shutil.copytree(phantom_run[0] / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model"]["align_width"] = 16
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["files_sha256"]["config.json"] = sha256(tmp_path / "run" / "config.json")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match="other model settings"):
        Predictor.load(tmp_path / "run")


def test_an_unknown_map_is_an_error(phantom_run: tuple[Path, manifest.Manifest]) -> None:
    with pytest.raises(ConfigError, match="no map method 'heat'"):
        Predictor.load(phantom_run[0] / "run", maps=["heat"])


def test_a_header_without_side_is_completed_by_the_record(cases: list[Case], tmp_path: Path) -> None:
    path = files(cases[0], "mammogram")[0]
    data = pydicom.dcmread(path)
    side = data.ImageLaterality
    data.ImageLaterality = ""
    data.save_as(tmp_path / "a.dcm")
    from mammopath.case.inputs import checked

    bare = case_of_files([tmp_path / "a.dcm"], [])
    assert bare.records[0].laterality == ""
    assert bare.name == data.PatientID
    told = Case("x", (replace(bare.records[0], laterality=side),))
    assert checked(told).records[0].laterality == side
    assert np.isfinite(bare.records[0].spacing.um_x)
