"""A tiny linear network and batches whose every label is known: what objectives are tested on."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mammopath.objectives.objective import Objective, Terms
from mammopath.objectives.recipe import Recipe
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import MODALITIES, Modality

WIDTH, ALIGN, CHANNELS, TOKENS = 6, 4, 5, 7


def det(shape: tuple[int, ...], scale: float = 1.0, phase: float = 0.0) -> Tensor:
    """sin(0.7 i + phase) * scale, row by row: the inputs of the golden values."""
    count = torch.Size(shape).numel()
    return (torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + phase) * scale).float().reshape(shape)


def make_batch(modality: Modality, *, sites: int = 2, per_site: int = 8, seed: int = 0) -> Batch:
    """Images of several sites, two for each patient, both classes and all severities in every site.

    Patients of the two modalities share their pairing keys; the last two tokens of odd images are padding.
    """
    count = sites * per_site
    generator = torch.Generator().manual_seed(seed + 100 * MODALITIES.index(modality))
    severity = torch.arange(count).div(2, rounding_mode="floor").remainder(4).float()
    malignant = (severity >= 2).float()
    valid = torch.ones(count, TOKENS, dtype=torch.bool)
    valid[1::2, -2:] = False
    lesion = (torch.rand(count, TOKENS, generator=generator) < 0.3).float() * malignant[:, None]
    patient = torch.arange(count) // 2
    tokens = torch.randn(count, TOKENS + 1, CHANNELS, generator=generator) + malignant[:, None, None]
    return Batch(
        modality=modality,
        malignant=malignant,
        severity=severity,
        domain=torch.arange(count) // per_site,
        patient=patient + 50 * MODALITIES.index(modality),
        pair=patient.clone(),
        row=torch.arange(count),
        valid=valid,
        lesion=lesion.masked_fill(~valid, torch.nan),
        tokens=tokens,
        ordinal=severity.clone(),
    )


def make_batches(*, sites: int = 2, per_site: int = 8, seed: int = 0) -> dict[Modality, Batch]:
    """One batch of each modality."""
    return {m: make_batch(m, sites=sites, per_site=per_site, seed=seed) for m in MODALITIES}


class Heads(nn.Module):
    """Linear readout of one modality."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, 1)
        self.severity, self.lesion = nn.Linear(WIDTH, 3), nn.Linear(CHANNELS, 1)
        self.align = nn.Linear(WIDTH, ALIGN)
        with torch.random.fork_rng():  # leaves the other weights as they would be without it
            self.ordinal = nn.Linear(WIDTH, 4)

    def forward(self, tokens: Tensor, batch: Batch) -> Output:
        """Mean of the valid tokens, everything else linear in it."""
        attention = batch.valid / batch.valid.sum(1, keepdim=True)
        embedding = self.embed((tokens * attention[..., None]).sum(1))
        patients, place = batch.patient.unique(return_inverse=True)
        member = F.one_hot(place).T.to(embedding)
        pooled = member @ embedding / member.sum(1, keepdim=True)
        return Output(
            modality=batch.modality,
            logit=self.head(embedding)[:, 0],
            severity=self.severity(embedding),
            token_logit=self.lesion(tokens)[..., 0],
            attention=attention,
            embedding=embedding,
            valid=batch.valid,
            patients=patients,
            patient_logit=self.head(pooled)[:, 0],
            projection=F.normalize(self.align(pooled), dim=-1),
            ordinal=self.ordinal(pooled),
        )


class ToyNetwork(nn.Module):
    """Readouts of both modalities, and a fused head over their projections."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.parts = nn.ModuleDict({m: Heads() for m in MODALITIES})
        self.fused = nn.Linear(2 * ALIGN, 4)

    def outputs(self, batches: Mapping[Modality, Batch]) -> dict[Modality, Output]:
        """Every modality on its own."""
        return {m: self.parts[m](batch.tokens[:, batch.prefix :], batch) for m, batch in batches.items()}

    def fuse(self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch]) -> FusedOutput:
        """Both modalities of a patient; the toy batches list the same patients in the same order."""
        joined = self.fused(torch.cat([outputs[m].projection for m in MODALITIES], 1))
        pairs = batches["mammogram"].pair.unique()
        places = torch.zeros(len(pairs), 1, dtype=torch.long)
        return FusedOutput(
            pairs=pairs,
            paired=torch.ones_like(pairs, dtype=torch.bool),
            logit=joined[:, 0],
            severity=joined[:, 1:],
            link=torch.ones(len(pairs), 1, 1),
            mammogram=places,
            pathology=places,
            ask=outputs["mammogram"].projection[:, None],
            answer=outputs["pathology"].projection[:, None],
        )


def build(recipe: Recipe, *, sites: int = 2, steps: int = 10) -> Objective:
    """The objective of a recipe for toy outputs, with the same random numbers each time."""
    torch.manual_seed(1)
    domains = dict.fromkeys(recipe.modalities, sites)
    return Objective(recipe, width=WIDTH, align_width=ALIGN, domains=domains, steps=steps)


def take_step(
    objective: Objective,
    network: ToyNetwork,
    batches: Mapping[Modality, Batch],
    *,
    step: int = 10,
    seed: int = 0,
) -> Terms:
    """Draw styles, run the toy network, and ask the objective: a step of the loop without its end."""
    generator = torch.Generator().manual_seed(seed)
    styled = {m: _styled(objective, batch, generator) for m, batch in batches.items()}
    outputs = network.outputs(styled)
    paired = len(batches) > 1 and bool((batches["mammogram"].pair >= 0).any())
    fused = network.fuse(outputs, batches) if paired else None
    return objective(outputs, batches, step=step, fused=fused)


def _styled(objective: Objective, batch: Batch, generator: torch.Generator) -> Batch:
    style = objective.style(batch, block_low=1, block_high=4, generator=generator)
    if style is None:
        return batch
    cls, patches = batch.tokens[:, : batch.prefix], batch.tokens[:, batch.prefix :]
    return replace(batch, tokens=torch.cat([cls, style.apply(patches, batch.valid)], 1))
