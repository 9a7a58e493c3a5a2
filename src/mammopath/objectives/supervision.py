"""Which labels of a batch teach which task."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath.objectives.recipe import TaskRecipe
from mammopath.objectives.tasks import box_loss, corn_loss, lesion_loss, malignancy_loss, nothing, per_patient
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import Modality

Taught = tuple[Float[Tensor, ""], Tensor]
"""Loss of a task in one modality, and its labels (NaN where unknown)."""


def task_losses(
    recipe: TaskRecipe, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch]
) -> dict[str, Float[Tensor, ""]]:
    """Loss of each task that the recipe asks for and that this step has a label for.

    The modalities count alike, whatever their number of images; one without a label is left out.
    """
    losses = {}
    for name, teach in TASKS.items():
        if getattr(recipe, name) > 0:
            taught = [teach(recipe, output, batches[m]) for m, output in outputs.items()]
            known = [loss for loss, labels in taught if not labels.isnan().all()]
            if known:
                losses[name] = torch.stack(known).mean()
    return losses


def _malignancy(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    del recipe
    return malignancy_loss(output.logit, batch.malignant), batch.malignant


def _patient(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    del recipe
    labels = per_patient(batch.malignant, batch.patient, output.patients)
    return malignancy_loss(output.patient_logit, labels), labels


def _lesion(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    loss = lesion_loss(output.token_logit, output.valid, batch.malignant, top_share=recipe.top_share)
    return loss, batch.malignant


def _boxes(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    del recipe
    share = batch.lesion.masked_fill(~output.valid, torch.nan)
    return box_loss(output.token_logit, share, batch.malignant), share * batch.malignant[:, None]


def _severity(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    del recipe
    return corn_loss(output.severity, batch.severity), batch.severity


def _ordinal(recipe: TaskRecipe, output: Output, batch: Batch) -> Taught:
    del recipe
    if output.ordinal is None or batch.ordinal is None:
        return nothing(output.logit), batch.malignant.new_full((1,), torch.nan)
    levels = per_patient(batch.ordinal, batch.patient, output.patients)
    return corn_loss(output.ordinal, levels), levels


TASKS: dict[str, Callable[[TaskRecipe, Output, Batch], Taught]] = {
    "malignancy": _malignancy,
    "patient": _patient,
    "lesion": _lesion,
    "boxes": _boxes,
    "severity": _severity,
    "ordinal": _ordinal,
}
"""Tasks of one modality, by the name of their weight in the recipe."""


# ---------------------------------------------------------------- both modalities of a patient


def late_fusion_loss(
    outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch]
) -> Float[Tensor, ""] | None:
    """Cross-entropy of the mean of a patient's two logits; None without a labelled patient in both."""
    if len(outputs) < 2:
        return None
    (left, right) = ((output, pair_of(batches[m], output.patients)) for m, output in outputs.items())
    rows, columns = ((left[1][:, None] == right[1]) & (left[1][:, None] >= 0)).nonzero(as_tuple=True)
    labels = pair_labels("malignant", batches, left[1][rows])
    if labels.isnan().all():
        return None
    logits = (left[0].patient_logit[rows] + right[0].patient_logit[columns]) / 2
    return malignancy_loss(logits, labels)


def cross_fusion_loss(
    fused: FusedOutput | None, batches: Mapping[Modality, Batch]
) -> Float[Tensor, ""] | None:
    """Malignancy and severity of the fused patients; None without a label, or a patient in both modalities.

    Patients with one modality count too, so that the network learns to do without the other.
    """
    if fused is None or not fused.paired.any():
        return None
    malignant, severity = (pair_labels(name, batches, fused.pairs) for name in ("malignant", "severity"))
    if malignant.isnan().all() and severity.isnan().all():
        return None
    return malignancy_loss(fused.logit, malignant) + corn_loss(fused.severity, severity)


def pair_labels(
    name: Literal["malignant", "severity"], batches: Mapping[Modality, Batch], pairs: Int[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Largest known label among the images of each pairing key, of either modality; NaN where none is."""
    values = [b.malignant if name == "malignant" else b.severity for b in batches.values()]
    return per_patient(torch.cat(values), torch.cat([b.pair for b in batches.values()]), pairs)


def pair_of(batch: Batch, patients: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Pairing key of each patient, -1 for none."""
    mine = batch.patient == patients[:, None]
    return torch.where(mine, batch.pair, -1).amax(1)
