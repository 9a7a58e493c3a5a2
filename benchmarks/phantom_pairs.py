"""What true pairs are worth: patients of a left-out phantom hospital search their partner. JSON and tables.

    python benchmarks/phantom_pairs.py --out runs/pairs [--patients 120] [--workers 2] [--set K=V]

Each patient's images of one modality rank those of the other modality of the hospital's patients. The
precision of the own partner (one over its rank, mean of both directions) is told among all patients, among
those of the same label, and among those of the same label who carry the phantom's meaningless mark, or do
not, as the patient does: there only `fibrosis` and `form` are left to know a patient by. Means and standard
deviations over seeds; differences between methods on the same patients and seeds. ``--set`` changes the
configuration. Synthetic, never clinical.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mammopath.bench import Bench, prepare_bench
from mammopath.cohort.loader import label_table, training_sites
from mammopath.cohort.splits import Fold, fold
from mammopath.config import load, parse
from mammopath.features import TokenBank
from mammopath.lodo import lodo
from mammopath.metrics.intervals import Statistic, bootstrap
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.progress import track
from mammopath.runs import load_run
from mammopath.seen import look
from mammopath.settings import LodoSettings
from mammopath.types import MODALITIES, Modality, Record

CONFIG = Path(__file__).parent.parent / "configs" / "pairs.yaml"

GALLERIES = {"all": (), "label": ("malignant",), "label and mark": ("malignant", "marked")}
"""What a patient's rivals have in common with the patient, beside the hospital."""

METHOD = "align_patient"
"""Compared with each of the others."""

TRAIT = "fibrosis"

Row = dict[str, Any]
Vectors = dict[Modality, Float[np.ndarray, "patients width"]]


@dataclass(frozen=True)
class People:
    """Patients of one part of a fold, in one order: who they are, and a vector of each in both modalities."""

    truth: list[dict[str, str]]
    vectors: Vectors

    def groups(self, common: Sequence[str]) -> Shaped[np.ndarray, " patients"]:
        """Who are rivals: patients of the same hospital with these in common."""
        return np.array(["|".join(one[name] for name in ("site", *common)) for one in self.truth])

    def trait(self) -> Float[np.ndarray, " patients"]:
        """The truth of what both modalities share."""
        return np.array([float(one[TRAIT]) for one in self.truth])


@dataclass(frozen=True)
class Searched:
    """One run: precision of each patient's own partner by part and gallery, and the trait read off."""

    method: str
    seed: int
    precision: dict[tuple[str, str], Float[np.ndarray, " patients"]]
    chance: dict[tuple[str, str], float]
    read_off: dict[Modality, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pairs"))
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    cohort = args.out / "cohort"
    if not (cohort / TRUTH).exists():
        generate(cohort, parse(PhantomSettings, {"patients": args.patients, "fields": 1}))
    changes = [f"data.sources=[{{source: phantom, root: {cohort}}}]", f"workers={args.workers}"]
    changes += [f"cache={args.out / 'cache'}", *args.changes]
    settings = load(LodoSettings, CONFIG, changes)
    study = lodo(settings, args.out / "study", track=track).parent
    bench = prepare_bench(settings, cache=args.out / "cache")
    found = [searched(bench, settings, run) for run in sorted((study / "runs").iterdir())]
    found += [told(bench, settings, seed) for seed in settings.seeds]
    rows, gaps = summary(found), differences(found)
    print(json.dumps({"patients": args.patients, "rows": rows, "differences": gaps}, indent=1))
    print(table(rows))
    print(gap_table(gaps))


# ---------------------------------------------------------------- searching


def searched(bench: Bench, settings: LodoSettings, folder: Path) -> Searched:
    """What the alignment space of a run is worth."""
    run = load_run(folder)
    part = fold_of(bench, settings, run.settings.seed)
    bank = bench.bank(labels_of(bench, part), run.settings, run.network)
    see = partial(look, run.network, bank, bench.records, lesion_map=False)
    names = sorted({r.pair_key for r in bench.records})
    people = {}
    for name, rows in parts(part).items():
        vectors, keys = {}, np.array([])
        for modality, sides in see(rows).people.items():
            pair = torch.cat([side.pair for side in sides])
            order = pair.argsort()
            vectors[modality] = torch.cat([side.projection for side in sides])[order].numpy()
            keys = np.array(names)[pair[order].numpy()]
        people[name] = People([truth_of(bench.records)[key] for key in keys], vectors)
    return judged(run.settings.train.method, run.settings.seed, people, people)


def told(bench: Bench, settings: LodoSettings, seed: int) -> Searched:
    """What one trait is worth: a ridge on the frozen trunk is told its truth on the training patients."""
    part = fold_of(bench, settings, seed)
    bank = bench.stored(labels_of(bench, part), settings)
    assert isinstance(bank, TokenBank)
    people = {name: frozen(bench, bank, rows, settings) for name, rows in parts(part).items()}
    guesses = {
        name: {m: guessed(people["train"], own, m)[:, None] for m in MODALITIES}
        for name, own in people.items()
    }
    return judged("ridge", seed, people, {n: People(people[n].truth, v) for n, v in guesses.items()})


def frozen(bench: Bench, bank: TokenBank, rows: Sequence[int], settings: LodoSettings) -> People:
    """The frozen trunk's statistics after the block that is read, mean over the images of each patient."""
    own: dict[tuple[str, Modality], list[np.ndarray]] = defaultdict(list)
    for row in rows:
        record = bench.records[row]
        block = settings.model.readout[record.modality][-1] - 1
        own[record.pair_key, record.modality].append(bank.statistics(row)[block].numpy())
    keys = sorted({key for key, _ in own})
    vectors: Vectors = {m: np.stack([np.mean(own[key, m], axis=0) for key in keys]) for m in MODALITIES}
    return People([truth_of(bench.records)[key] for key in keys], vectors)


def judged(method: str, seed: int, read: dict[str, People], search: dict[str, People]) -> Searched:
    """Precision of the own partner, and how well a ridge reads the trait off at the left-out site."""
    groups = {
        (name, gallery): search[name].groups(common)
        for name in search
        for gallery, common in GALLERIES.items()
    }
    return Searched(
        method,
        seed,
        {key: precision(search[key[0]].vectors, group) for key, group in groups.items()},
        {key: chance(group) for key, group in groups.items()},
        {
            m: float(np.corrcoef(guessed(read["train"], read["test"], m), read["test"].trait())[0, 1])
            for m in MODALITIES
        },
    )


def precision(vectors: Vectors, group: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """One over the rank of each patient's own partner among its group, mean of both directions."""
    left, right = (vectors[m] for m in MODALITIES)
    near = -np.square(left[:, None] - right).sum(-1)
    rivals = group[:, None] == group
    ranks = [(rivals & (s >= s.diagonal()[:, None])).sum(1) for s in (near, near.T)]
    return np.asarray(np.mean([1 / rank for rank in ranks], axis=0))


def chance(group: Shaped[np.ndarray, " n"]) -> float:
    """Expected precision of a random order."""
    _, sizes = np.unique(group, return_counts=True)
    return float(sum(sum(1 / k for k in range(1, size + 1)) for size in sizes) / len(group))


def guessed(train: People, other: People, modality: Modality) -> Float[np.ndarray, " n"]:
    """The trait, read off the vectors of a modality by a ridge of the training patients."""
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    return np.asarray(ridge.fit(train.vectors[modality], train.trait()).predict(other.vectors[modality]))


def fold_of(bench: Bench, settings: LodoSettings, seed: int) -> Fold:
    """The fold that a run of this seed was trained on."""
    data, (site,) = settings.data, settings.held_out
    return fold(
        bench.records, held_out=site, validation=data.validation, test_share=data.test_share, seed=seed
    )


def labels_of(bench: Bench, part: Fold) -> Any:
    return label_table(bench.records, training_sites(bench.records, part.train))


def parts(part: Fold) -> dict[str, Sequence[int]]:
    return {"train": part.train, "val": part.val, "test": part.test}


def truth_of(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """What is true of each patient."""
    return {
        r.pair_key: dict(r.attributes) | {"site": r.domain, "malignant": str(r.malignant)} for r in records
    }


# ---------------------------------------------------------------- telling


def summary(found: Sequence[Searched]) -> list[Row]:
    """Means and standard deviations over seeds, for each method."""
    rows: list[Row] = []
    for method in dict.fromkeys(f.method for f in found):
        own = [f for f in found if f.method == method]
        row: Row = {"method": method, "seeds": len(own)}
        for part, gallery in own[0].precision:
            means = [float(f.precision[part, gallery].mean()) for f in own]
            row[f"{part}: {gallery}"] = [
                round(v, 4) for v in (statistics.fmean(means), statistics.pstdev(means))
            ]
            row[f"{part}: {gallery}, chance"] = round(
                statistics.fmean(f.chance[part, gallery] for f in own), 4
            )
        row[TRAIT] = {m: round(statistics.fmean(f.read_off[m] for f in own), 3) for m in MODALITIES}
        rows.append(row)
    return rows


def differences(found: Sequence[Searched]) -> list[Row]:
    """``METHOD`` minus each other on the left-out patients: over seeds, and with a patient bootstrap."""
    by = {(f.method, f.seed): f.precision for f in found}
    rows: list[Row] = []
    for other in dict.fromkeys(f.method for f in found if f.method != METHOD):
        for gallery in GALLERIES:
            gaps = np.stack(
                [
                    own["test", gallery] - by[other, seed]["test", gallery]
                    for (method, seed), own in by.items()
                    if method == METHOD
                ]
            )
            limits = bootstrap([weighted_mean(gaps.mean(0))], np.arange(gaps.shape[1])).interval()
            seeds = gaps.mean(1)
            rows.append(
                {"minus": other, "gallery": gallery, "difference": round(float(seeds.mean()), 4)}
                | {"se_seeds": round(float(seeds.std(ddof=1) / len(seeds) ** 0.5), 4)}
                | {
                    "low": round(limits.low, 4),
                    "high": round(limits.high, 4),
                    "seeds": seeds.round(4).tolist(),
                }
            )
    return rows


def weighted_mean(values: Float[np.ndarray, " n"]) -> Statistic:
    """Mean over cases, as a function of their weights."""

    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        return weights @ values / weights.sum(1)

    return statistic


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: a row for each method, precision of the own partner by gallery, and the trait."""
    head = ["method", "training patients, label: precision ± SD (chance)", "their validation"]
    head += [f"left out, {gallery}" for gallery in GALLERIES]
    head.append(f"`{TRAIT}` read off: correlation, mammogram and tissue")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [shown(row, name) for name in ("train: label", "val: label")]
        cells += [shown(row, f"test: {gallery}") for gallery in GALLERIES]
        cells.append(" and ".join(f"{row[TRAIT][m]:.2f}" for m in MODALITIES))
        lines.append(f"| `{row['method']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(row: Row, name: str) -> str:
    """One cell."""
    mean, spread = row[name]
    return f"{mean:.3f} ± {spread:.3f} ({row[f'{name}, chance']:.3f})"


def gap_table(gaps: Sequence[Row]) -> str:
    """A Markdown table of ``METHOD`` minus the others: mean ± standard error of seeds [patient bootstrap]."""
    lines = [f"| `{METHOD}` minus | " + " | ".join(GALLERIES) + " |", "|" + " --- |" * (1 + len(GALLERIES))]
    for other in dict.fromkeys(g["minus"] for g in gaps):
        cells = [
            f"{g['difference']:+.3f} ± {g['se_seeds']:.3f} [{g['low']:+.3f}, {g['high']:+.3f}]"
            for g in gaps
            if g["minus"] == other
        ]
        lines.append(f"| `{other}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
