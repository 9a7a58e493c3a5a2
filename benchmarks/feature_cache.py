"""Training from cached activations against training from images: steps per second, in one run.

    python benchmarks/feature_cache.py WEIGHTS

Both train the same steps of a frozen ViT-S/14 on synthetic fields. Prepared images are in memory, so decoding
does not count against the uncached way. Prints JSON.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from mammopath.cohort.loader import Pick, label_table, token_masks
from mammopath.cohort.store import Stored, TokenStore
from mammopath.features import SampleBank, TokenBank
from mammopath.model.weights import build_network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.settings import ModelSettings, RunSettings, TrainSettings
from mammopath.tensors import Sample
from mammopath.train import forward, new_optimizer
from mammopath.types import Record

IMAGES, SIDE, STEPS = 16, 224, 3


def cohort() -> tuple[list[Record], dict[int, Sample]]:
    generator = torch.Generator().manual_seed(0)
    records = [
        Record(f"x/{i}", Path(f"{i}.png"), f"p{i}", f"s{i % 2}", "pathology", malignant=float(i // 2 % 2))
        for i in range(IMAGES)
    ]
    valid, lesion = torch.ones(SIDE, SIDE, dtype=torch.bool), torch.full((SIDE, SIDE), math.nan)
    return records, {
        i: Sample(torch.rand(3, SIDE, SIDE, generator=generator), valid, lesion) for i in range(IMAGES)
    }


def main() -> None:
    model = ModelSettings(
        encoder="vit_small_patch14_dinov2",
        weights=Path(sys.argv[1]),
        readout={"pathology": (6,)},
        cut={"pathology": 5},
        token_pool={"pathology": 2},
    )
    settings = RunSettings(model=model, train=TrainSettings(precision="bf16"))
    network = build_network(model)
    recipe, sites = method_recipe("erm", {}), {"pathology": 2}
    objective = Objective(recipe, width=network.embedding_width, align_width=256, domains=sites, steps=9)
    records, samples = cohort()
    labels = label_table(records, {"pathology": ("s0", "s1")})
    uncached = SampleBank(records, labels, settings, network, kept=samples)
    optimizer = new_optimizer(network, objective, settings.train)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        keys = [{0: f"{i:064d}"} for i in range(IMAGES)]
        cached = TokenBank(fill(Path(folder), network, samples), keys, labels)

        def step(bank: TokenBank | SampleBank) -> float:
            start = time.perf_counter()
            batch = {"pathology": bank.batch("pathology", [Pick(i, 0) for i in range(IMAGES)])}
            outputs, _ = forward(network.train(), objective, batch, settings.train, generator)
            terms = objective(outputs, batch, step=1)
            optimizer.zero_grad()
            objective.backward(terms, network, clip=1.0)
            optimizer.step()
            return time.perf_counter() - start

        step(cached), step(uncached)
        pairs = [(step(cached), step(uncached)) for _ in range(STEPS)]
    quick, slow = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    found = {"images_per_step": IMAGES, "side": SIDE, "cached_s": quick, "uncached_s": slow}
    print(json.dumps(found | {"ratio": statistics.median(b / a for a, b in pairs)}))


def fill(folder: Path, network: torch.nn.Module, samples: dict[int, Sample]) -> TokenStore:
    store = TokenStore(folder)
    for i, found in enumerate(network.lower(list(samples.values()), "pathology", precision="bf16")):
        masks = token_masks(samples[i], network.cell("pathology"))
        empty = torch.zeros(0, 0).half()
        store.put(f"{i:064d}", Stored(found.half(), masks.valid, masks.lesion.half(), empty, masks.grid))
    return store


if __name__ == "__main__":
    main()
