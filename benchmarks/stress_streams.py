"""How much AUC adaptation costs at worst, on streams of shifted images of the site left out. Prints JSON.

    python benchmarks/stress_streams.py --phantom runs/stress
    python benchmarks/stress_streams.py runs/real_small [more studies or runs] [--methods t3a tact]

For each run, a study's `erm` of its first seed at every site: images of the held-out site, as many of each
class, changed in ten ways in front of the trunk; in batches of 1, 2 and 16; shuffled, and sorted by label;
along the stream and, in batches of 16, calibrated on all of it; with the guard on and, in batches of 16, off.
A loss is the AUC of the source on the same images less that of the adapted answers. The phantom is painted,
and a small network trained on two of its hospitals from scratch, in the folder named, unless they are there.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from mammopath.config import parse
from mammopath.demo import demo_settings
from mammopath.features import SampleBank, augmented, plain_view
from mammopath.lodo import lodo
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.prepare.augment import hide_middle
from mammopath.runs import Run, load_run
from mammopath.settings import AdaptSettings, GuardSettings
from mammopath.site_stream import style_numbers
from mammopath.tensors import Sample
from mammopath.types import Modality, Record

HALF_A_POINT = 0.005
SIZES = (1, 2, 16)
STYLED = 2
ALL_WAYS: tuple[tuple[Literal["online", "calibrate"], bool], ...] = (
    ("online", True),
    ("online", False),
    ("calibrate", True),
    ("calibrate", False),
)
"""Mode, and whether the guard is on; the first in batches of every size."""


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
    """Images of one site under one shift: labels and views at the cut; plain, styled, middle hidden."""

    labels: Labels
    rows: Sequence[int]
    plain: Sequence[Stored]
    styled: Sequence[Sequence[Stored]]
    hidden: Sequence[Stored]

    def stream(self, order: Sequence[int], size: int) -> list[Views]:
        """Batches of ``size`` in that order."""
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        return [
            Views(
                self._batch(part, self.plain),
                tuple(self._batch(part, own) for own in self.styled),
                self._batch(part, self.hidden),
            )
            for part in parts
        ]

    def _batch(self, part: Sequence[int], views: Sequence[Stored]) -> Any:
        return collate(self.labels, [self.rows[i] for i in part], [views[i] for i in part])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--phantom", type=Path, default=None)
    parser.add_argument("--patients", type=int, default=48)
    parser.add_argument("--cases", type=int, default=192)
    parser.add_argument("--methods", nargs="+", default=[m for m in ADAPTATIONS if m != "none"])
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS))
    parser.add_argument("--modality", choices=("mammogram", "pathology"), default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run for folder in args.folders for run in runs_of(folder)]
    runs += [phantom_run(args.phantom, args.patients)] if args.phantom else []
    if not runs:
        parser.error("name a study, a run, or --phantom FOLDER")
    found = [
        line
        for folder in runs
        for line in stressed(
            load_run(folder), args.methods, args.shifts, cases=args.cases, modality=args.modality
        )
    ]
    print(json.dumps({"cases": args.cases, "summary": summary(found), "streams": found}, indent=1))


def runs_of(folder: Path) -> list[Path]:
    """A run, or the ERM runs of a study's first seed."""
    return sorted((folder / "runs").glob("*__erm__0")) if (folder / "runs").is_dir() else [folder]


def phantom_run(folder: Path, patients: int) -> Path:
    """The small network of the demo, trained on two hospitals of a phantom."""
    cohort, study = folder / "cohort", folder / "study"
    if not (cohort / TRUTH).exists():
        generate(cohort, parse(PhantomSettings, {"patients": patients, "fields": 1}))
    changes = ["held_out=[site_c]", "in_domain=false", "for_prediction=false", "workers=1"]
    lodo(demo_settings(cohort, changes), study)
    return study / "runs" / "site_c__erm__0"


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
    plain: list[Stored] = []
    styled: list[list[Stored]] = [[] for _ in range(STYLED)]
    hidden: list[Stored] = []
    for row in rows:
        sample = plain_view(records[row], run.settings, run.network)
        moved = replace(sample, image=shift(sample.image).clamp(0, 1) * sample.valid)
        plain.append(at_cut(run, moved, records[row].modality))
        for own, number in zip(styled, style_numbers(STYLED), strict=True):
            other = augmented(moved, records[row], number, run.settings)
            own.append(at_cut(run, other, records[row].modality))
        hidden.append(at_cut(run, hide_middle(moved), records[row].modality))
    return Shifted(labels, rows, plain, styled, hidden)


def at_cut(run: Run, sample: Sample, modality: Modality) -> Stored:
    """One view as the store would keep it."""
    masks = token_masks(sample, run.network.cell(modality))
    tokens = run.network.lower([sample], modality)[0]
    return Stored(tokens, masks.valid, masks.lesion, torch.zeros(0, 0), masks.grid)


def streams(
    run: Run, shifted: Shifted, methods: Sequence[str], facts: SourceFacts
) -> Iterator[dict[str, Any]]:
    """Every method, batch size and order; calibration, and the guard off, in batches of 16 alone."""
    truth = shifted.labels.malignant[list(shifted.rows)].numpy()
    orders = {
        "shuffled": np.random.default_rng(1).permutation(len(truth)).tolist(),
        "sorted": np.argsort(truth, kind="stable").tolist(),
    }
    for size, (order, places) in ((s, o) for s in SIZES for o in orders.items()):
        stream = shifted.stream(places, size)
        with torch.no_grad():
            before = torch.cat([run.network(views.plain).logit for views in stream]).numpy()
        source = roc_auc_score(truth[places], before)
        for method in methods:
            for mode, guard in ALL_WAYS if size == 16 else ALL_WAYS[:1]:
                settings = AdaptSettings(mode=mode, guard=GuardSettings(enabled=guard))
                done = adapt(run.network, stream, method=method, settings=settings, source=facts)
                loss = source - roc_auc_score(truth[places], done.scores.numpy())
                yield {
                    "size": size,
                    "order": order,
                    "method": method,
                    "mode": mode,
                    "guard": guard,
                    "source_auc": round(source, 4),
                    "loss": round(loss, 4),
                    "answered_adapted": done.report.adapted_cases,
                }


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Worst and mean loss of each method, and the share of streams that lose more than half a point."""
    rows = []
    names = ("method", "mode", "guard")
    for key in sorted({tuple(line[name] for name in names) for line in lines}):
        mine = [line for line in lines if tuple(line[name] for name in names) == key]
        own = [line["loss"] for line in mine]
        rows.append(
            dict(zip(names, key, strict=True))
            | {"streams": len(own), "worst": max(own), "best": min(own)}
            | {"mean": round(statistics.fmean(own), 4), "hurt": sum(loss > HALF_A_POINT for loss in own)}
            | {"gained": sum(loss < -HALF_A_POINT for loss in own)}
            | {"changed": sum(line["answered_adapted"] > 0 for line in mine)}
        )
    return rows


if __name__ == "__main__":
    main()
