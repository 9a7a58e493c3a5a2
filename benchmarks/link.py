"""Does the link find the patient's tissue: with and without the contrast of regions and tissue, on a phantom.

    python benchmarks/link.py --out runs/link [--patients 200] [--seeds 0 1 2]

paints a phantom, trains each method on two of its sites from pairing and image labels alone (no outline of a
lesion teaches anything), and asks of new patients, of a left-out site and of the training sites, whose tissue
the regions of a mammogram attend to. Prints JSON and a Markdown table. Phantom numbers are not clinical.
"""

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mammopath.audit.pairs import Person, hit_table, summary
from mammopath.bench import Bench, prepare_bench
from mammopath.case.links import BY
from mammopath.case.values import plain
from mammopath.cohort.loader import Pick, label_table
from mammopath.cohort.splits import fold
from mammopath.config import parse
from mammopath.experiment import run
from mammopath.features import Bank
from mammopath.model.network import Network
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.runs import load_run
from mammopath.settings import RunSettings
from mammopath.tensors import Batch
from mammopath.types import MODALITIES, Modality

HELD_OUT, KNOWN = "site_c", "site_a"
MOST = 60
"""Patients of each label who are asked, at the most."""
WEAK = {"boxes": 0.0, "ordinal": 0.0}
"""No outline teaches the lesion map; the phantom knows no further ordinal target."""
METHODS: dict[str, dict[str, Any]] = {
    "multitask": {"tasks": WEAK},
    "linked": {"tasks": WEAK, "link": {"weight": 1.0}},
}
SETTINGS: dict[str, Any] = {
    "prepare": {
        "mammogram": {"height": 224, "width": 112},
        "pathology": {"height": 112, "width": 112},
        "draws": 0,
    },
    "model": {
        "encoder": "vit_small_patch14_dinov2",
        "weights": "../shared/weights/vit_small_patch14_dinov2.fp16.safetensors",
        "readout": {"mammogram": [9], "pathology": [9]},
        "cut": {"mammogram": 9, "pathology": 9},
        "adapter": "none",
        "dropout": 0.2,
    },
    "train": {"steps": 400, "batch": 16, "views": 1, "lr": 1e-3, "validate_every": 400},
    "select": "last",
    "for_prediction": False,
    "workers": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/link"))
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cohort = args.out / "cohort"
    if not (cohort / TRUTH).exists():
        generate(cohort, PhantomSettings(patients=args.patients, fields=1, seed=1))
    data = {"sources": [{"source": "phantom", "root": str(cohort)}], "validation": 0.3}
    settings = parse(RunSettings, SETTINGS | {"data": data})
    bench = prepare_bench(settings, cache=args.out / "cache")
    rows = []
    for method in args.methods:
        chosen = [_settings(settings, method, seed) for seed in args.seeds]
        rows += judged(bench, {one.seed: (one, trained(bench, one, args.out)) for one in chosen}, method)
    print(json.dumps(rows, indent=1))
    print(table(rows))


def trained(bench: Bench, settings: RunSettings, out: Path) -> Network:
    """The network of one method and seed; a run that is there is not trained again."""
    folder = out / f"{settings.name}_{settings.seed}"
    if not folder.exists():
        run(bench, settings, held_out=HELD_OUT, folder=folder)
    return load_run(folder).network.requires_grad_(False)


def judged(
    bench: Bench, networks: Mapping[int, tuple[RunSettings, Network]], method: str
) -> list[dict[str, Any]]:
    """Figures of the link at each group of new patients, over the networks of all seeds.

    The left-out site is the same for all; of a training site, each network is asked of the patients that its
    own fold kept from it.
    """
    rows = []
    for where, by in itertools.product((HELD_OUT, KNOWN), BY):
        names: list[str] = []
        tables = []
        for settings, network in networks.values():
            persons = _persons(bench, settings, where)
            names += [p.name for p in persons if p.annotated]
            tables.append(hit_table(network, persons, by=by))
        gains = [float((t[:, 1] - t[:, 2]).mean()) for t in tables]
        figures = plain(asdict(summary(np.concatenate(tables), names, by=by)))
        rows.append(
            {"method": method, "where": where, "gains": gains} | figures | {"patients": len(set(names))}
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: a row for each method, group of patients and kind of link."""
    head = ["method", "patients", "link by", "own tissue alone (chance)", "with three others' tissue"]
    head += ["permuted pairs", "chance", "true minus permuted", "by seed"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in rows:
        own, among, other, gain = (_shown(r[k]) for k in ("within", "among", "among_permuted", "gain"))
        seeds = ", ".join(f"{g:+.2f}" for g in r["gains"])
        cells = [f"`{r['method']}`", f"{r['patients']} of {r['where']}", r["by"]]
        cells += [f"{own} ({r['within_chance']:.2f})", among, other, f"{r['among_chance']:.2f}", gain, seeds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _settings(settings: RunSettings, method: str, seed: int) -> RunSettings:
    train = settings.train.model_copy(update={"method": method, "overrides": METHODS[method]})
    return settings.model_copy(update={"name": method, "train": train, "seed": seed})


def _persons(bench: Bench, settings: RunSettings, site: str) -> list[Person]:
    """Patients of a site that trained nothing, with the tokens that the bench keeps of their images."""
    share = {"validation": settings.data.validation, "test_share": settings.data.test_share}
    part = fold(bench.records, held_out=HELD_OUT, seed=settings.seed, **share)
    bank = bench.stored(label_table(bench.records, {}), settings)
    groups: dict[str, list[int]] = {}
    for row in (*part.test, *part.val):
        if bench.records[row].domain == site:
            groups.setdefault(bench.records[row].pair_key, []).append(row)
    labels = {key: bench.records[own[0]].malignant == 1 for key, own in groups.items()}
    chosen = [key for label in (True, False) for key in [k for k in groups if labels[k] == label][:MOST]]
    return [Person(k, labels[k], {m: _one(bank, bench, groups[k], m) for m in MODALITIES}) for k in chosen]


def _one(bank: Bank, bench: Bench, rows: Sequence[int], modality: Modality) -> Batch:
    own = [Pick(row, 0) for row in rows if bench.records[row].modality == modality]
    batch = bank.batch(modality, own)
    one = torch.zeros(len(own), dtype=torch.long)
    return replace(batch, pair=one, patient=one)


if __name__ == "__main__":
    main()
