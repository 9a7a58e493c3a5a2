"""A phantom of CAMELYON17: patients with nodes of known class, from several laboratories, in its layout."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mammopath.errors import DataError
from mammopath.files import write_text
from mammopath.phantom.files import NOTICE
from mammopath.phantom.shapes import Ellipse
from mammopath.phantom.sites import SITES
from mammopath.phantom.slide import Area, SlidePlan, write_asap, write_slide
from mammopath.phantom.texture import LYMPH, STROMA, TUMOUR

STAGES = (
    ("pN0", ("negative", "negative")),
    ("pN0(i+)", ("itc", "negative")),
    ("pN1mi", ("micro", "itc")),
    ("pN1", ("macro", "micro")),
)
"""Stages in the order in which patients have them, and the nodes that make them; more nodes are negative."""

LENGTHS_UM = {"itc": (90.0, 120.0), "micro": (500.0, 1100.0), "macro": (2200.0, 2500.0)}
"""Longest diameter of the lesion of a node, from and to."""


@dataclass(frozen=True)
class CamelyonPlan:
    """How large the phantom is.

    Attributes:
        centres: laboratories, of those that the phantom knows. patients: of each. nodes: of each patient.
        side: of a slide in pixels. um: side of a pixel; slides must hold 2.5 mm of lymph node.
        seed: same seed, same slides.
    """

    centres: int = 3
    patients: int = 4
    nodes: int = 2
    side: int = 2048
    um: float = 2.0
    seed: int = 0


def make_camelyon(root: Path, plan: CamelyonPlan) -> None:
    """Paint slides under ``root`` in the archive's layout: ``images``, ``annotations``, ``stages.csv``.

    ``stages.csv`` is written last, so a phantom without it is not finished.

    Raises:
        DataError: ``root`` holds something already, or the plan asks for more than there is.
    """
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root}: is not empty; a phantom is never written over something else")
    if not 1 <= plan.centres <= len(SITES) or plan.nodes < 2 or plan.centres * plan.patients > 100:
        raise DataError(
            f"a phantom has 1 to {len(SITES)} centres, at least 2 nodes, at most 100 patients: {plan}"
        )
    rows = ["patient,stage,center"]
    for number in range(plan.centres * plan.patients):
        centre, name = number // plan.patients, f"patient_{number:03d}"
        stage, classes = STAGES[number % len(STAGES)]
        rows.append(f"{name}.zip,{stage},{centre}")
        for node in range(plan.nodes):
            kind = classes[node] if node < len(classes) else "negative"
            _write_node(root, f"{name}_node_{node}", kind, plan, centre)
            rows.append(f"{name}_node_{node}.tif,{kind},{centre}")
    write_text(root / "NOTICE.txt", f"{NOTICE}\n")
    write_text(root / "stages.csv", "\n".join(rows) + "\n")


def _write_node(root: Path, name: str, kind: str, plan: CamelyonPlan, centre: int) -> None:
    rng = np.random.default_rng([plan.seed, 17, *name.encode()])
    slide = SlidePlan(
        plan.side,
        plan.um,
        tuple(_areas(kind, plan, rng)),
        list(SITES.values())[centre].tissue,
        seed=plan.seed * 100 + centre,
        levels=4,
    )
    write_slide(root / "images" / f"{name}.tif", slide)
    if slide.tumours:
        write_asap(root / "annotations" / f"{name}.xml", slide.tumours)


def _areas(kind: str, plan: CamelyonPlan, rng: np.random.Generator) -> list[Area]:
    """Stroma around a node, and within it one lesion of the class's size."""
    middle = plan.side / 2
    turn = float(rng.uniform(0, np.pi))
    capsule = Ellipse(middle, middle, 0.42 * plan.side, 1.05 + 0.1 * float(rng.random()), turn)
    node = Ellipse(middle, middle, 0.37 * plan.side, capsule.aspect, turn)
    areas = [Area(capsule.outline(corners=64), STROMA), Area(node.outline(corners=64), LYMPH)]
    if kind != "negative":
        aspect = float(rng.uniform(1.0, 1.3))
        radius = float(rng.uniform(*LENGTHS_UM[kind])) / 2 / plan.um / aspect**0.5
        free = max(0.0, 0.33 * plan.side - radius * aspect**0.5)
        far, way = free * float(rng.random()), float(rng.uniform(0, 2 * np.pi))
        lesion = Ellipse(
            middle + far * float(np.cos(way)),
            middle + far * float(np.sin(way)),
            radius,
            aspect,
            float(rng.uniform(0, np.pi)),
        )
        areas.append(Area(lesion.outline(corners=48), TUMOUR))
    return areas
