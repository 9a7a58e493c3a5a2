"""The report of a study: one self-contained HTML page, and its tables as CSV and JSON."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.evaluate import stamp
from mammopath.files import write_text
from mammopath.report.ablation import AblationRow, ablation_rows
from mammopath.report.checklists import Checklist, checklists
from mammopath.report.comparisons import Comparisons, compare, draw_sites, in_blocks, mean_intervals
from mammopath.report.curves import MOST_LINES, Curves, Figure, curves
from mammopath.report.effects import EffectRow, effects
from mammopath.report.gaps import gap_rows
from mammopath.report.headline import Head, Results, Sites, head, results, sites
from mammopath.report.knowledge import Knowledge, map_rows, probe_rows, retrieval_rows, told
from mammopath.report.overview import overview, prominent
from mammopath.report.pairs import PairRow, pair_rows
from mammopath.report.pictures import Failure, example_pictures, failure_pictures
from mammopath.report.record import Card, Cohort, Reproduce, card, cohort, reproduce
from mammopath.report.render import render
from mammopath.report.sections import (
    IngredientRow,
    calibration_rows,
    cost_rows,
    ingredient_rows,
    training_figures,
)
from mammopath.report.study import Study, judged_at_home, read_study, reference_of
from mammopath.report.subgroups import SubgroupRow, subgroup_rows
from mammopath.report.tables import SiteRow, csv_text, grouped, means, summarise
from mammopath.report.trust import Calibration, calibration, trust_rows


@dataclass(frozen=True)
class Page:
    """What the page shows, a part for each section; a part that has nothing to show is left out."""

    head: Head
    results: Results
    sites: Sites
    pairs: Sequence[tuple[str, Sequence[PairRow]]]
    comparisons: Comparisons
    ablation: Sequence[AblationRow]
    curves: Curves
    calibration: Calibration
    subgroups: Sequence[tuple[Any, Sequence[SubgroupRow]]]
    effects: Sequence[tuple[str, Sequence[EffectRow]]]
    knowledge: Knowledge
    failures: Sequence[Failure]
    examples: Sequence[Mapping[str, Any]]
    training: Sequence[Figure]
    ingredients: Sequence[IngredientRow]
    cohort: Cohort
    card: Card
    checklists: Sequence[Checklist]
    reproduce: Reproduce


def _always(page: Page) -> bool:
    del page
    return True


CONTENTS: tuple[tuple[str, str, Callable[[Page], object]], ...] = (
    ("results", "Results", _always),
    ("sites", "Held-out sites", _always),
    ("pairs", "Both modalities", lambda page: page.pairs),
    ("comparisons", "Comparisons", lambda page: page.comparisons.blocks),
    ("ablations", "Ablations", lambda page: page.ablation),
    ("curves", "Curves", lambda page: page.curves.roc),
    ("calibration", "Calibration", lambda page: page.calibration.blocks),
    ("subgroups", "Subgroups", lambda page: page.subgroups),
    ("adaptation", "Adaptation", lambda page: page.effects),
    ("knows", "Representation", lambda page: page.knowledge.site_probe or page.knowledge.retrieval),
    ("looks", "Where it looks", lambda page: page.knowledge.localisation),
    ("failures", "Failures", lambda page: page.failures),
    ("examples", "Examples", lambda page: page.examples),
    ("training", "Training", lambda page: page.training),
    ("ingredients", "Ingredients", lambda page: page.ingredients),
    ("data", "Data", _always),
    ("checks", "Checks", _always),
    ("card", "Model card", _always),
    ("checklists", "Checklists", _always),
    ("reproduce", "Reproduce", _always),
)
"""Sections: name, title, and what must be there for them to be shown."""


def contents(page: Page) -> list[tuple[str, str]]:
    """Names and titles of the sections that are shown."""
    return [(place, title) for place, title, needs in CONTENTS if needs(page)]


def write_report(folder: Path) -> Path:
    """Write ``report.html``, ``report.json`` and ``tables/*.csv`` into a study folder, from what it holds.

    Missing pieces (a run's predictions, data.json, examples) leave their section out and are named in
    the report. Headline tables show methods as trained; adapted rows have a section of their own, and all
    of them are in ``tables/sites.csv``.

    Returns:
        Path of report.html.

    Raises:
        DataError: there are no results, or a results line is damaged.
    """
    study = read_study(folder)
    every = summarise(study.lines)
    rows = [r for r in every if r.adaptation in ("", "none")] or every
    tables = _tables(study, rows, every)
    told_all = stamp(study.data)
    for name, table in tables.items():
        write_text(folder / "tables" / f"{name}.csv", csv_text(table, stamp=told_all))
    as_json = {name: [_plain(asdict(row)) for row in table] for name, table in tables.items()}
    head = {"notice": RESEARCH_USE_ONLY, "stamp": told_all, "version": __version__, "tables": as_json}
    write_text(folder / "report.json", json.dumps(head, indent=1))
    page = _page(study, rows, tables)
    parts = {field.name: getattr(page, field.name) for field in fields(page)}
    write_text(folder / "report.html", render(parts | {"contents": contents(page)}))
    return folder / "report.html"


def _tables(study: Study, rows: Sequence[SiteRow], every: Sequence[SiteRow]) -> dict[str, Sequence[Any]]:
    """Every table by its name; each is a file and a part of report.json."""
    shown = {r.label for r in rows}
    draws = int(study.config.get("bootstrap", 2000))
    sites = draw_sites([j for j in study.judged if j.label in shown], draws=draws)
    reference, known = reference_of([r.label for r in rows]), told(study)
    compared = compare(sites, reference)
    return {
        "sites": every,
        "means": means(rows),
        "gaps": gap_rows(study, draws=draws),
        "mean_limits": mean_intervals(sites),
        "pairs": pair_rows(study, draws=draws),
        "comparisons": compared,
        "ablation": ablation_rows(study, compared),
        "calibration": [
            *calibration_rows([j for j in study.judged if j.label in shown]),
            *calibration_rows([j for j in judged_at_home(study) if j.label in shown]),
        ],
        "trust": trust_rows(study),
        "subgroups": subgroup_rows(study, reference),
        "effects": effects(study.lines),
        "ingredients": ingredient_rows(study),
        "site_probe": probe_rows(known),
        "retrieval": retrieval_rows(known),
        "localisation": map_rows(known),
        "costs": cost_rows(study),
    }


def _page(study: Study, rows: Sequence[SiteRow], tables: Mapping[str, Sequence[Any]]) -> Page:
    reference = reference_of([r.label for r in rows])
    styles = {label: k for k, label in enumerate(prominent(rows, reference, MOST_LINES))}
    failures = failure_pictures(study)
    return Page(
        head=head(study, rows, reference),
        results=results(overview(rows, reference), rows, tables),
        sites=sites(rows, styles, tables["gaps"]),
        pairs=grouped(tables["pairs"], lambda r: r.site),
        comparisons=in_blocks(tables["comparisons"], seeds=max((r.seeds for r in rows), default=0)),
        ablation=tables["ablation"],
        curves=curves(study.judged, tables["localisation"], styles),
        calibration=calibration(tables["calibration"], tables["trust"]),
        subgroups=grouped(tables["subgroups"], lambda r: (r.site, r.by, r.modality)),
        effects=grouped(tables["effects"], lambda r: r.label),
        knowledge=Knowledge(*(tables[name] for name in ("site_probe", "retrieval", "localisation"))),
        failures=failures,
        examples=example_pictures(study),
        training=training_figures(study, styles),
        ingredients=tables["ingredients"],
        cohort=cohort(study),
        card=card(study, rows),
        checklists=checklists(study, rows, gallery=bool(failures)),
        reproduce=reproduce(study, tables["costs"]),
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
