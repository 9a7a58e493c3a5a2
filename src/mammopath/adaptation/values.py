"""The values of an adaptation: what goes in, what is remembered on the way, what comes out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.adaptation.causal import Trimmed
from mammopath.adaptation.descent import Descent, Moving, Params
from mammopath.adaptation.prototypes import Supports
from mammopath.model.network import Network
from mammopath.settings import AdaptSettings
from mammopath.tensors import Batch, Output
from mammopath.types import Modality


@dataclass(frozen=True)
class Views:
    """Unlabelled cases as they are, under style-only augmentations, and with their middle hidden.

    Labels that the batches may carry are never read.
    """

    plain: Batch
    styled: tuple[Batch, ...] = ()
    hidden: Batch | None = None


@runtime_checkable
class Stream(Protocol):
    """Cases of one modality of one site in the order in which they come; a list, or read as asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Views]: ...

    def __getitem__(self, place: int, /) -> Views: ...


@dataclass(frozen=True)
class SourceFacts:
    """What the training sites leave behind for adaptation; no labels of the new site.

    Attributes:
        prevalence: share of malignant images in training, the prior of this modality; inside (0, 1).
        severity: share of each severity category in training, for the severity head; empty if unknown.
        probe: fixed cases of the training sites on which calls should not change, with their labels where
            known; may be empty.
    """

    prevalence: float = 0.5
    severity: tuple[float, ...] = ()
    probe: tuple[Batch, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What a network says of a batch.

    Attributes:
        score: malignancy logit of each case.
        logits: of the classes whose uncertainty is reduced.
        embedding: what the malignancy head reads.
    """

    score: Float[Tensor, " b"]
    logits: Float[Tensor, "b c"]
    embedding: Float[Tensor, "b d"]


Note = tuple[float, int, int]
"""Loss of an update, cases in it, and cases left out."""

Read = Callable[[Params, Batch], Reading]
"""Runs the network with these parameters in place of its own."""


@dataclass(frozen=True)
class Seen:
    """Cases with what the source says of them.

    Attributes:
        views: the cases. plain: what the source says of them as they are. styled: of each styled view.
    """

    views: Views
    plain: Reading
    styled: tuple[Reading, ...] = ()

    def styled_scores(self) -> Float[Tensor, "v b"]:
        """Malignancy logit of each styled view."""
        if not self.styled:
            return self.plain.score.new_zeros(0, len(self.plain.score))
        return torch.stack([reading.score for reading in self.styled])


@dataclass(frozen=True)
class Head:
    """The linear layer that turns an embedding into the malignancy logit, and its names in the network."""

    weight: Float[Tensor, "1 d"]
    bias: Float[Tensor, " 1"]
    names: tuple[str, str]

    def score(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Malignancy logit of each embedding."""
        return embedding @ self.weight[0] + self.bias[0]

    def params(self) -> dict[str, Tensor]:
        """Weight and bias by name."""
        return dict(zip(self.names, (self.weight, self.bias), strict=True))


@dataclass(frozen=True)
class Task:
    """What stays fixed during one adaptation.

    Attributes:
        read: runs the network.
        source: where the moving parameters start. head: of the source.
        settings: of the adaptation. rule: how to step. prior: share of each class in training.
        prevalence: share of malignant images in training.
        centre: mean embedding of the source's probe; zero without one.
        reliable: largest entropy of a case that EATA, SAR and DeYO learn from, in nats.
        probe: the source's fixed cases. fisher: importance of each moving parameter for the source (EATA).
    """

    read: Read
    source: Params
    head: Head
    settings: AdaptSettings
    rule: Descent
    prior: Float[Tensor, " c"]
    prevalence: float
    centre: Float[Tensor, " d"]
    reliable: float
    probe: tuple[Seen, ...] = ()
    fisher: Params = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What an adaptation remembers; a method uses some of it. The first state is the source.

    Attributes:
        moving: parameters and optimiser. mean: running mean of predictions (EATA, SHOT, TACT-adapt).
        counted: cases in that mean. surprise: running entropy of used cases (SAR).
        supports: of T3A. trimmed: of TACT.
    """

    moving: Moving
    mean: Float[Tensor, " c"] | None = None
    counted: int = 0
    surprise: float | None = None
    supports: Supports | None = None
    trimmed: Trimmed | None = None


@dataclass(frozen=True)
class Stepped:
    """One step.

    Attributes:
        state: afterwards. judged: the state whose answer ``score`` is: before the step where weights move.
        score: malignancy logit of each case. loss: of the update. used: which cases entered it.
    """

    state: State
    judged: State
    score: Float[Tensor, " b"]
    loss: float
    used: Bool[Tensor, " b"]

    def note(self) -> Note:
        """What the report keeps."""
        used = int(self.used.sum())
        return self.loss, used, len(self.used) - used


@dataclass(frozen=True)
class Moved:
    """How far one tensor went: Euclidean distance, and the same relative to its length in the source."""

    name: str
    distance: float
    relative: float


@dataclass(frozen=True)
class AdaptationReport:
    """What an adaptation did, and whether it was kept.

    Attributes:
        method, mode, modality: what was done.
        decision: ``adapted``: answers or the returned network differ from the source's; ``source``: neither.
        reasons: of the guard's refusals, in order, or why nothing changed; empty where it accepted a change.
        measures: what the guard measured last.
        moved: tensors that differ from the source in the returned network.
        distance, relative: of all that may move, taken together: Euclidean, and relative to its length.
        losses: of each update. cases: seen. used, left_out: cases in and not in a loss, over all updates.
        adapted_cases: cases whose returned score differs from the source's.
        rollbacks: times the source was restored.
        rules: numbers that were settled on the way: ``passes`` over the cases and ``steps``, and
            ``reliable_entropy``, the largest entropy of a case that was learned from, in nats; cases in the
            ``probe``, without which the rules about the source's own cases are off, and ``labelled_probe``.
        rows: of the cases in the manifest, in order. hashes: SHA-256 of their tokens. learned: whether each
            entered an update, be it one that was taken back.
    """

    method: str
    mode: str
    modality: Modality
    decision: Literal["adapted", "source"]
    reasons: tuple[str, ...]
    measures: Mapping[str, float]
    moved: tuple[Moved, ...]
    distance: float
    relative: float
    losses: tuple[float, ...]
    cases: int
    used: int
    left_out: int
    adapted_cases: int
    rollbacks: int
    rules: Mapping[str, float]
    rows: tuple[int, ...]
    hashes: tuple[str, ...]
    learned: tuple[bool, ...]


@dataclass(frozen=True)
class Adapted:
    """The result: an adapted copy, what it says of the stream, and the report.

    Attributes:
        network: in evaluation mode; the source bit for bit where the guard refused.
        scores: malignancy logit of each case of the stream, in order, as it was answered when it came.
        report: what was done.
    """

    network: Network
    scores: Float[Tensor, " n"]
    report: AdaptationReport

    def __call__(self, batch: Batch) -> Output:
        """What the adapted network says of a batch of any modality it reads."""
        with torch.no_grad():
            return self.network(batch)
