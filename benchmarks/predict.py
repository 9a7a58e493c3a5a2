"""Time and memory of prediction: a four-view exam with a ViT-S/14, a slide, what maps cost, what bf16 gives.

    python benchmarks/predict.py [--run RUN --manifest phantom.parquet --site SITE]

Weights are random, as time does not depend on them; the four views are painted at 0.07 mm per pixel (2929 x
2200, 16 bits), the slide 20,000 pixels a side at 0.5 um, three quarters of it tissue, read in fields of 364 x
504 pixels of 1.78 um. Each goes through ``Predictor`` in a process of its own, one thread; processor seconds,
which other work does not lengthen much. The cost of a map is over that of what the network makes of the same
images from pixels to scores, reading and preparing left out. With a run of the phantom, as trained by
``patient_phantom.py``, its AUC at a site is told in float32 and in bf16. Prints JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mammopath.audit.subjects import scene_of
from mammopath.case.inputs import case_of_files, cases_of_manifest
from mammopath.case.predictor import Predictor
from mammopath.cohort import manifest
from mammopath.confidence import write_confidence
from mammopath.maps.methods import CHEAP, METHODS
from mammopath.maps.scene import Scene
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.phantom.cohort import PhantomSettings, draw_cases
from mammopath.phantom.files import write_dicom
from mammopath.phantom.mammogram import paint_mammogram
from mammopath.phantom.shapes import Ellipse
from mammopath.phantom.sites import SITES
from mammopath.phantom.slide import Area, SlidePlan, write_slide
from mammopath.phantom.texture import STROMA, TUMOUR
from mammopath.prepare.sample import load_sample
from mammopath.runs import save_facts, save_model
from mammopath.settings import ModelSettings, PathologySettings, PrepareSettings, RunSettings, TrainSettings
from mammopath.tensors import Sample
from mammopath.types import Record

VIEWS = ("CC", "MLO")
MM = 0.07


def cpu(work: Callable[[], object], *, repeats: int = 2) -> float:
    """Median processor seconds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


PLAIN = PrepareSettings()
FIELDS = PrepareSettings(pathology=PathologySettings(height=364, width=504, um=1.78))


def settings(cut: int, *, bits: str = "fp32", prepare: PrepareSettings = PLAIN) -> RunSettings:
    model = ModelSettings(
        encoder="vit_small_patch14_dinov2",
        readout={"mammogram": (10,), "pathology": (6,)},
        cut={"mammogram": cut, "pathology": min(cut, 5)},
        adapter="none" if cut == 10 else "adaptformer",
    )
    train = TrainSettings(precision=bits, trunk_precision=bits)
    return RunSettings(model=model, prepare=prepare, train=train)


def exam(folder: Path) -> list[Path]:
    """Four painted views of one patient, of both breasts, at full size."""
    style = replace(SITES["site_a"].mammogram, mm=MM)
    case = next(iter(draw_cases(PhantomSettings(patients=1), "site_a", 1.0)))
    paths = []
    for side in "LR":
        one = replace(case, side=side)
        for view in VIEWS:
            paths.append(folder / f"{side}_{view}.dcm")
            write_dicom(paths[-1], paint_mammogram(one, view, style).pixels, one, view=view, style=style)
    return paths


def slide(folder: Path, *, side: int = 20_000) -> None:
    """A painted slide: stroma with a tumour in it, on glass."""
    folder.mkdir()
    areas = [
        Area(Ellipse(side / 2, side / 2, share * side).outline(corners=64), kind)
        for share, kind in ((0.48, STROMA), (0.1, TUMOUR))
    ]
    write_slide(folder / "slide.tif", SlidePlan(side, 0.5, tuple(areas), SITES["site_a"].tissue))


def run_folder(folder: Path, told: RunSettings) -> Path:
    """A run of random weights that a predictor will load."""
    torch.manual_seed(0)
    network = build_network(told.model)
    folder.mkdir()
    save_model(folder, network.trained_state(), told.model_copy(update={"model": network.settings}))
    write_confidence(folder, {})
    save_facts(folder, {"recipe": {"tasks": {"lesion": 0.5}}})
    return folder


def one_exam(run: Path, images: Path, maps: list[str]) -> dict[str, Any]:
    """Load a run and predict a case twice: the first time as a user meets it, the second time warm."""
    start = time.process_time()
    predictor = Predictor.load(run, maps=maps)
    loaded = time.process_time() - start
    case = case_of_files(sorted(images.glob("*.dcm")), sorted(images.glob("*.tif")))
    times = []
    for _ in range(2):
        start = time.process_time()
        said = predictor(case)
        times.append(round(time.process_time() - start, 2))
    told = {"load_seconds": round(loaded, 2), "exam_seconds": times, "peak_memory_MiB": peak_memory()}
    return told | {"fields": sum(i.fields for i in said.images)}


def peak_memory() -> int:
    """Of this program, in MiB; what getrusage tells begins with the process that started it."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def in_a_process(run: Path, images: Path, maps: tuple[str, ...]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--exam", str(run), str(images), ",".join(maps)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def map_costs(
    network: Network, told: RunSettings, records: list[Record], samples: list[Sample]
) -> dict[str, Any]:
    scenes = [scene_of(network, r, s, told) for r, s in zip(records, samples, strict=True)]
    scenes = [Scene(s.network, s.batch, s.said()) for s in scenes]

    def whole() -> None:
        for record, sample in zip(records, samples, strict=True):
            network.upper(scene_of(network, record, sample, told).batch)

    with torch.no_grad():
        all_of_it = cpu(whole)
        above = cpu(lambda: [network.upper(s.batch) for s in scenes])
    costs = {name: cpu(lambda m=m: [m.make(s) for s in scenes], repeats=1) for name, m in METHODS.items()}
    return {
        "network_seconds": round(all_of_it, 2),
        "above_the_cut_seconds": round(above, 2),
        "with_map_over_without": {n: round(1 + s / all_of_it, 2) for n, s in costs.items()},
    }


def compiled(cut: int, records: list[Record], samples: list[Sample]) -> dict[str, float]:
    """Network seconds with every block compiled, and what compiling takes."""
    told = settings(cut)
    network = build_network(told.model).eval().requires_grad_(False)

    def whole() -> None:
        with torch.no_grad():
            for record, sample in zip(records, samples, strict=True):
                network.upper(scene_of(network, record, sample, told).batch)

    plain = cpu(whole)
    for block in network.trunk.blocks:
        block.compile(dynamic=True)
    start = time.process_time()
    whole()
    first = time.process_time() - start
    return {
        "plain": round(plain, 2),
        "compiled": round(cpu(whole), 2),
        "first_with_compiling": round(first, 2),
    }


def aucs(run: Path, listed: Path, site: str) -> dict[str, Any]:
    """AUC per image at a site in float32 and bf16, by modality, and the largest change of a logit."""
    plain = Predictor.load(run)
    train = plain.run.settings.train.model_copy(update={"precision": "bf16", "trunk_precision": "bf16"})
    changed = plain.run.settings.model_copy(update={"train": train})
    half = replace(plain, run=replace(plain.run, settings=changed))
    cases = [c for c in cases_of_manifest(manifest.read(listed)) if c.records[0].domain == site]
    found: dict[str, Any] = {}
    rows = {
        name: [(i.record.modality, i.record.malignant, i.score.logit) for c in cases for i in p(c).images]
        for name, p in (("fp32", plain), ("bf16", half))
    }
    for modality in plain.run.network.modalities:
        told = {n: [(y, z) for m, y, z in r if m == modality] for n, r in rows.items()}
        labels = np.array([y for y, _ in told["fp32"]])
        logits = {n: np.array([z for _, z in r]) for n, r in told.items()}
        found[modality] = {n: round(float(auc(labels, z)), 4) for n, z in logits.items()}
        found[modality]["largest change"] = round(float(abs(logits["fp32"] - logits["bf16"]).max()), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--exam", nargs=3)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--site", default="site_c")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.exam:
        run, images, maps = options.exam
        print(json.dumps(one_exam(Path(run), Path(images), maps.split(","))))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = exam(folder)
        records = list(case_of_files(paths, []).records)
        for cut in (9, 0):
            told = settings(cut)
            run = run_folder(folder / f"run{cut}", told)
            network = build_network(told.model).eval().requires_grad_(False)
            samples = [load_sample(r, told.prepare, multiple=14).sample for r in records]
            found[f"cut {cut}"] = {
                "exam": in_a_process(run, folder, CHEAP),
                "exam with relevance": in_a_process(run, folder, (*CHEAP, "relevance")),
                "maps": map_costs(network, told, records, samples),
            }
        slide(folder / "slide")
        of_fields = run_folder(folder / "fields", settings(5, prepare=FIELDS))
        found["slide of 20,000 pixels, cut 5"] = in_a_process(of_fields, folder / "slide", CHEAP)
        half = run_folder(folder / "half", settings(9, bits="bf16"))
        found["exam in bf16, cut 9"] = in_a_process(half, folder, CHEAP)
        found["network seconds, cut 9, blocks compiled"] = compiled(9, records, samples)
    if options.run:
        found["AUC"] = aucs(options.run, options.manifest, options.site)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
