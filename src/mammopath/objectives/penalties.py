"""The invariance term: one penalty over the training sites of each modality, annealed."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.objectives.invariance import bottleneck_penalty, coral_penalty, irm_penalty, vrex_penalty
from mammopath.objectives.judges import Discriminator, GradientSpread, WorstSite
from mammopath.objectives.ledger import Ledger
from mammopath.objectives.recipe import InvarianceRecipe
from mammopath.objectives.sites import Site, risks, usable_sites
from mammopath.tensors import Batch, Output
from mammopath.types import Modality

Penalty = Callable[[Sequence[Site]], Float[Tensor, ""]]


def _irm(sites: Sequence[Site]) -> Float[Tensor, ""]:
    return torch.stack([irm_penalty(s.logits, s.labels, weights=s.weights_in_halves()) for s in sites]).mean()


def _vrex(sites: Sequence[Site]) -> Float[Tensor, ""]:
    return vrex_penalty(risks(sites))


def _coral(sites: Sequence[Site]) -> Float[Tensor, ""]:
    return coral_penalty([site.features for site in sites])


def _bottleneck(sites: Sequence[Site]) -> Float[Tensor, ""]:
    return torch.stack([bottleneck_penalty(site.features) for site in sites]).mean()


PURE: dict[str, Penalty] = {"irm": _irm, "ib_irm": _irm, "vrex": _vrex, "coral": _coral}
"""Penalties that keep nothing from one step to the next."""


def judge(recipe: InvarianceRecipe, *, sites: int, width: int) -> nn.Module:
    """The module of a penalty that learns or remembers, for one modality."""
    if recipe.kind == "groupdro":
        return WorstSite(sites, step_size=recipe.step_size)
    if recipe.kind == "fishr":
        return GradientSpread(sites, width=width, decay=recipe.memory)
    return Discriminator(sites, width=width, hidden=recipe.hidden, conditional=recipe.kind == "cdann")


class Penalties(nn.Module):
    """One kind of penalty, within each modality over its sites, averaged over the modalities.

    Attributes:
        switch_step: first step (counted from 1) with the full weight; 1 without annealing.
        switch_steps: that step, where the weight jumps.
    """

    def __init__(
        self,
        recipe: InvarianceRecipe,
        *,
        width: int,
        domains: Mapping[Modality, int],
        steps: int,
        ledger: Ledger,
    ) -> None:
        super().__init__()
        self.recipe, self.ledger, self.domains = recipe, ledger, dict(domains)
        self.switch_step = round(recipe.anneal * steps) + 1
        several = [m for m, count in domains.items() if count > 1]
        self.switch_steps = (self.switch_step,) if several and self.switch_step > 1 else ()
        judged = several if recipe.kind not in PURE else []
        self.judges = nn.ModuleDict({m: judge(recipe, sites=domains[m], width=width) for m in judged})
        ledger.configure(recipe.kind)
        if recipe.bottleneck > 0:
            ledger.configure("bottleneck")

    def forward(
        self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch], *, step: int
    ) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """Weight and value of each term; none where no modality has two usable sites.

        Args:
            outputs: what the network says of each modality.
            batches: what is known of it.
            step: of training, counted from 1.
        """
        sites = {m: self._sites(m, output, batches[m]) for m, output in outputs.items()}
        sites = {m: found for m, found in sites.items() if len(found) > 1}
        if not sites:
            return {}
        annealed = step >= self.switch_step
        values = torch.stack([self._penalty(m)(found) for m, found in sites.items()])
        weight = self.recipe.weight if annealed else self.recipe.weight_before
        terms: dict[str, tuple[float, Tensor]] = {self.recipe.kind: (weight, values.mean())}
        if annealed and self.recipe.bottleneck > 0:
            spread = torch.stack([_bottleneck(found) for found in sites.values()])
            terms["bottleneck"] = (self.recipe.bottleneck, spread.mean())
        for name in terms if self.training else ():
            self.ledger.ran(name, sum(map(len, sites.values())))
        return terms

    def _penalty(self, modality: Modality) -> Penalty:
        return self.judges[modality] if modality in self.judges else PURE[self.recipe.kind]

    def _sites(self, modality: Modality, output: Output, batch: Batch) -> list[Site]:
        several = self.domains.get(modality, 0) > 1
        sites = usable_sites(output, batch) if several else []
        if self.training and len(sites) < 2:
            lacking = f"a step without 2 sites of {modality} that have 2 cases of each class"
            self.ledger.idle(
                self.recipe.kind, lacking if several else f"only one training site of {modality}"
            )
        return sites
