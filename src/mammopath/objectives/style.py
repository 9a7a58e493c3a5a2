"""Drawing a change of style for a batch: whom each image borrows from, how much, where, which tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mammopath.objectives.ledger import Ledger
from mammopath.objectives.mixstyle import match_values, mix_style, perturb_style
from mammopath.objectives.recipe import StyleKind, StyleRecipe
from mammopath.tensors import Batch, Style


@dataclass(frozen=True)
class StyleDraw:
    """One draw; applied twice to the same tokens it gives the same.

    Attributes:
        kind: how the statistics change.
        partner: index of the image that each image borrows from.
        keep: share that each image keeps of its own statistics.
        changed: which tokens are replaced.
        seed: of the noise of DSU, whose width the tokens tell.
    """

    kind: StyleKind
    partner: Int[Tensor, " b"]
    keep: Float[Tensor, " b"]
    changed: Bool[Tensor, "b n"]
    seed: int

    def apply(self, tokens: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """New tokens; padding and tokens that were not drawn stay as they are."""
        where = (self.changed & valid)[..., None]
        return torch.where(where, self._changed(tokens, valid).to(tokens.dtype), tokens)

    def _changed(self, tokens: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        if self.kind == "none":
            return tokens
        if self.kind == "mixstyle":
            return mix_style(tokens, valid, partner=self.partner, keep=self.keep)
        if self.kind == "efdmix":
            return match_values(tokens, valid, partner=self.partner, keep=self.keep)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (2, len(tokens), tokens.shape[-1])
        mean_noise, std_noise = torch.randn(shape, generator=generator).to(tokens)
        return perturb_style(tokens, valid, mean_noise=mean_noise, std_noise=std_noise)


def draw_style(
    recipe: StyleRecipe,
    batch: Batch,
    *,
    blocks: tuple[int, int],
    generator: torch.Generator,
    ledger: Ledger,
) -> Style | None:
    """Draw whether, where and how the style of a batch changes.

    Args:
        recipe: kind, probability, share of tokens, depth.
        batch: of one modality: partners are never of the other.
        blocks: first and last block in front of which the style may change; one of the first ``depth``
            of them is drawn.
        generator: of every draw.
        ledger: counts each change when it is applied.
    """
    if recipe.kind == "none" or torch.rand((), generator=generator) >= recipe.probability:
        return None
    low, high = blocks
    count = max(1, int(recipe.depth * (high - low + 1)))
    block = low + int(torch.randint(count, (), generator=generator))
    draw = draw_change(recipe, batch.domain, batch.valid, generator=generator)
    across = recipe.kind == "dsu" or bool((batch.domain[draw.partner] != batch.domain).any())
    name = recipe.kind if across else f"{recipe.kind} within one site"
    if not across:
        ledger.idle(recipe.kind, f"only one training site in a batch of {batch.modality}: mixed within it")

    def apply(tokens: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        ledger.ran(name)
        return draw.apply(tokens, valid)

    return Style(block=block, apply=apply)


def draw_change(
    recipe: StyleRecipe,
    domain: Int[Tensor, " b"],
    valid: Bool[Tensor, "b n"],
    *,
    generator: torch.Generator,
) -> StyleDraw:
    """Draw partners, shares and tokens."""
    seed = int(torch.randint(2**31, (), generator=generator))
    keep = np.random.default_rng(seed).beta(recipe.alpha, recipe.alpha, size=len(domain))
    changed = torch.rand(valid.shape, generator=generator) < recipe.share
    return StyleDraw(
        kind=recipe.kind,
        partner=draw_partners(domain, generator).to(domain.device),
        keep=torch.from_numpy(keep).float().to(domain.device),
        changed=changed.to(domain.device),
        seed=seed,
    )


def draw_partners(domain: Int[Tensor, " b"], generator: torch.Generator) -> Int[Tensor, " b"]:
    """For each image one of another site; of the same site where there is no other; itself if alone."""
    here = domain.cpu()
    elsewhere = here[:, None] != here
    others = ~torch.eye(len(here), dtype=torch.bool)
    choices = torch.where(elsewhere.any(1, keepdim=True), elsewhere, others)
    choices = torch.where(choices.any(1, keepdim=True), choices, ~others)
    return torch.multinomial(choices.float(), 1, generator=generator)[:, 0]
