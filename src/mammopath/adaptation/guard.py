"""The guard: whether adapted scores may replace the source's, judged without any label.

No criterion without labels tells a change of order that helps from one that harms. The guard therefore
bounds how much the order of cases may change, and with it how much AUC can fall, and asks for more:
calls like those of the source averaged over style-only views, a predicted prevalence that stays or
comes nearer to the source's, both classes, and calls on the source's own cases that stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.settings import GuardSettings

SPREAD = 0.1
"""Scores that spread less than this share of the source's have collapsed."""


@dataclass(frozen=True)
class Evidence:
    """Malignancy logits of the same cases from three sides.

    Attributes:
        adapted: from the adaptation. source: from the source model.
        reference: from the source model, averaged over the plain and the style-only views.
    """

    adapted: Float[Tensor, " n"]
    source: Float[Tensor, " n"]
    reference: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.source)

    def joined(self, other: "Evidence") -> "Evidence":
        """These cases and then the others."""
        return Evidence(*(torch.cat(pair) for pair in zip(self.columns(), other.columns(), strict=True)))

    def newest(self, count: int) -> "Evidence":
        """The last so many cases."""
        return Evidence(*(column[-count:] for column in self.columns()))

    def thinned(self, count: int) -> "Evidence":
        """At most so many cases, evenly spread over the stream."""
        places = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return Evidence(*(column[places] for column in self.columns()))

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three sides."""
        return self.adapted, self.source, self.reference

    def withdrawn(self, count: int) -> "Evidence":
        """The same, but the last so many cases answered by the source."""
        keep = len(self) - count
        return Evidence(torch.cat([self.adapted[:keep], self.source[keep:]]), self.source, self.reference)


@dataclass(frozen=True)
class Probe:
    """Calls on the source's fixed cases before and after."""

    adapted: Float[Tensor, " n"]
    source: Float[Tensor, " n"]

    def changed(self) -> bool:
        """Whether any score differs."""
        return not torch.equal(self.adapted, self.source)


@dataclass(frozen=True)
class Verdict:
    """What to do, why not to accept, and what was measured; ``wait`` with too few cases to judge."""

    decision: Literal["accept", "wait", "refuse"]
    reasons: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


def judge(evidence: Evidence, probe: Probe | None, rules: GuardSettings, *, prevalence: float) -> Verdict:
    """Hold adapted scores against every rule.

    Args:
        evidence: of the cases seen so far.
        probe: of the source's fixed cases; None leaves that rule out.
        rules: thresholds. With ``rules.enabled`` off only finiteness is asked for.
        prevalence: of malignancy in training.
    """
    if not evidence.adapted.isfinite().all() or (probe and not probe.adapted.isfinite().all()):
        return Verdict("refuse", ("a score is not finite",))
    unchanged = torch.equal(evidence.adapted, evidence.source) and not (probe and probe.changed())
    if not rules.enabled or unchanged:
        return Verdict("accept")
    if len(evidence) < rules.min_cases:
        return Verdict("wait", (f"{len(evidence)} cases are too few to judge",))
    found = measure(evidence, probe, prevalence=prevalence)
    reasons = tuple(r for r in _broken(found, rules) if r)
    return Verdict("refuse" if reasons else "accept", reasons, found)


def measure(evidence: Evidence, probe: Probe | None, *, prevalence: float) -> dict[str, float]:
    """What the rules are about, each between 0 and 1.

    Returns:
        ``agreement``, ``source_agreement``: share of cases called as by the reference;
        ``prevalence_shift``: change of the mean probability, less what brings it nearer to ``prevalence``;
        ``majority``, ``source_majority``: share of the larger class; ``spread``: standard deviation of the
        adapted logits relative to the source's; ``auc_loss``: largest AUC that the change of order can cost;
        ``flips``: share of the probe whose call changes.
    """
    adapted, source, reference = (
        evidence.adapted.double(),
        evidence.source.double(),
        evidence.reference.double(),
    )
    after, before = adapted.sigmoid().mean().item(), source.sigmoid().mean().item()
    nearer = max(0.0, abs(before - prevalence) - abs(after - prevalence))
    found = {
        "cases": float(len(evidence)),
        "agreement": _same_call(adapted, reference),
        "source_agreement": _same_call(source, reference),
        "prevalence_shift": max(0.0, abs(after - before) - nearer),
        "majority": _majority(adapted),
        "source_majority": _majority(source),
        "spread": (adapted.std(correction=0) / source.std(correction=0).clamp(min=1e-12)).item(),
        "auc_loss": auc_loss(adapted, source, prevalence=prevalence),
    }
    return found if probe is None else found | {"flips": 1 - _same_call(probe.adapted, probe.source)}


RAREST = 0.1
"""Share of malignant cases that the bound on the AUC still holds for."""


def auc_loss(adapted: Float[Tensor, " n"], source: Float[Tensor, " n"], *, prevalence: float) -> float:
    """Largest AUC that the change of order can cost: a bound, not an estimate.

    If a share s of all pairs of cases changes its order and a share p of cases is malignant, AUC falls by
    at most s / (2 p (1 - p)), reached when each such pair is one malignant and one benign case. For p, the
    most adverse of ``prevalence``, of the source's mean probability and of ``RAREST`` is taken: a new site
    may have fewer malignant cases than any training site. Pairs of two adapted scores and of an adapted
    with a source score both matter, for a stream may hold both; the worse counts. A tie counts half.
    """
    n = len(source)
    if n < 2:
        return 0.0
    before = _order(source, source)
    among, across = _changed(_order(adapted, adapted), before), _changed(_order(adapted, source), before)
    shares = (prevalence, source.sigmoid().mean().item(), RAREST)
    mixed = min(p * (1 - p) for p in (min(max(p, 0.05), 0.95) for p in shares))
    return min(1.0, max(among, across) / (n * (n - 1)) / (2 * mixed))


def _changed(after: Float[Tensor, "n n"], before: Float[Tensor, "n n"]) -> float:
    return ((after - before).abs() / 2).fill_diagonal_(0).sum().item()


def _order(first: Float[Tensor, " n"], second: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
    return torch.sign(first[:, None] - second[None, :]).double()


def _same_call(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    return ((first > 0) == (second > 0)).double().mean().item()


def _majority(logits: Float[Tensor, " n"]) -> float:
    share = (logits > 0).double().mean().item()
    return max(share, 1 - share)


def _broken(found: Mapping[str, float], rules: GuardSettings) -> tuple[str, ...]:
    least = min(rules.agreement, found["source_agreement"])
    collapsed = found["majority"] >= rules.one_class and found["source_majority"] < rules.one_class
    flat = found["spread"] < SPREAD
    flips = found.get("flips", 0.0)
    return (
        _unless(found["agreement"] >= least, f"agrees with the averaged source in {found['agreement']:.2f}"),
        _unless(
            found["prevalence_shift"] <= rules.prevalence,
            f"moves the predicted prevalence by {found['prevalence_shift']:.3f}",
        ),
        _unless(not collapsed, f"calls {found['majority']:.2f} of cases the same"),
        _unless(not flat, f"spreads scores only {found['spread']:.2f} as far as the source"),
        _unless(flips <= rules.flips, f"flips {flips:.2f} of the calls on the source's probe"),
        _unless(
            found["auc_loss"] <= rules.auc_loss, f"could cost {found['auc_loss']:.3f} of AUC by its order"
        ),
    )


def _unless(holds: bool, sentence: str) -> str:
    return "" if holds else sentence
