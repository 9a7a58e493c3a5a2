"""From a network and the facts of its source to a task, with everything checked that can be."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from mammopath.adaptation.descent import Params
from mammopath.adaptation.entropy import reliable_limit, two_class
from mammopath.adaptation.methods import Adaptation
from mammopath.adaptation.movable import head_of, movable
from mammopath.adaptation.updates import fisher
from mammopath.adaptation.values import Read, Reading, Seen, SourceFacts, Stream, Task, Views
from mammopath.errors import AdaptationError
from mammopath.model.network import Network
from mammopath.objectives.tasks import level_probabilities
from mammopath.settings import AdaptSettings
from mammopath.tensors import Batch
from mammopath.types import SEVERITIES, Modality


def task_for(
    network: Network, modality: Modality, method: Adaptation, *, settings: AdaptSettings, source: SourceFacts
) -> Task:
    """Everything that stays fixed while a network adapts to a site.

    Raises:
        AdaptationError: the network has nothing that this method moves, its score is not that of the linear
            head which adaptation changes, or the facts do not fit.
    """
    if network.settings.image_score != "pooled":
        raise AdaptationError(
            f"an image's score is that of its {network.settings.image_score}, which no adaptation changes:"
            " choose a method whose score is pooled"
        )
    head = head_of(network, modality)
    task = Task(
        read=reader(network, settings.head),
        source=movable(network, modality, method.moves),
        head=head,
        settings=settings,
        rule=method.rule(settings),
        prior=_prior(settings, source).to(head.weight),
        prevalence=source.prevalence,
        centre=torch.zeros_like(head.weight[0]),
        reliable=0.0,
    )
    return with_probe(task, source.probe, needs_fisher=method.needs_fisher)


def with_probe(task: Task, probe: tuple[Batch, ...], *, needs_fisher: bool) -> Task:
    """The task with what the source's fixed cases tell: its mean embedding and, if needed, its Fisher."""
    settings, seen = task.settings, tuple(look(task, Views(batch)) for batch in probe)
    logits = torch.cat([task.prior.new_zeros(0, len(task.prior)), *(one.plain.logits for one in seen)])
    task = replace(task, reliable=reliable_limit(logits, settings.margin, settings.reliable))
    if not seen:
        return task
    centre = torch.cat([one.plain.embedding for one in seen]).mean(0)
    task = replace(task, probe=seen, centre=centre)
    return replace(task, fisher=fisher(task)) if needs_fisher else task


def look(task: Task, views: Views) -> Seen:
    """What the source says of cases and of their styled views.

    Raises:
        AdaptationError: an answer of the source is not finite.
    """
    with torch.no_grad():
        plain, *styled = (task.read({}, batch) for batch in (views.plain, *views.styled))
    for reading in (plain, *styled):
        broken = ~(reading.score.isfinite() & reading.embedding.isfinite().all(1))
        if broken.any():
            rows = views.plain.row[broken].tolist()
            raise AdaptationError(
                f"the source answers rows {rows} with values that are not finite; leave them out", rows=rows
            )
    return Seen(views, plain, tuple(styled))


def reader(network: Network, head: str) -> Read:
    """Runs the network with some parameters in place of its own, which stay as they are."""

    def read(params: Params, batch: Batch) -> Reading:
        batch = batch.to(network.device())
        # No two names of the network are one tensor; looking for ties would cost more than small networks.
        output = (
            functional_call(network, dict(params), (batch,), tie_weights=False) if params else network(batch)
        )
        logits = two_class(output.logit) if head == "malignancy" else severity_logits(output.severity)
        return Reading(output.logit, logits, output.embedding)

    return read


def severity_logits(corn: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
    """Log-probability of each severity category: softmax logits whose entropy is that of the ordinal head."""
    return level_probabilities(corn).clamp(min=1e-6).log()


def check(network: Network, stream: Stream, *, method: Adaptation, source: SourceFacts) -> Modality:
    """Refuse a source or a stream that cannot be adapted, and say which modality the cases are of.

    Raises:
        AdaptationError: no cases, or of a modality that the network does not read; a probe that does not fit.
    """
    if not len(stream):
        raise AdaptationError("there are no cases to adapt to")
    if not 0 < source.prevalence < 1:
        raise AdaptationError(f"prevalence of the source must lie inside (0, 1), got {source.prevalence}")
    modality = stream[0].plain.modality
    if modality not in network.modalities:
        raise AdaptationError(
            f"the network reads {', '.join(network.modalities)}, these are {modality} images"
        )
    for batch in source.probe:
        check_batch(batch, modality, network.shape.width)
    return modality


def check_views(network: Network, views: Views, modality: Modality, *, method: Adaptation) -> None:
    """Refuse views that do not show the same cases, or that lack what a method needs.

    Raises:
        AdaptationError: no cases; cases of two modalities; styled views of other cases; samples in place of
            tokens; tokens that are not finite. Says what is wrong with which rows.
    """
    if not len(views.plain):
        raise AdaptationError("a batch of the stream is empty")
    for batch in (views.plain, *views.styled, *([views.hidden] if views.hidden else [])):
        check_batch(batch, modality, network.shape.width)
        if not torch.equal(batch.row, views.plain.row):
            raise AdaptationError("a styled or hidden view shows other cases than the plain one")
    if method.needs_hidden and views.hidden is None and not len(network.of(modality).blocks):
        raise AdaptationError(
            "deyo cannot judge: no block lies above the cut, so nothing notices that tokens are hidden;"
            " give views whose image is hidden in the middle, or a cut below the readout"
        )


def check_batch(batch: Batch, modality: Modality, width: int) -> None:
    """Refuse a batch of another modality, without tokens, or with tokens that do not fit or are not finite.

    Raises:
        AdaptationError: says what is wrong with which rows.
    """
    if batch.modality != modality:
        raise AdaptationError(f"cases of {modality} and of {batch.modality}: adapt each modality by itself")
    if batch.tokens is None:
        raise AdaptationError("adaptation takes tokens at the cut; run Network.lower on the samples first")
    if batch.tokens.shape[2] != width:
        raise AdaptationError(
            f"tokens are {batch.tokens.shape[2]} wide, the trunk {width}: another encoder made them"
        )
    broken = ~batch.tokens.isfinite().flatten(1).all(1)
    if broken.any():
        rows = batch.row[broken].tolist()
        raise AdaptationError(f"tokens of rows {rows} are not finite; leave these cases out", rows=rows)


def _prior(settings: AdaptSettings, source: SourceFacts) -> Float[Tensor, " c"]:
    if settings.head == "malignancy":
        return torch.tensor([1 - source.prevalence, source.prevalence])
    shares = source.severity or (1 / len(SEVERITIES),) * len(SEVERITIES)
    if len(shares) != len(SEVERITIES) or abs(sum(shares) - 1) > 1e-3:
        raise AdaptationError(
            f"severity of the source needs {len(SEVERITIES)} shares that sum to 1, got {shares}"
        )
    return torch.tensor(shares)
