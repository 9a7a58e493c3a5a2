"""Time and memory of prediction: a four-view exam with a ViT-S/14, and what maps cost beside it.

    python benchmarks/predict.py [CUT...]

Weights are random (time does not depend on them). Processor time with one thread; peak memory of the
process. The cost of a map is over that of running the network on tokens at the cut and over that of the
whole prediction of an image, reading and preparing left out.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mammopath.audit.subjects import scene_of
from mammopath.maps.methods import METHODS
from mammopath.maps.scene import Scene
from mammopath.model.weights import build_network
from mammopath.phantom.cohort import PhantomSettings, draw_cases
from mammopath.phantom.files import write_dicom
from mammopath.phantom.mammogram import paint_mammogram
from mammopath.phantom.sites import SITES
from mammopath.prepare.sample import load_sample
from mammopath.settings import ModelSettings, PrepareSettings, RunSettings
from mammopath.types import Record

VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]


def cpu(work: Callable[[], object], *, repeats: int = 2) -> float:
    """Median processor seconds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def settings(cut: int) -> RunSettings:
    model = ModelSettings(
        encoder="vit_small_patch14_dinov2",
        readout={"mammogram": (10,), "pathology": (6,)},
        cut={"mammogram": cut, "pathology": min(cut, 5)},
        adapter="none" if cut == 10 else "adaptformer",
    )
    return RunSettings(model=model, prepare=PrepareSettings())


def exam(folder: Path) -> list[Record]:
    """Four painted views at full size of their site."""
    case = next(iter(draw_cases(PhantomSettings(patients=1), "site_a", 1.0)))
    style = SITES["site_a"].mammogram
    records = []
    for side, view in VIEWS:
        path = folder / f"{side}_{view}.dcm"
        write_dicom(path, paint_mammogram(case, view, style).pixels, case, view=view, style=style)
        records.append(Record(path.name, path, "p", "s", "mammogram", laterality=case.side, view=view))
    return records


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        records = exam(Path(name))
        for cut in [int(a) for a in sys.argv[1:]] or [9, 0]:
            told = settings(cut)
            network = build_network(told.model).eval().requires_grad_(False)
            samples = [
                load_sample(r, told.prepare, multiple=network.cell("mammogram")).sample for r in records
            ]
            read = cpu(
                lambda told=told: [load_sample(r, told.prepare, multiple=14) for r in records], repeats=1
            )
            scenes = [scene_of(network, r, s, told) for r, s in zip(records, samples, strict=True)]
            scenes = [Scene(s.network, s.batch, s.said()) for s in scenes]
            whole = cpu(
                lambda network=network, told=told, samples=samples: [
                    network.upper(scene_of(network, r, s, told).batch)
                    for r, s in zip(records, samples, strict=True)
                ]
            )
            upper = cpu(lambda network=network, scenes=scenes: [network.upper(s.batch) for s in scenes])
            maps = {
                n: cpu(lambda m=m, scenes=scenes: m.make(scenes[0]), repeats=1) for n, m in METHODS.items()
            }
            found[f"cut {cut}"] = {
                "exam_seconds": round(read + whole, 2),
                "reading_seconds": round(read, 2),
                "network_seconds": round(whole, 2),
                "above_the_cut_seconds": round(upper, 2),
                "whole_with_map_over_whole": {
                    n: round(1 + len(scenes) * s / whole, 3) for n, s in maps.items()
                },
                "map_over_above_the_cut": {n: round(len(scenes) * s / upper, 2) for n, s in maps.items()},
            }
    found["peak_memory_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
