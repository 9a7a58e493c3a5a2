"""The guard: whether adapted scores may replace the source's, judged without any label of the site.

No criterion without labels tells a change of order that helps from one that harms. The guard therefore
bounds how much the order of cases may change, and with it how much AUC can fall. Either the bound is a
certificate: even the most adverse labels cost at most ``auc_loss``. Or three signs together speak for the
change: its likely cost is small, it leaves alone the pairs that style leaves alone, and the source's own
labelled cases are ranked no worse. Signs speak for cases that are judged and answered all together; along a
stream, which may be sorted by label and holds answers of both, nothing but a certificate will do.

Besides it asks for calls like those of the source averaged over style-only views, a predicted prevalence that
stays or comes nearer to the source's, both classes, and calls on the source's own cases that stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.adaptation.order import Answers, Swaps, swaps_between, swaps_within
from mammopath.settings import GuardSettings


@dataclass(frozen=True)
class Evidence:
    """Malignancy logits of the same cases from all sides, and how many of their pairs change order.

    Attributes:
        adapted: from the adaptation. source: from the source model.
        styled: from the source model on each style-only view.
        counted: of these cases; none where not counted yet.
    """

    adapted: Float[Tensor, " n"]
    source: Float[Tensor, " n"]
    styled: Float[Tensor, "v n"]
    counted: Swaps | None = None

    def __len__(self) -> int:
        return len(self.source)

    def reference(self) -> Float[Tensor, " n"]:
        """The source averaged over the plain and the style-only views."""
        return torch.cat([self.source[None], self.styled]).mean(0)

    def swaps(self) -> Swaps:
        """How many pairs change order."""
        return self.counted or swaps_within(self._answers())

    def joined(self, other: "Evidence") -> "Evidence":
        """These cases and then the others; only pairs with the others are counted anew."""
        swaps = self.swaps() + other.swaps() + swaps_between(self._answers(), other._answers())
        return Evidence(
            torch.cat([self.adapted, other.adapted]),
            torch.cat([self.source, other.source]),
            torch.cat([self.styled, other.styled], dim=1),
            swaps,
        )

    def newest(self, count: int) -> "Evidence":
        """The last so many cases."""
        gone = len(self) - count
        if gone <= 0:
            return self
        old, kept = self._part(slice(gone)), self._part(slice(gone, None))
        lost = old.swaps() + swaps_between(old._answers(), kept._answers())
        return replace(kept, counted=self.swaps() - lost)

    def thinned(self, count: int) -> "Evidence":
        """At most so many cases, evenly spread over the stream."""
        places = torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()
        return Evidence(self.adapted[places], self.source[places], self.styled[:, places])

    def withdrawn(self, count: int) -> "Evidence":
        """The same, but the last so many cases answered by the source."""
        first, last = self._part(slice(len(self) - count)), self._part(slice(len(self) - count, None))
        between, back = swaps_between(first._answers(), last._answers()), replace(last, adapted=last.source)
        kept = replace(first, counted=self.swaps() - last.swaps() - between)
        return kept.joined(back) if count < len(self) else back

    def _part(self, cases: slice) -> "Evidence":
        return Evidence(self.adapted[cases], self.source[cases], self.styled[:, cases])

    def _answers(self) -> Answers:
        return Answers(self.adapted, self.source, self.styled)


@dataclass(frozen=True)
class Probe:
    """Scores of the source's fixed cases before and after, and their labels; NaN where unknown."""

    adapted: Float[Tensor, " n"]
    source: Float[Tensor, " n"]
    label: Float[Tensor, " n"]

    def changed(self) -> bool:
        """Whether any score differs."""
        return not torch.equal(self.adapted, self.source)

    def fall(self) -> float | None:
        """How much AUC falls on labelled cases; none without cases of both classes."""
        ill, well = self.label == 1, self.label == 0
        if not ill.any() or not well.any():
            return None
        before, after = (_auc(scores[ill], scores[well]) for scores in (self.source, self.adapted))
        return before - after


@dataclass(frozen=True)
class Verdict:
    """What to do, why not to accept, and what was measured; ``wait`` with too few cases to judge."""

    decision: Literal["accept", "wait", "refuse"]
    reasons: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """What the answers of a stream depend on.

    Attributes:
        prevalence: of malignancy in training.
        mixed: whether answers of the source and of an adaptation stand side by side.
        fresh: cases since the start or the last refusal; none for all that are judged.
    """

    prevalence: float
    mixed: bool = True
    fresh: int | None = None


def judge(evidence: Evidence, probe: Probe | None, rules: GuardSettings, *, site: Site) -> Verdict:
    """Hold adapted scores against every rule.

    Args:
        evidence: of the cases seen so far.
        probe: of the source's fixed cases; None leaves their rules out.
        rules: thresholds. With ``rules.enabled`` off only finiteness is asked for.
        site: what the answers depend on.
    """
    if not evidence.adapted.isfinite().all() or (probe and not probe.adapted.isfinite().all()):
        return Verdict("refuse", ("a score is not finite",))
    unchanged = torch.equal(evidence.adapted, evidence.source) and not (probe and probe.changed())
    if not rules.enabled or unchanged:
        return Verdict("accept")
    fresh = len(evidence) if site.fresh is None else site.fresh
    if fresh < rules.min_cases:
        return Verdict("wait", (f"{fresh} cases are too few to judge; it takes {rules.min_cases}",))
    found = measure(evidence, probe, rules, site=site)
    reasons = tuple(r for r in _broken(found, rules, site) if r)
    return Verdict("refuse" if reasons else "accept", reasons, found)


def measure(evidence: Evidence, probe: Probe | None, rules: GuardSettings, *, site: Site) -> dict[str, float]:
    """What the rules are about, each between 0 and 1.

    Returns:
        ``agreement``, ``source_agreement``: share of cases called as by the reference;
        ``prevalence_shift``: change of the mean probability, less what brings it nearer to the training's;
        ``majority``, ``source_majority``: share of the larger class; ``spread``: standard deviation of the
        adapted logits relative to the source's; ``auc_loss``: largest AUC that the change of order can cost;
        ``likely_loss``: the same where as many cases are malignant as in training; ``stable_loss``: of it,
        by pairs that all views order alike; ``flips``: share of the probe whose call changes;
        ``probe_loss``: fall of AUC on the labelled probe.
    """
    adapted, source = evidence.adapted.double(), evidence.source.double()
    reference = evidence.reference().double()
    after, before = adapted.sigmoid().mean().item(), source.sigmoid().mean().item()
    nearer = max(0.0, abs(before - site.prevalence) - abs(after - site.prevalence))
    found = {
        "cases": float(len(evidence)),
        "agreement": _same_call(adapted, reference),
        "source_agreement": _same_call(source, reference),
        "prevalence_shift": max(0.0, abs(after - before) - nearer),
        "majority": _majority(adapted),
        "source_majority": _majority(source),
        "spread": (adapted.std(correction=0) / source.std(correction=0).clamp(min=1e-12)).item(),
    }
    found |= order_losses(evidence, rules, site=site)
    if probe is None:
        return found
    fall = probe.fall()
    found["flips"] = 1 - _same_call(probe.adapted, probe.source)
    return found if fall is None else found | {"probe_loss": fall}


def order_losses(evidence: Evidence, rules: GuardSettings, *, site: Site) -> dict[str, float]:
    """Largest AUC that the change of order can cost: bounds, not estimates.

    If a share s of all pairs of cases changes its order and a share p of cases is malignant, AUC falls by
    at most s / (2 p (1 - p)), reached when each such pair is one malignant and one benign case. For
    ``auc_loss``, p is the most adverse of the training's prevalence, of the source's mean probability and of
    ``rules.rarest``: a new site may have fewer malignant cases than any training site. Where a stream holds
    answers of the source and of the adaptation, pairs of the one with the other matter too, and the worse
    counts. A tie counts half.
    """
    count, swaps = len(evidence), evidence.swaps()
    pairs = max(1.0, count * (count - 1) / 2)
    shares = (site.prevalence, evidence.source.sigmoid().mean().item(), rules.rarest)
    worst = max(swaps.among, swaps.across) if site.mixed else swaps.among
    likely = 2 * _mixed(site.prevalence) * pairs
    return {
        "auc_loss": min(1.0, worst / pairs / (2 * min(map(_mixed, shares)))),
        "likely_loss": min(1.0, worst / likely),
        "stable_loss": min(1.0, swaps.stable / likely),
    }


def _mixed(share: float) -> float:
    """P (1 - p), of a share kept off 0 and 1."""
    share = min(max(share, 0.05), 0.95)
    return share * (1 - share)


def _same_call(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    return ((first > 0) == (second > 0)).double().mean().item()


def _majority(logits: Float[Tensor, " n"]) -> float:
    share = (logits > 0).double().mean().item()
    return max(share, 1 - share)


def _auc(ill: Float[Tensor, " n"], well: Float[Tensor, " m"]) -> float:
    return (torch.sign(ill[:, None] - well[None]).double().mean().item() + 1) / 2


def _broken(found: Mapping[str, float], rules: GuardSettings, site: Site) -> tuple[str, ...]:
    least = min(rules.agreement, found["source_agreement"])
    collapsed = found["majority"] >= rules.one_class and found["source_majority"] < rules.one_class
    flips, doubt = found.get("flips", 0.0), _doubt(found, rules, site)
    return (
        _unless(found["agreement"] >= least, f"agrees with the averaged source in {found['agreement']:.2f}"),
        _unless(
            found["prevalence_shift"] <= rules.prevalence,
            f"moves the predicted prevalence by {found['prevalence_shift']:.3f}",
        ),
        _unless(not collapsed, f"calls {found['majority']:.2f} of cases the same"),
        _unless(
            found["spread"] >= rules.spread,
            f"spreads scores only {found['spread']:.2f} as far as the source",
        ),
        _unless(flips <= rules.flips, f"flips {flips:.2f} of the calls on the source's probe"),
        _unless(
            found["auc_loss"] <= rules.auc_loss or not doubt,
            f"could cost {found['auc_loss']:.3f} of AUC by its order ({doubt})",
        ),
    )


def _doubt(found: Mapping[str, float], rules: GuardSettings, site: Site) -> str:
    """Why nothing but a certificate would do; empty where the three signs speak for a change of order."""
    if site.mixed:
        return "along a stream nothing but a certificate will do"
    if "probe_loss" not in found:
        return "no labelled cases of the source speak for it"
    signs = (
        _unless(found["likely_loss"] <= rules.likely_loss, f"likely up to {found['likely_loss']:.3f}"),
        _unless(
            found["stable_loss"] <= rules.stable_loss,
            f"{found['stable_loss']:.3f} by pairs that style leaves alone",
        ),
        _unless(
            found["probe_loss"] <= rules.probe_loss,
            f"AUC on the source's probe falls by {found['probe_loss']:.3f}",
        ),
    )
    return ", ".join(sign for sign in signs if sign)


def _unless(holds: bool, sentence: str) -> str:
    return "" if holds else sentence
