"""Slides: patches read and embedded, tissue, memory, workers, against a loop over OpenSlide's read_region.

    python benchmarks/slides.py [--side 20000] [--patches 1000] [--rounds 3] [--weights WEIGHTS.safetensors]
                                [--no-embed] [--tiatoolbox PYTHON] [--out FILE.json]

Paints a phantom pyramid of JPEG tiles of 256 pixels in a temporary folder. Each measurement is a process of
its own, so that its peak memory is its own. It opens the slide and reads four patches before its clock runs,
three times over, of which the median counts. All measurements of a round follow one another, so that other
work on the machine meets them alike; what is printed is the median over rounds, of ratios too. Rates and
ratios are per second of processor time, which a busy machine changes little; rates per second of the clock
stand beside them. "cold" drops the file from the page cache first. ``--tiatoolbox`` names the Python of
another environment, in which TIAToolbox's patch extraction reads the same patches. Readers must see the same
pixels; where one does not, the JSON says so.
"""
# ruff: noqa: PLC0415 - each process imports what it measures, and nothing else counts as its memory

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIDE = 256

Places = list[tuple[int, int]]
"""Left upper corners of patches in level-0 pixels."""

Pixel = tuple[int, int, int]


@dataclass(frozen=True)
class Asked:
    """One measurement: what is done, on which slide and places, in which Python, how often."""

    work: str
    path: Path
    places: Places
    python: str = sys.executable
    cold: bool = False
    weights: str = ""
    repeats: int = 3


def paint(path: Path, side: int) -> float:
    """Processor seconds to paint a slide with stroma, lymph node and a tumour."""
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


def corners(side: int, count: int, *, first: int, step: int) -> Places:
    """Corners row by row from the middle of the slide's height, where there is tissue.

    Beyond the edge readers differ by design: ours gives glass, OpenSlide's transparency becomes black.
    """
    across = (side - SIDE - first) // step
    rows = -(-count // across)
    if rows > across:
        raise SystemExit(f"--patches {count}: at most {across * across} fit on this slide")
    top = first + (side // 2 // SIDE) * SIDE - rows // 2 * step
    top = min(max(top // SIDE * SIDE, 0), (across - rows) * step // SIDE * SIDE) + first
    return [(first + step * (i % across), top + step * (i // across)) for i in range(count)]


def mammopath(path: Path) -> Callable[[Places], int]:
    from mammopath.images.slide import open_slide

    slide = open_slide(path)
    um = slide.spacing.um_x
    return lambda places: sum(int(slide.read(x, y, size=(SIDE, SIDE), um=um)[0, 0, 0]) for x, y in places)


def openslide_loop(path: Path) -> Callable[[Places], int]:
    import numpy as np
    import openslide

    slide, size = openslide.OpenSlide(path), (SIDE, SIDE)

    def read(x: int, y: int) -> int:
        return int(np.asarray(slide.read_region((x, y), 0, size).convert("RGB"))[0, 0, 0])

    return lambda places: sum(read(x, y) for x, y in places)


def tiatoolbox(path: Path) -> Callable[[Places], int]:
    import pandas
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(path)

    def read(places: Places) -> int:
        half = SIDE // 2 - 1  # its patches of even sides begin a pixel further than their middle tells
        middles = pandas.DataFrame([(x + half, y + half) for x, y in places], columns=["x", "y"])
        patches = get_patch_extractor(
            "point",
            input_img=slide,
            locations_list=middles,
            patch_size=(SIDE, SIDE),
            resolution=0,
            units="level",
        )
        return sum(int(patch[0, 0, 0]) for patch in patches)

    return read


def tissue(path: Path) -> Callable[[Places], int]:
    from mammopath.images.slide import open_slide
    from mammopath.prepare.tissue import find_tissue

    slide = open_slide(path)
    return lambda places: int(find_tissue(slide).mask.sum()) if len(places) > 4 else 0


def vit(path: Path, weights: str) -> Callable[[Places], int]:
    import numpy as np
    import torch

    from mammopath.images.slide import open_slide
    from mammopath.settings import PatchSettings
    from mammopath.slide_settings import SlideSettings, TrunkSettings
    from mammopath.slides import embed as room

    torch.set_num_threads(1)
    trunk = TrunkSettings(
        encoder="vit_small_patch14_dinov2", weights=Path(weights) if weights else None, block=8
    )
    settings = SlideSettings(patches=PatchSettings(side=224), trunk=trunk)
    network, slide = room.frozen_trunk(settings), open_slide(path)

    def read(places: Places) -> int:
        pixels = [slide.read(x, y, size=(224, 224), um=slide.spacing.um_x) for x, y in places]
        return len(room.embed(network, np.stack(pixels), settings.patches))

    return read


WORKS = {"mammopath": mammopath, "openslide": openslide_loop, "tiatoolbox": tiatoolbox, "tissue": tissue}


def worker() -> None:
    """Open, say so, wait for the word, measure a few times, print JSON; every repeat opens the slide anew."""
    asked = json.loads(sys.stdin.readline())
    path, places = Path(asked["path"]), [(x, y) for x, y in asked["places"]]
    found = []
    for repeat in range(asked["repeats"]):
        started = time.process_time()
        do = vit(path, asked["weights"]) if asked["work"] == "vit" else WORKS[asked["work"]](path)
        opening = time.process_time() - started
        do(places[:4])
        if asked["cold"]:
            drop_from_cache(path)
        if repeat == 0:
            print("ready", flush=True)
            sys.stdin.readline()
        cpu, wall = time.process_time(), time.monotonic()
        result = do(places)
        found.append((time.process_time() - cpu, time.monotonic() - wall, opening))
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    cpu, wall, opening = (statistics.median(column) for column in zip(*found, strict=True))
    told = {"result": result, "cpu": cpu, "wall": wall, "opening": opening, "peak": peak}
    print(json.dumps(told), flush=True)


def measure(parts: Sequence[Asked]) -> dict[str, float]:
    """Measure at the same time, a process each: all open first, then all start."""
    command = [__file__, "--worker"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    running = [subprocess.Popen([part.python, *command], **pipe) for part in parts]
    for process, part in zip(running, parts, strict=True):
        process.stdin.write(json.dumps(asdict(part) | {"path": str(part.path)}) + "\n")
        process.stdin.flush()
    for process in running:
        while (line := process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit("a measurement failed; see above")
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    count, cpu = sum(len(part.places) for part in parts), sum(f["cpu"] for f in found)
    wall = max(f["wall"] for f in found)
    return {
        "result": sum(f["result"] for f in found),
        "cpu_s": cpu,
        "wall_s": wall,
        "per_cpu_second": count / cpu,
        "per_wall_second": count / wall,
        "opening_cpu_s": statistics.mean(f["opening"] for f in found),
        "peak_mb": max(f["peak"] for f in found),
    }


def drop_from_cache(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def plan(path: Path, options: argparse.Namespace) -> dict[str, list[Asked]]:
    """Measurements of a round, in their order."""
    aligned = corners(options.side, options.patches, first=0, step=SIDE)
    patterns = {
        "aligned": aligned,
        "unaligned": corners(options.side, options.patches, first=100, step=SIDE),
        "unaligned, half overlapping": corners(options.side, options.patches, first=100, step=SIDE // 2),
    }
    readers = {"mammopath": sys.executable, "openslide": sys.executable}
    readers |= {"tiatoolbox": options.tiatoolbox} if options.tiatoolbox else {}
    found = {
        f"{pattern}: {reader}": [Asked(reader, path, places, python)]
        for pattern, places in patterns.items()
        for reader, python in readers.items()
    }
    half = len(aligned) // 2
    for reader in ("mammopath", "openslide"):
        found[f"aligned, cold: {reader}"] = [Asked(reader, path, aligned, cold=True)]
        found[f"aligned, two workers: {reader}"] = [
            Asked(reader, path, aligned[:half]), Asked(reader, path, aligned[half:]),
        ]  # fmt: skip
    found["tissue"] = [Asked("tissue", path, aligned[:5])]
    if not options.no_embed:
        weights = str(options.weights or "")
        found["ViT-S, 8 blocks"] = [
            Asked("vit", path, aligned[:: len(aligned) // 32][:32], weights=weights, repeats=1)
        ]
    return found


def summary(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, of figures and of ratios within a round."""
    names = list(rounds[0])
    told: dict[str, Any] = {
        name: {key: round(statistics.median(r[name][key] for r in rounds), 3) for key in rounds[0][name]}
        for name in names
    }

    def ratio(one: str, other: str, times: float = 1.0, key: str = "per_cpu_second") -> float:
        return round(statistics.median(times * r[one][key] / r[other][key] for r in rounds), 2)

    told["times openslide, per CPU second"] = {
        pattern: ratio(name, f"{pattern}: openslide")
        for name in names
        for pattern, _, reader in [name.partition(": ")]
        if reader == "mammopath"
    }
    told["times tiatoolbox, per CPU second"] = {
        pattern: ratio(f"{pattern}: mammopath", name)
        for name in names
        for pattern, _, reader in [name.partition(": ")]
        if reader == "tiatoolbox"
    }
    two, one = "aligned, two workers: mammopath", "aligned: mammopath"
    told["two workers"] = {
        "by the clock": ratio(two, one, key="per_wall_second"),
        "on free cores (by CPU time)": ratio(two, one, 2.0),
    }
    told["same pixels as openslide"] = {
        name: all(r[name]["result"] == r[f"{pattern}: openslide"]["result"] for r in rounds)
        for name in names
        for pattern, _, reader in [name.partition(": ")]
        if reader in ("mammopath", "tiatoolbox")
    }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--no-embed", action="store_true")
    parser.add_argument("--tiatoolbox", default="", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        told: dict[str, Any] = {"side": options.side, "patches": options.patches}
        told |= {"load_before": os.getloadavg(), "cores": os.cpu_count()}
        told["paint_cpu_s"] = round(paint(path, options.side), 1)
        rounds: list[dict[str, dict[str, float]]] = []
        for _ in range(options.rounds):
            rounds.append({name: measure(parts) for name, parts in plan(path, options).items()})
            now = {"rounds": len(rounds), "load_after": os.getloadavg()}
            text = json.dumps(told | now | summary(rounds), indent=1)
            if options.out:  # after every round, so that nothing is lost
                options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
