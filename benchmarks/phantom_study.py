"""The phantom study: each ingredient against a shortcut of three strengths. Prints JSON, then two tables.

    python benchmarks/phantom_study.py --out runs/phantom_study [--patients 60] [--workers 2] [--set K=V]

At two hospitals a meaningless mark follows the label, more strongly at one than at the other; at the third,
which is left out, it follows the opposite label: what has learnt it falls there. The second table is of
patients read from both modalities. ``--set`` changes the configuration. Synthetic, never clinical.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from mammopath.config import load, parse
from mammopath.files import read_lines
from mammopath.lodo import lodo
from mammopath.paired import READINGS
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.progress import track
from mammopath.settings import LodoSettings

STRENGTHS = {
    "none": {"site_a": 0.0, "site_b": 0.0, "site_c": 0.0},
    "medium": {"site_a": 0.7, "site_b": 0.3, "site_c": 0.5},
    "strong": {"site_a": 0.95, "site_b": 0.65, "site_c": 0.8},
}
"""How strongly the mark follows the label at each site; at ``site_c`` it follows the opposite one."""

CONFIG = Path(__file__).parent.parent / "configs" / "phantom.yaml"

Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/phantom_study"))
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strengths", nargs="+", default=list(STRENGTHS), choices=list(STRENGTHS))
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    rows, together = [], []
    for name in args.strengths:
        cohort = args.out / f"cohort_{name}"
        if not (cohort / TRUTH).exists():
            told = {"patients": args.patients, "fields": 1, "contrast": 0.6, "spurious_at": STRENGTHS[name]}
            generate(cohort, parse(PhantomSettings, told))
        changes = [
            f"data.sources=[{{source: phantom, root: {cohort}}}]",
            f"cache={args.out / 'cache'}",
            f"workers={args.workers}",
            *args.changes,
        ]
        results = lodo(load(LodoSettings, CONFIG, changes), args.out / name, track=track)
        lines = [json.loads(line) for line in read_lines(results)]
        rows += summary(name, lines)
        together += read_together(name, lines)
    told = {"patients": args.patients, "strengths": STRENGTHS, "rows": rows, "together": together}
    print(json.dumps(told, indent=1))
    print(table(rows))
    print(together_table(together))


def summary(strength: str, lines: list[Line]) -> list[Line]:
    """Means and spread over seeds, for each method and modality."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line["unit"] == "image":
            groups[line["method"], line["modality"]].append(line)
    return [
        {"strength": strength, "method": method, "modality": modality, "seeds": len(own)}
        | {name: mean_and_spread(own, name) for name in ("auc", "source_val_auc", "retrieval_patient")}
        | {"gap": gap(own), "retrieval_chance": mean_and_spread(own, "retrieval_patient_chance")[0]}
        | {"idle": sorted({name for line in own for name in line["idle"]})}
        for (method, modality), own in groups.items()
    ]


def read_together(strength: str, lines: list[Line]) -> list[Line]:
    """Of patients with both modalities: AUC of each reading, over seeds, and the steps that were chosen."""
    groups: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["unit"] == "pair":
            groups[line["method"]].append(line)
    return [
        {"strength": strength, "method": method, "seeds": len(own), "steps": [x["best_step"] for x in own]}
        | {name: mean_and_spread(own, f"auc_{name}") for name in READINGS}
        for method, own in groups.items()
    ]


def mean_and_spread(lines: list[Line], name: str) -> list[float | None]:
    """Mean and standard deviation over seeds; None where no line has it."""
    values = [line[name] for line in lines if line.get(name) is not None]
    if not values:
        return [None, None]
    return [round(statistics.fmean(values), 4), round(statistics.pstdev(values), 4)]


def gap(lines: list[Line]) -> float | None:
    """Source validation minus held-out AUC, mean over seeds."""
    gaps = [line["source_val_auc"] - line["auc"] for line in lines if line.get("source_val_auc") is not None]
    return round(statistics.fmean(gaps), 4) if gaps else None


def table(rows: list[Line]) -> str:
    """A Markdown table: AUC at the held-out site and gap, by strength; a row for each method and modality."""
    strengths = list(dict.fromkeys(row["strength"] for row in rows))
    head = ["method", "modality", *(f"{s}: AUC ± SD (gap)" for s in strengths), "patient retrieval (chance)"]
    found = {(r["method"], r["modality"], r["strength"]): r for r in rows}
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for method, modality in dict.fromkeys((r["method"], r["modality"]) for r in rows):
        own = [found[method, modality, s] for s in strengths if (method, modality, s) in found]
        cells = [f"{r['auc'][0]:.2f} ± {r['auc'][1]:.2f} ({shown(r['gap'])})" for r in own]
        seen = [r["retrieval_patient"][0] for r in own if r["retrieval_patient"][0] is not None]
        chance = [r["retrieval_chance"] for r in own if r["retrieval_chance"] is not None]
        told = f"{statistics.fmean(seen):.3f} ({statistics.fmean(chance):.3f})" if seen and chance else "-"
        lines.append(f"| `{method}` | {modality} | " + " | ".join([*cells, told]) + " |")
    return "\n".join(lines)


def together_table(rows: list[Line]) -> str:
    """A Markdown table: AUC of every reading of the left-out patients, a row for each strength and method."""
    lines = ["| mark | method | chosen steps | " + " | ".join(READINGS) + " |"]
    lines.append("|" + " --- |" * (3 + len(READINGS)))
    for row in rows:
        cells = ["-" if row[r][0] is None else f"{row[r][0]:.2f} ± {row[r][1]:.2f}" for r in READINGS]
        steps = ", ".join(map(str, row["steps"]))
        lines.append(f"| {row['strength']} | `{row['method']}` | {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """With a sign, or a dash."""
    return "-" if value is None else f"{value:+.2f}"


if __name__ == "__main__":
    main()
