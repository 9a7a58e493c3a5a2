"""The phantom of CAMELYON17 at the size of the challenge: every stage, holes, slides without XML."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mammopath.images.geometry import Frame, paint
from mammopath.images.slide import open_slide
from mammopath.metrics.camelyon17 import lesion_lengths, node_class, pn_stage
from mammopath.phantom.camelyon import CamelyonPlan, make_camelyon
from mammopath.prepare.overview import overview
from mammopath.sources import SOURCES
from mammopath.types import Record

PLAN = CamelyonPlan(centres=1, patients=5, nodes=5, side=900, um=4.0)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root = tmp_path_factory.mktemp("phantom") / "c17"
    make_camelyon(root, PLAN)
    found = list(SOURCES["camelyon17"].index(root))
    assert all(isinstance(one, Record) for one in found)
    return found  # type: ignore[return-value]


def test_five_patients_of_five_nodes_have_the_five_stages(records: list[Record]) -> None:
    nodes: dict[str, list[str]] = {}
    for record in records:
        nodes.setdefault(record.patient, []).append(record.attributes["node"])
    stages = {r.patient: r.attributes["pn"] for r in records}
    assert list(map(len, nodes.values())) == [5] * 5
    assert [stages[patient] for patient in sorted(stages)] == ["pN0", "pN0(i+)", "pN1mi", "pN1", "pN2"]
    assert {patient: pn_stage(own) for patient, own in nodes.items()} == stages


def test_one_positive_slide_has_no_outline_and_is_not_taken_for_negative(records: list[Record]) -> None:
    bare = [r for r in records if r.malignant == 1 and not r.findings]
    assert [(r.attributes["node"], r.attributes.get("annotated")) for r in bare] == [("itc", None)]
    assert Counter(r.attributes["node"] for r in records if r.findings) == {"itc": 1, "micro": 4, "macro": 3}


def test_lesions_are_as_long_as_their_class_says_with_holes_and_without(records: list[Record]) -> None:
    for record in records:
        if record.findings:
            tumour = paint(record.findings, Frame(0.5, 0.5), (450, 450))
            assert node_class(lesion_lengths(tumour, um=8.0).tolist()) == record.attributes["node"]
    assert {r.attributes["node"]: len(r.findings[0].holes) for r in records if r.findings} == {
        "itc": 0, "micro": 0, "macro": 1,
    }  # fmt: skip


def test_a_hole_shows_the_node_and_not_the_tumour(records: list[Record]) -> None:
    """Lymphocytes lie closer than the nuclei of tumour, so their ground is darker in red."""
    record = next(r for r in records if r.attributes["node"] == "macro")
    with open_slide(record.path) as slide:
        red = overview(slide, 8.0)[..., 0].astype(float)
    (finding,) = record.findings
    tumour = paint([finding], Frame(0.5, 0.5), red.shape)
    whole = paint([replace(finding, holes=())], Frame(0.5, 0.5), red.shape)
    hole = whole & ~tumour
    assert hole.sum() > 500
    assert abs(np.median(red[hole]) - np.median(red[tumour])) > 10


def test_the_same_seed_paints_the_same_slides(tmp_path: Path) -> None:
    plan = CamelyonPlan(centres=1, patients=1, nodes=2, side=700, um=4.0)
    for name in ("a", "b"):
        make_camelyon(tmp_path / name, plan)
    one, other = (sorted((tmp_path / n / "images").iterdir()) for n in ("a", "b"))
    assert [p.name for p in one] == ["patient_000_node_0.tif", "patient_000_node_1.tif"]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
