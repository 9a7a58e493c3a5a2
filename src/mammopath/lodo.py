"""Leave one domain out: folds x methods x seeds, one result line each, resumed where it stopped."""

import fcntl
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adapting import adapt_to_held_out, known_adaptation
from mammopath.bench import Bench, data_facts, prepare_bench, stamped
from mammopath.card import card_facts
from mammopath.cohort.cases import case_table
from mammopath.config import dump, parse_saved
from mammopath.diagnostics import headlines
from mammopath.errors import ConfigError
from mammopath.evaluate import Resampling, result_lines, source_val_auc, units_of
from mammopath.experiment import BASELINES, CNN, SELECTION, Outcome, run
from mammopath.files import append_line, read_lines, write_text
from mammopath.objectives.methods import method_recipe
from mammopath.paired import pair_lines
from mammopath.parallel import in_processes, processes
from mammopath.predict import write_table
from mammopath.progress import Track, silent
from mammopath.runs import load_run
from mammopath.settings import LodoSettings
from mammopath.sources.slides import is_slide
from mammopath.types import MODALITIES, Record

EXTENT = ("held_out", "methods", "seeds", "adaptation", "in_domain", "workers", "cache", "for_prediction")
"""Keys that say how much of the table is made, not what a run is."""


@dataclass(frozen=True)
class Cell:
    """One run of the table; ``held_out`` is empty for the in-domain reference."""

    held_out: str
    method: str
    seed: int
    adaptation: str = "none"

    @property
    def source(self) -> str:
        """Name of the folder of the run as trained."""
        return f"{self.held_out or 'in_domain'}__{self.method}__{self.seed}"

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.source if self.adaptation == "none" else f"{self.source}__{self.adaptation}"


def lodo(settings: LodoSettings, out: Path, *, strict: bool = False, track: Track = silent) -> Path:
    """Run every cell that ``out/results.jsonl`` does not hold yet.

    A killed study goes on where it stopped: finished runs are kept, a half-written run is removed and
    made again. Lines hold no times, so a resumed study has the same lines as an uninterrupted one.

    Args:
        settings: the whole study.
        out: folder of the study; a folder of another configuration is refused.
        strict: stop at the first unreadable image instead of listing it.
        track: shows progress.

    Returns:
        Path of results.jsonl.

    Raises:
        ConfigError: ``out`` holds a study with other settings, or another process works on it.
    """
    results = out / "results.jsonl"
    with locked(out):
        _keep_config(settings, out)
        cache, tokens = settings.cache or out / "cache", set(settings.methods) != {CNN}
        bench = prepare_bench(settings, cache=cache, tokens=tokens, strict=strict, track=track)
        bench = stamped(bench, _facts_kept(bench, out))
        write_table(out / "cases.parquet", case_table(bench.records))
        write_text(out / "card.json", json.dumps(card_facts(bench, settings), indent=2))
        every = cells(settings, bench.records)
        done = finished(results)
        for adapted in (False, True):  # an adaptation starts from a finished run
            todo = [c for c in every if c.name not in done and (c.adaptation != "none") == adapted]
            _run_all(bench, settings, todo, out, track=track)
        put_in_order(results, every)
    return results


def _run_all(bench: Bench, settings: LodoSettings, todo: Sequence[Cell], out: Path, *, track: Track) -> None:
    workers = processes(settings.workers, threads=settings.threads)
    if workers > 1:
        bench = replace(bench, samples={})  # views are prepared again rather than sent between processes
    work = partial(_run_cell, bench, settings, out / "runs")
    found = in_processes(work, todo, workers=workers)
    for _ in track(range(len(todo)), "runs", len(todo)):
        append_cell(out / "results.jsonl", next(found))


def cells(settings: LodoSettings, records: Sequence[Record]) -> list[Cell]:
    """All runs of a study, in order; a method that does not train a site's modality has no run for it."""
    sites = sorted({r.domain for r in records})
    folds = list(settings.held_out or sites) + ([""] if settings.in_domain else [])
    modalities = {s: {r.modality for r in records if r.domain == s} for s in sites}
    adaptations = [known_adaptation(name) for name in settings.adaptation if name != "none"]
    found = []
    for seed, method, held_out in product(settings.seeds, settings.methods, folds):
        trained = None if method in BASELINES else set(method_recipe(method, {}).modalities)
        is_told = trained is None or not held_out or trained & modalities.get(held_out, trained)
        if is_told and not (method == CNN and held_out and _of_slides(records, held_out)):
            found.append(Cell(held_out, method, seed))
    sources = [c for c in found if c.method not in BASELINES and c.held_out]
    adapted = [replace(cell, adaptation=name) for name in adaptations for cell in sources]
    of_slides = {r.domain for r in records if is_slide(r)}
    return found + [c for c in adapted if not (c.held_out in of_slides and _needs_views(c.adaptation))]


def _needs_views(adaptation: str) -> bool:
    """Whether an adaptation looks at cases in another style, or in part; slides have no such views."""
    method = ADAPTATIONS[adaptation]
    return method.needs_views or method.needs_hidden


def _of_slides(records: Sequence[Record], site: str) -> bool:
    """Whether a site, or all others of its modalities, are whole slides: too large for a small CNN."""
    fields = {(r.domain == site, r.modality) for r in records if not is_slide(r)}
    return not any((True, m) in fields and (False, m) in fields for m in MODALITIES)


def finished(results: Path) -> set[str]:
    """Names of the runs whose lines are all there."""
    lines = [json.loads(line) for line in read_lines(results)]
    counts = Counter(line["run"] for line in lines)
    return {line["run"] for line in lines if counts[line["run"]] == line["of"]}


def append_cell(results: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Append the lines of one run; lines of an unfinished attempt at it are dropped first."""
    name = lines[0]["run"]
    kept = [line for line in read_lines(results) if json.loads(line)["run"] != name]
    if len(kept) != len(read_lines(results)):
        write_text(results, "".join(line + "\n" for line in kept))
    for line in lines:
        append_line(results, json.dumps(line))


def put_in_order(results: Path, every: Sequence[Cell]) -> None:
    """Lines in the order of the runs, whichever finished first."""
    place = {cell.name: i for i, cell in enumerate(every)}
    lines = [json.loads(line) for line in read_lines(results)]
    lines.sort(key=lambda line: place.get(line["run"], len(place)))
    write_text(results, "".join(json.dumps(line) + "\n" for line in lines))


def _run_cell(bench: Bench, settings: LodoSettings, runs: Path, cell: Cell) -> list[dict[str, Any]]:
    shutil.rmtree(runs / cell.name, ignore_errors=True)  # a run without its lines was not finished
    outcome = _outcome(bench, settings, runs, cell)
    facts = {"stamp": bench.stamp} | _line_facts(cell, settings, outcome)
    how = Resampling(settings.bootstrap, cell.seed, settings.interval)
    lines = [
        line
        | _source_val(outcome, line, settings)
        | headlines(runs / cell.name, site=line["site"], modality=line["modality"])
        for line in result_lines(outcome.table, facts, units=units_of(settings.data), resampling=how)
    ]
    lines += pair_lines(outcome.pairs, facts, resampling=how)
    return [line | {"of": len(lines)} for line in lines]


def _outcome(bench: Bench, settings: LodoSettings, runs: Path, cell: Cell) -> Outcome:
    if cell.adaptation != "none":
        source = load_run(runs / cell.source)
        return adapt_to_held_out(
            bench, source, method=cell.adaptation, settings=settings.adapt, folder=runs / cell.name
        )
    train = settings.train.model_copy(update={"method": cell.method})
    chosen = settings.model_copy(update={"train": train, "seed": cell.seed})
    return run(bench, chosen, held_out=cell.held_out or None, folder=runs / cell.name)


def _line_facts(cell: Cell, settings: LodoSettings, outcome: Outcome) -> dict[str, Any]:
    return {
        "run": cell.name,
        "held_out": cell.held_out,
        "method": cell.method,
        "adaptation": cell.adaptation,
        "seed": cell.seed,
        "select": SELECTION.get(cell.method, settings.select),
        "best_step": outcome.facts["best_step"],
        "counters": outcome.facts["counters"],
        "idle": outcome.facts["idle"],
    } | ({"adapted": outcome.facts["adaptation"]} if "adaptation" in outcome.facts else {})


def _source_val(outcome: Outcome, line: dict[str, Any], settings: LodoSettings) -> dict[str, Any]:
    value = source_val_auc(outcome.table, units_of(settings.data), line["modality"])
    return {"source_val_auc": None if math.isnan(value) else round(value, 6)}


def _keep_config(settings: LodoSettings, out: Path) -> None:
    """A study may grow (more methods, seeds, sites, adaptations); what a run is made of may not change."""
    path = out / "config.json"
    before = settings
    if path.exists():
        before = parse_saved(LodoSettings, json.loads(path.read_text()), where=str(path))
    old, new = _made_of(before), _made_of(settings)
    if set(before.adaptation) <= {"none"}:  # nothing was adapted yet, so nothing depends on how
        old["adapt"] = new["adapt"]
    changed = ", ".join(sorted(key for key in new if new[key] != old[key]))
    if changed:
        raise ConfigError(f"{out} holds a study with other settings ({changed}); name another folder")
    write_text(path, json.dumps(dump(settings), indent=2))


def _made_of(settings: LodoSettings) -> dict[str, Any]:
    return {key: value for key, value in dump(settings).items() if key not in EXTENT}


def _facts_kept(bench: Bench, out: Path) -> Mapping[str, Any]:
    """Facts of the cohort in ``data.json``, there before the first run so that every output is stamped."""
    path = out / "data.json"
    if not path.exists():
        write_text(path, json.dumps(data_facts(bench), indent=2))
    facts: Mapping[str, Any] = json.loads(path.read_text())
    return facts


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone; the lock goes with the process, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process works on this study") from None
        yield
