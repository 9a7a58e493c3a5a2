"""A run folder with everything that prediction needs, trained once for all tests of a process."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from mammopath.bench import prepare_bench
from mammopath.case.folder import LINES
from mammopath.case.inputs import cases_of_manifest
from mammopath.case.values import Case
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.experiment import run
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.settings import RunSettings
from mammopath.sources.phantom import index

SMALL = {
    "prepare": {
        "mammogram": {"height": 96, "width": 48},
        "pathology": {"height": 48, "width": 48},
        "draws": 0,
    },
    "model": {"train_trunk": "all", "pool_width": 8, "align_width": 8, "adapter": "none"},
    "train": {"method": "multitask", "steps": 6, "batch": 4, "validate_every": 6},
    "data": {"validation": 0.4},
}


@cache
def trained() -> tuple[Path, manifest.Manifest]:
    """A folder with a run (``run``) that left site_b out, and the manifest of its phantom."""
    folder = Path(tempfile.mkdtemp(prefix="case"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = folder / "phantom"
    generate(root, PhantomSettings(sites=("site_a", "site_b"), patients=14, fields=1))
    listed = manifest.collect(index(root), source="phantom", root=root, domain="")
    manifest.write(listed, folder / "phantom.parquet")
    data = SMALL["data"] | {"manifests": [folder / "phantom.parquet"]}
    settings = parse(RunSettings, SMALL | {"data": data})
    bench = prepare_bench(settings, cache=folder / "cache")
    run(bench, settings, held_out="site_b", folder=folder / "run")
    return folder, listed


def new_cases() -> list[Case]:
    """Patients of the site that was left out."""
    return [c for c in cases_of_manifest(trained()[1]) if c.records[0].domain == "site_b"]


def lines(out: Path) -> dict[str, dict]:
    return {one["case"]: one for one in map(json.loads, (out / LINES).read_text().splitlines())}


def files(case: Case, modality: str) -> list[Path]:
    return [r.path for r in case.records if r.modality == modality]
