"""One image in front of a network: what every map method explains."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.model.network import Network
from mammopath.tensors import Batch


@dataclass(frozen=True)
class Said:
    """What a network says of each token of one image, as a by-product of the prediction.

    Attributes:
        token_logit: lesion logit. attention: share of the pooling attention.
    """

    token_logit: Float[Tensor, " n"]
    attention: Float[Tensor, " n"]


@dataclass(frozen=True)
class Packed:
    """A batch of tokens with real ones alone, as far as its images are alike in length.

    Attributes:
        batch: the tokens. place: of each of its tokens among those of the batch it was made of.
    """

    batch: Batch
    place: Int[Tensor, "b n"]


@dataclass(frozen=True)
class Scene:
    """A network and one image as tokens at the cut.

    Attributes:
        network: in evaluation mode.
        batch: of one image, with tokens.
        known: what the network says of its tokens, if that is known already.
    """

    network: Network
    batch: Batch
    known: Said | None = None

    def said(self) -> Said:
        """What the network says of the image's tokens."""
        if self.known is not None:
            return self.known
        with torch.no_grad():
            output = self.network.upper(self.batch)
        return Said(output.token_logit[0], output.attention[0])

    def spread(self, values: Float[Tensor, " k"], one: Packed) -> Float[np.ndarray, "rows cols"]:
        """Values of the tokens of the packed image as rows and columns, NaN on padding."""
        full = values.new_zeros(self.batch.valid.shape[1])
        full[one.place[0]] = values
        return self.on_grid(full)

    def on_grid(self, values: Float[Tensor, " n"]) -> Float[np.ndarray, "rows cols"]:
        """Values of the tokens as rows and columns, NaN on padding."""
        assert self.batch.grid is not None
        rows, columns = self.batch.grid[0].tolist()
        masked = values.detach().double().masked_fill(~self.batch.valid[0], torch.nan)
        return masked[: rows * columns].reshape(rows, columns).cpu().numpy()


def packed(network: Network, batch: Batch) -> Packed:
    """The batch without the padding that all of its images have, for attention computed in the open.

    Nothing attends to padding, so what is said of real tokens is the same. An adapter that asks for the grid
    needs every token at its place; there the batch stays as it is.
    """
    assert batch.tokens is not None
    prefix, count = batch.prefix, batch.valid.shape[1]
    if network.settings.adapter == "convpass" or bool(batch.valid.all()):
        return Packed(batch, torch.arange(count, device=batch.valid.device).expand(len(batch), -1))
    longest = int(batch.valid.sum(1).max())
    place = batch.valid.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
    rows = torch.arange(len(batch), device=place.device)[:, None]
    tokens = torch.cat([batch.tokens[:, :prefix], batch.tokens[:, prefix:][rows, place]], dim=1)
    valid, lesion = batch.valid[rows, place], batch.lesion[rows, place]
    return Packed(replace(batch, tokens=tokens, valid=valid, lesion=lesion, grid=None), place)


def at_cut(network: Network, batch: Batch) -> Batch:
    """The batch with its samples turned into tokens at the cut; gradients end there."""
    if not batch.samples:
        return batch
    with torch.no_grad():
        return network.with_tokens(batch)


def one_of(batch: Batch, place: int) -> Batch:
    """One image of a batch of tokens, without the padding that longer images put behind it."""
    assert batch.grid is not None
    count = int(batch.grid[place].prod())
    mine: dict[str, Any] = {
        k: v[place : place + 1] if isinstance(v, Tensor) else v for k, v in vars(batch).items()
    }
    one = Batch(**mine)
    assert one.tokens is not None
    tokens = one.tokens[:, : batch.prefix + count]
    return replace(one, valid=one.valid[:, :count], lesion=one.lesion[:, :count], tokens=tokens)
