"""The link of one patient: which tissue token stands behind which mammogram token (Chefer et al. 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.maps.relevance import chained, helping
from mammopath.maps.scene import Packed, packed
from mammopath.model.network import Network
from mammopath.tensors import Batch
from mammopath.types import Modality


@dataclass(frozen=True)
class CrossLink:
    """How mammogram tokens and tissue tokens of one patient belong together.

    Attributes:
        attention: share that each mammogram token pays to each tissue token; rows sum to 1.
        relevance: the same, as far as it raises the fused malignancy logit, with what each token took from
            others of its image; at least 0, without unit. All 0 where nothing raises it.
        mammogram, pathology: flat place (image * tokens + token) of rows and columns in their batches.
        logit: fused malignancy.
    """

    attention: Float[Tensor, "q t"]
    relevance: Float[Tensor, "q t"]
    mammogram: Int[Tensor, " q"]
    pathology: Int[Tensor, " t"]
    logit: float


def cross_link(network: Network, batches: Mapping[Modality, Batch]) -> CrossLink:
    """Attention and bi-modal relevance of one patient, whose images share one pairing key.

    Relevance follows equations 5, 6, 8, 9 and 10 of the paper with mammogram tokens as queries.

    Args:
        network: with fusion.
        batches: of both modalities, as tokens at the cut.

    Raises:
        ConfigError: the network has no fusion.
        ValueError: the images are not of one pair.
    """
    watch: dict[Modality, list[Tensor]] = {m: [] for m in batches}
    cross: list[Tensor] = []
    few = {m: packed(network, b) for m, b in batches.items()}
    with torch.enable_grad():
        outputs = {m: network.upper(_leaf(p.batch), watch=watch[m]) for m, p in few.items()}
        fused = network.fuse(outputs, {m: p.batch for m, p in few.items()}, watch=cross)
        if fused.paired.tolist() != [True]:
            raise ValueError("a link needs both modalities of exactly one patient")
        asked = [*cross, *watch["mammogram"], *watch["pathology"]]
        slopes = torch.autograd.grad(fused.logit.sum(), asked, allow_unused=True)
    seen = len(watch["mammogram"])
    own = _among(watch["mammogram"], slopes[1 : 1 + seen], fused.mammogram[0], few["mammogram"].batch)
    other = _among(watch["pathology"], slopes[1 + seen :], fused.pathology[0], few["pathology"].batch)
    return CrossLink(
        attention=fused.link[0].detach(),
        relevance=own.T @ helping(cross[0], slopes[0])[0] @ other,
        mammogram=_unpacked(fused.mammogram[0], few["mammogram"], batches["mammogram"]),
        pathology=_unpacked(fused.pathology[0], few["pathology"], batches["pathology"]),
        logit=float(fused.logit[0].detach()),
    )


def _unpacked(places: Int[Tensor, " q"], few: Packed, batch: Batch) -> Int[Tensor, " q"]:
    """Flat places among packed tokens as flat places in the batch that was packed."""
    image, token = places // few.place.shape[1], places % few.place.shape[1]
    return image * batch.valid.shape[1] + few.place[image, token]


def _leaf(batch: Batch) -> Batch:
    assert batch.tokens is not None
    return batch.with_tokens(batch.tokens.detach().clone().requires_grad_(True))


def _among(
    watch: list[Tensor], slopes: tuple[Tensor | None, ...], places: Int[Tensor, " q"], batch: Batch
) -> Float[Tensor, "q q"]:
    """Normalised relevance among the tokens of one modality; images do not reach each other (eq. 8 and 9)."""
    size = len(places)
    if not watch:
        return torch.eye(size, device=places.device)
    per_image = batch.valid.shape[1]
    chain = chained(watch, slopes)[:, batch.prefix :, batch.prefix :]
    image, token = places // per_image, places % per_image
    same = image[:, None] == image[None]
    found = chain[image[:, None], token[:, None], token[None]] * same
    eye = torch.eye(size, device=places.device)
    gained = (found - eye).clamp_min(0)
    return gained / gained.sum(1, keepdim=True).clamp_min(1e-12) + eye
