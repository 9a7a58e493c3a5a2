"""Paired differences between methods, on one site or over several, with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mammopath.metrics.intervals import Bootstrap, bootstrap, holm, mean_statistic
from mammopath.metrics.ranking import auc_statistic
from mammopath.report.study import Cases, Judged

BUDGET = 4e9
"""Weights that one site's bootstrap may compute; large sites get fewer draws, never under 200."""


@dataclass(frozen=True)
class SiteDraws:
    """Mean AUC over seeds of each method on one site, under the same draws of patients."""

    modality: str
    site: str
    labels: Sequence[str]
    bootstrap: Bootstrap


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method's AUC minus the reference's.

    Attributes:
        scope: a site, or which sites the difference is averaged over.
        p: two-sided, of no difference; p_holm: adjusted for the methods compared in this scope.
    """

    scope: str
    label: str
    reference: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """Mean AUC of a method over sites; limits are for sampling of patients on these very sites."""

    scope: str
    label: str
    value: float
    low: float
    high: float


def draw_sites(judged: Sequence[Judged], *, draws: int = 2000) -> list[SiteDraws]:
    """Bootstrap every site once, all methods and seeds together.

    Runs judged on other cases than the site's first run are left out, as they cannot be paired; so are
    sites with one class only, which have no AUC.
    """
    sites: dict[tuple[str, str], dict[str, list[Cases]]] = {}
    for j in judged:
        methods = sites.setdefault((j.line["modality"], j.line["site"]), {})
        first = next(iter(methods.values()), [j.test])[0]
        if j.test.identity == first.identity and 0 < j.test.labels.sum() < len(j.test.labels):
            methods.setdefault(j.label, []).append(j.test)
    return [
        _draw(modality, site, methods, draws=draws, seed=seed)
        for seed, ((modality, site), methods) in enumerate(sorted(sites.items()))
        if methods
    ]


def compare(sites: Sequence[SiteDraws], reference: str) -> list[Comparison]:
    """Every method against the reference: averaged over each scope of several sites, then on each site."""
    found = []
    for scope, group in reversed(_scopes(sites).items()):
        labels = _shared(group)
        found += _against(scope, labels, _mean_of_sites(group, labels), reference)
    return found + [row for s in sites for row in _against(s.site, s.labels, s.bootstrap, reference)]


def mean_intervals(sites: Sequence[SiteDraws]) -> list[MeanInterval]:
    """Mean AUC over the sites of each scope, for methods that are there on all of them."""
    found = []
    for scope, group in _scopes(sites).items():
        labels = _shared(group)
        together = _mean_of_sites(group, labels)
        for which, label in enumerate(labels):
            limits = together.interval(which)
            found.append(MeanInterval(scope, label, limits.value, limits.low, limits.high))
    return found


def _draw(
    modality: str, site: str, methods: Mapping[str, Sequence[Cases]], *, draws: int, seed: int
) -> SiteDraws:
    patients = next(iter(methods.values()))[0].patients
    runs = sum(len(cases) for cases in methods.values())
    affordable = max(200, int(BUDGET / (len(patients) * runs)))
    statistics = [mean_statistic([auc_statistic(c.labels, c.logits) for c in m]) for m in methods.values()]
    drawn = bootstrap(statistics, patients, draws=min(draws, affordable), seed=seed)
    return SiteDraws(modality, site, list(methods), drawn)


def _scopes(sites: Sequence[SiteDraws]) -> dict[str, list[SiteDraws]]:
    """Sites of each modality, and all; only where there are several."""
    modalities = list(dict.fromkeys(s.modality for s in sites))
    scopes = {m: [s for s in sites if s.modality == m] for m in modalities}
    if len(modalities) > 1:
        scopes["all"] = list(sites)
    return {name: group for name, group in scopes.items() if len(group) > 1}


def _shared(sites: Sequence[SiteDraws]) -> list[str]:
    return [label for label in sites[0].labels if all(label in s.labels for s in sites)]


def _mean_of_sites(sites: Sequence[SiteDraws], labels: Sequence[str]) -> Bootstrap:
    """Sites are drawn independently, so their draws may be averaged one by one."""
    rows = [[s.labels.index(label) for label in labels] for s in sites]
    count = min(s.bootstrap.draws.shape[1] for s in sites)
    return Bootstrap(
        values=np.mean([s.bootstrap.values[r] for s, r in zip(sites, rows, strict=True)], axis=0),
        draws=np.mean([s.bootstrap.draws[r, :count] for s, r in zip(sites, rows, strict=True)], axis=0),
        jackknife=np.empty((len(labels), 0)),
    )


def _against(scope: str, labels: Sequence[str], drawn: Bootstrap, reference: str) -> list[Comparison]:
    if reference not in labels:
        return []
    others = [label for label in labels if label != reference]
    base = labels.index(reference)
    gaps = [drawn.difference(labels.index(label), base) for label in others]
    adjusted = holm(np.array([gap.p for gap in gaps]))
    return [
        Comparison(scope, label, reference, gap.value, gap.low, gap.high, gap.p, float(p))
        for label, gap, p in zip(others, gaps, adjusted, strict=True)
    ]
