"""From read-out tokens of one modality to what the network says of images and patients."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.model.pooling import Gate, pool, pool_segments, segment_means
from mammopath.objectives.tasks import image_logit_from_tokens
from mammopath.settings import ModelSettings
from mammopath.tensors import Batch, Output
from mammopath.types import ORDINALS, SEVERITIES, Modality


class Heads(nn.Module):
    """Pooling and heads of one modality.

    An image is [CLS, attention-weighted mean, attention-weighted std] of its tokens, layer-normed; a
    patient is the gated-attention mean of its images. Attention starts uniform.

    Args:
        width: of a token.
        settings: widths of the attention gates and of the alignment space, dropout in front of the heads,
            what an image's malignancy is read from.
        modality: decides the levels of the further ordinal target.
    """

    def __init__(self, width: int, settings: ModelSettings, modality: Modality) -> None:
        super().__init__()
        hidden, align = settings.pool_width, settings.align_width
        self.image_score, self.top_share = settings.image_score, settings.top_share
        self.tokens, self.images = Gate(width, hidden), Gate(3 * width, hidden)
        self.norm = nn.LayerNorm(3 * width)
        self.dropout = nn.Dropout(settings.dropout)
        self.malignancy = nn.Linear(3 * width, 1)
        self.severity = nn.Linear(3 * width, len(SEVERITIES) - 1)
        self.ordinal = nn.Linear(3 * width, len(ORDINALS[modality].levels) - 1)
        self.lesion = nn.Linear(width, 1)
        self.align = nn.Sequential(nn.Linear(3 * width, align), nn.ReLU(), nn.Linear(align, align))

    def forward(self, cls: Float[Tensor, "b d"], tokens: Float[Tensor, "b n d"], batch: Batch) -> Output:
        """Everything the network says of a batch, from its CLS and patch tokens at the readout."""
        pooled = pool(self.tokens, tokens, batch.valid)
        embedding = self.norm(torch.cat([cls, pooled.mean, pooled.std], dim=-1))
        patients, owner = torch.unique(batch.patient, return_inverse=True)
        person, _ = pool_segments(self.images, embedding, owner, len(patients))
        read, person_read = self.dropout(embedding), self.dropout(person)
        token_logit = self.lesion(tokens).squeeze(-1)
        if self.image_score == "top_tokens":
            logit = image_logit_from_tokens(token_logit, batch.valid, top_share=self.top_share)
            patient_logit = segment_means(logit, owner, len(patients))
        else:
            logit = self.malignancy(read).squeeze(-1)
            patient_logit = self.malignancy(person_read).squeeze(-1)
        return Output(
            modality=batch.modality,
            logit=logit,
            severity=self.severity(read),
            token_logit=token_logit,
            attention=pooled.weights,
            embedding=read,
            valid=batch.valid,
            patients=patients,
            patient_logit=patient_logit,
            projection=F.normalize(self.align(person), dim=-1),
            tokens=tokens,
            ordinal=self.ordinal(person_read),
        )

    def patient(
        self, embedding: Float[Tensor, "n e"], logit: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
        """Malignancy of one patient, or slide, and the share of each of its images in it.

        The same as ``forward`` says of images in one batch, for images that do not fit into one.

        Args:
            embedding: of the images.
            logit: of the same.
        """
        owner = torch.zeros(len(logit), dtype=torch.long, device=logit.device)
        if self.image_score == "top_tokens":
            return logit.mean(), torch.full_like(logit, 1 / len(logit))
        person, weight = pool_segments(self.images, embedding, owner, 1)
        return self.malignancy(self.dropout(person)).squeeze(), weight
