"""A study folder as written by ``mammopath lodo``, read back without a model."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from mammopath.errors import DataError
from mammopath.evaluate import Units, by_unit
from mammopath.files import read_lines
from mammopath.metrics.ranking import auc
from mammopath.report.tables import Line, method_label

HOME = "at home"
"""Stands for the site of runs that are judged where they were trained."""

BOTH = "both"
"""Modality of lines that judge patients from all their images, of both modalities."""

KEYS = {"breast": ["patient", "laterality"], "patient": ["patient"], "pair": ["pair"]}
"""Columns that name a unit of several images; one image is named by itself."""


@dataclass(frozen=True)
class Cases:
    """Labelled predictions on one site, or on the validation parts of the training sites.

    Attributes:
        identity: hash of which cases these are; equal for two runs judged on the same cases.
        patients: index of the patient.
        labels: 1 or 0.
        logits: of malignancy.
    """

    identity: str
    patients: Int[np.ndarray, " n"]
    labels: Float[np.ndarray, " n"]
    logits: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Judged:
    """A held-out line of results with the predictions behind it."""

    line: Line
    test: Cases
    validation: Cases

    @property
    def label(self) -> str:
        """Name of the method in tables and legends."""
        return method_label(self.line["method"], self.line["adaptation"], self.line.get("select", ""))


@dataclass(frozen=True)
class Study:
    """What a study folder holds.

    Attributes:
        config: resolved settings; empty where missing.
        data: facts of the cohort; empty where missing.
        lines: of results.jsonl, of one modality each.
        pairs: its lines of patients with both modalities.
        runs: facts of each run (run.json), by run name; empty where missing.
        judged: held-out lines whose predictions are there; judged_pairs: of patients with both modalities.
        notes: what is missing or does not agree, in sentences.
    """

    folder: Path
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    lines: Sequence[Line]
    runs: Mapping[str, Mapping[str, Any]]
    judged: Sequence[Judged]
    notes: Sequence[str]
    pairs: Sequence[Line] = ()
    judged_pairs: Sequence[Judged] = ()


def read_study(folder: Path) -> Study:
    """Read everything a report needs; what is missing becomes a note, not an error.

    Raises:
        DataError: there is no results line, or a line is damaged.
    """
    every = _read_results(folder / "results.jsonl")
    names = list(dict.fromkeys(line["run"] for line in every))
    runs = {name: _read_json(folder / "runs" / name / "run.json") for name in names}
    config, data = _read_json(folder / "config.json"), _read_json(folder / "data.json")
    units = units_told(config)
    judged = [
        _judge(folder, line, units) for line in every if line["held_out"] and line["held_out"] == line["site"]
    ]
    found = [j for j in judged if isinstance(j, Judged)]
    notes = [j for j in judged if isinstance(j, str)]
    notes += [
        f"{name} is missing" for name, value in (("config.json", config), ("data.json", data)) if not value
    ]
    notes += _other_data(data, runs) + [note for j in found for note in _disagreement(j)]
    single = [j for j in found if j.line["modality"] != BOTH]
    return Study(
        folder,
        config,
        data,
        [line for line in every if line["modality"] != BOTH],
        runs,
        single,
        list(dict.fromkeys(notes)),
        [line for line in every if line["modality"] == BOTH],
        [j for j in found if j.line["modality"] == BOTH],
    )


def units_told(config: Mapping[str, Any]) -> Units:
    """The units of evaluation that the configuration of a study names; images where it is missing."""
    data = config.get("data") or {}
    return Units(data.get("unit", "image"), data.get("units") or {})


def reference_method(folder: Path) -> str:
    """The method of a study that others are compared with.

    Raises:
        DataError: there are no results.
    """
    return reference_of([line["method"] for line in _read_results(folder / "results.jsonl")])


def reference_of(labels: Sequence[str]) -> str:
    """Plain ERM if it is there, else the first; empty for none."""
    return "erm" if "erm" in labels else next(iter(labels), "")


def by_site(judged: Sequence[Judged]) -> dict[tuple[str, str], list[Judged]]:
    """Runs of each modality and held-out site, in alphabetical order."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for j in judged:
        groups.setdefault((j.line["modality"], j.line["site"]), []).append(j)
    return dict(sorted(groups.items()))


def by_label(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Runs of each method, a run a seed."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        groups.setdefault(j.label, []).append(j)
    return groups


def read_log(folder: Path, run: str) -> list[Mapping[str, Any]]:
    """Rows of a run's training log; none if it was not trained by steps."""
    return [json.loads(line) for line in read_lines(folder / "runs" / run / "log.jsonl")]


def read_examples(folder: Path, run: str) -> list[Mapping[str, Any]]:
    """Example images of a run, with paths relative to the run's folder; none if it kept none."""
    path = folder / "runs" / run / "examples.json"
    return json.loads(path.read_text()) if path.exists() else []


def read_diagnostics(folder: Path, run: str) -> Mapping[str, Any]:
    """What a run's network knows beside the label (diagnostics.json); empty where it was not asked."""
    return _read_json(folder / "runs" / run / "diagnostics.json")


def read_table(path: Path) -> pl.DataFrame:
    """A table of the study or of a run; an empty one where there is none."""
    return pl.read_parquet(path) if path.exists() else pl.DataFrame()


def read_json(path: Path) -> Mapping[str, Any]:
    """Facts of the study or of a run; empty where there are none."""
    return _read_json(path)


def _read_results(path: Path) -> list[Line]:
    lines = [_parse(path, number, text) for number, text in enumerate(read_lines(path), start=1)]
    if not lines:
        raise DataError(f"{path}: there are no results; run `mammopath lodo` into this folder first")
    return lines


def _parse(path: Path, number: int, text: str) -> Line:
    try:
        line = json.loads(text)
        missing = {"held_out", "site", "modality", "method", "adaptation", "seed", "run"} - line.keys()
    except (json.JSONDecodeError, AttributeError):
        raise DataError(f"{path}, line {number}: not a JSON object; remove the line and run again") from None
    if missing:
        raise DataError(f"{path}, line {number}: no {', '.join(sorted(missing))}; remove it and run again")
    return line


def _read_json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _judge(folder: Path, line: Line, units: Units) -> Judged | str:
    together = line["modality"] == BOTH
    path = folder / "runs" / line["run"] / ("pairs.parquet" if together else "predictions.parquet")
    if not path.exists():
        return f"run {line['run']} has no {_what(path)}; curves and comparisons leave it out"
    table = by_unit(pl.read_parquet(path), Units() if together else units).filter(modality=line["modality"])
    test = table.filter(pl.col("part") == "test", pl.col("site") == line["site"])
    validation = _cases(table.filter(pl.col("part") == "val"), "mixed")
    return Judged(line, _cases(test, "pair" if together else units.of(line["site"])), validation)


def _what(path: Path) -> str:
    return "predictions" if path.stem == "predictions" else "predictions of pairs"


def judged_at_home(study: Study) -> list[Judged]:
    """In-domain runs judged on the test parts of all their sites together, per modality.

    There, cases are like those of validation, so what was settled on validation must hold what it promises.
    """
    found: dict[tuple[str, str], Judged] = {}
    units = units_told(study.config)
    for line in study.lines:
        path = study.folder / "runs" / line["run"] / "predictions.parquet"
        key = (line["run"], line["modality"])
        if line["held_out"] or key in found or not path.exists():
            continue
        table = by_unit(pl.read_parquet(path), units).filter(modality=line["modality"])
        test, val = (_cases(table.filter(part=part), "mixed") for part in ("test", "val"))
        found[key] = Judged({**line, "site": HOME}, test, val)
    return list(found.values())


def split_cases(study: Study, run: str, line: Line) -> Cases | None:
    """A run's cases in the fixed test part of a line's site and modality; None without its predictions."""
    path = study.folder / "runs" / run / "predictions.parquet"
    if not path.exists():
        return None
    units = units_told(study.config)
    table = by_unit(pl.read_parquet(path), units).filter(
        pl.col("in_test_split"), part="test", site=line["site"], modality=line["modality"]
    )
    return _cases(table, units.of(line["site"])) if table.height else None


def _cases(table: pl.DataFrame, unit: str) -> Cases:
    columns = KEYS.get(unit, ["image_id"])
    if unit == "mixed":  # validation sites may have units of their own; only their labels and logits are used
        columns = ["patient"]
    table = table.sort("site", *columns)
    keys = table.select(pl.concat_str("site", *columns, pl.col("malignant"), separator="\x1f")).to_series()
    return Cases(
        identity=hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        patients=np.unique(table["patient"].to_numpy(), return_inverse=True)[1],
        labels=table["malignant"].to_numpy().astype(float),
        logits=table["logit"].to_numpy().astype(float),
    )


def _disagreement(judged: Judged) -> list[str]:
    """A line's AUC must follow from its predictions; lines keep six decimals."""
    told, found = judged.line.get("auc"), auc(judged.test.labels, judged.test.logits)
    told = math.nan if told is None else told
    if abs(told - found) <= 1e-5 or (math.isnan(told) and math.isnan(found)):
        return []
    return [f"run {judged.line['run']}: results say AUC {told:.4f}, its predictions give {found:.4f}"]


def _other_data(data: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    prints = {facts["fingerprint"] for facts in (data, *runs.values()) if facts.get("fingerprint")}
    return ["the runs were not all made on the same data: fingerprints differ"] if len(prints) > 1 else []
