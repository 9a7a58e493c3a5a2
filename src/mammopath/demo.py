"""The main job on an embedded default: a synthetic cohort, and a configuration that suits it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mammopath.config import load
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.settings import LodoSettings

CONFIG = Path(__file__).parent / "demo.yaml"
"""Ships with the package, so that the demo runs from anywhere."""


def make_cohort(root: Path) -> None:
    """Paint the cohort, unless it is there; one that a crash has left unfinished is painted again."""
    if not (root / TRUTH).exists():
        shutil.rmtree(root, ignore_errors=True)
        generate(root, PhantomSettings())


def demo_settings(root: Path, changes: Sequence[str]) -> LodoSettings:
    """The demo's study over the cohort at ``root``, with ``a.b=c`` changes."""
    here = f"data.sources=[{{source: phantom, root: {root}}}]"
    return load(LodoSettings, CONFIG, [here, *changes])
