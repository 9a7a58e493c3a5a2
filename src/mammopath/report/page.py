"""The report of a study: one self-contained HTML page, and its tables as CSV."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.files import write_text
from mammopath.report.comparisons import Comparison, MeanInterval, compare, draw_sites, mean_intervals
from mammopath.report.effects import effects
from mammopath.report.figures import forest_axis, forest_head, forest_row, swatch
from mammopath.report.knowledge import map_rows, probe_rows, retrieval_rows, told
from mammopath.report.sections import (
    MOST_LINES,
    CalibrationRow,
    calibration_rows,
    cost_rows,
    examples,
    ingredient_rows,
    reliability_figures,
    roc_figures,
    subgroup_rows,
    training_figures,
    versions,
)
from mammopath.report.study import Study, read_study
from mammopath.report.tables import MeanRow, SiteRow, csv_text, means, number, signed, summarise, with_limits

PICTURE = 320
"""Longest side of an embedded picture in pixels, so that a report stays small."""

TRUTH = {"1": "malignant", "0": "not malignant"}

NO_DATA = {"sites": [], "check": [], "skipped": [], "pairing": "", "fingerprint": ""}
"""Facts of the cohort where data.json is missing."""

STAMPED = ("leak", "error")
"""Severities of check findings that stamp the whole report."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``tables/*.csv`` into a study folder, from what the folder holds.

    Missing pieces (a run's predictions, data.json, examples) leave their section out and are named in
    the report.

    Returns:
        Path of report.html.

    Raises:
        DataError: there are no results, or a results line is damaged.
    """
    study = read_study(folder)
    rows = summarise(study.lines)
    sites = draw_sites(study.judged, draws=int(study.config.get("bootstrap", 2000)))
    reference = _reference(rows)
    compared, limits = compare(sites, reference), mean_intervals(sites)
    calibrated = calibration_rows(study.judged)
    page = _page(study, rows, compared=compared, limits=limits, calibrated=calibrated)
    tables: dict[str, Sequence[Any]] = {"sites": rows, "means": means(rows), "comparisons": compared}
    tables |= {"calibration": calibrated, "ingredients": page["ingredients"]}
    tables |= {name: page[name] for name in ("site_probe", "retrieval", "localisation")}
    for name, table in tables.items():
        write_text(folder / "tables" / f"{name}.csv", csv_text(table, stamp=_stamp(study)))
    write_text(folder / "report.html", _render(page))
    return folder / "report.html"


def _render(page: Mapping[str, Any]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "num": number,
        "signed": signed,
        "breakable": _breakable,
        "limits": with_limits,
        "groupby_site": _by_site,
    }
    source = files("mammopath.report")
    style = Markup(source.joinpath("page.css").read_text())  # noqa: S704 - a file of ours
    return environment.from_string(source.joinpath("page.html").read_text()).render(page, style=style)


def _by_site(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Rows of each site and modality, which lie together already."""
    groups = groupby(rows, lambda r: (r.modality, r.site))
    return [(site, list(group)) for (_, site), group in groups]


def _breakable(name: str) -> Markup:
    """A name that may be wrapped after its underscores and slashes."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped just here


def _page(
    study: Study,
    rows: Sequence[SiteRow],
    *,
    compared: Sequence[Comparison],
    limits: Sequence[MeanInterval],
    calibrated: Sequence[CalibrationRow],
) -> dict[str, Any]:
    styles = {label: k for k, label in enumerate(dict.fromkeys(r.label for r in rows))}
    reference = _reference(rows)
    known = told(study)
    legend = [(Markup(swatch(k)), label) for label, k in styles.items() if k < MOST_LINES]  # noqa: S704
    return {
        "notice": RESEARCH_USE_ONLY,
        "version": __version__,
        "name": study.config.get("name") or study.folder.name,
        "phantom": bool(study.data.get("phantom")),
        "stamps": _leaks(study),
        "cards": _cards(study, rows),
        "means": _means(means(rows), limits),
        "forest": _forest(rows, styles),
        "intervals": list(dict.fromkeys(r.interval for r in rows if r.interval)),
        "selections": list(dict.fromkeys(r.select for r in rows if r.select)),
        "reference": reference,
        "comparisons": [(scope, list(group)) for scope, group in groupby(compared, lambda c: c.scope)],
        "legend": legend,
        "hidden": list(styles)[MOST_LINES:],
        "roc": roc_figures(study.judged, styles),
        "reliability": reliability_figures(study.judged, styles),
        "calibration": [(site, list(group)) for site, group in groupby(calibrated, lambda c: c.site)],
        "subgroups": [
            (site, part, with_limits(part.auc.value, part.auc.low, part.auc.high))
            for site, part in subgroup_rows(study.judged, reference)
        ],
        "effects": [
            (label, list(group)) for label, group in groupby(effects(study.lines), lambda r: r.label)
        ],
        "site_probe": probe_rows(known),
        "retrieval": retrieval_rows(known),
        "localisation": map_rows(known),
        "training": training_figures(study, styles),
        "ingredients": ingredient_rows(study),
        "data": NO_DATA | dict(study.data),
        "examples": _examples(study),
        "costs": cost_rows(study),
        "versions": versions(study),
        "config": json.dumps(study.config, indent=2),
        "notes": study.notes,
        "warnings": _warnings(study),
    }


def _leaks(study: Study) -> list[Mapping[str, str]]:
    return [f for f in study.data.get("check", []) if f["severity"] in STAMPED]


def _stamp(study: Study) -> str:
    """The stamps of the page in one cell of a table."""
    phantom = ["synthetic phantom: not clinical"] if study.data.get("phantom") else []
    return "; ".join([*phantom, *(f"{f['severity']}: {f['what']}" for f in _leaks(study))])


def _reference(rows: Sequence[SiteRow]) -> str:
    """What the others are compared with: plain ERM if it is there, else the first row's method."""
    labels = [r.label for r in rows]
    return "erm" if "erm" in labels else next(iter(labels), "")


def _cards(study: Study, rows: Sequence[SiteRow]) -> list[tuple[str, str]]:
    sites = study.data.get("sites", [])
    patients = [s.get("patients") for s in sites]
    known = [p for p in patients if p is not None]
    return [
        ("sites", str(len({r.site for r in rows}))),
        ("images", f"{sum(s['images'] for s in sites):,}" if sites else "–"),
        ("patients", f"{sum(known):,}" + ("" if len(known) == len(patients) else "+") if known else "–"),
        ("methods", str(len({r.label for r in rows}))),
        ("seeds", str(max((r.seeds for r in rows), default=0))),
        ("runs", str(len(study.runs))),
    ]


def _means(rows: Sequence[MeanRow], limits: Sequence[MeanInterval]) -> list[tuple[str, list[dict[str, Any]]]]:
    found = {(i.scope, i.label): i for i in limits}
    most = {scope: max(r.sites for r in group) for scope, group in _grouped(rows)}
    shown = []
    for row in rows:
        limit = found.get((row.scope, row.label))
        auc = with_limits(row.mean_auc, limit.low, limit.high) if limit else number(row.mean_auc)
        shown.append(asdict(row) | {"auc": auc, "of": most[row.scope]})
    return [(scope, list(group)) for scope, group in groupby(shown, lambda r: r["scope"])]


def _grouped(rows: Sequence[MeanRow]) -> list[tuple[str, list[MeanRow]]]:
    return [(scope, list(group)) for scope, group in groupby(rows, lambda r: r.scope)]


def _forest(rows: Sequence[SiteRow], styles: Mapping[str, int]) -> dict[str, Any]:
    seen = [v for r in rows for v in (r.auc, r.auc_low, r.auc_high, r.in_domain_auc)]
    axis = forest_axis(seen)
    groups = []
    for (modality, site), group in groupby(rows, lambda r: (r.modality, r.site)):
        lines = [
            asdict(r)
            | {
                "label": r.label,
                "text": with_limits(r.auc, r.auc_low, r.auc_high),
                "bar": Markup(  # noqa: S704 - our own SVG
                    forest_row(
                        axis, r.auc, r.auc_low, r.auc_high, reference=r.in_domain_auc, index=styles[r.label]
                    )
                ),
            }
            for r in group
        ]
        groups.append({"modality": modality, "site": site, "rows": lines})
    return {"head": Markup(forest_head(axis)), "groups": groups}  # noqa: S704


def _examples(study: Study) -> list[dict[str, Any]]:
    shown = []
    for run, example in examples(study):
        folder = study.folder / "runs" / run
        pictures = [_picture(folder / str(example[k])) for k in ("image", "overlay") if example.get(k)]
        truth = TRUTH.get(str(example.get("malignant"))[:1], "truth unknown")
        shown.append(dict(example) | {"run": run, "pictures": pictures, "truth": truth})
    return shown


def _picture(path: Path) -> str:
    """A small copy of a picture as a data URI; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return ""
    small.thumbnail((PICTURE, PICTURE))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _warnings(study: Study) -> list[tuple[str, str]]:
    found = {
        (str(w), f.get("held_out") or "in-domain") for f in study.runs.values() for w in f.get("warnings", [])
    }
    return sorted((site, text) for text, site in found)
