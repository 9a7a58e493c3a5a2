"""The verdict on a site: accept a model there, reject it, or label so many more local cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import logit

from mammopath.metrics.auc import auc_interval
from mammopath.metrics.intervals import Interval
from mammopath.metrics.siting import (
    Density,
    Evidence,
    Rules,
    assured,
    auc_evidence,
    hanley_mcneil,
    mean_share,
    posterior,
    quantile,
    reaches,
    sensitivity_evidence,
    site_prior,
)

Decision = Literal["accept", "reject", "more"]

NO_THRESHOLD: tuple[Decision, str] = (
    "more",
    "the run has no threshold, as its validation held one class: its sensitivity is not known",
)

STEPS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000)
"""How many further cases are tried; beyond the last one the site lies too close to a target."""


@dataclass(frozen=True)
class Targets:
    """What a site asks for: at least this AUC, and this sensitivity at the run's own threshold."""

    auc: float = 0.8
    sensitivity: float = 0.8


@dataclass(frozen=True)
class Sample:
    """Labelled local cases of one modality, one row per unit of evaluation.

    Attributes:
        labels: 1 or 0. logits: of malignancy. patients: whose unit it is.
        called: at or above the run's threshold; None where the run has no threshold.
    """

    labels: Shaped[np.ndarray, " n"]
    logits: Float[np.ndarray, " n"]
    patients: Shaped[np.ndarray, " n"]
    called: Shaped[np.ndarray, " n"] | None

    def patients_with(self, label: int) -> int:
        """How many patients have a unit of that label; several units of one patient count once."""
        return len(np.unique(self.patients[self.labels == label]))


@dataclass(frozen=True)
class Priors:
    """What earlier sites say of a new one, before any local case."""

    auc: Density
    sensitivity: Density


@dataclass(frozen=True, slots=True)
class Criterion:
    """One target: what the local cases say alone, and together with the earlier sites.

    Attributes:
        target: to be reached. prior: expected before the local cases. local: their own estimate.
        value, low, high: median and 95 % limits of the posterior.
        reached: posterior probability of reaching the target.
        more: further cases that would decide it with the wanted assurance; None where too many.
    """

    target: float
    prior: float
    local: float
    value: float
    low: float
    high: float
    reached: float
    more: int | None


def decide(
    sample: Sample, priors: Priors, targets: Targets, *, rules: Rules, plan: bool = True, draws: int = 500
) -> tuple[Decision, str, int | None, Criterion, Criterion]:
    """Accept where both targets are surely reached, reject where either surely is not, else ask for more.

    Args:
        sample: local cases.
        priors: from earlier sites (``site_prior``).
        targets: AUC and sensitivity.
        rules: how sure, how few, with which assurance.
        plan: also work out how many more cases it takes.
        draws: of the bootstrap behind the AUC, where patients have several cases.
    """
    positives, negatives = sample.patients_with(1), sample.patients_with(0)
    evidence = _auc_evidence(sample, draws=draws), _sensitivity_evidence(sample)
    densities = posterior(priors.auc, evidence[0]), posterior(priors.sensitivity, evidence[1])
    reached = reaches(densities[0], targets.auc), reaches(densities[1], targets.sensitivity)
    blind = sample.called is None
    decision, why = _verdict(reached, min(positives, negatives), rules) if not blind else NO_THRESHOLD
    more: tuple[int | None, int | None] = (None, None) if blind else (0, 0)
    if decision == "more" and plan and not blind:
        share = (positives + 1) / (positives + negatives + 2)
        more = (
            _more_for_auc(densities[0], targets.auc, share, rules),
            _more_for_sensitivity(densities[1], targets.sensitivity, share, rules),
        )
    asked = _asked(more, positives, negatives, rules) if decision == "more" else 0
    criteria = [
        _criterion(target, prior, own, density, m)
        for target, prior, own, density, m in zip(
            (targets.auc, targets.sensitivity),
            (priors.auc, priors.sensitivity),
            evidence,
            densities,
            more,
            strict=True,
        )
    ]
    return decision, why, asked, criteria[0], criteria[1]


def priors_from(lines: Sequence[Mapping[str, Any]]) -> Priors:
    """Priors from result lines of earlier held-out sites, a method's seeds averaged."""
    sites: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("auc") is not None:
            sites.setdefault(str(line["site"]), []).append(line)
    auc = [_line_auc(group) for group in sites.values()]
    sensitivity = [_line_sensitivity(group) for group in sites.values()]
    return Priors(site_prior(auc), site_prior(sensitivity))


def _verdict(reached: tuple[float, float], smaller: int, rules: Rules) -> tuple[Decision, str]:
    names = ("AUC", "sensitivity")
    failed = [name for name, p in zip(names, reached, strict=True) if p <= 1 - rules.sure]
    open_ = [name for name, p in zip(names, reached, strict=True) if p < rules.sure]
    if smaller < rules.least:
        return "more", f"fewer than {rules.least} local patients of a class"
    if failed:
        return "reject", f"{' and '.join(failed)} below the target with probability {rules.sure:.0%} or more"
    if open_:
        return "more", f"{' and '.join(open_)} not sure to reach the target"
    return "accept", "AUC and sensitivity reach their targets"


def _more_for_auc(density: Density, target: float, share: float, rules: Rules) -> int | None:
    area = mean_share(density)
    sizes = [(max(1, round(n * share)), max(1, round(n * (1 - share)))) for n in STEPS]
    errors = np.array([hanley_mcneil(area, *size) / (area * (1 - area)) for size in sizes])
    return _first(assured(density, target, errors, rules), rules)


def _more_for_sensitivity(density: Density, target: float, share: float, rules: Rules) -> int | None:
    rate = mean_share(density)
    positives = np.array([max(1.0, n * share) for n in STEPS])
    return _first(assured(density, target, 1 / np.sqrt(positives * rate * (1 - rate)), rules), rules)


def _first(chances: Float[np.ndarray, " k"], rules: Rules) -> int | None:
    enough = np.flatnonzero(chances >= rules.assurance)
    return STEPS[int(enough[0])] if len(enough) else None


def _asked(more: tuple[int | None, int | None], positives: int, negatives: int, rules: Rules) -> int | None:
    """As many as both targets need, and as it takes to see enough of both classes."""
    share = (positives + 1) / (positives + negatives + 2)
    missing = max(
        (rules.least - positives) / share if positives < rules.least else 0.0,
        (rules.least - negatives) / (1 - share) if negatives < rules.least else 0.0,
    )
    if None in more:
        return None
    return max(*(m or 0 for m in more), int(np.ceil(missing)))


def _auc_evidence(sample: Sample, *, draws: int) -> Evidence:
    found = auc_interval(sample.labels, sample.logits, sample.patients, draws=draws)
    if isnan(found.value):
        return Evidence(np.nan, np.inf)
    known = _logit_error(found)
    if isnan(known):
        return auc_evidence(found.value, sample.patients_with(1), sample.patients_with(0))
    return Evidence(found.value, known)


def _logit_error(found: Interval) -> float:
    """Standard error on the logit scale from 95 % limits; NaN where they say nothing."""
    if isnan(found.low) or not (0 < found.low < found.high < 1) or not 0 < found.value < 1:
        return float("nan")
    return float((logit(found.high) - logit(found.low)) / (2 * 1.959964))


def _sensitivity_evidence(sample: Sample) -> Evidence:
    """Counts of positives; of several units of one patient no more than the patients count."""
    if sample.called is None:
        return Evidence(np.nan, np.inf)
    sick, positives = sample.labels == 1, sample.patients_with(1)
    share = float(sample.called[sick].mean()) if positives else 0.0
    return sensitivity_evidence(share * positives, positives)


def _line_auc(group: Sequence[Mapping[str, Any]]) -> Evidence:
    parts = [_mean(group, key) for key in ("auc", "auc_low", "auc_high")]
    known = _logit_error(Interval(parts[0], parts[1], parts[2], ""))
    if not isnan(known):
        return Evidence(parts[0], known)
    positives = int(group[0]["positives"])
    return auc_evidence(parts[0], positives, int(group[0]["n"]) - positives)


def _line_sensitivity(group: Sequence[Mapping[str, Any]]) -> Evidence:
    positives = int(group[0].get("patients_positive", group[0]["positives"]))
    value = _mean(group, "sensitivity")
    return Evidence(np.nan, np.inf) if isnan(value) else sensitivity_evidence(value * positives, positives)


def _mean(group: Sequence[Mapping[str, Any]], key: str) -> float:
    known = [float(line[key]) for line in group if line.get(key) is not None]
    return fmean(known) if known else float("nan")


def _criterion(target: float, prior: Density, own: Evidence, density: Density, more: int | None) -> Criterion:
    return Criterion(
        target=target,
        prior=quantile(prior, 0.5),
        local=own.value,
        value=quantile(density, 0.5),
        low=quantile(density, 0.025),
        high=quantile(density, 0.975),
        reached=reaches(density, target),
        more=more,
    )
