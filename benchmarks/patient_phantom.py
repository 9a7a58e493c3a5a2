"""What prediction makes of phantom patients: errors of the concordance rule, maps and links against truth.

    python benchmarks/patient_phantom.py --out runs/patients

paints a phantom, trains a run on two of its sites, and judges the third: about five CPU minutes. With
``--run`` and ``--phantom`` it judges what is there already. Prints JSON. Phantom numbers are not clinical.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from mammopath.audit.audit import audit_run
from mammopath.bench import prepare_bench
from mammopath.case.concordance import VERDICTS, concordance
from mammopath.case.inputs import cases_of_manifest
from mammopath.case.predictor import Predictor
from mammopath.case.values import Prediction
from mammopath.cohort import manifest
from mammopath.config import parse
from mammopath.experiment import run
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import generate
from mammopath.settings import RunSettings
from mammopath.sources.phantom import index

HELD_OUT = "site_c"

SETTINGS: dict[str, Any] = {
    "prepare": {"mammogram": {"height": 192, "width": 96}, "pathology": {"height": 96, "width": 96}},
    "model": {"encoder": "vit_tiny_demo", "train_trunk": "all"},
    "train": {
        "method": "multitask",
        "steps": 300,
        "batch": 8,
        "lr": 1e-3,
        "trunk_lr": 1e-3,
        "validate_every": 50,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/patients"))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--phantom", type=Path)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    phantom = options.phantom or options.out / "phantom"
    if not phantom.exists():
        generate(phantom, PhantomSettings(patients=60, seed=1))
    listed = manifest.collect(index(phantom), source="phantom", root=phantom, domain="")
    options.out.mkdir(parents=True, exist_ok=True)
    manifest.write(listed, options.out / "phantom.parquet")
    folder = options.run or trained(options.out)
    audit = audit_run(folder, options.out / "phantom.parquet", images=options.images, site=HELD_OUT)
    told = audit.to_json(Predictor.load(folder).run)
    found = {
        "concordance, held-out site": rates(folder, phantom, HELD_OUT),
        "concordance, new patients of a training site": rates(folder, known_site(options.out), "site_a"),
        "maps": told["maps"],
        "links": told["links"],
    }
    print(json.dumps(found, indent=1))


def known_site(out: Path) -> Path:
    """Patients whom the run has never seen, recorded as one of its training sites records."""
    if not (out / "known").exists():
        generate(
            out / "known", PhantomSettings(sites=("site_a",), patients=40, prevalence={"site_a": 0.5}, seed=2)
        )
    return out / "known"


def trained(out: Path) -> Path:
    data = {"manifests": [out / "phantom.parquet"], "validation": 0.3}
    settings = parse(RunSettings, SETTINGS | {"data": data})
    run(prepare_bench(settings, cache=out / "cache"), settings, held_out=HELD_OUT, folder=out / "run")
    return out / "run"


def rates(folder: Path, phantom: Path, site: str) -> dict[str, Any]:
    """Verdicts by truth; discordant truth is made by giving each patient another one's tissue."""
    predictor = Predictor.load(folder)
    listed = manifest.collect(index(phantom), source="phantom", root=phantom, domain="")
    cases = [c for c in cases_of_manifest(listed) if c.records[0].domain == site]
    said = [(c.records[0].malignant == 1, predictor(c)) for c in cases]
    sick, well = [p for bad, p in said if bad], [p for bad, p in said if not bad]
    count = min(len(sick), len(well))
    pairs = {
        "both malignant": list(zip(sick, sick, strict=True)),
        "both benign": list(zip(well, well, strict=True)),
        "mammogram malignant, tissue benign": list(zip(sick[:count], well[:count], strict=True)),
        "mammogram benign, tissue malignant": list(zip(well[:count], sick[:count], strict=True)),
    }
    return {truth: _shares(group) for truth, group in pairs.items()}


def _shares(pairs: list[tuple[Prediction, Prediction]]) -> dict[str, Any]:
    given = [concordance(m.score("patient", "mammogram"), t.score("patient", "pathology")) for m, t in pairs]
    found: dict[str, Any] = {"pairs": len(given)}
    for verdict in VERDICTS:
        count = sum(g.verdict == verdict for g in given)
        limits = binomtest(count, len(given)).proportion_ci(method="wilson")
        found[verdict] = [round(v, 3) for v in (count / len(given), limits.low, limits.high)]
    reasons = [g.direction for g in given if g.verdict == "insufficient"]
    found["insufficient because"] = {r: reasons.count(r) for r in sorted(set(reasons))}
    strength = [g.strength for g in given if g.strength is not None]
    found["median strength"] = round(float(np.median(strength)), 3) if strength else None
    return found


if __name__ == "__main__":
    main()
