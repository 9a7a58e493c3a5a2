"""Cost of each adaptation per case, relative to plain inference. Prints JSON.

    python benchmarks/adaptation_cost.py [--encoder vit_tiny_demo] [--cases 128] [--methods t3a tact style]

``relative`` is the time per case over that of plain inference on the same tokens at the cut, guard
included; ``without_views`` leaves out what the styled views cost in plain inference. Views are given
only to methods that need them.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial

import torch

from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.values import SourceFacts, Views
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.settings import AdaptSettings, ModelSettings
from mammopath.tensors import Batch

TARGETS = {"t3a": 1.3, "tact": 1.3, "style": 4.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="vit_tiny_demo")
    parser.add_argument("--cases", type=int, default=128)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--probe", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=list(TARGETS), choices=list(ADAPTATIONS))
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = build_network(ModelSettings(encoder=args.encoder)).eval()
    generator = torch.Generator().manual_seed(0)

    def batches(cases: int) -> list[Batch]:
        counts = range(0, cases, args.size)
        return [random_batch(network, min(args.size, cases - i), args.tokens, generator) for i in counts]

    stream, source = batches(args.cases), SourceFacts(probe=tuple(batches(args.probe)))
    plain = seconds(lambda: inference(network, stream), args.repeats)
    rows = []
    for method in args.methods:
        views = args.views if ADAPTATIONS[method].needs_views else 0
        given = [Views(batch, (batch,) * views) for batch in stream]
        for mode in ("online", "calibrate"):
            settings = AdaptSettings(mode=mode)
            spent = seconds(
                partial(adapt, network, given, method=method, settings=settings, source=source), args.repeats
            )
            relative = spent / plain
            rows.append(
                {
                    "method": method,
                    "mode": mode,
                    "ms_per_case": round(1000 * spent / args.cases, 3),
                    "relative": round(relative, 2),
                    "without_views": round(relative - views, 2),
                    "target": TARGETS.get(method),
                }
            )
    facts = vars(args) | {"plain_ms_per_case": round(1000 * plain / args.cases, 3), "rows": rows}
    print(json.dumps(facts, indent=2))


def random_batch(network: Network, count: int, tokens: int, generator: torch.Generator) -> Batch:
    prefix, unknown = network.shape.prefix, torch.full((count,), math.nan)
    index = torch.arange(count)
    return Batch(
        modality="mammogram",
        malignant=unknown,
        severity=unknown,
        domain=torch.zeros_like(index),
        patient=index,
        pair=-torch.ones_like(index),
        row=index,
        valid=torch.ones(count, tokens, dtype=torch.bool),
        lesion=torch.full((count, tokens), math.nan),
        tokens=torch.randn(count, prefix + tokens, network.shape.width, generator=generator),
        prefix=prefix,
    )


def inference(network: Network, stream: list[Batch]) -> None:
    with torch.no_grad():
        for batch in stream:
            network(batch)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Processor time of the shortest of some runs on one thread, so that other work does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
