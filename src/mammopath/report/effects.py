"""What each test-time adaptation did to each site: before, after, hurt rate, the guard's decisions."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mammopath.report.tables import Line, markdown_rows, number, signed

HURT = 0.005
"""A fall of the AUC by more than half a point counts as hurt."""


LEAST = 1e-6
"""A movement by less, relative to the length of what may move, is none."""

IDLE = "nothing moved"
"""Reason where a run gives none."""


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One adaptation of one method, on one site or on all of them; means over seeds.

    Attributes:
        site: or ``all``. runs: site x seed.
        before, after: AUC of the source and of what was adapted, on the same cases. worst: largest fall.
        hurt: share of runs whose AUC fell by more than ``HURT``.
        ece_before, ece_after: calibration error.
        gap_before, gap_after: source validation AUC minus AUC on the site; NaN where one is not known.
        adapted: share of runs whose answers or weights differ from the source's.
        changed: mean share of cases that are answered otherwise than by the source; NaN in older studies.
        moved: largest distance of a run, of all that may move together relative to its length.
        reason: the most frequent reason why the source stayed; empty where it never did.
    """

    site: str
    modality: str
    label: str
    runs: int
    before: float
    after: float
    worst: float
    hurt: float
    ece_before: float
    ece_after: float
    gap_before: float
    gap_after: float
    adapted: float
    changed: float
    moved: float
    reason: str


def effects(lines: Sequence[Line]) -> list[EffectRow]:
    """A row per adaptation and site, then one over all sites; none where nothing was adapted."""
    sources = {_run(line): line for line in lines if line.get("adaptation") == "none"}
    pairs = [(sources[_run(x)], x) for x in lines if "adapted" in x and _run(x) in sources]
    pairs = [pair for pair in pairs if None not in (pair[0]["auc"], pair[1]["auc"])]
    labels = dict.fromkeys((x["method"], x["adaptation"]) for _, x in pairs)
    places = sorted({(x["modality"], x["site"]) for _, x in pairs})
    rows = []
    for method, adaptation in labels:
        mine = [p for p in pairs if (p[1]["method"], p[1]["adaptation"]) == (method, adaptation)]
        label = f"{method} + {adaptation}"
        for modality, site in places:
            here = [p for p in mine if (p[1]["modality"], p[1]["site"]) == (modality, site)]
            rows += [_row(site, modality, label, here)] if here else []
        rows.append(_row("all", "", label, mine))
    return rows


def markdown_effects(rows: Sequence[EffectRow]) -> str:
    """The rows as a Markdown table."""
    head = [
        *("adaptation", "site", "runs", "AUC before", "AUC after", "change", "largest fall", "hurt"),
        *("gap before", "gap after", "ECE before", "ECE after", "adapted", "answers changed"),
        *("largest movement", "why not"),
    ]
    cells = [
        (
            row.label,
            row.site,
            str(row.runs),
            number(row.before, 3),
            number(row.after, 3),
            signed(row.after - row.before, 3),
            signed(row.worst, 3),
            f"{row.hurt:.0%}",
            signed(row.gap_before, 3),
            signed(row.gap_after, 3),
            number(row.ece_before),
            number(row.ece_after),
            f"{row.adapted:.0%}",
            "" if math.isnan(row.changed) else f"{row.changed:.0%}",
            number(row.moved, 4),
            row.reason,
        )
        for row in rows
    ]
    return markdown_rows(head, cells)


def _run(line: Line) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("held_out", "site", "modality", "method", "seed"))


def _row(site: str, modality: str, label: str, pairs: Sequence[tuple[Line, Line]]) -> EffectRow:
    changes = [after["auc"] - before["auc"] for before, after in pairs]
    told: list[Mapping[str, Any]] = [after["adapted"][after["modality"]] for _, after in pairs]
    stayed = [one for one in told if one["decision"] == "source" or not _moved(one)]
    reasons = Counter(reason for one in stayed for reason in (*one["reasons"], IDLE)[:1])
    return EffectRow(
        site=site,
        modality=modality,
        label=label,
        runs=len(pairs),
        before=fmean(before["auc"] for before, _ in pairs),
        after=fmean(after["auc"] for _, after in pairs),
        worst=min(changes),
        hurt=fmean(change < -HURT for change in changes),
        ece_before=_mean([before["ece"] for before, _ in pairs]),
        ece_after=_mean([after["ece"] for _, after in pairs]),
        gap_before=_mean([_gap(before, before["auc"]) for before, _ in pairs]),
        gap_after=_mean([_gap(before, after["auc"]) for before, after in pairs]),
        adapted=fmean(one["decision"] == "adapted" and _moved(one) for one in told),
        changed=_mean([one.get("changed") for one in told]),
        moved=max(one["relative"] for one in told),
        reason=reasons.most_common(1)[0][0] if reasons else "",
    )


def _gap(source: Line, auc: float) -> float | None:
    """Source validation is the source's own in both: adaptation is judged by the site alone."""
    return None if source.get("source_val_auc") is None else source["source_val_auc"] - auc


def _moved(told: Mapping[str, Any]) -> bool:
    """Whether anything moved, or was answered otherwise, beyond rounding."""
    return told["relative"] > LEAST or told.get("changed", 0) > 0


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return fmean(known) if known else math.nan
