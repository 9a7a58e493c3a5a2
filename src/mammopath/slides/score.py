"""What a network says of a whole slide, patch by patch in bounded memory, and of a patient's slides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.errors import DataError
from mammopath.model.network import Network
from mammopath.model.pooling import pool_streamed
from mammopath.objectives.tasks import image_logit_from_tokens
from mammopath.slides.store import Features, read_chunks, read_places

CHUNK = 4096
"""Patches in memory at a time."""


@dataclass(frozen=True)
class SlideScore:
    """What a network says of one slide.

    Attributes:
        logit: malignancy of the slide.
        embedding: of the slide, which patients are pooled from.
        tumour: probability of each patch. attention: weight of each patch; sums to 1.
        places: of the patches, without their features.
    """

    logit: float
    embedding: Float[Tensor, " e"]
    tumour: Float[np.ndarray, " n"]
    attention: Float[np.ndarray, " n"]
    places: Features


@torch.inference_mode()
def score_slide(network: Network, path: Path, *, chunk: int = CHUNK) -> SlideScore:
    """Score all patches of a file of features, a chunk at a time; the same as the network on the whole bag.

    Args:
        network: without blocks above the cut, in evaluation mode.
        path: of the features.
        chunk: patches at a time.

    Raises:
        DataError: no patch in the file, or features of another width.
    """
    parts = network.of("pathology")
    heads, norm = parts.heads, parts.norm or network.trunk.norm
    logits: list[Tensor] = []

    def normed() -> Iterator[Tensor]:
        for values in _chunks(path, network, chunk):
            tokens = norm(values)
            logits.append(heads.lesion(tokens).squeeze(-1))
            yield tokens

    mean, count = torch.zeros(network.shape.width, device=network.device()), 0
    for values in _chunks(path, network, chunk):
        mean, count = mean + values.sum(dim=0), count + len(values)
    if not count:
        raise DataError(f"{path}: holds no patch")
    pooled = pool_streamed(heads.tokens, normed())
    embedding = heads.norm(torch.cat([norm(mean / count), pooled.mean, pooled.std]))
    tumour = torch.cat(logits)
    logit = heads.malignancy(embedding).squeeze(-1)
    if heads.image_score == "top_tokens":
        every = torch.ones(1, count, dtype=torch.bool, device=tumour.device)
        logit = image_logit_from_tokens(tumour[None], every, top_share=heads.top_share)[0]
    return SlideScore(
        float(logit),
        embedding,
        tumour.sigmoid().cpu().numpy().astype(float),
        pooled.weights.cpu().numpy().astype(float),
        read_places(path),
    )


@torch.inference_mode()
def score_patient(network: Network, slides: Sequence[SlideScore]) -> float:
    """Malignancy logit of a patient from all of the slides: their gated-attention mean."""
    embedding = torch.stack([slide.embedding for slide in slides])
    logit = torch.tensor([slide.logit for slide in slides], device=embedding.device)
    return float(network.of("pathology").heads.patient(embedding, logit)[0])


def _chunks(path: Path, network: Network, chunk: int) -> Iterator[Float[Tensor, "_ d"]]:
    for values in read_chunks(path, chunk=chunk):
        if values.shape[1] != network.shape.width:
            raise DataError(
                f"{path}: features of width {values.shape[1]}, but the network reads {network.shape.width}"
            )
        yield torch.from_numpy(values).to(network.device())
