"""From slides to stages: the phantom of CAMELYON17, the choice of a threshold, the whole way with kappa."""

import json
from pathlib import Path

import numpy as np
import pytest

from mammopath.errors import DataError
from mammopath.images.geometry import Frame
from mammopath.metrics.camelyon17 import node_class, pn_stage
from mammopath.phantom.camelyon import LENGTHS_UM, STAGES, CamelyonPlan, make_camelyon
from mammopath.settings import BagSettings
from mammopath.slides.demo import demo_settings
from mammopath.slides.maps import TumourMap
from mammopath.slides.stages import choose_threshold, stage_study
from mammopath.sources import SOURCES
from mammopath.types import Record

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
        assert (len(record.findings) == 1) == (record.attributes["node"] != "negative")
        if record.findings:
            corners = np.array(record.findings[0].points)
            far = np.hypot(*(corners[:, None] - corners[None]).reshape(-1, 2).T).max() * 4.0
            assert node_class([far]) == record.attributes["node"]


def test_a_phantom_is_never_painted_over_something(root: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        make_camelyon(root, PLAN)
    with pytest.raises(DataError, match="1 to 4 centres"):
        make_camelyon(root.parent / "other", CamelyonPlan(centres=9))


def test_the_training_centres_choose_the_threshold() -> None:
    """A map with a lesion at 0.75 over a background at 0.65: only thresholds between class the node."""
    probability = np.full((40, 40), 0.65)
    probability[10:16, 10:16] = 0.75
    maps = {0: TumourMap(probability, Frame(), 64.0), 1: TumourMap(np.full((40, 40), 0.65), Frame(), 64.0)}
    records = [
        Record("a", Path("a"), "p", "c", "pathology", attributes={"node": "micro"}),
        Record("b", Path("b"), "q", "c", "pathology", attributes={"node": "negative"}),
    ]
    assert choose_threshold(maps, records, BagSettings()) == 0.7


def test_one_centre_cannot_be_left_out(root: Path, tmp_path: Path) -> None:
    alone = [r for r in listed(root) if r.domain.endswith("0")]
    with pytest.raises(DataError, match="two or more"):
        stage_study(alone, tmp_path, BagSettings())


@pytest.mark.slow
def test_the_way_from_slides_to_kappa(root: Path, tmp_path: Path) -> None:
    settings = demo_settings(["patches.side=16", "patches.um=4.0", "patches.mask_um=8.0", "train.steps=60"])
    study = stage_study(listed(root), tmp_path, settings)
    assert set(study.patients) == {f"camelyon17_patient_{i:03d}" for i in range(8)}
    assert set(study.patient_logit) == set(study.patients)
    assert len(study.nodes) == 16
    macro = [n.lengths_um[0] for n in study.nodes if n.truth == "macro" and n.lengths_um]
    assert len(macro) == 2
    told = json.loads((tmp_path / "stages.json").read_text())
    assert "research use" in told["notice"]
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert rows[0] == "patient,stage"
    assert len(rows) == 1 + 8 + 16
    assert rows[1].startswith("patient_000.zip,pN")
    again = stage_study(listed(root), tmp_path, settings)
    assert again.nodes == study.nodes
