"""Films in tiles against whole films, across two mammography sites: the two studies, and one table of both.

    python benchmarks/small_lesions.py --out runs/small_lesions [--films 120] [--seeds 0 1 2]

The recipe of Shen et al. 2019 (Scientific Reports 9:12495) in the form of configs/small_lesions.yaml: films
at twice the resolution in tiles, lesion outlines where a site has them, an image's score from its lesion map
(``top_tokens``). The other study reads whole films at half that resolution; sites, films, folds, methods and
seeds are the same. Prints JSON and a Markdown table: AUC at the site left out, mean over seeds, and tiles
minus whole films on the same patients (patient bootstrap, 2,000 draws).
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mammopath.config import load
from mammopath.files import read_lines
from mammopath.lodo import lodo
from mammopath.metrics.intervals import bootstrap, mean_statistic
from mammopath.metrics.ranking import auc_statistic
from mammopath.progress import track
from mammopath.settings import LodoSettings

CONFIG = Path(__file__).parent.parent / "configs" / "small_lesions.yaml"
READINGS = {
    "tiles": [],
    "whole": ["prepare.mammogram={height: 448, width: 224}", "model.tile={}"],
}
METHODS = ["logreg", "erm", "lesion", "multitask", "top_tokens"]
SHOWN = ("pointing_lesion", "pointing_attention", "pointing_chance")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/small_lesions"))
    parser.add_argument("--films", type=int, default=400, help="of a site, drawn by patient")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    shared = [f"data.limit={args.films}", f"workers={args.workers}", f"cache={args.out / 'cache'}"]
    shared += [f"methods=[{', '.join(args.methods)}]", f"seeds=[{', '.join(args.seeds)}]"]
    for name, changes in READINGS.items():
        lodo(load(LodoSettings, CONFIG, [*shared, *changes]), args.out / name, track=track)
    rows = list(compared(args.out, args.methods))
    print(json.dumps({"films": args.films, "seeds": args.seeds, "rows": rows}, indent=1))
    print(table(rows))


def compared(out: Path, methods: list[str]) -> Iterator[Row]:
    """Both readings of every site and method, on the same films."""
    sites = sorted({path.name.split("__")[0] for path in (out / "whole" / "runs").iterdir()})
    for site in sites:
        for method in methods:
            films = {name: scored(out / name / "runs", site, method) for name in READINGS}
            truth = films["whole"]
            assert truth["image_id"].equals(films["tiles"]["image_id"])
            labels, patients = truth["malignant"].to_numpy(), truth["patient"].to_numpy()
            found = bootstrap([over_seeds(labels, films[name]) for name in READINGS], patients)
            told: Row = {"site": site, "method": method, "films": len(truth)}
            told |= {"patients": truth["patient"].n_unique(), "malignant": int(labels.sum())}
            for number, name in enumerate(READINGS):
                told[name] = asdict(found.interval(number)) | pointing(out / name, site, method)
            yield told | {"difference": asdict(found.difference(0, 1))}


def scored(runs: Path, site: str, method: str) -> pl.DataFrame:
    """Films of the site left out with a known label, with a column of scores for each seed."""
    whole: pl.DataFrame | None = None
    for path in sorted(runs.glob(f"{site}__{method}__*/predictions.parquet")):
        table = pl.read_parquet(path).filter(
            (pl.col("part") == "test") & pl.col("malignant").is_in([0.0, 1.0])
        )
        own = table.select("image_id", "patient", "malignant", pl.col("logit").alias(path.parent.name))
        whole = own if whole is None else whole.join(own.drop("patient", "malignant"), on="image_id")
    assert whole is not None, f"no run of {method} at {site}"
    return whole.sort("image_id")


def over_seeds(labels: np.ndarray, films: pl.DataFrame) -> Any:
    """AUC as a statistic, mean over seeds."""
    return mean_statistic([auc_statistic(labels, films[name].to_numpy()) for name in films.columns[3:]])


def pointing(study: Path, site: str, method: str) -> dict[str, float | None]:
    """Pointing game of the lesion map, the attention and chance, mean over seeds; None where not measured."""
    lines = [json.loads(line) for line in read_lines(study / "results.jsonl")]
    mine = [x for x in lines if (x["site"], x["held_out"], x["method"]) == (site, site, method)]
    known = {name: [x[name] for x in mine if x.get(name) is not None] for name in SHOWN}
    return {name: float(np.mean(own)) if own else None for name, own in known.items()}


def table(rows: list[Row]) -> str:
    """A row for each site and method."""
    head = ["site left out", "method", "tiles", "whole films", "tiles minus whole", "p"]
    head += ["pointing of the lesion map (chance): tiles", "whole"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for r in rows:
        gap = r["difference"]
        cells = [f"{r['site']}, {r['films']} films", f"`{r['method']}`", shown(r["tiles"]), shown(r["whole"])]
        cells += [f"{gap['value']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]", f"{gap['p']:.3f}"]
        cells += [pointed(r[name]) for name in READINGS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(interval: Row) -> str:
    """A value with its limits."""
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def pointed(row: Row) -> str:
    """Share of lesions that the map's peak lies in, with chance; a dash where the map was not taught."""
    if row["pointing_lesion"] is None:
        return "-"
    return f"{row['pointing_lesion']:.2f} ({row['pointing_chance']:.2f})"


if __name__ == "__main__":
    main()
