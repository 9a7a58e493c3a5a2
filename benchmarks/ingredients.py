"""Cost of a training step of each ingredient, relative to plain ERM. Prints JSON.

    python benchmarks/ingredients.py [--rounds 9] [--steps 2] [--batch 16] [--tokens 128] [--methods ...]

Random tokens in place of cached ones, two sites of two modalities, one block of a ViT-S above the cut. In
every round each method takes a few steps, in a new order; ``relative`` is the median over rounds of its time
over that of ERM in the same round; processor time of one thread, for which other programs hardly count.
Loading of batches is left out.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mammopath.model.encoders import ENCODERS
from mammopath.model.network import Network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.settings import ModelSettings, TrainSettings
from mammopath.tensors import Batch
from mammopath.train import forward, new_optimizer
from mammopath.types import MODALITIES, Modality

TARGETS = {"mixstyle": 1.02, "irm": 1.25, "align": 1.10}
METHODS = (
    "erm",
    "mixstyle",
    "efdmix",
    "dsu",
    "irm",
    "vrex",
    "groupdro",
    "coral",
    "dann",
    "fishr",
    "align",
    "full",
)
SITES, PREFIX, PER_PATIENT = 2, 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--encoder", default="vit_small_patch14_dinov2")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = list(dict.fromkeys(["erm", *args.methods]))
    steps = {name: stepper(name, args) for name in methods}
    for step in steps.values():
        step()  # the first step makes what later ones use again
    rounds = [timed_round(steps, args.steps, seed) for seed in range(args.rounds)]
    rows = []
    for name in methods:
        ratios = [times[name] / times["erm"] for times in rounds]
        low, relative, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        target = TARGETS.get(name)
        rows.append(
            {
                "method": name,
                "ms_per_step": round(1000 * float(np.median([times[name] for times in rounds])), 1),
                "relative": round(relative, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "target": target,
                "within": None if target is None else relative <= target,
            }
        )
    print(json.dumps(vars(args) | {"torch": torch.__version__, "rows": rows}, indent=2))


def stepper(method: str, args: argparse.Namespace) -> Callable[[], None]:
    """One training step of a method, as the loop takes it."""
    recipe = method_recipe(method, {})
    blocks = ModelSettings(
        readout=dict.fromkeys(MODALITIES, (1,)),
        cut=dict.fromkeys(MODALITIES, 0),
        fusion=recipe.tasks.fusion > 0 and recipe.tasks.fusion_kind == "cross",
    )
    settings = TrainSettings(batch=args.batch)
    torch.manual_seed(0)
    network = Network(blocks, replace(ENCODERS[args.encoder].shape, depth=1)).train()
    objective = Objective(
        recipe,
        width=network.embedding_width,
        align_width=blocks.align_width,
        domains=dict.fromkeys(recipe.modalities, SITES),
        steps=1000,
    ).train()
    optimizer = new_optimizer(network, objective, settings)
    generator = torch.Generator().manual_seed(0)
    batches = {m: random_batch(m, args, network.shape.width) for m in recipe.modalities}

    def step() -> None:
        outputs, fused = forward(network, objective, batches, settings, generator)
        terms = objective(outputs, batches, step=900, fused=fused)  # after every annealing
        optimizer.zero_grad(set_to_none=True)
        objective.backward(terms, network, clip=settings.clip)
        optimizer.step()

    return step


def random_batch(modality: Modality, args: argparse.Namespace, width: int) -> Batch:
    """Images of two sites, both classes in each, several of a patient, every patient in both modalities."""
    count = SITES * args.batch
    generator = torch.Generator().manual_seed(MODALITIES.index(modality))
    index = torch.arange(count)
    malignant = (index // PER_PATIENT % 2).float()
    return Batch(
        modality=modality,
        malignant=malignant,
        severity=malignant * 3,
        domain=index // args.batch,
        patient=index // PER_PATIENT,
        pair=index // PER_PATIENT,
        row=index,
        valid=torch.ones(count, args.tokens, dtype=torch.bool),
        lesion=torch.full((count, args.tokens), math.nan),
        tokens=torch.randn(count, PREFIX + args.tokens, width, generator=generator),
        prefix=PREFIX,
    )


def timed_round(steps: dict[str, Callable[[], None]], count: int, seed: int) -> dict[str, float]:
    """Seconds per step of each method, step by step in turn, each turn in another order."""
    chance, spent = random.Random(seed), dict.fromkeys(steps, 0.0)
    for _ in range(count):
        for name in chance.sample(list(steps), len(steps)):
            start = time.process_time()
            steps[name]()
            spent[name] += (time.process_time() - start) / count
    return spent


if __name__ == "__main__":
    main()
