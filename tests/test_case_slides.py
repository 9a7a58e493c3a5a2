"""A whole slide in a case: field by field the same as at once, right about places, past damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from case_run import files, lines
from mammopath.case import scan as scanning
from mammopath.case.folder import predict_cases
from mammopath.case.glance import glance
from mammopath.case.inputs import case_of_files
from mammopath.case.links import OWN
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case
from mammopath.cli.app import app
from mammopath.cohort import manifest
from mammopath.errors import ConfigError, DataError
from mammopath.images.geometry import Frame
from mammopath.images.slide import Slide, is_whole_slide, open_slide
from mammopath.images.slide_reader import Level
from mammopath.phantom.shapes import Ellipse
from mammopath.phantom.sites import SITES
from mammopath.phantom.slide import Area, SlidePlan, write_slide
from mammopath.phantom.texture import STROMA, TUMOUR
from mammopath.prepare.mosaic import Mosaic, mosaic
from mammopath.prepare.tissue import Tissue, find_tissue
from mammopath.settings import PathologySettings
from mammopath.types import Spacing
from slide_cases import damage, huge_slide, smooth, tiled

SIDE, UM = 1024, 0.5


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of stroma with a tumour, on glass."""
    path = tmp_path_factory.mktemp("slides") / "core.tif"
    kinds = ((0.42, STROMA), (0.2, TUMOUR))
    areas = tuple(Area(Ellipse(SIDE / 2, SIDE / 2, r * SIDE).outline(corners=32), k) for r, k in kinds)
    write_slide(path, SlidePlan(SIDE, UM, areas, SITES["site_a"].tissue, levels=2))
    return path


def at_scale(predictor: Predictor, um: float) -> Predictor:
    """The run as if its fields had a scale."""
    tissue = predictor.run.settings.prepare.pathology.model_copy(update={"um": um})
    prepare = predictor.run.settings.prepare.model_copy(update={"pathology": tissue})
    settings = predictor.run.settings.model_copy(update={"prepare": prepare})
    return replace(predictor, run=replace(predictor.run, settings=settings))


@pytest.fixture(scope="module")
def scaled(eager: Predictor) -> Predictor:
    """The run of the phantom, whose fields have a scale; every region counts as suspicious."""
    return at_scale(eager, 2 * UM)


def fields_of(predictor: Predictor, path: Path) -> tuple[Slide, Mosaic]:
    slide = open_slide(path)
    settings = predictor.run.settings.prepare.pathology
    laid = mosaic(slide, find_tissue(slide), settings, multiple=predictor.run.network.cell("pathology"))
    return slide, laid


# ---------------------------------------------------------------- what is said


def test_a_slide_says_field_by_field_what_its_fields_say_in_one_batch(
    scaled: Predictor, core: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of_files([], [core], "p")
    said = scaled(case)
    seen = said.images[0]
    slide, laid = fields_of(scaled, core)
    samples = [laid.sample(slide, number) for number in range(len(laid))]
    assert seen.fields == len(laid) > 40
    whole = glance(scaled.run, scaled.confidence["pathology"], [case.records[0]] * len(laid), samples)
    expected = float(whole.output.patient_logit[0])
    assert seen.score.logit == pytest.approx(expected, abs=1e-5)
    assert said.score("patient", "pathology").logit == pytest.approx(expected, abs=1e-5)
    assert (seen.score.unit, seen.score.calibrated) == ("slide", True)
    rows = seen.maps["lesion"].values.shape[0] // laid.grid[0]
    for number in (0, len(laid) // 2, len(laid) - 1):
        row, column = laid.places[number] * rows
        own = whole.maps(number, ["lesion"])["lesion"]
        found = seen.maps["lesion"].values[row : row + rows, column : column + rows]
        assert found == pytest.approx(own, abs=1e-5)
    assert np.nansum(seen.maps["attention"].values) == pytest.approx(1.0, abs=1e-5)
    monkeypatch.setattr(scanning, "BATCH", 3)
    assert scaled(case).images[0].score.logit == pytest.approx(expected, abs=1e-5)


def test_places_of_a_slide_are_level_0(scaled: Predictor, core: Path) -> None:
    said = scaled(case_of_files([], [core], "p"))
    seen = said.images[0]
    _, laid = fields_of(scaled, core)
    found = seen.maps["lesion"]
    assert found.size == (SIDE, SIDE)
    rows = found.values.shape[0] // laid.grid[0]
    for number in (0, len(laid) - 1):
        row, column = laid.places[number] * rows
        assert found.box(int(row), int(column))[:2] == pytest.approx(laid.corners[number], abs=1e-6)
    drawn = find_tissue(open_slide(core))
    middle = [drawn.frame.point(*laid.corners[n] + 48) for n in range(len(laid))]
    assert np.mean([drawn.mask[round(y), round(x)] for x, y in middle]) > 0.8, "fields lie on tissue"
    for spot in seen.spots:
        assert 0 <= spot.box[0] < spot.box[2] <= SIDE
        wide, high = spot.box[2] - spot.box[0], spot.box[3] - spot.box[1]
        assert spot.mm == pytest.approx((wide * UM / 1000, high * UM / 1000))


def test_a_slide_and_mammograms_are_linked_and_read_together(
    scaled: Predictor, core: Path, cases: list[Case], tmp_path: Path
) -> None:
    case = case_of_files(files(cases[0], "mammogram"), [core], "both")
    said = scaled(case)
    slide = next(i for i in said.images if i.fields)
    assert said.links.kind == OWN
    assert said.score("both", "both") is not None
    patches = [p for link in said.links.to_tissue for p in link.patches]
    assert patches
    _, laid = fields_of(scaled, core)
    corners = {tuple(c) for c in laid.corners.round(3).tolist()}
    for patch in patches:
        assert patch.image_id == slide.record.image_id
        x, y = laid.frame.inverse().point(*(v // 48 * 48 for v in laid.frame.point(*patch.box[:2])))
        assert (round(x, 3), round(y, 3)) in corners, "a patch lies in a field with tissue"
    assert any(link.patches for link in said.links.to_mammogram)


def test_a_folder_of_a_slide_holds_its_page_maps_and_links(
    scaled: Predictor, core: Path, cases: list[Case], tmp_path: Path
) -> None:
    case = case_of_files(files(cases[0], "mammogram"), [core], "both")
    everything = replace(scaled, maps=("lesion", "attention", "relevance"))
    out = tmp_path / "out"
    assert not predict_cases(everything, [case], out).failed
    page = (out / "both" / "report.html").read_text()
    fields = next(i["fields"] for i in lines(out)["both"]["images"] if "fields" in i)
    assert f"a whole slide in {fields} fields" in page
    names = {p.name for p in (out / "both" / "maps").iterdir() if "core" in p.name}
    methods, number = ("lesion", "attention", "relevance"), len(case.records)
    assert names == {f"{number:02d}_core_{m}.{suffix}" for m in methods for suffix in ("png", "json")}
    drawn = np.asarray(Image.open(out / "both" / "links.png").convert("RGB")).astype(int)
    stained = (np.ptp(drawn, axis=-1) > 40).mean()
    assert stained > 0.02, "tissue of the slide is shown beside the mammograms"
    assert predict_cases(everything, [case], out).before == ("both",)


def test_a_run_whose_fields_have_no_scale_reads_a_slide_as_one_picture(
    phantom_run: tuple[Path, manifest.Manifest], core: Path, tmp_path: Path
) -> None:
    run, out = str(phantom_run[0] / "run"), tmp_path / "one"
    told = CliRunner().invoke(app, ["predict", run, "--slide", str(core), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert "fields" not in lines(out)["core"]["images"][0]


# ---------------------------------------------------------------- bad input


def test_a_damaged_tile_costs_its_fields_alone(eager: Predictor, core: Path, tmp_path: Path) -> None:
    """Fields are read from level 0, where a tile is damaged; tissue is found on level 1, where none is."""
    fine, torn = at_scale(eager, UM), tmp_path / "torn.tif"
    torn.write_bytes(core.read_bytes())
    damage(torn, 5)  # the second tile of the second row: x and y from 256 to 512
    whole, hurt = (fine(case_of_files([], [path], "p")) for path in (core, torn))
    unread, fields = hurt.images[0].unread, whole.images[0].fields
    assert unread
    assert hurt.images[0].fields == fields - len(unread)
    for skipped in unread:
        x, y = map(int, skipped.where.split(" at ")[1].split(","))
        assert 256 - 49 < min(x, y) <= max(x, y) < 512
    assert len(hurt.to_json()["images"][0]["unread_fields"]) == len(unread)


def test_a_slide_of_glass_is_not_used_and_the_rest_of_the_case_is(
    scaled: Predictor, cases: list[Case], tmp_path: Path
) -> None:
    glass = tmp_path / "glass.tif"
    write_slide(glass, SlidePlan(SIDE, UM, (), SITES["site_a"].tissue, levels=2))
    said = scaled(case_of_files(files(cases[0], "mammogram"), [glass], "p"))
    assert [(s.where, s.why) for s in said.skipped] == [("glass.tif", "no tissue was found on this slide")]
    assert {i.record.modality for i in said.images} == {"mammogram"}
    with pytest.raises(DataError, match="no tissue"):
        scaled(case_of_files([], [glass], "p"))


def test_a_slide_without_spacing_or_too_large_for_a_picture_says_what_to_do(
    eager: Predictor, scaled: Predictor, tmp_path: Path
) -> None:
    unknown = tiled(tmp_path / "unknown.tif", smooth(222, 300), "jpeg444", um=1000.0)  # as libvips writes it
    with pytest.raises(DataError, match="tell it with --spacing-um"):
        scaled(case_of_files([], [unknown], "p"))
    told = case_of_files([], [unknown], "p", spacing={"pathology": Spacing.square(UM)})
    with pytest.raises(DataError, match="no tissue"):  # it is opened now, and shows none
        scaled(told)
    huge = huge_slide(tmp_path / "huge.tif", 20_000)
    with pytest.raises(DataError, match=r"prepare\.pathology\.um.*slides predict"):
        eager(case_of_files([], [huge], "p"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists the files of a process")
def test_no_slide_stays_open(scaled: Predictor, core: Path) -> None:
    def times_open() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(link.exists() and link.resolve() == core for link in links)

    before = times_open()
    scaled(case_of_files([], [core], "p"))
    assert times_open() == before


def test_a_picture_is_no_slide(core: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 120, 160)).save(tmp_path / "field.tif")
    assert is_whole_slide(core)
    assert not is_whole_slide(tmp_path / "field.tif")
    assert not is_whole_slide(tmp_path / "missing.tif")


# ---------------------------------------------------------------- fields


def blank(width: int, height: int, um: float) -> Slide:
    levels, bounds = (Level(width, height, 1.0, 1.0),), (0, 0, width, height)
    return Slide(Path("none"), levels, Spacing.square(um), "header", bounds, "field")


def tissue_everywhere(slide: Slide) -> Tissue:
    frame, picture = Frame(64 / slide.width, 64 / slide.height), np.zeros((64, 64, 3), np.uint8)
    return Tissue(np.ones((64, 64), bool), frame, 8.0, picture, "good", 1.0, 0.0, 1.0, 0)


def test_what_lies_beyond_a_slide_is_padding_and_no_finding(scaled: Predictor, core: Path) -> None:
    """Eleven fields of 96 pixels are wider than the slide's 1,024; every region counts as suspicious."""
    slide = open_slide(core)
    whole = mosaic(slide, tissue_everywhere(slide), scaled.run.settings.prepare.pathology, multiple=8)
    corner = whole.sample(slide, 0)
    assert whole.grid == (11, 11)
    assert corner.valid.sum() == (48 - 8) ** 2
    assert corner.valid[8:, 8:].all()
    assert corner.image[:, :8].sum() == 0
    assert whole.sample(slide, 60).valid.all()
    said = scaled(case_of_files([], [core], "p")).images[0]
    for spot in said.spots:
        assert spot.box[2] - spot.box[0] > 1
        assert spot.box[3] - spot.box[1] > 1


def test_a_slides_own_spacing_wins_over_what_is_told_for_all(core: Path, tmp_path: Path) -> None:
    (own,) = case_of_files([], [core], spacing={"pathology": Spacing.square(9.0)}).records
    assert own.spacing.um_x == pytest.approx(UM)
    assert own.spacing_source == "header"


@given(
    width=st.integers(20, 3000),
    height=st.integers(20, 3000),
    um=st.floats(0.2, 2.0),
    field_um=st.floats(0.5, 4.0),
)
def test_fields_cover_a_slide_and_lie_where_their_map_says(
    width: int, height: int, um: float, field_um: float
) -> None:
    slide = blank(width, height, um)
    settings = PathologySettings(height=60, width=100, um=field_um)
    laid = mosaic(slide, tissue_everywhere(slide), settings, multiple=14)
    assert laid.size == (56, 98)
    assert len(laid) == laid.grid[0] * laid.grid[1]
    span = np.array([98, 56]) * field_um / um
    assert (laid.corners.min(0) <= 1e-6).all()
    assert (laid.corners.max(0) + span >= np.array([width, height]) - 1e-6).all()
    assert (laid.grid[1] - 1) * span[0] < width
    for number in (0, len(laid) - 1):
        x, y = laid.frame.point(*laid.corners[number].tolist())
        row, column = laid.places[number].tolist()
        assert (x, y) == pytest.approx((column * 98, row * 56), abs=1e-6)
    one = laid.joined({len(laid) - 1: np.full((4, 7), 2.0)})
    assert one.shape == (laid.grid[0] * 4, laid.grid[1] * 7)
    assert np.nansum(one) == 56
    assert one[-1, -1] == 2


def test_without_a_scale_nothing_says_how_to_cut_a_slide(core: Path) -> None:
    slide = open_slide(core)
    with pytest.raises(ConfigError, match=r"prepare\.pathology\.um is 0"):
        mosaic(slide, find_tissue(slide), PathologySettings(), multiple=14)


def test_heads_pool_images_one_by_one_as_in_a_batch(predictor: Predictor) -> None:
    network = predictor.run.network
    heads, width = network.of("pathology").heads, network.embedding_width
    embedding = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    logit, weight = heads.patient(embedding, heads.malignancy(embedding).squeeze(-1))
    pooled = (weight[:, None] * embedding).sum(0)
    assert float(weight.sum()) == pytest.approx(1.0)
    assert float(logit) == pytest.approx(float(heads.malignancy(pooled)), abs=1e-6)
