"""From read-out tokens of one modality to what the network says of images and patients."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.model.pooling import Gate, pool, pool_segments
from mammopath.tensors import Batch, Output
from mammopath.types import SEVERITIES


class Heads(nn.Module):
    """Pooling and heads of one modality.

    An image is [CLS, attention-weighted mean, attention-weighted std] of its tokens, layer-normed; a
    patient is the gated-attention mean of its images. Attention starts uniform.

    Args:
        width: of a token. hidden: of the attention gates. align: of the alignment space.
        dropout: in front of the heads.
    """

    def __init__(self, width: int, *, hidden: int, align: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.images = Gate(width, hidden), Gate(3 * width, hidden)
        self.norm = nn.LayerNorm(3 * width)
        self.dropout = nn.Dropout(dropout)
        self.malignancy = nn.Linear(3 * width, 1)
        self.severity = nn.Linear(3 * width, len(SEVERITIES) - 1)
        self.lesion = nn.Linear(width, 1)
        self.align = nn.Sequential(nn.Linear(3 * width, align), nn.ReLU(), nn.Linear(align, align))

    def forward(self, cls: Float[Tensor, "b d"], tokens: Float[Tensor, "b n d"], batch: Batch) -> Output:
        """Everything the network says of a batch, from its CLS and patch tokens at the readout."""
        pooled = pool(self.tokens, tokens, batch.valid)
        embedding = self.norm(torch.cat([cls, pooled.mean, pooled.std], dim=-1))
        patients, owner = torch.unique(batch.patient, return_inverse=True)
        person, _ = pool_segments(self.images, embedding, owner, len(patients))
        read = self.dropout(embedding)
        return Output(
            modality=batch.modality,
            logit=self.malignancy(read).squeeze(-1),
            severity=self.severity(read),
            token_logit=self.lesion(tokens).squeeze(-1),
            attention=pooled.weights,
            embedding=embedding,
            valid=batch.valid,
            patients=patients,
            patient_logit=self.malignancy(self.dropout(person)).squeeze(-1),
            projection=F.normalize(self.align(person), dim=-1),
            tokens=tokens,
        )
