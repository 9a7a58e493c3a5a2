"""The training loop, on one screen, and what it needs: optimiser, schedule, best step."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mammopath.model.network import Network
from mammopath.objectives.averaging import WeightAverage
from mammopath.objectives.objective import Objective
from mammopath.progress import Track, silent
from mammopath.settings import TrainSettings
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import Modality

Step = Mapping[Modality, Batch]
Row = dict[str, float]


@dataclass
class Best:
    """The weights of the best step so far; ties keep the earlier one.

    Attributes:
        score: of the best step; step: its number. state: its weights.
        averaged: steps that went into the weight average, at the end of training.
    """

    score: float = -math.inf
    step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    averaged: int = 0

    def offer(self, score: float, step: int, state: Mapping[str, Tensor]) -> None:
        """Take these weights if their score is higher (a NaN score counts as lowest)."""
        if not self.state or score > self.score:
            self.score = -math.inf if math.isnan(score) else score
            self.step, self.state = step, {k: v.detach().cpu().clone() for k, v in state.items()}


@dataclass(frozen=True)
class Watch:
    """What looks on while a network trains.

    Attributes:
        validate: scores a network in evaluation mode; ``score`` is what selects, higher is better.
        log: takes one row per validation, with the mean of every loss term since the one before.
        track: shows progress.
        select_last: take the last step whatever its score.
        from_start: score the network before its first step too, which may be the best.
    """

    validate: Callable[[Network], Mapping[str, float]]
    log: Callable[[Row], None]
    track: Track = silent
    select_last: bool = False
    from_start: bool = False


def fit(
    network: Network,
    objective: Objective,
    batches: Iterator[Step],
    settings: TrainSettings,
    *,
    watch: Watch,
    seed: int = 0,
) -> Best:
    """Train ``network`` in place and return the best step by validation.

    Args:
        network: what is trained; ends with the weights of its last step.
        objective: loss terms of the method; its own parameters are trained along.
        batches: endless steps, a batch per modality.
        settings: steps, learning rates, clipping, averaging.
        watch: validation, log, progress.
        seed: of the style draws.
    """
    generator = torch.Generator().manual_seed(seed)
    average = WeightAverage(settings.average, decay=settings.ema)
    optimizer, best, running = new_optimizer(network, objective, settings), Best(), Running()
    if watch.from_start and not watch.select_last:
        with evaluating(network):
            best.offer(watch.validate(network)["score"], 0, network.trained_state())
    for step in watch.track(range(1, settings.steps + 1), "training", settings.steps):
        if step in objective.switch_steps:
            optimizer = new_optimizer(network, objective, settings)
        set_learning_rate(optimizer, step, settings)
        network.train()
        batch = next(batches)
        outputs, fused = forward(network, objective, batch, settings, generator)
        terms = objective(outputs, batch, step=step, fused=fused)
        optimizer.zero_grad(set_to_none=True)
        objective.backward(terms, network, clip=settings.clip)
        optimizer.step()
        average.update(network.trained_state(), step=step)
        running.add(terms)
        if step % settings.validate_every == 0 or step == settings.steps:
            with evaluating(network), average.applied(network):
                scores = watch.validate(network)
                score = float(step) if watch.select_last else scores["score"]
                best.offer(score, step, network.trained_state())
            average.validated(1 - scores["score"])
            watch.log({"step": step, **running.take(), **scores})
    if watch.select_last:
        best.score = scores["score"]
    dense = average.final()
    best.averaged = average.averaged
    return best if dense is None else Best(best.score, settings.steps, dense, average.averaged)


def forward(
    network: Network, objective: Objective, step: Step, settings: TrainSettings, generator: torch.Generator
) -> tuple[dict[Modality, Output], FusedOutput | None]:
    """Run every modality of a step through the network with the drawn style, then the fusion."""
    outputs = {}
    with torch.autocast(network.device().type, torch.bfloat16, enabled=settings.precision == "bf16"):
        for modality, batch in step.items():
            low, high = network.style_blocks(modality)
            style = objective.style(batch, block_low=low, block_high=high, generator=generator)
            outputs[modality] = network(batch, style)
    return outputs, network.fuse(outputs, step) if network.fusion is not None else None


def new_optimizer(network: Network, objective: Objective, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only; each group remembers its peak rate."""
    groups = network.parameter_groups(settings)
    extras = [p for p in objective.parameters() if p.requires_grad]
    groups += [{"params": extras, "lr": settings.lr, "weight_decay": 0.0}] if extras else []
    for group in groups:
        group["peak"] = group["lr"]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.999))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, settings: TrainSettings) -> None:
    """Linear rise over the first ``warmup`` share of the steps, then half a cosine to 0."""
    rise = max(1, round(settings.warmup * settings.steps))
    through = (step - rise) / max(1, settings.steps - rise)
    factor = step / rise if step <= rise else 0.5 * (1 + math.cos(math.pi * through))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


@dataclass
class Running:
    """Means of the loss terms since the last look."""

    sums: Row = field(default_factory=dict)
    steps: int = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Count one step."""
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def take(self) -> Row:
        """Means so far; starts again from nothing."""
        means = {name: total / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; the mode from before after it."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
