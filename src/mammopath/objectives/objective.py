"""The objective of a training method: from outputs to one loss, with every ingredient of its recipe."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.objectives.ledger import Ledger
from mammopath.objectives.recipe import Recipe, TaskRecipe
from mammopath.objectives.supervision import TASKS, task_losses
from mammopath.objectives.tasks import nothing
from mammopath.objectives.weighting import flat_gradient, uncertainty_weighted, without_conflicts
from mammopath.tensors import Batch, Output, Style
from mammopath.types import Modality

Terms = dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """Loss terms of one recipe; what they learn themselves are parameters of this module.

    Attributes:
        recipe: the ingredients.
        switch_steps: steps (counted from 1) before which the optimiser is made anew, because the weight
            of a penalty jumps.
    """

    def __init__(
        self, recipe: Recipe, *, width: int, align_width: int, domains: Mapping[Modality, int], steps: int
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.ledger = Ledger()
        self.switch_steps: tuple[int, ...] = ()
        self.tasks = _weights(recipe.tasks)
        for name in self.tasks:
            self.ledger.configure(name)
        learned = self.tasks if recipe.tasks.weighting == "uncertainty" else {}
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.tensor(-0.5)) for name in learned})

    @property
    def counters(self) -> dict[str, int]:
        """Configured ingredient -> how often it ran in training."""
        return self.ledger.counters

    @property
    def idle_reasons(self) -> dict[str, str]:
        """Ingredient -> why it did not run when it last did not."""
        return self.ledger.idle_reasons

    def forward(
        self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch], *, step: int
    ) -> Terms:
        """Every term of this step, unweighted, and their weighted sum ``loss``.

        Args:
            outputs: what the network says of each modality.
            batches: what is known of it.
            step: of training, counted from 1.
        """
        outputs = {m: output for m, output in outputs.items() if m in self.recipe.modalities}
        losses = task_losses(self.recipe.tasks, outputs, batches)
        self._note(losses)
        start = nothing(*(output.logit for output in outputs.values()))
        total = sum((self._weighted(name, loss) for name, loss in losses.items()), start)
        return losses | {"loss": total}

    def style(
        self, batch: Batch, *, block_low: int, block_high: int, generator: torch.Generator
    ) -> Style | None:
        """Draw a change of style for a batch; None in evaluation, or where none is due.

        Args:
            batch: of one modality.
            block_low: first block in front of which the style may change.
            block_high: last such block.
            generator: of every draw.
        """
        return None

    def backward(self, terms: Terms, network: nn.Module, *, clip: float) -> float:
        """Put the gradient of a step into the parameters and clip it.

        Args:
            terms: of ``forward``.
            network: what is trained beside this objective.
            clip: largest norm of the gradient.

        Returns:
            The norm of the gradient before it was clipped.
        """
        parameters = [p for p in (*network.parameters(), *self.parameters()) if p.requires_grad]
        if self.recipe.tasks.weighting == "pcgrad":
            self._backward_without_conflicts(terms, parameters)
        else:
            terms["loss"].backward()  # type: ignore[no-untyped-call]
        return float(nn.utils.clip_grad_norm_(parameters, clip))

    def _backward_without_conflicts(self, terms: Terms, parameters: list[nn.Parameter]) -> None:
        present = [self._weighted(name, terms[name]) for name in self.tasks if name in terms]
        gradients = [flat_gradient(loss, parameters) for loss in present]
        order = torch.Generator().manual_seed(self.counters["malignancy"])
        rest = flat_gradient(terms["loss"] - sum(present), parameters)
        merged = rest + without_conflicts(torch.stack(gradients), order)
        sizes = [p.numel() for p in parameters]
        for parameter, gradient in zip(parameters, torch.split(merged, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def _weighted(self, name: str, loss: Tensor) -> Tensor:
        weighted = self.tasks[name] * loss
        return (
            uncertainty_weighted(weighted, self.log_variances[name])
            if name in self.log_variances
            else weighted
        )

    def _note(self, losses: Terms) -> None:
        for name in self.tasks if self.training else ():
            if name in losses:
                self.ledger.ran(name)
            else:
                self.ledger.idle(name, "no label in this step")


def _weights(recipe: TaskRecipe) -> dict[str, float]:
    return {name: getattr(recipe, name) for name in TASKS if getattr(recipe, name) > 0}
