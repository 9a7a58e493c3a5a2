"""A phantom of CAMELYON17: patients with nodes of known class, from several laboratories, in its layout."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    ("pN2", ("macro", "micro", "micro", "macro")),
)
"""Stages in the order in which patients have them, and the nodes that make them; more nodes are negative.
Patients with fewer nodes than a stage takes never have it."""

LENGTHS_UM = {"itc": (90.0, 120.0), "micro": (500.0, 1100.0), "macro": (2200.0, 2500.0)}
"""Longest diameter of the lesion of a node, from and to."""

HOLE = 0.3
"""Of a macro-metastasis an island of healthy node in its middle, by the share of its diameters."""


@dataclass(frozen=True)
class CamelyonPlan:
    """How large the phantom is.

    Attributes:
        centres: laboratories, of those that the phantom knows. patients: of each. nodes: of each patient;
            the challenge has five, of which pN2 takes four.
        undrawn: nodes with isolated tumour cells of each centre that nobody has outlined.
        side: of a slide in pixels. um: side of a pixel; slides must hold 2.5 mm of lymph node.
        seed: same seed, same slides.
    """

    centres: int = 3
    patients: int = 4
    nodes: int = 2
    undrawn: int = 1
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
    for centre in range(plan.centres):
        labels = dict(_labels(plan, centre))
        cells = [name for name, label in labels.items() if label == "itc"]
        for name, label in labels.items():
            if "node" in name:
                drawn = name not in cells[: plan.undrawn]
                _write_node(root, name, label, plan, centre=centre, drawn=drawn)
            rows.append(f"{name}.{'tif' if 'node' in name else 'zip'},{label},{centre}")
    write_text(root / "NOTICE.txt", f"{NOTICE}\n")
    write_text(root / "stages.csv", "\n".join(rows) + "\n")


def _labels(plan: CamelyonPlan, centre: int) -> Iterator[tuple[str, str]]:
    """Stage of each patient of a centre, followed by the class of each of its nodes."""
    possible = [stage for stage in STAGES if len(stage[1]) <= plan.nodes]
    for number in range(centre * plan.patients, (centre + 1) * plan.patients):
        stage, classes = possible[number % len(possible)]
        yield f"patient_{number:03d}", stage
        for node in range(plan.nodes):
            yield f"patient_{number:03d}_node_{node}", classes[node] if node < len(classes) else "negative"


def _write_node(root: Path, name: str, kind: str, plan: CamelyonPlan, *, centre: int, drawn: bool) -> None:
    rng = np.random.default_rng([plan.seed, 17, *name.encode()])
    areas = _areas(kind, plan, rng)
    slide = SlidePlan(
        plan.side,
        plan.um,
        tuple(areas),
        list(SITES.values())[centre].tissue,
        seed=plan.seed * 100 + centre,
        levels=4,
    )
    write_slide(root / "images" / f"{name}.tif", slide)
    if slide.tumours and drawn:
        holes = [area.outline for area in areas[3:]]
        write_asap(root / "annotations" / f"{name}.xml", slide.tumours, holes=holes)


def _areas(kind: str, plan: CamelyonPlan, rng: np.random.Generator) -> list[Area]:
    """Stroma around a node, within it one lesion of the class's size, and within that perhaps a hole."""
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
        if kind == "macro":
            hole = replace(lesion, radius=HOLE * lesion.radius)
            areas.append(Area(hole.outline(corners=24), LYMPH))
    return areas
