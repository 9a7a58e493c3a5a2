"""Rows of patients with both modalities: what late fusion, trained fusion and one modality are worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mammopath.report.comparisons import Comparison, compare, draw_sites
from mammopath.report.study import Study, reference_of
from mammopath.report.tables import (
    Line,
    SiteRow,
    markdown_rows,
    number,
    p_value,
    signed,
    summarise,
    with_limits,
)

READINGS = ("mammogram", "pathology", "mean", "fused")
"""What the score of a patient may come from; ``auc_NAME`` of a line."""

READS = {"mean": "mean of both", "fused": "both, fused", "mammogram": "mammograms", "pathology": "pathology"}
"""Their names in the tables."""

ALL = "all"
"""Stands for the site of a mean over all sites where the method has a row."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """One method on the patients of one held-out site, or its mean over the sites; NaN where not known.

    Attributes:
        reads: what its own score comes from, a key of ``READS``.
        pairs: patients with both modalities and a known label. positives: malignant ones.
        auc: of its own score, mean over seeds, with limits for other patients (means: without).
        seed_sd: over seeds. gap_in_domain: in-domain minus held-out AUC on the test split.
        mammogram, pathology, mean, fused: AUC of each reading of the same networks.
        difference: own score minus the reference's, on the same patients, with limits for other patients and
            training again. p_holm: after Holm over the methods.
    """

    site: str
    label: str
    reads: str
    pairs: int
    positives: int
    seeds: int
    auc: float
    auc_low: float
    auc_high: float
    seed_sd: float
    gap_in_domain: float
    mammogram: float
    pathology: float
    mean: float
    fused: float
    difference: float
    low: float
    high: float
    p_holm: float

    @property
    def told(self) -> str:
        """What the score comes from, in words."""
        return READS.get(self.reads, self.reads)


def pair_rows(study: Study, *, draws: int = 2000) -> list[PairRow]:
    """Rows of every site by falling AUC, then of the means over several sites; none without true pairs."""
    rows = summarise(study.pairs)
    reference = reference_of([r.label for r in rows])
    compared = compare(draw_sites(study.judged_pairs, draws=draws), reference)
    known = {(c.scope, c.label): c for c in compared}
    sites = list(dict.fromkeys(r.site for r in rows))
    found = [_row(r, _lines(study, r), known.get((r.site, r.label))) for r in rows]
    found.sort(key=lambda r: (sites.index(r.site), math.isnan(r.auc), -r.auc if r.auc == r.auc else 0.0))
    return found + (_means(found, sites, known) if len(sites) > 1 else [])


def markdown_pairs(rows: Sequence[PairRow]) -> str:
    """The rows in Markdown; empty for none."""
    head = (
        *("site", "method", "score from", "patients (malignant)", "AUC [95 %]", "seed SD", "gap, in-domain"),
        *("mammograms alone", "pathology alone", "mean of both", "fused", "difference [95 %]", "p (Holm)"),
    )
    cells = [
        (
            *("mean" if r.site == ALL else r.site, f"`{r.label}`", r.told),
            f"{r.pairs} ({r.positives})",
            number(r.auc, 3) if r.site == ALL else with_limits(r.auc, r.auc_low, r.auc_high),
            number(r.seed_sd, 3),
            signed(r.gap_in_domain),
            *(number(value) for value in (r.mammogram, r.pathology, r.mean, r.fused)),
            "–"
            if math.isnan(r.difference)
            else f"{signed(r.difference, 3)} [{signed(r.low, 3)}, {signed(r.high, 3)}]",
            p_value(r.p_holm),
        )
        for r in rows
    ]
    return markdown_rows(head, cells) if cells else ""


def _lines(study: Study, row: SiteRow) -> list[Line]:
    """The runs behind a row, a seed each."""
    return [
        line
        for line in study.pairs
        if line["held_out"] == line["site"] == row.site
        and (line["method"], line["adaptation"]) == (row.method, row.adaptation)
    ]


def _row(row: SiteRow, lines: Sequence[Line], gap: Comparison | None) -> PairRow:
    same = ("site", "label", "positives", "seeds", "auc", "auc_low", "auc_high", "seed_sd", "gap_in_domain")
    values: dict[str, Any] = {name: getattr(row, name) for name in same}
    values |= {name: _mean([line.get(f"auc_{name}") for line in lines]) for name in READINGS}
    values |= {"reads": str(lines[-1].get("reads", "")), "pairs": row.n}
    return PairRow(**values, **_difference(gap))


def _means(
    rows: Sequence[PairRow], sites: Sequence[str], known: Mapping[tuple[str, str], Comparison]
) -> list[PairRow]:
    """Mean over all sites of each method that is there at all of them, by falling AUC."""
    found = []
    for label in dict.fromkeys(r.label for r in rows):
        own = [r for r in rows if r.label == label and not math.isnan(r.auc)]
        if len(own) == len(sites):
            values: dict[str, Any] = {name: fmean(getattr(r, name) for r in own) for name in READINGS}
            values |= {name: fmean(getattr(r, name) for r in own) for name in ("auc", "gap_in_domain")}
            values |= dict.fromkeys(("auc_low", "auc_high", "seed_sd"), math.nan)
            values |= {name: sum(getattr(r, name) for r in own) for name in ("pairs", "positives")}
            values |= {"seeds": min(r.seeds for r in own), "reads": own[-1].reads}
            found.append(PairRow(site=ALL, label=label, **values, **_difference(known.get(("both", label)))))
    return sorted(found, key=lambda r: -r.auc)


def _difference(gap: Comparison | None) -> dict[str, Any]:
    if gap is None:
        return dict.fromkeys(("difference", "low", "high", "p_holm"), math.nan)
    return {"difference": gap.difference, "low": gap.low, "high": gap.high, "p_holm": gap.p_holm}


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return fmean(known) if known else math.nan
