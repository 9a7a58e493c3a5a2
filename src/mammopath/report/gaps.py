"""The domain gap with limits: in-domain minus held-out AUC on the very same test cases, paired by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mammopath.metrics.intervals import Bootstrap, bootstrap, mean_statistic
from mammopath.metrics.ranking import auc_statistic
from mammopath.report.comparisons import affordable
from mammopath.report.study import Cases, Judged, Study, split_cases


@dataclass(frozen=True, slots=True)
class GapRow:
    """The gap of one method at one site, or over the sites of a scope; limits are for other patients there.

    Attributes:
        scope: ``site``; or of several sites ``mean``, or ``worst``: the site with the largest gap of this
            study, whose limits know nothing of its having been picked.
        seeds: that have both runs, with the same test cases.
    """

    modality: str
    scope: str
    site: str
    label: str
    cases: int
    seeds: int
    gap: float
    low: float
    high: float


@dataclass(frozen=True)
class _Drawn:
    """A site's row with the draws behind it."""

    row: GapRow
    draws: Float[np.ndarray, " b"]


def gap_rows(study: Study, *, draws: int = 2000) -> list[GapRow]:
    """Every site and method as trained that has an in-domain reference, then mean and worst over sites."""
    inside = {
        (line["modality"], line["site"], line["method"], line["seed"]): line["run"]
        for line in study.lines
        if not line["held_out"]
    }
    groups: dict[tuple[str, str, str], list[tuple[Cases, Cases]]] = {}
    for j in study.judged:
        line = j.line
        run = inside.get((line["modality"], line["site"], line["method"], line["seed"]))
        if run and line["adaptation"] in ("", "none"):
            pair = _pair(study, j, run)
            group = groups.setdefault((line["modality"], line["site"], j.label), [])
            if pair and all(pair[0].identity == other[0].identity for other in group[:1]):
                group.append(pair)
    found = [_site(key, pairs, draws=draws) for key, pairs in groups.items() if pairs]
    return [d.row for d in found] + _over_sites(found)


def gaps_of(rows: Sequence[GapRow]) -> Mapping[tuple[str, str, str], GapRow]:
    """The rows of single sites, by modality, site and method."""
    return {(r.modality, r.site, r.label): r for r in rows if r.scope == "site"}


def _pair(study: Study, j: Judged, inside: str) -> tuple[Cases, Cases] | None:
    ours, theirs = (split_cases(study, run, j.line) for run in (inside, j.line["run"]))
    if ours is None or theirs is None or ours.identity != theirs.identity:
        return None
    return (ours, theirs) if 0 < ours.labels.sum() < len(ours.labels) else None


def _site(key: tuple[str, str, str], pairs: Sequence[tuple[Cases, Cases]], *, draws: int) -> _Drawn:
    modality, site, label = key
    first = pairs[0][0]
    runs = list(zip(*pairs, strict=True))
    arms = [mean_statistic([auc_statistic(first.labels, c.logits) for c in arm]) for arm in runs]
    drawn = bootstrap(
        arms, first.patients, draws=affordable(draws, len(first.labels), 2 * len(pairs)), seed=0
    )
    gap = drawn.difference(0, 1)
    row = GapRow(modality, "site", site, label, len(first.labels), len(pairs), gap.value, gap.low, gap.high)
    return _Drawn(row, drawn.draws[0] - drawn.draws[1])


def _over_sites(found: Sequence[_Drawn]) -> list[GapRow]:
    rows = []
    modalities = list(dict.fromkeys(d.row.modality for d in found))
    for modality in [*modalities, *(["all"] if len(modalities) > 1 else [])]:
        here = [d for d in found if modality in ("all", d.row.modality)]
        for label in dict.fromkeys(d.row.label for d in here):
            mine = [d for d in here if d.row.label == label]
            if len(mine) > 1:
                rows += [_mean(modality, mine), _worst(modality, mine)]
    return rows


def _mean(modality: str, found: Sequence[_Drawn]) -> GapRow:
    """Sites are drawn independently, so their draws may be averaged one by one."""
    first, count = found[0].row, min(len(d.draws) for d in found)
    together = Bootstrap(
        values=np.array([np.mean([d.row.gap for d in found])]),
        draws=np.mean([d.draws[:count] for d in found], axis=0)[None],
        jackknife=np.empty((1, 0)),
    ).interval()
    cases, seeds = sum(d.row.cases for d in found), min(d.row.seeds for d in found)
    limits = together.value, together.low, together.high
    return GapRow(modality, "mean", f"{len(found)} sites", first.label, cases, seeds, *limits)


def _worst(modality: str, found: Sequence[_Drawn]) -> GapRow:
    row = max((d.row for d in found), key=lambda r: r.gap)
    return GapRow(modality, "worst", row.site, row.label, row.cases, row.seeds, row.gap, row.low, row.high)
