"""How much AUC adaptation costs at worst, on streams of shifted images of the site left out. Prints JSON.

    python benchmarks/stress_streams.py runs/real_small/runs/bach__erm__0 [more runs] [--methods t3a tact]

For each run: images of the held-out site, as many of each class, changed in ten ways in front of the trunk;
in batches of 1, 2 and 16; shuffled, and sorted by label; with the guard on and, in batches of 16, off. A loss
is the AUC of the source on the same images less that of the adapted answers.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.values import SourceFacts, Views
from mammopath.adapting import source_facts
from mammopath.bench import read_cohort
from mammopath.cohort.loader import Labels, collate, label_table, token_masks
from mammopath.cohort.splits import fold
from mammopath.cohort.store import Stored
from mammopath.features import SampleBank, augmented, plain_view
from mammopath.runs import Run, load_run
from mammopath.settings import AdaptSettings, GuardSettings
from mammopath.tensors import Sample
from mammopath.types import Modality, Record

HALF_A_POINT = 0.005
SIZES = (1, 2, 16)


def blurred(image: Tensor) -> Tensor:
    """A box of five pixels, twice."""
    for _ in range(2):
        image = F.avg_pool2d(F.pad(image[None], (2, 2, 2, 2), mode="replicate"), 5, stride=1)[0]
    return image


def halved(image: Tensor) -> Tensor:
    """Half the resolution, at the old size."""
    small = F.avg_pool2d(image[None], 2)
    return F.interpolate(small, size=image.shape[1:], mode="bilinear", align_corners=False)[0]


def noisy(image: Tensor) -> Tensor:
    """Noise of a tenth of the range, the same for every image."""
    generator = torch.Generator().manual_seed(0)
    return image + 0.1 * torch.randn(image.shape, generator=generator)


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda image: image,
    "dark": lambda image: image**2,
    "bright": lambda image: image**0.5,
    "faint": lambda image: 0.5 * image + 0.25,
    "harsh": lambda image: 1.8 * (image - 0.5) + 0.5,
    "inverted": lambda image: 1 - image,
    "blurred": blurred,
    "half resolution": halved,
    "noisy": noisy,
    "shaded": lambda image: image * torch.linspace(0.4, 1.2, image.shape[2]),
}
"""Changes of images in [0, 1]; what leaves the range is cut off."""


@dataclass(frozen=True)
class Shifted:
    """Images of one site under one shift: labels, and views at the cut, plain and styled."""

    labels: Labels
    rows: Sequence[int]
    plain: Sequence[Stored]
    styled: Sequence[Stored]

    def stream(self, order: Sequence[int], size: int, *, needs_views: bool) -> list[Views]:
        """Batches of ``size`` in that order."""
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        return [
            Views(self._batch(part, self.plain), (self._batch(part, self.styled),) if needs_views else ())
            for part in parts
        ]

    def _batch(self, part: Sequence[int], views: Sequence[Stored]) -> Any:
        return collate(self.labels, [self.rows[i] for i in part], [views[i] for i in part])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=[m for m in ADAPTATIONS if m != "none"])
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS))
    parser.add_argument("--modality", choices=("mammogram", "pathology"), default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [
        line
        for folder in args.runs
        for line in stressed(
            load_run(folder), args.methods, args.shifts, cases=args.cases, modality=args.modality
        )
    ]
    print(json.dumps({"cases": args.cases, "summary": summary(found), "streams": found}, indent=1))


def stressed(
    run: Run, methods: Sequence[str], shifts: Sequence[str], *, cases: int, modality: Modality | None
) -> Iterator[dict[str, Any]]:
    """One line for each stream of a run."""
    records, told = read_cohort(run.settings.data).records, run.settings
    part = fold(
        records,
        held_out=run.facts["held_out"],
        validation=told.data.validation,
        test_share=told.data.test_share,
        seed=told.seed,
    )
    kind = modality or records[part.test[0]].modality
    labels = label_table(records, run.facts["sites"])
    bank = SampleBank(records, labels, told, run.network)
    facts = source_facts(run.network, bank, records, train=part.train, probe=part.val, modality=kind)
    rows = balanced(records, [r for r in part.test if records[r].modality == kind], cases)
    for name in shifts:
        shifted = shifted_views(run, records, labels, rows, SHIFTS[name])
        for line in streams(run, shifted, methods, facts):
            yield {"run": run.folder.name, "modality": kind, "shift": name} | line


def balanced(records: Sequence[Record], rows: Sequence[int], cases: int) -> list[int]:
    """As many of each class, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    classes = [[r for r in rows if records[r].malignant == label] for label in (0.0, 1.0)]
    return sorted(int(r) for own in classes for r in rng.permutation(own)[: cases // 2])


def shifted_views(
    run: Run,
    records: Sequence[Record],
    labels: Labels,
    rows: Sequence[int],
    shift: Callable[[Tensor], Tensor],
) -> Shifted:
    """Images through the shift and the lower trunk, plain and in another style."""
    plain, styled = [], []
    for row in rows:
        sample = plain_view(records[row], run.settings, run.network)
        moved = replace(sample, image=shift(sample.image).clamp(0, 1) * sample.valid)
        plain.append(at_cut(run, moved, records[row].modality))
        other = augmented(moved, records[row], -1, run.settings)
        styled.append(at_cut(run, other, records[row].modality))
    return Shifted(labels, rows, plain, styled)


def at_cut(run: Run, sample: Sample, modality: Modality) -> Stored:
    """One view as the store would keep it."""
    masks = token_masks(sample, run.network.cell(modality))
    tokens = run.network.lower([sample], modality)[0]
    return Stored(tokens, masks.valid, masks.lesion, torch.zeros(0, 0), masks.grid)


def streams(
    run: Run, shifted: Shifted, methods: Sequence[str], facts: SourceFacts
) -> Iterator[dict[str, Any]]:
    """Every method, batch size and order; the guard is off in batches of 16 alone."""
    truth = shifted.labels.malignant[list(shifted.rows)].numpy()
    orders = {
        "shuffled": np.random.default_rng(1).permutation(len(truth)).tolist(),
        "sorted": np.argsort(truth, kind="stable").tolist(),
    }
    for size, (order, places) in ((s, o) for s in SIZES for o in orders.items()):
        plain = shifted.stream(places, size, needs_views=False)
        with torch.no_grad():
            before = torch.cat([run.network(views.plain).logit for views in plain]).numpy()
        source = roc_auc_score(truth[places], before)
        for method in methods:
            stream = shifted.stream(places, size, needs_views=True)
            for guard in (True, False) if size == 16 else (True,):
                settings = AdaptSettings(mode="online", guard=GuardSettings(enabled=guard))
                done = adapt(run.network, stream, method=method, settings=settings, source=facts)
                loss = source - roc_auc_score(truth[places], done.scores.numpy())
                yield {
                    "size": size,
                    "order": order,
                    "method": method,
                    "guard": guard,
                    "source_auc": round(source, 4),
                    "loss": round(loss, 4),
                    "answered_adapted": done.report.adapted_cases,
                }


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Worst and mean loss of each method, and the share of streams that lose more than half a point."""
    rows = []
    for method, guard in sorted({(line["method"], line["guard"]) for line in lines}):
        own = [line["loss"] for line in lines if (line["method"], line["guard"]) == (method, guard)]
        hurt = sum(loss > HALF_A_POINT for loss in own)
        told = {"streams": len(own), "worst": max(own), "mean": round(statistics.fmean(own), 4), "hurt": hurt}
        rows.append({"method": method, "guard": guard} | told)
    return rows


if __name__ == "__main__":
    main()
