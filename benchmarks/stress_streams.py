"""How much AUC adaptation costs at worst, on streams of shifted images of the site left out.

    python benchmarks/stress_streams.py --phantom runs/stress --out runs/stress.jsonl
    python benchmarks/stress_streams.py runs/real_small [more studies or runs] --out runs/stress_real.jsonl
    python benchmarks/stress_streams.py --phantom runs/stress --out runs/rate.jsonl --methods tent --rate 1

For each run, a study's `erm` of its first seed at every site: images of the held-out site, as many of each
class, changed in ten ways in front of the trunk; in batches of 1, 2 and 16; shuffled, and sorted by label;
along the stream and, in batches of 16, calibrated on all of it; with the guard on and off. A loss is the AUC
of the source on the same images less that of the adapted answers. The phantom is painted, and a small network
trained on two of its hospitals from scratch, in the folder named, unless they are there.

Each stream is a line of the file as soon as it is through, and what stands there is not run again. The
summary, printed as JSON, is of the whole file.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mammopath.adaptation import streaming
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.setup import look
from mammopath.adaptation.values import Adapted, Seen, SourceFacts, Task, Views
from mammopath.adapting import source_facts
from mammopath.bench import read_cohort
from mammopath.cohort.loader import Labels, collate, label_table, token_masks
from mammopath.cohort.splits import fold
from mammopath.cohort.store import Stored
from mammopath.config import parse
from mammopath.demo import demo_settings
from mammopath.features import HIDDEN, SampleBank, augmented, plain_view
from mammopath.lodo import lodo
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.runs import Run, load_run
from mammopath.settings import AdaptSettings, GuardSettings
from mammopath.site_stream import style_numbers
from mammopath.tensors import Sample
from mammopath.types import Record

HALF_A_POINT = 0.005
STYLED = 2
WAYS = [("online", 1), ("online", 2), ("online", 16), ("calibrate", 16)]
ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shuffled": lambda truth: np.random.default_rng(1).permutation(len(truth)),
    "sorted": lambda truth: np.argsort(truth, kind="stable"),
    "reversed": lambda truth: np.argsort(-truth, kind="stable"),
}
"""Of cases by label; sorted has the benign first. Which of the two hurts depends on where scores drift."""

SETUP = ("run", "modality", "shift", "cases", "rate", "mode", "size", "order", "method", "guard")
"""What a stream is known by in the file."""

Setup = dict[str, Any]
"""One stream: how it is made and, once it is through, what came of it."""

Case = tuple[int, Sequence[Stored]]
"""An image: its row, and its views at the cut: plain, in other styles and, if need be, hidden."""


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--phantom", type=Path, default=None)
    parser.add_argument("--patients", type=int, default=96)
    parser.add_argument("--cases", type=int, default=96)
    parser.add_argument("--methods", nargs="+", default=[m for m in ADAPTATIONS if m != "none"])
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS))
    parser.add_argument("--modes", nargs="+", default=["online", "calibrate"])
    parser.add_argument("--orders", nargs="+", choices=tuple(ORDERS), default=["shuffled", "sorted"])
    parser.add_argument("--modality", choices=("mammogram", "pathology"), default=None)
    parser.add_argument("--rate", type=float, default=None, help="in place of each method's own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run for folder in args.folders for run in runs_of(folder)]
    runs += [phantom_run(args.phantom, args.patients)] if args.phantom else []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for folder in runs:
        stress(load_run(folder), args)
    print(json.dumps(summary(lines_of(args.out)), indent=1))


def lines_of(out: Path) -> list[Setup]:
    """Streams that are through."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


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


def stress(run: Run, args: argparse.Namespace) -> None:
    """Write a line for each stream of a run that the file does not hold yet."""
    records, told = read_cohort(run.settings.data).records, run.settings
    shares = {"validation": told.data.validation, "test_share": told.data.test_share}
    part = fold(records, held_out=run.facts["held_out"], seed=told.seed, **shares)
    kind = args.modality or records[part.test[0]].modality
    labels = label_table(records, run.facts["sites"])
    bank = SampleBank(records, labels, told, run.network)
    facts = source_facts(run.network, bank, records, train=part.train, probe=part.val, modality=kind)
    rows = balanced(records, [r for r in part.test if records[r].modality == kind], args.cases)
    images = {row: plain_view(records[row], told, run.network) for row in rows}
    done = {tuple(line[name] for name in SETUP) for line in lines_of(args.out)}
    hidden = any(ADAPTATIONS[method].needs_hidden for method in args.methods)
    numbers = [*style_numbers(STYLED), *([HIDDEN] if hidden else [])]
    named = {"run": run.folder.name, "modality": kind, "cases": args.cases, "rate": args.rate}
    for shift in args.shifts:
        setups = [named | {"shift": shift} | way for way in ways(args)]
        wanted = [one for one in setups if tuple(one[name] for name in SETUP) not in done]
        if wanted:
            cases = [
                (row, at_cut(run, records[row], through(image, SHIFTS[shift]), numbers))
                for row, image in images.items()
            ]
            with args.out.open("a") as file:
                for line in streams(run, cases, wanted, labels=labels, facts=facts):
                    print(json.dumps(line), file=file, flush=True)


def ways(args: argparse.Namespace) -> Iterator[Setup]:
    """How the images of a shift are streamed; those that share batches follow each other."""
    for (mode, size), order in itertools.product((way for way in WAYS if way[0] in args.modes), args.orders):
        for method, guard in itertools.product(args.methods, (True, False)):
            yield {"mode": mode, "size": size, "order": order, "method": method, "guard": guard}


def balanced(records: Sequence[Record], rows: Sequence[int], cases: int) -> list[int]:
    """As many of each class, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    classes = [[r for r in rows if records[r].malignant == label] for label in (0.0, 1.0)]
    return sorted(int(r) for own in classes for r in rng.permutation(own)[: cases // 2])


def through(sample: Sample, shift: Callable[[Tensor], Tensor]) -> Sample:
    """The image changed, within its range and its breast or tissue."""
    return replace(sample, image=shift(sample.image).clamp(0, 1) * sample.valid)


def at_cut(run: Run, record: Record, sample: Sample, numbers: Sequence[int]) -> list[Stored]:
    """An image as it is, and its views of these numbers, behind the lower trunk."""
    views = [sample, *(augmented(sample, record, number, run.settings) for number in numbers)]
    cell, nothing = run.network.cell(record.modality), torch.zeros(0, 0)
    with torch.no_grad():
        tokens = run.network.lower(views, record.modality)
    masks = [token_masks(view, cell) for view in views]
    return [Stored(t, m.valid, m.lesion, nothing, m.grid) for t, m in zip(tokens, masks, strict=True)]


def streams(
    run: Run, cases: Sequence[Case], setups: Sequence[Setup], *, labels: Labels, facts: SourceFacts
) -> Iterator[Setup]:
    """Adapt as each setup says; batches and the source's answers are made once for those that share them."""
    truth = labels.malignant[[row for row, _ in cases]].numpy()
    for way, group in itertools.groupby(setups, lambda one: (one["mode"], one["size"], one["order"])):
        places, started = ORDERS[way[2]](truth), time.monotonic()
        stream = batches(labels, [cases[i] for i in places], size=way[1])
        with torch.no_grad():
            source = torch.cat([run.network(views.plain).logit for views in stream]).numpy()
        streaming.look = remembering()
        for one in group:
            settings = AdaptSettings(
                mode=one["mode"], lr=one["rate"], guard=GuardSettings(enabled=one["guard"])
            )
            own = [needed(views, one) for views in stream]
            done = adapt(run.network, own, method=one["method"], settings=settings, source=facts)
            yield one | outcome(truth[places], source, done)
        seconds = time.monotonic() - started
        print(one["run"], one["shift"], *way, f"{seconds:.0f} s", file=sys.stderr, flush=True)


def remembering() -> Callable[[Task, Views], Seen]:
    """``look`` that asks the source once for each batch, whatever the method: half the time of a stream."""
    kept: dict[tuple[int, ...], Seen] = {}

    def looked(task: Task, views: Views) -> Seen:
        key = tuple(map(id, (views.plain, *views.styled)))
        if key not in kept:
            kept[key] = look(task, views)
        return replace(kept[key], views=views)

    return looked


def batches(labels: Labels, cases: Sequence[Case], *, size: int) -> list[Views]:
    """Cases in that order, so many at a time."""
    parts = [cases[i : i + size] for i in range(0, len(cases), size)]
    found = []
    for part in parts:
        rows, sides = [row for row, _ in part], zip(*(views for _, views in part), strict=True)
        plain, *others = (collate(labels, rows, views) for views in sides)
        found.append(Views(plain, tuple(others[:STYLED]), *others[STYLED:]))
    return found


def needed(views: Views, setup: Setup) -> Views:
    """Views that a study would make: other styles for a method that trims them, or for the guard."""
    method = ADAPTATIONS[setup["method"]]
    styled = views.styled if setup["guard"] or method.needs_views else ()
    return Views(views.plain, styled, views.hidden if method.needs_hidden else None)


def outcome(truth: np.ndarray, source: np.ndarray, done: Adapted) -> Setup:
    """AUC of the source and what it loses, and shares of cases called malignant."""
    before, scores = roc_auc_score(truth, source), done.scores.numpy()
    return {
        "source_auc": round(before, 4),
        "loss": round(before - roc_auc_score(truth, scores), 6),
        "source_called": round(float((source > 0).mean()), 4),
        "called": round(float((scores > 0).mean()), 4),
        "adapted": done.report.adapted_cases,
        "moved": round(done.report.relative, 6),
        "rollbacks": done.report.rollbacks,
    }


def summary(lines: Sequence[Setup]) -> list[Setup]:
    """What streams lose at worst, and how many lose or gain half a point, for each method."""
    names = ("run", "modality", "cases", "rate", "mode", "method", "guard")
    rows = []
    for key in sorted({tuple(str(line[name]) for name in names) for line in lines}):
        mine = [line for line in lines if tuple(str(line[name]) for name in names) == key]
        losses, worst = [line["loss"] for line in mine], max(mine, key=lambda line: line["loss"])
        found = {
            "streams": len(mine),
            "worst": worst["loss"],
            "worst_at": [worst[name] for name in ("shift", "size", "order")],
            "mean": round(statistics.fmean(losses), 4),
            "hurt": sum(loss > HALF_A_POINT for loss in losses),
            "gained": sum(loss < -HALF_A_POINT for loss in losses),
            "changed": sum(line["adapted"] > 0 for line in mine),
        }
        rows.append(dict(zip(names, key, strict=True)) | found)
    return rows


if __name__ == "__main__":
    main()
