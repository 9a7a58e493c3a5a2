"""Limits: a huge slide in bounded memory, odd and malformed files, stains beside torchstain."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import openslide
import pytest
import torch
import torchstain
from PIL import Image

from mammopath.prepare.stain import (
    MACENKO_AMOUNTS,
    MACENKO_VECTORS,
    fit_stain,
    lab_from_rgb,
    macenko,
    reinhard,
    stain_vectors,
)
from slide_cases import huge_slide

HUGE = """
import json, re, sys
from itertools import islice
from pathlib import Path
from mammopath.images.slide import open_slide
from mammopath.prepare.patches import patch_grid, stream
from mammopath.prepare.tissue import find_tissue
slide = open_slide(Path(sys.argv[1]))
tissue = find_tissue(slide)
grid = patch_grid(slide, tissue, side=224, um=0.5)
read = sum(len(batch.rows) for batch in islice(stream(slide, grid), 30))
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(json.dumps([slide.kind, slide.width, tissue.verdict, len(grid), read, int(peak) / 1024]))
"""

OPEN_ALL = """
import json, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, 2_500_000_000))
from mammopath.errors import MammopathError
from mammopath.images.slide import open_slide
from mammopath.prepare.overview import overview
from mammopath.types import Spacing
slowest, read, refused = 0.0, 0, 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    started = time.process_time()
    try:
        with open_slide(path, Spacing.square(0.5)) as slide:
            overview(slide, max(8.0, slide.width / 1024, slide.height / 1024))
            slide.read(0, 0, size=(64, 64), um=0.5)
            read += 1
    except MammopathError:
        refused += 1
    slowest = max(slowest, time.process_time() - started)
print(json.dumps([read, refused, slowest]))
"""


def in_a_process(code: str, path: Path) -> list[object]:
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_slide_of_a_hundred_thousand_pixels_needs_bounded_memory(tmp_path: Path) -> None:
    path = huge_slide(tmp_path / "huge.tif")
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (100_000, 100_000)
    kind, width, verdict, patches, read, peak = in_a_process(HUGE, path)
    assert (kind, width, verdict) == ("tiles:generic-tiff", 100_000, "good")
    assert patches == pytest.approx(np.pi * 0.4**2 * (100_000 / 224) ** 2, rel=0.05)
    assert read == 30 * 64
    assert peak < 2000


@pytest.mark.data
@pytest.mark.slow
def test_odd_and_malformed_files_end_in_one_error(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "badinputs.tar.xz") as archive:
        members = [m for m in archive.getmembers() if m.isfile() and "/tiff/" in m.name]
        archive.extractall(tmp_path, members, filter="data")
    read, refused, slowest = in_a_process(OPEN_ALL, tmp_path / "badinputs" / "tiff")
    assert read + refused == len(members)
    assert read > 20
    assert refused > 200
    assert slowest < 25


def fields(shared_data: Path) -> list[torch.Tensor]:
    paths = sorted((shared_data / "bach").rglob("*.jpg"))[::40]
    return [torch.from_numpy(np.array(Image.open(p).convert("RGB"))).permute(2, 0, 1) for p in paths]


@pytest.mark.data
def test_macenko_gives_what_torchstain_gives_on_real_fields(shared_data: Path) -> None:
    """To within a grey value or two: torchstain adds one to every intensity, which dark pixels feel."""
    theirs = torchstain.normalizers.MacenkoNormalizer(backend="torch")
    gaps = []
    for field in fields(shared_data):
        wanted, _, _ = theirs.normalize(I=field, Io=255, stains=False)
        ours = macenko(field[None].float() / 255)[0].permute(1, 2, 0) * 255
        gaps.append(float((ours - wanted).abs().mean()))
    assert np.mean(gaps) < 1.5
    assert np.max(gaps) < 5


@pytest.mark.data
def test_reinhard_gives_nearly_what_torchstain_gives_on_real_fields(shared_data: Path) -> None:
    """torchstain matches CIELAB and not the l, alpha, beta of the paper: alike, but not the same."""
    every = fields(shared_data)
    for field, target in zip(every, [*every[1:], every[0]], strict=True):
        theirs = torchstain.normalizers.ReinhardNormalizer(backend="torch")
        theirs.fit(target.clone())
        wanted = theirs.normalize(field.clone()).float().permute(2, 0, 1)
        lab = lab_from_rgb(target.float() / 255)
        ours = reinhard(field[None].float() / 255, lab.mean(dim=(1, 2)), lab.std(dim=(1, 2)))[0] * 255
        gap = (ours - wanted).abs().mean()
        assert gap < 6
        assert gap < 0.5 * (field.float() - wanted).abs().mean()
        assert (ours - wanted).mean(dim=(1, 2)).abs().max() < 3


@pytest.mark.data
def test_macenko_of_a_slide_gives_it_the_stains_of_the_reference(shared_data: Path) -> None:
    for field in fields(shared_data):
        rgb = field.float() / 255
        moved = fit_stain(rgb.flatten(1).T, "macenko").apply(rgb[None])[0]
        again = fit_stain(moved.flatten(1).T, "macenko")
        # Colours are cut off at white and black on the way, so the second fit is not the first one's inverse.
        assert torch.allclose(again.first, torch.tensor(MACENKO_VECTORS), atol=0.12)
        assert torch.allclose(again.second, torch.tensor(MACENKO_AMOUNTS), rtol=0.4)


@pytest.mark.data
def test_reinhard_of_slides_brings_real_fields_together(shared_data: Path) -> None:
    before, after = [], []
    for field in fields(shared_data):
        rgb = field.float() / 255
        before.append(rgb.mean(dim=(1, 2)))
        after.append(fit_stain(rgb.flatten(1).T[::7], "reinhard").apply(rgb[None])[0].mean(dim=(1, 2)))
    assert torch.stack(after).std(0).mean() < 0.6 * torch.stack(before).std(0).mean()


def test_a_slide_with_the_reference_stains_is_left_as_it_is() -> None:
    amounts = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 0.4, (2, 4000))).float()
    rgb = (-(torch.tensor(MACENKO_VECTORS).T @ amounts)).exp()
    fit = fit_stain(rgb.T, "macenko")
    assert torch.allclose(fit.first, torch.tensor(MACENKO_VECTORS), atol=0.03)
    assert torch.allclose(fit.first, stain_vectors(rgb[None, :, None])[0])


def test_too_little_tissue_is_not_normalised() -> None:
    rgb = torch.rand(1, 3, 5, 5)
    for kind in ("macenko", "reinhard", "none"):
        fit = fit_stain(torch.rand(20, 3), kind)  # type: ignore[arg-type]
        assert torch.equal(fit.apply(rgb), rgb)
