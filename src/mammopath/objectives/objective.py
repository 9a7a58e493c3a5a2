"""The objective of a training method: from outputs to one loss, with every ingredient of its recipe."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.objectives.alignment import Alignment
from mammopath.objectives.correspondence import link_loss
from mammopath.objectives.ledger import Ledger
from mammopath.objectives.penalties import Penalties
from mammopath.objectives.recipe import Recipe, TaskRecipe
from mammopath.objectives.style import draw_style
from mammopath.objectives.supervision import TASKS, cross_fusion_loss, late_fusion_loss, task_losses
from mammopath.objectives.tasks import nothing
from mammopath.objectives.weighting import flat_gradient, uncertainty_weighted, without_conflicts
from mammopath.tensors import Batch, FusedOutput, Output, Style
from mammopath.types import Modality

Terms = dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """Loss terms of one recipe; what they learn themselves are parameters of this module.

    An ingredient whose weight is 0, or that the training data cannot feed, is not built: the loss is then
    exactly that of the recipe without it.

    Args:
        recipe: the ingredients.
        width: of ``Output.embedding``.
        align_width: of ``Output.projection``.
        domains: number of training sites of each modality.
        steps: of the whole training, which annealing takes its share of.

    Attributes:
        recipe: the ingredients.
    """

    def __init__(
        self, recipe: Recipe, *, width: int, align_width: int, domains: Mapping[Modality, int], steps: int
    ) -> None:
        super().__init__()
        self.recipe, self.ledger = recipe, Ledger()
        self.weights = _task_weights(recipe.tasks)
        for name in self.weights:
            self.ledger.configure(name)
        if recipe.tasks.weighting == "pcgrad":
            self.ledger.configure("pcgrad")
        learned = self.weights if recipe.tasks.weighting == "uncertainty" else {}
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.tensor(-0.5)) for name in learned})
        sites = {m: count for m, count in domains.items() if m in recipe.modalities}
        self.penalties = self._new_penalties(width, sites, steps)
        self.alignment = self._new_alignment(align_width, len(sites))
        if recipe.link.weight > 0:
            self.ledger.configure("link")
        if recipe.style.kind != "none" and recipe.style.probability > 0:
            self.ledger.configure(recipe.style.kind)

    def _new_penalties(self, width: int, sites: Mapping[Modality, int], steps: int) -> Penalties | None:
        recipe = self.recipe.invariance
        if recipe.kind == "none" or recipe.weight == 0:
            return None
        return Penalties(recipe, width=width, domains=sites, steps=steps, ledger=self.ledger)

    def _new_alignment(self, width: int, modalities: int) -> Alignment | None:
        recipe = self.recipe.align
        if recipe.kind == "none" or recipe.weight == 0:
            return None
        self.ledger.configure("align")
        if modalities < 2:
            self.ledger.idle("align", "only one modality in training")
            return None
        return Alignment(recipe, width=width, ledger=self.ledger)

    @property
    def switch_steps(self) -> tuple[int, ...]:
        """Steps (counted from 1) before which the optimiser is made anew: the weight of a penalty jumps."""
        return self.penalties.switch_steps if self.penalties else ()

    @property
    def counters(self) -> dict[str, int]:
        """Configured ingredient -> how often it ran in training."""
        return self.ledger.counters

    @property
    def idle_reasons(self) -> dict[str, str]:
        """Ingredient -> why it did not run, where it did not."""
        return self.ledger.idle_reasons

    def forward(
        self,
        outputs: Mapping[Modality, Output],
        batches: Mapping[Modality, Batch],
        *,
        step: int,
        fused: FusedOutput | None = None,
    ) -> Terms:
        """Every term of this step, unweighted, and their weighted sum ``loss``.

        Args:
            outputs: what the network says of each modality.
            batches: what is known of it.
            step: of training, counted from 1.
            fused: what the network says from both modalities; needed for cross fusion.

        Raises:
            ValueError: the step holds no modality that the recipe trains.
        """
        outputs = {m: output for m, output in outputs.items() if m in self.recipe.modalities}
        if not outputs:
            raise ValueError(
                f"the step holds none of {', '.join(self.recipe.modalities)}, which the recipe trains"
            )
        losses = self._task_losses(outputs, batches, fused)
        extras = dict(self._extras(outputs, batches, step)) | self._link(outputs, batches, fused)
        total = nothing(*(output.logit for output in outputs.values()))
        for name, loss in losses.items():
            total = total + self._weighted(name, loss)
        for weight, value in extras.values():
            total = total + weight * value
        return losses | {name: value for name, (_, value) in extras.items()} | {"loss": total}

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
        if not self.training or batch.modality not in self.recipe.modalities:
            return None
        return draw_style(
            self.recipe.style,
            batch,
            blocks=(block_low, block_high),
            generator=generator,
            ledger=self.ledger,
        )

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
        reached = torch.autograd.grad(terms["loss"], parameters, retain_graph=True, allow_unused=True)
        used = [p for p, gradient in zip(parameters, reached, strict=True) if gradient is not None]
        tasks = [self._weighted(name, terms[name]) for name in self.weights if name in terms]
        gradient = torch.cat([gradient.flatten() for gradient in reached if gradient is not None])
        if len(tasks) > 1:
            each = torch.stack([flat_gradient(task, used) for task in tasks])
            order = torch.Generator().manual_seed(self.ledger.counters["pcgrad"])
            gradient = gradient - each.sum(0) + without_conflicts(each, order)
            self.ledger.ran("pcgrad")
        for parameter, part in zip(used, torch.split(gradient, [p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def _task_losses(
        self,
        outputs: Mapping[Modality, Output],
        batches: Mapping[Modality, Batch],
        fused: FusedOutput | None,
    ) -> Terms:
        losses = task_losses(self.recipe.tasks, outputs, batches)
        if "fusion" in self.weights:
            together = (
                late_fusion_loss(outputs, batches)
                if self.recipe.tasks.fusion_kind == "late"
                else cross_fusion_loss(fused, batches)
            )
            losses |= {} if together is None else {"fusion": together}
        for name in self.weights if self.training else ():
            if name in losses:
                self.ledger.ran(name)
            else:
                self.ledger.idle(name, MISSING.get(name, "a step without a label"))
        return losses

    def _extras(
        self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch], step: int
    ) -> Iterator[tuple[str, tuple[float, Tensor]]]:
        if self.penalties:
            yield from self.penalties(outputs, batches, step=step).items()
        if self.alignment:
            value = self.alignment(outputs, batches, step=step)
            if value is not None:
                yield "align", (self.recipe.align.weight, value)

    def _link(
        self, outputs: Mapping[Modality, Output], batches: Mapping[Modality, Batch], fused: FusedOutput | None
    ) -> dict[str, tuple[float, Tensor]]:
        recipe = self.recipe.link
        if recipe.weight == 0:
            return {}
        value = link_loss(recipe, outputs, batches, fused, ledger=self.ledger if self.training else None)
        if value is None and self.training:
            self.ledger.idle("link", "a step without two patients of one site in both modalities")
        return {} if value is None else {"link": (recipe.weight, value)}

    def _weighted(self, name: str, loss: Tensor) -> Tensor:
        weighted = self.weights[name] * loss
        if name not in self.log_variances:
            return weighted
        return uncertainty_weighted(weighted, self.log_variances[name])


MISSING = {
    "fusion": "a step without a labelled patient in both modalities",
    "boxes": "a step without annotations",
}
"""Why a task had nothing to learn from in a step."""


def _task_weights(recipe: TaskRecipe) -> dict[str, float]:
    weights = {name: float(getattr(recipe, name)) for name in (*TASKS, "fusion")}
    return {name: weight for name, weight in weights.items() if weight > 0}
