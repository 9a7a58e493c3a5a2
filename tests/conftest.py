"""Paths of shared real data, and the markers that skip with a reason where it is absent."""

from pathlib import Path

import pytest
from hypothesis import settings

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
