"""Paired differences between methods, on one site or over several, with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from mammopath.metrics.delong import delong_covariance
from mammopath.metrics.intervals import Bootstrap, Difference, bootstrap, holm, mean_statistic
from mammopath.metrics.ranking import auc, auc_statistic
from mammopath.metrics.retraining import difference_retrained, of_seeds
from mammopath.report.study import Cases, Judged
from mammopath.report.tables import grouped

BUDGET = 4e9
"""Weights that one site's bootstrap may compute; large sites get fewer draws, never under 200."""


@dataclass(frozen=True)
class SiteDraws:
    """Mean AUC over seeds of each method on one site, under the same draws of patients.

    Attributes:
        seeds: AUC of each seed, by method.
        delong: covariance of the mean AUCs over seeds (``delong_covariance``), of the networks as trained;
            NaN where patients have several cases, for which it does not hold.
    """

    modality: str
    site: str
    labels: Sequence[str]
    bootstrap: Bootstrap
    seeds: Sequence[Float[np.ndarray, " _"]]
    delong: Float[np.ndarray, "k k"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method's AUC minus the reference's.

    Attributes:
        scope: a site, or which sites the difference is averaged over.
        low, high: 95 % limits for other patients and other seeds; for other patients alone where there is
            one seed, since that cannot show what another would have given.
        p: two-sided, of no difference between methods that are trained again; NaN for one seed. p_holm:
            adjusted for the methods compared in this scope.
        p_patients: of no difference between these very networks, by the bootstrap of patients; p_delong: by
            DeLong's paired test, where every patient has one case, else NaN.
    """

    scope: str
    label: str
    reference: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    p_patients: float
    p_delong: float


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """Mean AUC of a method over sites; limits are for sampling of patients on these very sites."""

    scope: str
    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparisons:
    """Section Comparisons: ``blocks`` of one scope each, by falling difference."""

    blocks: Sequence[tuple[str, Sequence[Comparison]]]
    single_seed: bool


def in_blocks(compared: Sequence[Comparison], *, seeds: int) -> Comparisons:
    """Comparisons of methods with so many seeds, arranged for the page."""
    blocks = [
        (scope, sorted(found, key=lambda c: -c.difference))
        for scope, found in grouped(compared, lambda c: c.scope)
    ]
    return Comparisons(blocks, seeds < 2)


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


def affordable(draws: int, cases: int, runs: int) -> int:
    """So many draws of so many cases, scored by so many runs, as ``BUDGET`` allows; never under 200."""
    return min(draws, max(200, int(BUDGET / (cases * runs))))


def compare(sites: Sequence[SiteDraws], reference: str) -> list[Comparison]:
    """Every method against the reference: averaged over each scope of several sites, then on each site."""
    scopes = [*reversed(_scopes(sites).items()), *((s.site, [s]) for s in sites)]
    return [row for scope, group in scopes for row in _against(scope, group, reference)]


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
    statistics = [mean_statistic([auc_statistic(c.labels, c.logits) for c in m]) for m in methods.values()]
    drawn = bootstrap(statistics, patients, draws=affordable(draws, len(patients), runs), seed=seed)
    seeds = [np.array([auc(c.labels, c.logits) for c in m]) for m in methods.values()]
    return SiteDraws(modality, site, list(methods), drawn, seeds, _covariance(list(methods.values())))


def _covariance(methods: Sequence[Sequence[Cases]]) -> Float[np.ndarray, "k k"]:
    """Of the methods' mean AUCs over seeds, from that of all their runs."""
    first = methods[0][0]
    if len(np.unique(first.patients)) < len(first.patients):
        return np.full((len(methods), len(methods)), np.nan)
    _, whole = delong_covariance(first.labels, np.stack([c.logits for m in methods for c in m]))
    mean = np.zeros((len(methods), len(whole)))
    start = 0
    for row, runs in enumerate(methods):
        mean[row, start : start + len(runs)] = 1 / len(runs)
        start += len(runs)
    return mean @ whole @ mean.T


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


def _against(scope: str, sites: Sequence[SiteDraws], reference: str) -> list[Comparison]:
    labels = _shared(sites)
    if reference not in labels:
        return []
    others = [label for label in labels if label != reference]
    drawn = _mean_of_sites(sites, labels)
    found = [_difference(sites, drawn, labels, label, reference) for label in others]
    adjusted = holm(np.array([gap.p for gap, _, _ in found]))
    return [
        Comparison(scope, label, reference, gap.value, gap.low, gap.high, gap.p, float(p), *fixed)
        for label, (gap, *fixed), p in zip(others, found, adjusted, strict=True)
    ]


def _difference(
    sites: Sequence[SiteDraws], drawn: Bootstrap, labels: Sequence[str], label: str, reference: str
) -> tuple[Difference, float, float]:
    """The difference with retraining, and p of the networks as they are, by bootstrap and by DeLong."""
    first, second = labels.index(label), labels.index(reference)
    fixed = drawn.difference(first, second)
    both = (label, reference)
    noise = [of_seeds(s.seeds[s.labels.index(name)], sites=len(sites)) for s in sites for name in both]
    gap = difference_retrained(fixed.value, drawn.draws[first] - drawn.draws[second], noise)
    if np.isnan(gap.p):
        gap = Difference(fixed.value, fixed.low, fixed.high, np.nan)
    return gap, fixed.p, _delong_p(sites, label, reference, fixed.value)


def _delong_p(sites: Sequence[SiteDraws], label: str, reference: str, value: float) -> float:
    variance = 0.0
    for s in sites:
        a, b = s.labels.index(label), s.labels.index(reference)
        variance += float(s.delong[a, a] + s.delong[b, b] - 2 * s.delong[a, b]) / len(sites) ** 2
    return float(2 * ndtr(-abs(value) / np.sqrt(variance))) if variance > 1e-24 else np.nan
