"""Adapt a copy of a network to unlabelled cases of one site, behind the guard."""

import copy
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mammopath.adaptation.guard import Verdict
from mammopath.adaptation.methods import ADAPTATIONS, Adaptation
from mammopath.adaptation.setup import check, task_for
from mammopath.adaptation.streaming import Outcome, calibrate, episodic, online
from mammopath.adaptation.values import AdaptationReport, Adapted, Moved, SourceFacts, Stream, Task
from mammopath.errors import AdaptationError
from mammopath.model.network import Network
from mammopath.settings import AdaptSettings
from mammopath.tensors import Batch

MODES: dict[str, Callable[[Task, Adaptation, Stream], Outcome]] = {
    "calibrate": calibrate,
    "online": online,
    "episodic": episodic,
}
"""How a stream is gone through."""


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
    adapted = copy.deepcopy(network).eval()
    task = task_for(adapted, modality, chosen, settings=settings, source=source)
    outcome = MODES[settings.mode](task, chosen, stream)
    final = dict(outcome.kept.moving.params) | chosen.fold(task, outcome.kept).params()
    moved = tuple(_moved(dict(task.source) | task.head.params(), final))
    adapted.load_state_dict({name: value.detach() for name, value in final.items()}, strict=False)
    report = AdaptationReport(
        method=method,
        mode=settings.mode,
        modality=modality,
        decision="adapted" if moved else "source",
        reasons=_reasons(outcome.verdicts),
        measures=outcome.verdicts[-1].measures,
        moved=moved,
        losses=tuple(loss for loss, used, _ in outcome.notes if used),
        cases=sum(len(views.plain) for views in stream),
        used=sum(used for _, used, _ in outcome.notes),
        left_out=sum(left for _, _, left in outcome.notes),
        adapted_cases=outcome.adapted_cases,
        rollbacks=outcome.rollbacks,
        rules=_rules(task, chosen, outcome),
        rows=tuple(row for views in stream for row in views.plain.row.tolist()),
        hashes=tuple(digest for views in stream for digest in _hashes(views.plain)),
    )
    return Adapted(adapted, torch.cat(outcome.scores), report)


def _reasons(verdicts: tuple[Verdict, ...]) -> tuple[str, ...]:
    """Why the guard refused; where it never judged, what it waited for."""
    refused = [reason for verdict in verdicts if verdict.decision == "refuse" for reason in verdict.reasons]
    return tuple(refused) or verdicts[-1].reasons


def _rules(task: Task, method: Adaptation, outcome: Outcome) -> dict[str, float]:
    found: dict[str, float] = {}
    if method.moves != "nothing":
        found = {"passes": float(outcome.passes), "steps": float(len(outcome.notes))}
    return found | ({"reliable_entropy": round(task.reliable, 4)} if method.chooses else {})


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> Iterator[Moved]:
    for name, value in before.items():
        if not torch.equal(value, after[name]):
            distance = (after[name] - value).norm().item()
            yield Moved(name, distance, distance / max(value.norm().item(), 1e-12))


def _hashes(batch: Batch) -> Iterator[str]:
    """SHA-256 of the real tokens of each case, whatever it was padded to."""
    assert batch.tokens is not None
    for tokens, valid in zip(batch.tokens, batch.valid, strict=True):
        real = torch.cat([tokens[: batch.prefix], tokens[batch.prefix :][valid]])
        yield hashlib.sha256(real.float().cpu().contiguous().numpy().tobytes()).hexdigest()
