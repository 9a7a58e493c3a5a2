"""Slides to stages on an embedded default: a phantom of CAMELYON17, and settings that suit it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mammopath.config import load
from mammopath.phantom.camelyon import CamelyonPlan, make_camelyon
from mammopath.slide_settings import BagSettings

CONFIG = Path(__file__).parent.parent / "slides_phantom.yaml"
"""Ships with the package, so that the demo runs from anywhere."""


def make_slides(root: Path, plan: CamelyonPlan | None = None) -> None:
    """Paint the slides, unless they are there; what a crash has left unfinished is painted again."""
    if not (root / "stages.csv").exists():
        shutil.rmtree(root, ignore_errors=True)
        make_camelyon(root, plan or CamelyonPlan())


def demo_settings(changes: Sequence[str]) -> BagSettings:
    """Settings of the demo, with ``a.b=c`` changes."""
    return load(BagSettings, CONFIG, changes)
