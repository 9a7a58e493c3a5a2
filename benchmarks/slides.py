"""Slides: tissue, patches read and embedded, against a loop over OpenSlide's read_region; memory, workers.

    python benchmarks/slides.py [--side 20000] [--patches 2000] [--weights WEIGHTS.safetensors]

Paints a phantom pyramid of JPEG tiles of 256 pixels in a temporary folder. Each measurement is a process of
its own, so that its peak memory is its own; rates are per second of processor time, which a busy machine
changes little; wall seconds stand beside them. "cold" drops the file from the page cache first. Prints JSON.
"""
# ruff: noqa: PLC0415 - each process imports what it measures, and nothing else counts as its memory

import argparse
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIDE = 256


def paint(path: Path, side: int) -> float:
    """Seconds to paint a slide with stroma, lymph node and a tumour."""
    from mammopath.phantom.shapes import Ellipse
    from mammopath.phantom.sites import SITES
    from mammopath.phantom.slide import Area, SlidePlan, write_slide
    from mammopath.phantom.texture import LYMPH, STROMA, TUMOUR

    middle = side / 2
    areas = [(0.42, STROMA), (0.36, LYMPH), (0.1, TUMOUR)]
    outlines = tuple(Area(Ellipse(middle, middle, r * side).outline(corners=64), kind) for r, kind in areas)
    started = time.process_time()
    write_slide(path, SlidePlan(side, 0.5, outlines, SITES["site_a"].tissue))
    return time.process_time() - started


def corners(side: int, count: int, *, first: int, step: int) -> list[tuple[int, int]]:
    """Corners row by row from the middle of the slide's height, where there is tissue."""
    across = (side - SIDE - first) // step
    rows = -(-count // across)
    top = first + (side // 2 // SIDE) * SIDE - rows // 2 * step
    top = top // SIDE * SIDE + first
    return [(first + step * (i % across), top + step * (i // across)) for i in range(count)]


def ours(path: Path, places: list[tuple[int, int]]) -> int:
    from mammopath.images.slide import open_slide

    slide = open_slide(path)
    um = slide.spacing.um_x
    return sum(int(slide.read(x, y, size=(SIDE, SIDE), um=um)[0, 0, 0]) for x, y in places)


def openslide_loop(path: Path, places: list[tuple[int, int]]) -> int:
    import numpy as np
    import openslide

    slide = openslide.OpenSlide(path)
    return sum(
        int(np.asarray(slide.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB"))[0, 0, 0]) for x, y in places
    )


def tissue(path: Path, places: list[tuple[int, int]]) -> int:
    from mammopath.images.slide import open_slide
    from mammopath.prepare.tissue import find_tissue

    return int(find_tissue(open_slide(path)).mask.sum())


def embed(path: Path, places: list[tuple[int, int]], weights: Path | None = None) -> int:
    import torch

    from mammopath.images.slide import open_slide
    from mammopath.prepare.patches import patch_grid, stream
    from mammopath.prepare.tissue import find_tissue
    from mammopath.settings import PatchSettings
    from mammopath.slide_settings import SlideSettings, TrunkSettings
    from mammopath.slides import embed as room

    torch.set_num_threads(1)
    trunk = TrunkSettings(encoder="vit_small_patch14_dinov2", weights=weights, block=8)
    settings = SlideSettings(patches=PatchSettings(side=224), trunk=trunk)
    network, slide = room.frozen_trunk(settings), open_slide(path)
    grid = patch_grid(slide, find_tissue(slide)).part(slice(0, 32))
    started = time.process_time()
    for batch in stream(slide, grid, batch=32):
        room.embed(network, batch.pixels, settings.patches)
    return round(32 / (time.process_time() - started) * 1000)


def measured(
    work: Callable[..., int],
    path: Path,
    places: list[tuple[int, int]],
    queue: "multiprocessing.Queue[object]",
) -> None:
    """Run in a process of its own: result, processor and wall seconds, peak memory."""
    work(path, places[:4])  # imports and opening are not what is measured
    cpu, wall = time.process_time(), time.monotonic()
    result = work(path, places)
    used = (time.process_time() - cpu, time.monotonic() - wall)
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    queue.put((result, *used, peak))


def run(work: Callable[..., int], path: Path, parts: list[list[tuple[int, int]]]) -> dict[str, float]:
    """Measure a work on parts at the same time, one process each."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=measured, args=(work, path, part, queue)) for part in parts]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    count, cpu = sum(map(len, parts)), sum(f[1] for f in found)
    return {
        "result": sum(f[0] for f in found),
        "per_cpu_second": round(count / cpu, 1),
        "cpu_s": round(cpu, 3),
        "wall_s": round(max(f[2] for f in found), 3),
        "per_wall_second": round(count / max(f[2] for f in found), 1),
        "peak_mb": round(max(f[3] for f in found)),
    }


def drop_from_cache(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--no-embed", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        told: dict[str, object] = {"side": asked.side, "paint_cpu_s": round(paint(path, asked.side), 1)}
        aligned = corners(asked.side, asked.patches, first=0, step=SIDE)
        overlapping = corners(asked.side, asked.patches, first=100, step=SIDE // 2)
        told["aligned"] = both(path, aligned)
        told["unaligned, half overlapping"] = both(path, overlapping)
        told["unaligned, no overlap"] = both(path, corners(asked.side, asked.patches, first=100, step=SIDE))
        half = asked.patches // 2
        told["two workers, aligned"] = run(ours, path, [aligned[:half], aligned[half:]])
        drop_from_cache(path)
        told["cold, aligned"] = run(ours, path, [aligned])
        told["tissue"] = {k: v for k, v in run(tissue, path, [aligned]).items() if not k.startswith("per_")}
        if not asked.no_embed:
            found = run(embed, path, [aligned[:32]])
            told["ViT-S, 8 blocks"] = {"per_cpu_second": found["result"] / 1000, "peak_mb": found["peak_mb"]}
    print(json.dumps(told, indent=1))


def both(path: Path, places: list[tuple[int, int]]) -> dict[str, object]:
    """Ours against OpenSlide, in turn; they must see the same pixels."""
    found = {"mammopath": run(ours, path, [places]), "openslide": run(openslide_loop, path, [places])}
    assert found["mammopath"]["result"] == found["openslide"]["result"]
    times = found["mammopath"]["per_cpu_second"] / found["openslide"]["per_cpu_second"]
    return found | {"times": round(times, 2)}


if __name__ == "__main__":
    main()
