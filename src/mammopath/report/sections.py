"""What each section of a report shows, worked out from a study; plain values for the template."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import fmean
from typing import Any

from mammopath.metrics.transfer import Transfer, transfer
from mammopath.report.curves import MOST_LINES, Figure
from mammopath.report.figures import Series, fitted_axis, panel
from mammopath.report.study import Judged, Study, by_label, by_site, read_examples, read_log

EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """How calibration fitted on source validation carries over to one site, mean over seeds.

    Attributes:
        site: held out; or ``at home``, all sites together, met by models that know them.
    """

    modality: str
    site: str
    label: str
    temperature: float
    ece: float
    ece_scaled: float
    coverage_negative: float
    coverage_positive: float
    undecided: float
    aurc: float


@dataclass(frozen=True, slots=True)
class IngredientRow:
    """One configured ingredient of a method: how often it ran, in how many runs, why not."""

    label: str
    name: str
    times: int
    active_runs: int
    runs: int
    reason: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """Time of the runs of one method."""

    method: str
    runs: int
    mean_seconds: float
    total_seconds: float
    device: str
    threads: str


def training_figures(study: Study, styles: Mapping[str, int]) -> list[Figure]:
    """Two panels per held-out site: AUC on source validation, and training loss; a line per run."""
    logs: dict[str, list[tuple[int, list[Mapping[str, Any]]]]] = {}
    seen: set[str] = set()
    for j in study.judged:
        rows = [] if j.line["run"] in seen else read_log(study.folder, j.line["run"])
        seen.add(j.line["run"])
        if rows and styles.get(j.label, MOST_LINES) < MOST_LINES:
            logs.setdefault(j.line["held_out"], []).append((styles[j.label], rows))
    found = []
    for site, runs in logs.items():
        found.append(Figure(f"without {site}: validation", _training_panel(site, runs, "score")))
        found.append(Figure(f"without {site}: loss", _training_panel(site, runs, "loss")))
    return found


def calibration_rows(judged: Sequence[Judged]) -> list[CalibrationRow]:
    """One row per site and method, mean over seeds."""
    rows = []
    for (modality, site), group in by_site(judged).items():
        for label, runs in by_label(group).items():
            found = [_transfer(j) for j in runs]
            values = {n: _mean([getattr(f, n) for f in found]) for n in Transfer.__dataclass_fields__}
            rows.append(CalibrationRow(modality, site, label, **values))
    return rows


def ingredient_rows(study: Study) -> list[IngredientRow]:
    """What each method was configured to do, and what it did."""
    methods: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in study.lines:
        methods.setdefault(line["method"], {})[line["run"]] = line
    rows = []
    for method, runs in methods.items():
        lines = list(runs.values())
        names = dict.fromkeys(chain.from_iterable([*_dict(x, "counters"), *_dict(x, "idle")] for x in lines))
        for name in names:
            counts = [int(_dict(line, "counters").get(name, 0)) for line in lines]
            reasons = dict.fromkeys(str(r) for line in lines if (r := _dict(line, "idle").get(name)))
            active = sum(count > 0 for count in counts)
            rows.append(IngredientRow(method, name, sum(counts), active, len(lines), "; ".join(reasons)))
    return rows


def cost_rows(study: Study) -> list[CostRow]:
    """Wall-clock time per method."""
    methods: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in study.lines:
        methods.setdefault(line["method"], {})[line["run"]] = study.runs[line["run"]]
    rows = []
    for method, runs in methods.items():
        seconds = [float(f["seconds"]) for f in runs.values() if f.get("seconds") is not None]
        total = sum(seconds) if seconds else math.nan
        rows.append(
            CostRow(
                method, len(runs), _mean(seconds), total, _several(runs, "device"), _several(runs, "threads")
            )
        )
    return rows


def versions(study: Study) -> dict[str, str]:
    """Version of every package that was recorded; several are all named."""
    found: dict[str, dict[str, None]] = {}
    for facts in study.runs.values():
        for name, version in _dict(facts, "versions").items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def examples(study: Study) -> list[tuple[str, Mapping[str, Any]]]:
    """At most 12 example images with their run, taken from the held-out sites in turn."""
    runs = {line["held_out"]: line["run"] for line in reversed(study.lines) if _has_examples(study, line)}
    piles = [[(run, e) for e in read_examples(study.folder, run)] for run in reversed(runs.values())]
    turns = chain.from_iterable(zip_longest(*piles))
    return [example for example in turns if example][:EXAMPLES]


def _has_examples(study: Study, line: Mapping[str, Any]) -> bool:
    return bool(line["held_out"]) and bool(read_examples(study.folder, line["run"]))


def _training_panel(site: str, runs: Sequence[tuple[int, list[Mapping[str, Any]]]], name: str) -> str:
    series = [
        Series(
            [(float(r["step"]), float(r[name])) for r in rows if r.get(name) is not None], style, faint=True
        )
        for style, rows in runs
    ]
    steps = [p[0] for s in series for p in s.points]
    values = [p[1] for s in series for p in s.points]
    title = "mean AUC" if name == "score" else "loss"
    return panel(
        f"Training with {site} held out",
        fitted_axis([0.0, *steps], "step"),
        fitted_axis(values, title),
        series,
    )


def _transfer(judged: Judged) -> Transfer:
    source, target = judged.validation, judged.test
    threshold = judged.line.get("threshold")
    return transfer(
        (source.labels, source.logits),
        (target.labels, target.logits),
        threshold=0.5 if threshold is None else float(threshold),
    )


def _dict(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return values.get(name) or {}


def _several(runs: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return ", ".join(dict.fromkeys(str(f[name]) for f in runs.values() if name in f))


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return fmean(known) if known else math.nan
