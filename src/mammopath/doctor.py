"""What this installation has: versions, decoders, device, encoders."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import imagecodecs
import torch

from mammopath import __version__
from mammopath.model.encoders import ENCODERS

PACKAGES = (
    "torch", "numpy", "polars", "pydicom", "imagecodecs", "openslide-python", "openslide-bin", "tifffile",
    "pillow", "safetensors", "scikit-learn",
)  # fmt: skip


def facts() -> dict[str, str]:
    """Name to finding, as plain text."""
    found = {"mammopath": __version__, "python": platform.python_version(), "system": platform.platform()}
    found |= {name: _version(name) for name in PACKAGES}
    found["device"] = _device()
    found["JPEG Lossless"] = _codec("ljpeg_decode")
    found["JPEG-LS"] = _codec("jpegls_decode")
    found["JPEG 2000"] = _codec("jpeg2k_decode")
    found["encoders known"] = ", ".join(ENCODERS)
    found["weights in ./weights"] = (
        ", ".join(sorted(p.name for p in Path("weights").glob("*.safetensors"))) or "none"
    )
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"missing: pip install {name}"


def _device() -> str:
    if torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name()}"
    capability = torch.backends.cpu.get_cpu_capability()
    slow = "" if "512" in capability else "; bf16 is slow here, keep train.*precision: fp32"
    return f"CPU ({capability}), {torch.get_num_threads()} threads{slow}"


def _codec(name: str) -> str:
    return "ok" if hasattr(imagecodecs, name) else "missing: pip install imagecodecs"
