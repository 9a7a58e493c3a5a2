"""The cross-modal link: mammogram tokens attend to the same patient's pathology tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mammopath.model.pooling import Gate, masked_softmax, pool
from mammopath.tensors import FusedOutput
from mammopath.types import SEVERITIES


@dataclass(frozen=True)
class Side:
    """One modality as fusion sees it: tokens, and who belongs to whom. No label has a place here."""

    tokens: Float[Tensor, "b n d"]
    valid: Bool[Tensor, "b n"]
    pair: Int[Tensor, " b"]


@dataclass(frozen=True)
class Bags:
    """All tokens of each patient, padded to the longest; ``place`` is image * n + token, -1 on padding."""

    tokens: Float[Tensor, "p q d"]
    place: Int[Tensor, "p q"]


class Fusion(nn.Module):
    """One-head cross-attention and the heads that read both modalities together.

    One head, so that the weights returned as the link are the very ones that were used. A learned token
    stands for a modality that a patient lacks; in training true pairs lose one now and then, so that
    the heads can do without either.

    Args:
        width: of a token.
        hidden: of the common space.
        gate: of the pooling attention.
        dropout: in front of the heads.
        hide: share of true pairs of which one modality, either one, is hidden in training.
    """

    def __init__(self, width: int, *, hidden: int, gate: int, dropout: float, hide: float = 0.2) -> None:
        super().__init__()
        self.hide = hide
        self.absent = nn.ParameterDict(
            {side: nn.Parameter(0.02 * torch.randn(width)) for side in ("mammogram", "pathology")}
        )
        self.query, self.key = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.region, self.tissue = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.explain = nn.Linear(hidden, hidden)
        self.regions, self.tissues = Gate(hidden, gate), Gate(hidden, gate)
        self.norm, self.dropout = nn.LayerNorm(2 * hidden), nn.Dropout(dropout)
        self.malignancy, self.severity = nn.Linear(2 * hidden, 1), nn.Linear(2 * hidden, len(SEVERITIES) - 1)

    def forward(
        self, mammogram: Side | None, pathology: Side | None, *, watch: list[Tensor] | None = None
    ) -> FusedOutput:
        """Read the patients of both sides together; images without a pairing key are left out.

        Args:
            mammogram: tokens and pairing keys of one side; may be missing.
            pathology: of the other; may be missing.
            watch: collects the attention that was used, for explanations that ask its gradient.

        Raises:
            ValueError: both sides are missing.
        """
        sides = [side for side in (mammogram, pathology) if side is not None]
        if not sides:
            raise ValueError("fusion needs at least one modality")
        pairs = torch.unique(torch.cat([side.pair for side in sides]))
        pairs = pairs[pairs >= 0]
        images, slides = _bags(mammogram, pairs, sides[0]), _bags(pathology, pairs, sides[0])
        paired = (images.place >= 0).any(1) & (slides.place >= 0).any(1)
        hidden = self._hidden(paired)
        m, m_keep = _filled(images, hidden[0], self.absent["mammogram"])
        t, t_keep = _filled(slides, hidden[1], self.absent["pathology"])
        ask, answer = self.query(m), self.key(t)
        link = attention(ask, answer, t_keep)
        if watch is not None:
            watch.append(link)
        read = self.dropout(self._embedding(m, m_keep, t, t_keep, link))
        shown = (paired & ~hidden.any(0))[:, None, None] & (images.place >= 0)[..., None]
        return FusedOutput(
            pairs=pairs,
            paired=paired,
            logit=self.malignancy(read).squeeze(-1),
            severity=self.severity(read),
            link=link * shown,
            mammogram=images.place,
            pathology=slides.place,
            ask=ask,
            answer=answer,
        )

    def _embedding(
        self,
        m: Float[Tensor, "p q d"],
        m_keep: Bool[Tensor, "p q"],
        t: Float[Tensor, "p t d"],
        t_keep: Bool[Tensor, "p t"],
        link: Float[Tensor, "p q t"],
    ) -> Float[Tensor, "p e"]:
        tissue = self.tissue(t)
        region = self.region(m) + self.explain(link @ tissue)
        both = [pool(self.regions, region, m_keep).mean, pool(self.tissues, tissue, t_keep).mean]
        return self.norm(torch.cat(both, dim=-1))

    def _hidden(self, paired: Bool[Tensor, " p"]) -> Bool[Tensor, "2 p"]:
        if not self.training:
            return torch.zeros_like(paired).expand(2, -1)
        draw = torch.rand(len(paired), device=paired.device)
        return torch.stack([draw < self.hide / 2, draw > 1 - self.hide / 2]) & paired


def attention(
    ask: Float[Tensor, "p q h"], answer: Float[Tensor, "p t h"], keep: Bool[Tensor, "p t"]
) -> Float[Tensor, "p q t"]:
    """Attention that each mammogram token pays to each kept pathology token; rows sum to 1."""
    score = ask @ answer.transpose(1, 2) / ask.shape[-1] ** 0.5
    return masked_softmax(score, keep[:, None, :].expand_as(score))


def _bags(side: Side | None, pairs: Int[Tensor, " p"], like: Side) -> Bags:
    """Gather the real tokens of each pairing key, in the order in which they come."""
    if side is None:
        place = pairs.new_full((len(pairs), 1), -1)
        return Bags(like.tokens.new_zeros(len(pairs), 1, like.tokens.shape[-1]), place)
    owner = torch.searchsorted(pairs, side.pair)[:, None].expand_as(side.valid)
    found = (side.valid & (side.pair >= 0)[:, None]).flatten().nonzero()[:, 0]
    owner = owner.flatten()[found]
    order = owner.argsort(stable=True)
    owner, found = owner[order], found[order]
    counts = torch.bincount(owner, minlength=len(pairs))
    slot = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    length = max(1, int(counts.max())) if len(counts) else 1
    place = pairs.new_full((len(pairs), length), -1)
    place[owner, slot] = found
    tokens = F.embedding(place.clamp_min(0), side.tokens.flatten(0, 1))
    return Bags(tokens, place)


def _filled(
    bags: Bags, hidden: Bool[Tensor, " p"], absent: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "p q d"], Bool[Tensor, "p q"]]:
    """Tokens and which count; the learned token stands first in a bag that is empty or hidden."""
    keep = (bags.place >= 0) & ~hidden[:, None]
    gone = ~keep.any(1)
    first = torch.arange(keep.shape[1], device=keep.device) == 0
    use = gone[:, None] & first
    return torch.where(use[..., None], absent, bags.tokens), keep | use
