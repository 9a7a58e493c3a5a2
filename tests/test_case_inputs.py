"""Cases as they come: breasts, sides, rasters, packed files, batches that were stopped, threads."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from case_run import files, lines
from mammopath.case.concordance import compare
from mammopath.case.folder import LINES, predict_cases
from mammopath.case.inputs import Marked, case_of_files, marked, spacings
from mammopath.case.pinned import pinned
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.errors import ConfigError, DataError
from mammopath.files import sha256
from mammopath.progress import Track
from mammopath.types import Record

# ---------------------------------------------------------------- the breast of the tissue


@pytest.fixture(scope="module")
def two_breasts(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A patient with views of both breasts, and tissue of one: made of two patients of the phantom."""
    folder = tmp_path_factory.mktemp("breasts")
    own = [r for r in cases[0].records if r.modality == "mammogram"]
    other = next(c for c in cases if {r.laterality for r in c.records} & {"L", "R"} != {own[0].laterality})
    name = pydicom.dcmread(own[0].path).PatientID
    records = list(own)
    for number, record in enumerate(r for r in other.records if r.modality == "mammogram"):
        data = pydicom.dcmread(record.path)
        data.PatientID = name
        data.save_as(folder / f"{number}.dcm")
        records.append(replace(record, path=folder / f"{number}.dcm"))
    tissue = [replace(r, laterality=own[0].laterality) for r in cases[0].records if r.modality == "pathology"]
    return Case("both", (*records, *tissue))


def test_tissue_is_judged_and_linked_with_its_own_breast_alone(
    eager: Predictor, two_breasts: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def spy(mammogram, pathology, spots, breast):
        seen.update(mammogram=mammogram, spots=spots)
        return compare(mammogram, pathology, spots, breast)

    monkeypatch.setattr("mammopath.case.predictor.compare", spy)
    said = eager(two_breasts)
    side = next(r.laterality for r in two_breasts.records if r.modality == "pathology")
    own = {i.record.image_id for i in said.images if i.record.laterality in (side, "")}
    assert seen["mammogram"] == next(s for s in said.scores if (s.unit, s.which) == ("breast", side))
    assert said.concordance.basis == f"mammograms of the {side} breast"
    assert {s.image_id for s in seen["spots"]} < own
    scores = [s.score for s in seen["spots"]]
    assert scores == sorted(scores, reverse=True), "the worst region comes first"
    assert said.links.to_tissue
    assert {link.image_id for link in said.links.to_tissue} < own
    assert {p.image_id for link in said.links.to_mammogram for p in link.patches} < own


def test_what_is_fused_does_not_depend_on_the_other_breast(eager: Predictor, two_breasts: Case) -> None:
    side = next(r.laterality for r in two_breasts.records if r.modality == "pathology")
    alone = Case("both", tuple(r for r in two_breasts.records if r.laterality == side))
    fused = [next(s for s in eager(c).scores if s.unit == "both") for c in (two_breasts, alone)]
    assert fused[0].logit == pytest.approx(fused[1].logit, abs=1e-4)
    assert fused[0].low <= fused[0].high


def test_a_view_of_unknown_side_may_be_of_the_biopsied_breast(cases: list[Case]) -> None:
    from mammopath.case.inputs import checked

    gone = Path("/nowhere")
    views = [r for r in cases[0].records if r.modality == "mammogram"]
    tissue = next(r for r in cases[0].records if r.modality == "pathology")
    records = (
        replace(views[0], path=gone / "a.dcm", laterality="L"),
        replace(views[1], path=gone / "b.dcm", laterality=""),
        replace(tissue, laterality="R"),
    )
    assert len(checked(Case("x", records)).records) == 3


# ---------------------------------------------------------------- files


def test_colour_is_no_mammogram(predictor: Predictor, cases: list[Case]) -> None:
    with pytest.raises(DataError, match="colour image, and mammograms are grey"):
        predictor(case_of_files(files(cases[0], "pathology"), [], "tissue"))


def test_side_view_and_spacing_are_told_where_a_raster_tells_none(
    phantom_run: tuple[Path, manifest.Manifest], cases: list[Case], tmp_path: Path
) -> None:
    from PIL import Image

    from mammopath.images.read import read_header, read_image

    pixels = read_image(files(cases[0], "mammogram")[0]).pixels
    Image.fromarray((pixels // 256).astype(np.uint8)).save(tmp_path / "a.png")
    found = case_of_files([marked(f"{tmp_path}/a.png:L:CC")], [], spacing=spacings("70,0.5")).records[0]
    assert (found.laterality, found.view, found.spacing.um_x) == ("L", "CC", 70.0)
    assert found.spacing_source == "override"
    assert marked(f"{tmp_path}/a.png") == Marked(tmp_path / "a.png")
    assert marked("x.png::MLO") == Marked(Path("x.png"), "", "MLO")
    assert marked("x.png:R") == marked("x.png:R:") == Marked(Path("x.png"), "R")
    assert marked("odd:name.png") == Marked(Path("odd:name.png"))
    dicom = case_of_files(files(cases[0], "mammogram")[:1], [], spacing=spacings("70"))
    assert dicom.records[0].spacing_source == "header"
    assert dicom.records[0].attributes["spacing_tag"] == read_header(dicom.records[0].path).spacing_tag != ""
    assert "spacing_tag" not in found.attributes
    with pytest.raises(ConfigError, match="write 70"):
        spacings("seventy")
    run = str(phantom_run[0] / "run")
    mark = f"{tmp_path}/a.png:L:CC"
    told = CliRunner().invoke(
        app, ["predict", run, "--out", str(tmp_path / "o"), "--mammogram", mark, "--spacing-um", "70"]
    )
    assert told.exit_code == 0, told.output
    [line] = lines(tmp_path / "o").values()
    assert line["images"][0]["um_per_pixel"] == [70.0, 70.0]
    assert line["scores"][0]["which"] == "L"


def test_images_packed_in_one_file_are_predicted(
    predictor: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    import h5py

    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["x"] = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3)).astype(np.uint8)
    packed = Case("packed", (Record("p", tmp_path / "p.h5" / "0", "packed", "s", "pathology"),))
    found = predict_cases(predictor, [packed, cases[0]], tmp_path / "out")
    assert [p.case for p in found.predictions] == ["packed", cases[0].name]
    assert found.predictions[0].images[0].sha256 == sha256(tmp_path / "p.h5")


def test_a_stopped_batch_goes_on_where_it_was(
    predictor: Predictor, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = predict_cases(predictor, cases[:2], tmp_path / "whole")
    real = Predictor.__call__

    def stopped(self: Predictor, case: Case, *, track: Track):
        if case.name == cases[1].name:
            raise KeyboardInterrupt
        return real(self, case, track=track)

    monkeypatch.setattr(Predictor, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_cases(predictor, cases[:2], out)
    monkeypatch.undo()
    (out / LINES).unlink()  # a crash between the folder and its line
    went_on = predict_cases(predictor, cases[:2], out)
    assert went_on.before == (cases[0].name,)
    assert [p.case for p in went_on.predictions] == [cases[1].name]
    assert lines(out) == {p.case: p.to_json() for p in whole.predictions}
    with pytest.raises(ConfigError, match="other images"):
        predict_cases(predictor, [replace(cases[0], records=cases[0].records[:1])], out)
    with pytest.raises(ConfigError, match="not an unfinished prediction"):
        predict_cases(replace(predictor, maps=("attention",)), cases[:2], out)


def test_the_numbers_do_not_depend_on_the_threads_of_the_process(
    predictor: Predictor, cases: list[Case]
) -> None:
    before = torch.get_num_threads()
    told = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            told.append(predictor(cases[0]).to_json())
            assert torch.get_num_threads() == number, "the process is left as it was"
    finally:
        torch.set_num_threads(before)
    assert told[0] == told[1]


def test_calls_that_ask_for_other_threads_take_turns() -> None:
    inside: list[int] = []
    asked = torch.get_num_threads()

    def work(number: int) -> int:
        with pinned(number):
            inside.append(number)
            assert len(set(inside)) == 1, "two numbers of threads at the same time"
            time.sleep(0.02)
            inside.remove(number)
            return torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, [1, 1, 2, 2])) == [1, 1, 2, 2]
    assert torch.get_num_threads() == asked


# ---------------------------------------------------------------- views that trained nothing


def _with_spot(case: Case) -> tuple[Case, Record]:
    """The case with a spot view more, flagged as its source would."""
    own = next(r for r in case.records if r.modality == "mammogram")
    spot = replace(own, image_id=f"{own.image_id}_spot", attributes={"flags": "burned_in+special_view"})
    return replace(case, records=(*case.records, spot)), spot


def test_special_views_of_a_manifest_are_left_out_as_in_training_and_told(
    predictor: Predictor, cases: list[Case]
) -> None:
    told, spot = _with_spot(cases[0])
    said, plain = predictor(told), predictor(cases[0])
    assert [(s.where, s.code) for s in said.skipped] == [(spot.image_id, "view")]
    assert "is flagged special_view" in said.skipped[0].why
    assert said.scores == plain.scores
    assert said.to_json()["skipped"][0]["code"] == "view"


def test_a_run_that_trained_on_every_view_predicts_every_view(
    predictor: Predictor, cases: list[Case]
) -> None:
    told, spot = _with_spot(cases[0])
    settings = predictor.run.settings
    data = settings.data.model_copy(update={"standard_views": False})
    run = replace(predictor.run, settings=settings.model_copy(update={"data": data}))
    said = replace(predictor, run=run)(told)
    assert said.skipped == ()
    assert spot.image_id in {i.record.image_id for i in said.images}
