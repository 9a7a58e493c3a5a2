"""What the guard's rule about order lets pass, and what that does to AUC. Prints JSON.

    python benchmarks/guard_rules.py [--first 300] [--seeds 5 6 7 8 9 10 11 12]

The small networks and shifted sites of the tests (``tests/adaptation_toys.py``), with seeds that tests do not
use. Every method at two learning rates calibrates on 192 cases with the guard off; then rules are held
against what came out. The first so many of all combinations, in an order shuffled by a fixed seed.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from adaptation_toys import PREVALENCE, SHIFTS, draw_cases, stream_of, tiny_source
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.guard import Evidence, Probe, Site, judge
from mammopath.adaptation.values import SourceFacts, Views
from mammopath.model.network import Network
from mammopath.settings import AdaptSettings, GuardSettings
from mammopath.tensors import Batch

HALF_A_POINT = 0.005
RATES: dict[str, tuple[float | None, ...]] = {
    **dict.fromkeys(("tent", "sar", "eata", "deyo"), (1.0, 0.1)),
    "shot_im": (0.01, 0.002),
    "style": (0.03, 0.005),
    "tact_adapt": (0.01, 0.002),
    "tact": (None,),
    "t3a": (None,),
}
RULES = {
    "everything": GuardSettings(enabled=False),
    "certificate": GuardSettings(likely_loss=0),
    "certificate or signs": GuardSettings(),
    "certificate or signs, limit 0.03": GuardSettings(likely_loss=0.03),
}
"""The third is the default."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=300)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5, 13)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    every = [
        (s, shift, m, lr) for s in args.seeds for shift in SHIFTS for m, own in RATES.items() for lr in own
    ]
    random.Random(1).shuffle(every)
    lines = [line for one in every[: args.first] for line in judged(*one)]
    print(json.dumps({name: summary([x for x in lines if name in x["passes"]]) for name in RULES}, indent=1))


def judged(seed: int, shift: str, method: str, lr: float | None) -> Iterator[dict[str, Any]]:
    """Change of AUC, and the rules that let it pass; nothing where the answers are the source's."""
    network, probe = tiny_source(seed), draw_cases(64, torch.Generator().manual_seed(900 + seed))
    batch = probe.batch(slice(0, 64))
    labels, stream = stream_of(shift, count=192, size=32, styled=4, seed=seed)
    settings = AdaptSettings(
        lr=lr, radius=1.0, epochs=2, least_steps=12, drop=0.0, guard=GuardSettings(enabled=False)
    )
    facts = SourceFacts(PREVALENCE, probe=(batch,))
    done = adapt(network, stream, method=method, settings=settings, source=facts)
    if done.report.adapted_cases and done.scores.isfinite().all():
        evidence = evidence_of(network, stream, done.scores)
        calls = Probe(scores(done.network, batch), scores(network, batch), probe.label)
        site = Site(PREVALENCE, mixed=False)
        passes = [n for n, r in RULES.items() if judge(evidence, calls, r, site=site).decision == "accept"]
        gain = roc_auc_score(labels, done.scores) - roc_auc_score(labels, evidence.source)
        yield {"gain": gain, "passes": passes}


def evidence_of(network: Network, stream: Sequence[Views], adapted: torch.Tensor) -> Evidence:
    """The source's answers beside the adapted ones."""
    source = torch.cat([scores(network, views.plain) for views in stream])
    styled = [torch.cat([scores(network, v.styled[k]) for v in stream]) for k in range(len(stream[0].styled))]
    return Evidence(adapted, source, torch.stack(styled))


def scores(network: Network, batch: Batch) -> torch.Tensor:
    """Logits without a gradient."""
    with torch.no_grad():
        return network(batch).logit


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many pass, and how many of those lose or gain more than half a point."""
    gains = [line["gain"] for line in lines]
    return {
        "adaptations": len(gains),
        "lost": sum(gain < -HALF_A_POINT for gain in gains),
        "gained": sum(gain > HALF_A_POINT for gain in gains),
        "worst": round(min(gains, default=0.0), 4),
        "best": round(max(gains, default=0.0), 4),
    }


if __name__ == "__main__":
    main()
