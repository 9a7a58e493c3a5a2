"""Which labels of a batch teach which task."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.objectives.recipe import TaskRecipe
from mammopath.objectives.tasks import box_loss, corn_loss, lesion_loss, malignancy_loss, per_patient
from mammopath.tensors import Batch, Output
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


TASKS: dict[str, Callable[[TaskRecipe, Output, Batch], Taught]] = {
    "malignancy": _malignancy,
    "patient": _patient,
    "lesion": _lesion,
    "boxes": _boxes,
    "severity": _severity,
}
"""Tasks of one modality, by the name of their weight in the recipe."""
