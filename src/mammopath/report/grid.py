"""A study's methods in one Markdown grid: a row each, a column for each site, and the difference from ERM."""

from collections.abc import Sequence

from mammopath.report.comparisons import Comparison, compare, draw_sites
from mammopath.report.knowledge import MapRow, map_rows, probe_rows, retrieval_rows, told
from mammopath.report.study import Study, reference_of
from mammopath.report.tables import (
    Line,
    SiteRow,
    markdown_rows,
    number,
    p_value,
    signed_limits,
    summarise,
    with_limits,
)

NONE = "–"

MAPS = tuple(
    f"{measure}_{of}" for measure in ("pointing", "froc") for of in ("attention", "lesion", "chance")
)
"""Measures of the maps in a results line."""


def markdown_grid(study: Study, *, draws: int = 1000) -> str:
    """AUC with its interval at each held-out site, mean over sites, difference of that from the reference.

    Differences are paired by patient, averaged over seeds and sites, with limits for other patients and for
    training again; p is Holm's over all methods. A method that trains one modality has the sites of that
    modality alone, and no mean.
    """
    rows = [r for r in summarise(study.lines) if r.adaptation in ("", "none")]
    sites = list(dict.fromkeys(r.site for r in sorted(rows, key=lambda r: (r.modality, r.site))))
    methods = list(dict.fromkeys(line["method"] for line in study.lines))
    known = {(r.method, r.site): r for r in rows}
    plain = [j for j in study.judged if j.line["adaptation"] in ("", "none")]
    compared = compare(draw_sites(plain, draws=draws), reference_of(methods))
    over_all = {c.label: c for c in compared if c.scope == "all"}
    head = ["method", *sites, "mean", "difference [95 %]", "p (Holm)"]
    body = []
    for method in methods:
        own = [known.get((method, site)) for site in sites]
        body.append([f"`{method}`", *map(_auc, own), _mean(own), *_difference(over_all.get(method))])
    return _table(head, body)


def markdown_knowledge(study: Study) -> str:
    """What each method's networks know beside the label: means over seeds and sites, beside their chance.

    The site read off the embedding (balanced accuracy), the right label found across modalities (mean
    precision), the highest token of the attention and of the lesion map on a malignant lesion (share of
    images), sensitivity of their peaks averaged over the FROC's false positives, and what was configured but
    did not run at one site at least.
    """
    lines = [line for line, _ in told(study)]
    head = ["method", "site probe before", "site probe after", "label retrieval", "pointing: attention"]
    head += ["pointing: lesion map", "chance of pointing", "FROC: attention", "FROC: lesion map"]
    head += ["chance of FROC", "configured, but idle"]
    body = []
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [line for line in lines if line["method"] == method and line["adaptation"] == "none"]
        seen, chance = _average(own, "retrieval_label"), _average(own, "retrieval_label_chance")
        idle = sorted({name for line in own for name in line.get("idle", {})})
        body.append(
            [
                f"`{method}`",
                _shown(_average(own, "site_probe_before")),
                _shown(_average(own, "site_probe")),
                NONE if seen is None else f"{_shown(seen)} ({_shown(chance)})",
                *(_shown(_average(own, name)) for name in MAPS),
                ", ".join(idle) or NONE,
            ]
        )
    return _table(head, body)


def markdown_representation(study: Study) -> str:
    """What each method's representation knows at each held-out site, by modality: site, partner, gap.

    In brackets the chance level; the probe's limits are of patients, everything is a mean over seeds.
    """
    known = told(study)
    probes = {(r.modality, r.site, r.label): r for r in probe_rows(known)}
    head = ["site", "modality", "method", "site probe before [95 %]", "site probe after [95 %]", "chance"]
    head += ["right one has the same", "mAP", "R@1", "R@5", "R@10", "modality gap"]
    body = []
    for row in retrieval_rows(known):
        probe = probes.get((row.modality, row.site, row.label))
        before = probe and with_limits(probe.before, probe.before_low, probe.before_high)
        after = probe and with_limits(probe.after, probe.after_low, probe.after_high)
        found = [(row.precision, row.precision_chance), (row.recall_1, row.recall_1_chance)]
        found += [(row.recall_5, row.recall_5_chance), (row.recall_10, row.recall_10_chance)]
        body.append(
            [
                *(row.site, row.modality, f"`{row.label}`", before or NONE, after or NONE),
                *(number(probe.chance) if probe else NONE, row.link.replace("_in_class", ", in its class")),
                *(f"{number(value)} ({number(chance)})" for value, chance in found),
                number(row.gap),
            ]
        )
    return markdown_rows(head, body)


def markdown_localisation(study: Study) -> str:
    """Each map of each method against the malignant lesions of each annotated held-out site, with limits.

    Differences from chance and from the attention map are on the same patients; those without limits are of
    runs that did not keep them.
    """
    head = ["site", "method", "map", "lesions", "pointing game [95 %]", "chance", "minus chance"]
    head += ["minus attention", "FROC [95 %]", "chance", "minus chance", "minus attention"]
    body = [
        [
            *(row.site, f"`{row.label}`", row.map, str(row.lesions)),
            with_limits(row.pointing, row.pointing_low, row.pointing_high),
            number(row.pointing_chance),
            *(_gain(row, f"pointing_over_{other}") for other in ("chance", "attention")),
            with_limits(row.froc, row.froc_low, row.froc_high),
            number(row.froc_chance),
            *(_gain(row, f"froc_over_{other}") for other in ("chance", "attention")),
        ]
        for row in map_rows(told(study))
        if row.target == "malignant"
    ]
    return markdown_rows(head, body)


def _gain(row: MapRow, name: str) -> str:
    return signed_limits(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high")))


def _auc(row: SiteRow | None) -> str:
    return NONE if row is None else f"{row.auc:.2f} [{row.auc_low:.2f}, {row.auc_high:.2f}]"


def _mean(rows: Sequence[SiteRow | None]) -> str:
    found = [row.auc for row in rows if row is not None]
    return f"{sum(found) / len(found):.3f}" if len(found) == len(rows) else NONE


def _difference(found: Comparison | None) -> tuple[str, str]:
    if found is None:
        return NONE, NONE
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]", p_value(found.p_holm)


def _average(lines: Sequence[Line], name: str) -> float | None:
    values = [line[name] for line in lines if line.get(name) is not None]
    return sum(values) / len(values) if values else None


def _shown(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) + "\n"
