"""Adapt a copy of a network to unlabelled cases of one site, behind the guard."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.adaptation.descent import length
from mammopath.adaptation.methods import ADAPTATIONS, Adaptation
from mammopath.adaptation.setup import check, check_views, task_for
from mammopath.adaptation.streaming import Outcome, calibrate, episodic, online
from mammopath.adaptation.values import AdaptationReport, Adapted, Moved, SourceFacts, Stream, Task
from mammopath.adaptation.watched import Watched
from mammopath.errors import AdaptationError
from mammopath.model.network import Network
from mammopath.settings import AdaptSettings

MODES: dict[str, Callable[[Task, Adaptation, Stream], Outcome]] = {
    "calibrate": calibrate,
    "online": online,
    "episodic": episodic,
}
"""How a stream is gone through."""

LEAST = 1e-6
"""What moved by less, relative to its length, did not move: the source is returned."""


def adapt(
    network: Network, stream: Stream, *, method: str, settings: AdaptSettings, source: SourceFacts
) -> Adapted:
    """Adapt a copy of a network; the network itself stays bit for bit as it is.

    Args:
        network: the source, in any mode; the copy is in evaluation mode, so dropout is off.
        stream: unlabelled cases of one modality of one site, as tokens at the cut. Labels in the batches
            are not read.
        method: a key of ``ADAPTATIONS``.
        settings: of the adaptation and of its guard.
        source: prevalence and probe of the training sites.

    Returns:
        The copy, its answers to the stream and the report. Where the guard refused, the copy equals the
        source bit for bit and the report says why.

    Raises:
        AdaptationError: unknown method, or cases that cannot be adapted to; says which and why.
    """
    if method not in ADAPTATIONS:
        raise AdaptationError(f"there is no adaptation {method!r}; there are {', '.join(ADAPTATIONS)}")
    chosen = ADAPTATIONS[method]
    modality = check(network, stream, method=chosen, source=source)
    watched = Watched(stream, lambda views: check_views(network, views, modality, method=chosen))
    adapted = copy.deepcopy(network).eval()
    task = task_for(adapted, modality, chosen, settings=settings, source=source)
    outcome = MODES[settings.mode](task, chosen, watched)
    final = dict(outcome.kept.moving.params) | chosen.fold(task, outcome.kept).params()
    moves = _moves(dict(task.source) | task.head.params(), final)
    if moves.moved:
        adapted.load_state_dict({name: value.detach() for name, value in final.items()}, strict=False)
    report = AdaptationReport(
        method=method,
        mode=settings.mode,
        modality=modality,
        decision="adapted" if moves.moved or outcome.adapted_cases else "source",
        reasons=_reasons(outcome, moved=bool(moves.moved or outcome.adapted_cases), idle=not chosen.adapts),
        measures=outcome.verdicts[-1].measures,
        moved=moves.moved,
        distance=moves.distance,
        relative=moves.relative,
        losses=tuple(loss for loss, used, _ in outcome.notes if used),
        cases=len(watched.rows),
        used=sum(used for _, used, _ in outcome.notes),
        left_out=sum(left for _, _, left in outcome.notes),
        adapted_cases=outcome.adapted_cases,
        rollbacks=outcome.rollbacks,
        rules=_rules(task, chosen, outcome),
        rows=tuple(watched.rows),
        hashes=tuple(watched.hashes),
        learned=_learned(outcome, len(watched.rows)),
    )
    return Adapted(adapted, torch.cat(outcome.scores), report)


def _reasons(outcome: Outcome, *, moved: bool, idle: bool) -> tuple[str, ...]:
    """Why the guard refused; where it never judged, what it waited for; where nothing changed, why."""
    refused = [r for verdict in outcome.verdicts if verdict.decision == "refuse" for r in verdict.reasons]
    found = tuple(refused) or outcome.verdicts[-1].reasons
    if found or moved or idle:
        return found
    if not any(used for _, used, _ in outcome.notes):
        return ("no case was learned from: none was sure enough, or no step was asked for",)
    return ("nothing moved beyond rounding",)


def _learned(outcome: Outcome, cases: int) -> tuple[bool, ...]:
    told = [case for batch in outcome.learned for case in batch.tolist()]
    return tuple(told + [False] * (cases - len(told)))


def _rules(task: Task, method: Adaptation, outcome: Outcome) -> dict[str, float]:
    labels = [seen.views.plain.malignant for seen in task.probe]
    found = {"probe": float(sum(map(len, labels))), "labelled_probe": float(sum(map(_known, labels)))}
    if method.moves != "nothing":
        found |= {"passes": float(outcome.passes), "steps": float(len(outcome.notes))}
    return found | ({"reliable_entropy": round(task.reliable, 4)} if method.chooses else {})


def _known(labels: Float[Tensor, " b"]) -> int:
    return int(labels.isfinite().sum())


@dataclass(frozen=True)
class Moves:
    """How far everything that may move went."""

    moved: tuple[Moved, ...]
    distance: float
    relative: float


def _moves(before: dict[str, Tensor], after: dict[str, Tensor]) -> Moves:
    distance = length({name: after[name] - value for name, value in before.items()}).item()
    relative = distance / max(length(before).item(), 1e-12)
    moved = tuple(_moved(before, after)) if relative > LEAST else ()
    return Moves(moved, distance if moved else 0.0, relative if moved else 0.0)


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> Iterator[Moved]:
    for name, value in before.items():
        if not torch.equal(value, after[name]):
            distance = (after[name] - value).norm().item()
            yield Moved(name, distance, distance / max(value.norm().item(), 1e-12))
