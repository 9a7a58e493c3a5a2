"""From slides to stages: the phantom of CAMELYON17, the choice of a threshold, the whole way with kappa."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from mammopath.cli.app import app
from mammopath.errors import ConfigError, DataError
from mammopath.images.geometry import Frame
from mammopath.maps.values import AttentionMap
from mammopath.metrics.camelyon17 import node_class, pn_stage
from mammopath.phantom.camelyon import LENGTHS_UM, STAGES, CamelyonPlan, make_camelyon
from mammopath.slide_settings import BagSettings
from mammopath.slides import stages
from mammopath.slides.demo import demo_settings
from mammopath.slides.nodes import choose_threshold, missing_nodes
from mammopath.slides.stages import StageStudy, stage_study
from mammopath.slides.train import Trained
from mammopath.sources import SOURCES
from mammopath.types import Record, Skipped, Spacing

PLAN = CamelyonPlan(centres=2, patients=4, side=1024, um=4.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("camelyon") / "phantom"
    make_camelyon(made, PLAN)
    return made


def listed(root: Path) -> list[Record]:
    return [one for one in SOURCES["camelyon17"].index(root) if isinstance(one, Record)]


def test_stages_of_the_phantom_follow_from_its_nodes() -> None:
    for stage, nodes in STAGES:
        assert pn_stage(nodes) == stage
    for kind, lengths in LENGTHS_UM.items():
        assert {node_class([length]) for length in lengths} == {kind}


def test_the_source_reads_the_phantom(root: Path) -> None:
    records = listed(root)
    assert len(records) == 16
    assert {r.domain for r in records} == {"camelyon17_centre_0", "camelyon17_centre_1"}
    for record in records:
        assert not record.findings or record.attributes["node"] != "negative"
        assert record.findings or record.attributes["node"] in ("negative", "itc")
        if record.findings:
            corners = np.array(record.findings[0].points)
            far = np.hypot(*(corners[:, None] - corners[None]).reshape(-1, 2).T).max() * 4.0
            assert node_class([far]) == record.attributes["node"]


def test_a_phantom_is_never_painted_over_something(root: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        make_camelyon(root, PLAN)
    with pytest.raises(DataError, match="1 to 4 centres"):
        make_camelyon(root.parent / "other", CamelyonPlan(centres=9))


def shown(probability: np.ndarray) -> AttentionMap:
    return AttentionMap("lesion", "probability", probability, 1, Frame(), "a", Spacing.square(64.0))


def test_the_training_centres_choose_the_threshold() -> None:
    """A map with a lesion at 0.75 over a background at 0.65: only thresholds between class the node."""
    probability = np.full((40, 40), 0.65)
    probability[10:16, 10:16] = 0.75
    maps = {i: shown(values) for i, values in enumerate((probability, np.full((40, 40), 0.65)))}
    records = [
        Record("a", Path("a"), "p", "c", "pathology", attributes={"node": "micro"}),
        Record("b", Path("b"), "q", "c", "pathology", attributes={"node": "negative"}),
    ]
    assert choose_threshold(maps, records, BagSettings()) == 0.7


def test_one_centre_cannot_be_left_out(root: Path, tmp_path: Path) -> None:
    alone = [r for r in listed(root) if r.domain.endswith("0")]
    with pytest.raises(DataError, match="two or more"):
        stage_study(alone, tmp_path, BagSettings())


def test_the_command_takes_a_table_of_spacings(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Spacing | None] = {}

    def seen(records: list[Record], *_: Any, **__: Any) -> None:
        asked.update({r.path.stem: r.spacing for r in records})
        raise ConfigError("enough")

    monkeypatch.setattr(stages, "stage_study", seen)
    table = tmp_path / "spacings.csv"
    table.write_text("slide,um\npatient_000_node_0,3.5\nanother,1\n")
    command = ["slides", "stages", str(root), "--out", str(tmp_path / "out")]
    assert str(CliRunner().invoke(app, command).exception) == "enough"
    assert asked["patient_000_node_0"] == Spacing.square(4.0)
    told = CliRunner().invoke(app, [*command, "--spacings", str(table)])
    assert str(told.exception) == "enough"
    assert asked["patient_000_node_0"] == Spacing.square(3.5)
    assert asked["patient_000_node_1"] == Spacing.square(4.0)
    assert "no slide is called another" in told.output


def test_a_threshold_that_nothing_tells_is_the_usual_one() -> None:
    record = Record("b", Path("b"), "q", "c", "pathology", attributes={"node": "negative"})
    assert choose_threshold({}, [record], BagSettings()) == 0.5


def test_nodes_that_the_source_left_out_are_told() -> None:
    record = Record("a", Path("a"), "camelyon17_patient_001", "camelyon17_centre_0", "pathology")
    skipped = [
        Skipped("patient_001_node_1.tif", "missing", "is not there"),
        Skipped("/x/patient_001_node_2.tif", "truncated", "ends early"),
        Skipped("/x/patient_001_node_0.xml", "annotation", "two corners"),
        Skipped("/x/patient_150_node_2.tif", "truncated", "of a patient without labels"),
        Skipped("stage_labels.csv", "missing", "there is none"),
    ]
    found = missing_nodes(skipped, [record])
    assert [n.slide for n in found] == ["patient_001_node_1", "patient_001_node_2"]
    assert {(n.patient, n.centre, n.told) for n in found} == {(record.patient, record.domain, "")}
    assert math.isnan(found[0].score)


TINY = (
    "patches.side=16",
    "patches.um=4.0",
    "patches.mask_um=8.0",
    "train.steps=10",
    "train.validate_every=10",
)


@pytest.fixture(scope="module")
def broken(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageStudy, Path, list[str]]:
    """A study of a phantom with a damaged node, a missing one, one of glass, and slides without labels."""
    made = tmp_path_factory.mktemp("broken") / "phantom"
    shutil.copytree(root, made)
    images = made / "images"
    records = listed(made)  # indexed while all was well
    cut = images / "patient_003_node_0.tif"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    (images / "patient_007_node_0.tif").unlink()
    with tifffile.TiffWriter(images / "patient_000_node_1.tif") as tiff:
        glass = np.full((256, 256, 3), 244, np.uint8)
        tiff.write(
            glass, tile=(64, 64), photometric="rgb", resolution=(2500, 2500), resolutionunit="CENTIMETER"
        )
    records = [r for r in records if r.path.exists()]
    test = replace(
        records[0], image_id="x", patient="camelyon17_patient_150", domain="camelyon17_centre_unknown"
    )
    test = replace(test, malignant=math.nan, attributes={}, findings=(), official_split="test")
    missing = Skipped("patient_007_node_0.tif", "missing", "there is no such file")
    trained: list[str] = []
    judge = stages.train_bags

    def watched(own: list[Record], files: dict[int, Path], **options: Any) -> Trained:
        trained.extend(own[i].domain for i in (*options["train"], *options["val"]))
        return judge(own, files, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_bags", watched)
        study = stage_study([*records, test], made / "study", demo_settings(TINY), skipped=[missing])
    return study, made / "study", trained


@pytest.mark.slow
def test_a_patient_with_a_node_that_was_not_read_has_no_stage(
    broken: tuple[StageStudy, Path, list[str]],
) -> None:
    """A macro-metastasis in a damaged file was told negative, and a missing node was not told at all."""
    study, out, trained = broken
    nodes = {n.slide: n for n in study.nodes}
    for name in ("patient_003_node_0", "patient_007_node_0"):
        assert nodes[name].told == ""
        assert math.isnan(nodes[name].score)
    assert nodes["patient_003_node_0"].note.startswith("unreadable: ")
    assert nodes["patient_007_node_0"].note == "missing: there is no such file"
    assert nodes["patient_000_node_1"].told == "negative"
    assert set(study.unstaged) == {"camelyon17_patient_003", "camelyon17_patient_007"}
    assert set(study.patients) == {f"camelyon17_patient_{i:03d}" for i in range(8) if i not in (3, 7)}
    assert study.kappa is not None
    assert set(study.patient_logit) == set(study.patients)
    submission = (out / "submission.csv").read_text()
    assert "patient_003" not in submission
    assert submission.count("node") == 12
    told = json.loads((out / "stages.json").read_text())
    assert told["seed"] == 0
    assert told["settings"]["bag"] == 384
    assert "mammopath" in told["versions"]
    assert "camelyon17_centre_unknown" not in {*study.thresholds, *trained}
    assert study.unlabelled == 1


@pytest.mark.slow
def test_a_finished_study_is_never_overwritten(
    root: Path, broken: tuple[StageStudy, Path, list[str]]
) -> None:
    before = (broken[1] / "stages.json").read_bytes()
    with pytest.raises(ConfigError, match="finished study"):
        stage_study(listed(root), broken[1], demo_settings(TINY))
    assert (broken[1] / "stages.json").read_bytes() == before


@pytest.mark.slow
def test_validation_slides_alone_choose_the_threshold(
    root: Path, broken: tuple[StageStudy, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    trained: list[set[str]] = []
    train, choose = stages.train_bags, stages.choose_threshold

    def watched(own: list[Record], files: dict[int, Path], **options: Any) -> Trained:
        trained.append({own[i].patient for i in options["train"]})
        return train(own, files, **options)

    def chosen(maps: dict[int, AttentionMap], own: list[Record], settings: BagSettings) -> float:
        asked.append({own[i].patient for i in maps})
        return choose(maps, own, settings)

    monkeypatch.setattr(stages, "train_bags", watched)
    monkeypatch.setattr(stages, "choose_threshold", chosen)
    stage_study(listed(root), tmp_path / "out", demo_settings(TINY), features=tmp_path / "features")
    assert len(asked) == 2
    assert all(own and not own & others for own, others in zip(asked, trained, strict=True))
    assert (tmp_path / "features" / "recipe.json").exists()


@pytest.mark.slow
def test_the_way_from_slides_to_kappa(root: Path, tmp_path: Path) -> None:
    settings = demo_settings(["patches.side=16", "patches.um=4.0", "patches.mask_um=8.0", "train.steps=60"])
    out = tmp_path / "out"
    study = stage_study(listed(root), out, settings)
    assert set(study.patients) == {f"camelyon17_patient_{i:03d}" for i in range(8)}
    assert set(study.patient_logit) == set(study.patients)
    assert len(study.nodes) == 16
    macro = [n.lengths_um[0] for n in study.nodes if n.truth == "macro" and n.lengths_um]
    assert len(macro) == 2
    told = json.loads((out / "stages.json").read_text())
    assert "research use" in told["notice"]
    rows = (out / "submission.csv").read_text().splitlines()
    assert rows[0] == "patient,stage"
    assert len(rows) == 1 + 8 + 16
    assert rows[1].startswith("patient_000.zip,pN")
    again = stage_study(listed(root), tmp_path / "again", settings, features=out / "features")
    assert again.nodes == study.nodes
