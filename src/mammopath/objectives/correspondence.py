"""Whose tissue a suspicious region attends to: a contrast of tokens, from the pairing of patients alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mammopath.objectives.ledger import Ledger
from mammopath.objectives.recipe import LinkRecipe
from mammopath.objectives.tasks import per_patient
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import Modality

LEAST = 1e-4
"""Smallest weight of a tissue token: keeps the gradient where nothing is suspicious yet."""


def correspondence_loss(
    score: Float[Tensor, "q t"],
    own: Bool[Tensor, "q t"],
    rival: Bool[Tensor, "q t"],
    weight: Float[Tensor, " t"],
) -> Float[Tensor, ""]:
    """Minus the log of the attention that falls on the own tissue, a region at a time.

    ``- mean_q log( sum_own w_t exp s_qt / sum_{own, rival} exp s_qt )``: MIL-NCE (Miech et al. 2020), a
    contrast whose positives are a bag, over tokens as in FILIP (Yao et al. 2022). With all weights 1 it is 0
    where no attention is left for rivals; a weight below 1 draws it to the other tokens of the own bag.

    Args:
        score: attention of each region to each tissue token, before the softmax.
        own: tissue of the region's patient; at least one token for each region.
        rival: tissue of others.
        weight: of a token as the own one, 0 (excluded) to 1.
    """
    share = score.masked_fill(~(own | rival), -torch.inf).log_softmax(1) + weight.log()
    return -share.masked_fill(~own, -torch.inf).logsumexp(1).mean()


@dataclass(frozen=True)
class Tokens:
    """Tokens of one modality, of all patients of a step.

    Attributes:
        vector: in the space where regions ask and tissue answers. pair: whose each is.
        suspicion: lesion probability as a share of the patient's highest, without gradient.
        rank: 0 for the patient's most suspicious token.
    """

    vector: Float[Tensor, "n h"]
    pair: Int[Tensor, " n"]
    suspicion: Float[Tensor, " n"]
    rank: Int[Tensor, " n"]


def link_loss(
    recipe: LinkRecipe,
    outputs: Mapping[Modality, Output],
    batches: Mapping[Modality, Batch],
    fused: FusedOutput | None,
    *,
    ledger: Ledger | None,
) -> Float[Tensor, ""] | None:
    """The most suspicious regions of every patient must find the patient's own tissue among that of the site.

    Args:
        recipe: which regions ask.
        outputs: of both modalities.
        batches: that they were made from.
        fused: with what regions ask and tissue answers.
        ledger: counts the regions; None in evaluation.

    Returns:
        None where no patient with both modalities has a rival of the same site.
    """
    if fused is None or fused.ask is None or fused.answer is None or len(outputs) < 2:
        return None
    shown = fused.link.detach().flatten(1).sum(1) > 0  # a hidden modality took part as one learned token
    asking = _tokens(fused.ask, fused.mammogram, shown, outputs["mammogram"])
    tissue = _tokens(fused.answer, fused.pathology, shown, outputs["pathology"])
    site = _sites(batches["mammogram"], fused.pairs)
    size = torch.bincount(asking.pair, minlength=len(shown))
    asks = asking.rank < (recipe.share * size).ceil()[asking.pair]
    own = asking.pair[asks, None] == tissue.pair
    rival = (site[asking.pair[asks], None] == site[tissue.pair]) & ~own
    contested = rival.any(1)
    if ledger is not None and contested.any():
        ledger.ran("link", int(contested.sum()))
    if not contested.any():
        return None
    score = asking.vector[asks] @ tissue.vector.T / tissue.vector.shape[1] ** 0.5
    weight = tissue.suspicion.clamp_min(LEAST)
    return correspondence_loss(score[contested], own[contested], rival[contested], weight)


def _tokens(
    vectors: Float[Tensor, "p n h"], places: Int[Tensor, "p n"], shown: Bool[Tensor, " p"], output: Output
) -> Tokens:
    keep = (places >= 0) & shown[:, None]
    logit = output.token_logit.detach().flatten()[places.clamp_min(0)].masked_fill(~keep, -math.inf)
    chance = logit.sigmoid()
    highest = chance.amax(1, keepdim=True).clamp_min(1e-12)
    rank = logit.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return Tokens(vectors[keep], keep.nonzero()[:, 0], (chance / highest)[keep], rank[keep])


def _sites(batch: Batch, pairs: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    return per_patient(batch.domain.float(), batch.pair, pairs)
