"""Decoding and preparing mammograms against the plain PIL and numpy way, and the memory of a large index.

    python benchmarks/decode_prepare.py

Makes 8-bit JPEG films of 2048 x 1024 in a temporary folder. The plain way decodes, scales to [0, 1] as float,
crops to the bright part, and resizes with Lanczos. Also indexes 5,000 small images from a table and tells the
peak memory of that process. Prints JSON.
"""

import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mammopath.prepare.sample import load_sample
from mammopath.settings import PrepareSettings
from mammopath.types import Record, Spacing

FILMS, ROUNDS, ROWS = 8, 3, 5000

INDEX = r"""
import re, sys
from pathlib import Path
from mammopath.cohort import manifest
from mammopath.sources import SOURCES
table, out = Path(sys.argv[1]), Path(sys.argv[2])
found = manifest.collect(SOURCES["table"].index(table), source="table", root=table.parent)
manifest.write(found, out)
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print(len(found), int(peak) / 1024)
"""


def films(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    y, x = np.mgrid[0:2048, 0:1024]
    for i in range(FILMS):
        breast = ((x / 800) ** 2 + ((y - 1000) / 900) ** 2) < 1
        pixels = np.where(breast, 90 + 40 * rng.random((2048, 1024)), 5).astype(np.uint8)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def ours(path: Path) -> None:
    record = Record(path.name, path, "p", "s", "mammogram", laterality="L", spacing=Spacing.square(100.0))
    load_sample(record, PrepareSettings(), multiple=14)


def plain(path: Path) -> None:
    pixels = np.asarray(Image.open(path)).astype(np.float32) / 255
    rows, columns = (np.flatnonzero((pixels > 0.1).any(axis)) for axis in (1, 0))
    crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    low, high = np.quantile(crop, [0.005, 0.998])
    crop = np.clip((crop - low) / (high - low), 0, 1)
    np.asarray(Image.fromarray(crop).resize((224, 448), Image.Resampling.LANCZOS))


def seconds(work: Callable[[Path], None], paths: list[Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        work(path)
    return (time.perf_counter() - start) / len(paths)


def index_memory(folder: Path) -> dict[str, float]:
    image = folder / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(image)
    for i in range(ROWS):
        (folder / f"i{i}.png").hardlink_to(image)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "domain", "modality", "label"])
        writer.writerows([f"i{i}.png", f"p{i}", "here", "pathology", "benign"] for i in range(ROWS))
    command = [sys.executable, "-c", INDEX, str(folder / "table.csv"), str(folder / "m.parquet")]
    start = time.perf_counter()
    count, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {"images": int(count), "peak_mb": float(peak), "seconds": time.perf_counter() - start}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = films(Path(name))
        seconds(ours, paths[:2]), seconds(plain, paths[:2])
        pairs = [(seconds(ours, paths), seconds(plain, paths)) for _ in range(ROUNDS)]
        memory = index_memory(Path(name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "films_per_second": 1 / statistics.median(a for a, _ in pairs),
        "plain_films_per_second": 1 / statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "peak_mb": peak,
        "index": memory,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
