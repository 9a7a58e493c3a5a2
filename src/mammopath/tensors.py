"""The tensor values that cross rooms: Sample, Batch, Output, Style."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mammopath.types import Modality


@dataclass(frozen=True)
class Sample:
    """One prepared image: what the stem of its modality takes.

    Attributes:
        image: intensities in [0, 1]; 1 channel for mammograms, 3 (RGB) for pathology. Height and
            width are multiples of the patch size.
        valid: True where there is image, False where there is padding.
        lesion: 1 inside annotated findings, 0 outside, NaN where the source does not annotate.
    """

    image: Float[Tensor, "c h w"]
    valid: Bool[Tensor, "h w"]
    lesion: Float[Tensor, "h w"]


@dataclass(frozen=True)
class Batch:
    """Images of one modality with what is known of them, as samples or as tokens at the cut.

    Exactly one of ``samples`` and ``tokens`` is filled. Samples may differ in size; tokens are padded
    to the longest of the batch, and ``valid`` says which are real. ``tokens`` hold ``prefix`` tokens
    first (CLS, registers), which ``valid`` and ``lesion`` leave out.

    Attributes:
        malignant: 1, 0 or NaN. severity: 0..3 or NaN.
        ordinal: level of the modality's further ordinal target (``ORDINALS``), or NaN.
        domain: index of the site, in the order of the training domains of this modality.
        patient: index of the patient: the bag an image belongs to.
        pair: index of the pairing key, equal across modalities for the same patient; -1 for none.
        row: index of the record in the manifest.
        lesion: share of each token inside annotated findings; NaN where not annotated.
        grid: rows and columns of each image's tokens, which lie row by row; None where they have no place.
    """

    modality: Modality
    malignant: Float[Tensor, " b"]
    severity: Float[Tensor, " b"]
    domain: Int[Tensor, " b"]
    patient: Int[Tensor, " b"]
    pair: Int[Tensor, " b"]
    row: Int[Tensor, " b"]
    valid: Bool[Tensor, "b n"]
    lesion: Float[Tensor, "b n"]
    tokens: Float[Tensor, "b m d"] | None = None
    samples: tuple[Sample, ...] = ()
    prefix: int = 1
    grid: Int[Tensor, "b 2"] | None = None
    ordinal: Float[Tensor, " b"] | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (not self.samples):
            raise ValueError("a batch holds either samples or tokens")

    def __len__(self) -> int:
        return len(self.malignant)

    def with_tokens(self, tokens: Float[Tensor, "b m d"]) -> "Batch":
        """The same batch with these tokens at the cut in place of its samples or tokens."""
        return replace(self, tokens=tokens, samples=())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        moved = {name: _moved(value, device) for name, value in vars(self).items()}
        return Batch(**moved)


@dataclass(frozen=True)
class Output:
    """What the network says of a batch of one modality.

    Attributes:
        logit: malignancy of each image.
        severity: CORN logits of P(severity > k | severity > k - 1), k = 0..2.
        token_logit: lesion logit of each token: the localisation map; meaningless where ``valid`` is False.
        attention: pooling weight of each token; sums to 1 per image, 0 on padding.
        embedding: pooled representation of each image, which the heads read.
        valid: which tokens are real.
        patients: the distinct patient indices of the batch, ascending.
        patient_logit: malignancy of each of them, from its images pooled by gated attention.
        projection: each patient in the alignment space, L2-normalised.
        tokens: read-out patch tokens, which fusion links to the other modality; large, so drop them
            (``replace(output, tokens=None)``) before keeping many outputs.
        ordinal: CORN logits of each patient's further ordinal target (``ORDINALS``).
    """

    modality: Modality
    logit: Float[Tensor, " b"]
    severity: Float[Tensor, "b k"]
    token_logit: Float[Tensor, "b n"]
    attention: Float[Tensor, "b n"]
    embedding: Float[Tensor, "b e"]
    valid: Bool[Tensor, "b n"]
    patients: Int[Tensor, " p"]
    patient_logit: Float[Tensor, " p"]
    projection: Float[Tensor, "p a"]
    tokens: Float[Tensor, "b n d"] | None = None
    ordinal: Float[Tensor, "p levels"] | None = None


@dataclass(frozen=True)
class Described:
    """One image as a frozen trunk sees it.

    Attributes:
        tokens: at the cut, pooled and rounded as ``Batch.tokens`` are; prefix first.
        statistics: CLS, mean and standard deviation of the real patch tokens after each block.
    """

    tokens: Float[Tensor, "m d"]
    statistics: Float[Tensor, "depth 3*d"]


@dataclass(frozen=True)
class FusedOutput:
    """What the network says of patients from both modalities together.

    Rows are the distinct pairing keys of the two batches. Only where ``paired`` does a row rest on both
    modalities; elsewhere a learned token stands for the missing one.

    Attributes:
        pairs: pairing keys, ascending. paired: both modalities are there.
        logit: malignancy. severity: CORN logits as in ``Output``.
        link: share of attention that each mammogram token of the patient pays to each of the patient's
            pathology tokens; sums to 1 over pathology tokens, 0 on padding and where not ``paired``.
        mammogram: flat place (image * n + token) of each linked mammogram token in its batch; -1 padding.
        pathology: the same of each linked pathology token.
        ask, answer: each of these tokens in the space where the attention compares them; the scores before
            the softmax are their products over the square root of the width.
    """

    pairs: Int[Tensor, " p"]
    paired: Bool[Tensor, " p"]
    logit: Float[Tensor, " p"]
    severity: Float[Tensor, "p k"]
    link: Float[Tensor, "p q t"]
    mammogram: Int[Tensor, "p q"]
    pathology: Int[Tensor, "p t"]
    ask: Float[Tensor, "p q h"] | None = None
    answer: Float[Tensor, "p t h"] | None = None


@dataclass(frozen=True)
class Style:
    """One drawn change of token statistics, and the block in front of which it happens.

    ``apply`` takes patch tokens only (no CLS, no registers) and their validity, and returns new ones.
    """

    block: int
    apply: Callable[[Float[Tensor, "b n d"], Bool[Tensor, "b n"]], Float[Tensor, "b n d"]]


def share_per_token(mask: Float[Tensor, "h w"], cell: int) -> Float[Tensor, " n"]:
    """Mean of a pixel mask over each ``cell`` x ``cell`` square, row by row; NaN where a pixel is NaN.

    ``cell`` is the patch size times the token pooling; it divides height and width.
    """
    return F.avg_pool2d(mask[None, None], cell).flatten()


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(Sample(s.image.to(device), s.valid.to(device), s.lesion.to(device)) for s in value)
    return value
