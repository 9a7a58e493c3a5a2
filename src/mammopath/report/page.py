"""The report of a study: one self-contained HTML page, and its tables as CSV and JSON."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.evaluate import stamp
from mammopath.files import write_text
from mammopath.report.ablation import ablation_rows
from mammopath.report.charts import gap_chart, key, rank_chart
from mammopath.report.checklists import checklists
from mammopath.report.comparisons import compare, draw_sites, mean_intervals
from mammopath.report.curves import (
    MOST_LINES,
    froc_figures,
    precision_figures,
    reliability_figures,
    risk_figures,
    roc_figures,
)
from mammopath.report.effects import effects
from mammopath.report.figures import swatch
from mammopath.report.gaps import gap_rows
from mammopath.report.headline import cards, forest, licences, mean_blocks, model_card
from mammopath.report.knowledge import map_rows, probe_rows, retrieval_rows, told
from mammopath.report.overview import overview, prominent
from mammopath.report.pictures import example_pictures, failure_pictures
from mammopath.report.sections import calibration_rows, cost_rows, ingredient_rows, training_figures, versions
from mammopath.report.study import Study, judged_at_home, read_json, read_study, reference_of
from mammopath.report.subgroups import subgroup_rows
from mammopath.report.tables import (
    SiteRow,
    csv_text,
    means,
    number,
    p_value,
    signed,
    summarise,
    with_limits,
)
from mammopath.report.trust import trust_rows

NO_DATA = {"sites": [], "check": [], "skipped": [], "pairing": "", "fingerprint": ""}
"""Facts of the cohort where data.json is missing."""

TEMPLATES = ("page.html", "macros.html", "results.html", "behaviour.html", "record.html")

CONTENTS = (
    ("results", "Results", "heat"),
    ("sites", "Held-out sites", "forest"),
    ("comparisons", "Comparisons", "comparisons"),
    ("ablations", "Ablations", "ablation"),
    ("curves", "Curves", "roc"),
    ("calibration", "Calibration", "calibration"),
    ("subgroups", "Subgroups", "subgroups"),
    ("adaptation", "Adaptation", "effects"),
    ("knows", "Representation", "knows"),
    ("looks", "Where it looks", "localisation"),
    ("failures", "Failures", "failures"),
    ("examples", "Examples", "examples"),
    ("training", "Training", "training"),
    ("ingredients", "Ingredients", "ingredients"),
    ("data", "Data", "data"),
    ("checks", "Checks", "data"),
    ("card", "Model card", "card"),
    ("checklists", "Checklists", "checklists"),
    ("reproduce", "Reproduce", "versions_known"),
)
"""Sections: name, title, and what must be there for them to be shown."""


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
    write_text(folder / "report.html", _render(_page(study, rows, tables)))
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


def _page(study: Study, rows: Sequence[SiteRow], tables: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    reference = reference_of([r.label for r in rows])
    seen = overview(rows, reference)
    styles = {label: k for k, label in enumerate(prominent(rows, reference, MOST_LINES))}
    failures, card = failure_pictures(study), read_json(study.folder / "card.json")
    page = {
        "notice": RESEARCH_USE_ONLY,
        "version": __version__,
        "name": study.config.get("name") or study.folder.name,
        "phantom": bool(study.data.get("phantom")),
        "stamps": [f for f in study.data.get("check", []) if f["severity"] in ("leak", "error")],
        "cards": cards(study, rows),
        "heat": seen,
        "power": seen.power,
        "rank_chart": rank_chart(seen),
        "gap_chart": gap_chart(rows, [r.label for r in seen.rows]),
        "site_marks": [(Markup(key(k)), site) for k, site in enumerate(seen.names)],  # noqa: S704
        "adapted": bool(tables["effects"]),
        "means": mean_blocks(tables["means"], tables["mean_limits"], tables["gaps"]),
        "forest": forest(rows, styles, tables["gaps"]),
        "intervals": list(dict.fromkeys(r.interval for r in rows if r.interval)),
        "selections": list(dict.fromkeys(r.select for r in rows if r.select)),
        "severity": [r for r in rows if not math.isnan(r.qwk)],
        "reference": reference,
        "single_seed": max((r.seeds for r in rows), default=0) < 2,
        "comparisons": [
            (scope, sorted(found, key=lambda c: -c.difference))
            for scope, found in _grouped(tables["comparisons"], lambda c: c.scope)
        ],
        "calibration": _grouped(tables["calibration"], lambda c: (c.site, c.modality)),
        "subgroups": _grouped(tables["subgroups"], lambda r: (r.site, r.by, r.modality)),
        "effects": _grouped(tables["effects"], lambda r: r.label),
        "failures": failures,
        "examples": example_pictures(study),
        "training": training_figures(study, styles),
        "data": NO_DATA | dict(study.data),
        "card": model_card(study, rows, stamp(study.data)),
        "licences": licences(card),
        "methods": card.get("methods", {}),
        "checklists": checklists(study, rows, gallery=bool(failures)),
        "hours": sum(c.total_seconds for c in tables["costs"] if c.total_seconds == c.total_seconds) / 3600,
        "versions": versions(study),
        "config": json.dumps(study.config, indent=2),
        "notes": study.notes,
        "warnings": _warnings(study),
    }
    names = ("ablation", "trust", "ingredients", "site_probe", "retrieval", "localisation", "costs")
    page |= {name: tables[name] for name in names} | _curves(study, tables, styles)
    page |= {"knows": page["site_probe"] or page["retrieval"], "versions_known": True}
    return page | {"contents": [(place, title) for place, title, needs in CONTENTS if page[needs]]}


def _curves(study: Study, tables: Mapping[str, Sequence[Any]], styles: Mapping[str, int]) -> dict[str, Any]:
    judged = [j for j in study.judged if j.label in styles]
    legend = [(Markup(swatch(k)), label) for label, k in styles.items() if k < MOST_LINES]  # noqa: S704
    return {
        "legend": legend,
        "hidden": len(styles) - len(legend),
        "roc": roc_figures(judged, styles),
        "precision": precision_figures(judged, styles),
        "reliability": reliability_figures(judged, styles),
        "risk": risk_figures(judged, styles),
        "froc": froc_figures(tables["localisation"], styles),
    }


def _render(page: Mapping[str, Any]) -> str:
    source = files("mammopath.report")
    loader = DictLoader({name: source.joinpath(name).read_text() for name in TEMPLATES})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters |= {
        "num": number,
        "p": p_value,
        "signed": signed,
        "percent": _percent,
        "breakable": _breakable,
        "tied": lambda text: text.replace(", ", ",\u00a0"),
        "limits": with_limits,
        "groupby_site": _by_site,
    }
    sheets = (files("mammopath").joinpath("base.css"), source.joinpath("page.css"))
    style = Markup("".join(sheet.read_text() for sheet in sheets))  # noqa: S704 - files of ours
    return environment.get_template("page.html").render(page, style=style)


def _by_site(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Rows of each site and modality, which lie together already."""
    return [(site, group) for (_, site), group in _grouped(rows, lambda r: (r.modality, r.site))]


def _grouped(rows: Sequence[Any], by: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    return [(name, list(group)) for name, group in groupby(rows, by)]


def _breakable(name: str) -> Markup:
    """A name that may be wrapped after its underscores and slashes."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped just here


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _warnings(study: Study) -> list[tuple[str, str]]:
    found = {
        (str(w), f.get("held_out") or "in-domain") for f in study.runs.values() for w in f.get("warnings", [])
    }
    return sorted((site, text) for text, site in found)
