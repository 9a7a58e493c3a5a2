"""Paths of shared real data, and the markers that skip with a reason where it is absent."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from mammopath.case.predictor import Predictor
    from mammopath.case.values import Case
    from mammopath.cohort.manifest import Manifest

settings.register_profile("steady", deadline=None)  # slow is not wrong: machines are busy at times
settings.load_profile("steady")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
NEEDS = {
    "data": SHARED / "data" / "DATA.md",
    "weights": SHARED / "weights" / "vit_small_patch14_dinov2.fp16.safetensors",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs absent data or hardware, and say which."""
    for item in items:
        for name, path in NEEDS.items():
            if item.get_closest_marker(name) and not path.exists():
                item.add_marker(pytest.mark.skip(reason=f"needs {path}"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and metadata."""
    return SHARED / "data"


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """A real pretrained ViT-S/14."""
    return NEEDS["weights"]


def pytest_configure() -> None:
    """One thread per test process: the tests are small, and processes share the cores."""
    import torch

    torch.set_num_threads(1)


# ---------------------------------------------------------------- patients of the phantom


@pytest.fixture(scope="module")
def phantom_run() -> "tuple[Path, Manifest]":
    """Folder of a run trained on the phantom (``run`` in it), and the manifest of its cohort."""
    from case_run import trained  # imports the package, which must wait for the checks of its shapes

    return trained()


@pytest.fixture(scope="module")
def predictor(phantom_run: "tuple[Path, Manifest]") -> "Predictor":
    """The predictor of that run."""
    from mammopath.case.predictor import Predictor

    return Predictor.load(phantom_run[0] / "run")


@pytest.fixture(scope="module")
def eager(predictor: "Predictor") -> "Predictor":
    """The predictor with a threshold that everything passes."""
    thresholds = {"mammogram": 0.0, "pathology": 0.0}
    return replace(predictor, evidence=replace(predictor.evidence, thresholds=thresholds))


@pytest.fixture(scope="module")
def cases() -> "list[Case]":
    """Patients that the run has not seen."""
    from case_run import new_cases

    return new_cases()
