"""What true pairs are worth: patients of a left-out phantom hospital search their partner. JSON and a table.

    python benchmarks/phantom_pairs.py --out runs/pairs [--patients 120] [--workers 2]

Mean average precision of the own partner in the other modality, among all patients of the hospital and
among those of the same label, so that knowing the label is no help; means and standard deviations over seeds.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from mammopath.config import load, parse
from mammopath.lodo import lodo
from mammopath.phantom.cohort import PhantomSettings
from mammopath.phantom.generate import TRUTH, generate
from mammopath.progress import track
from mammopath.settings import LodoSettings

CONFIG = Path(__file__).parent.parent / "configs" / "pairs.yaml"
LINKS = ("label", "patient", "patient_in_class")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pairs"))
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    cohort = args.out / "cohort"
    if not (cohort / TRUTH).exists():
        generate(cohort, parse(PhantomSettings, {"patients": args.patients, "fields": 1}))
    changes = [f"data.sources=[{{source: phantom, root: {cohort}}}]", f"workers={args.workers}"]
    lodo(load(LodoSettings, CONFIG, changes), args.out / "study", track=track)
    rows = summary(args.out / "study" / "runs")
    print(json.dumps({"patients": args.patients, "rows": rows}, indent=1))
    print(table(rows))


def summary(runs: Path) -> list[Row]:
    """Means over seeds and both directions of search, for each method and kind of link."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for path in sorted(runs.glob("*/diagnostics.json")):
        method = path.parent.name.split("__")[1]
        for found in json.loads(path.read_text())["retrieval"]:
            groups[method, found["link"]].append(found)
    return [
        {"method": method, "link": link, "searches": len(own)}
        | {
            name: round(statistics.fmean(r[name] for r in own), 4)
            for name in ("mean_precision", "chance_precision")
        }
        | {"sd": round(statistics.pstdev(r["mean_precision"] for r in own), 4)}
        | {"recall_at_5": round(statistics.fmean(r["recall"]["5"] for r in own), 4)}
        | {"chance_recall_at_5": round(statistics.fmean(r["chance_recall"]["5"] for r in own), 4)}
        for (method, link), own in groups.items()
    ]


def table(rows: list[Row]) -> str:
    """A Markdown table: a row for each method, precision and recall at 5 by kind of link, with chance."""
    names = {
        "label": "same label",
        "patient": "own partner",
        "patient_in_class": "own partner, within the label",
    }
    head = ["method", *(f"{names[link]}: precision ± SD (chance), recall at 5 (chance)" for link in LINKS)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    found = {(r["method"], r["link"]): r for r in rows}
    for method in dict.fromkeys(r["method"] for r in rows):
        cells = [shown(found[method, link]) for link in LINKS if (method, link) in found]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(row: Row) -> str:
    """One cell."""
    precision = f"{row['mean_precision']:.3f} ± {row['sd']:.3f} ({row['chance_precision']:.3f})"
    return f"{precision}, {row['recall_at_5']:.2f} ({row['chance_recall_at_5']:.2f})"


if __name__ == "__main__":
    main()
