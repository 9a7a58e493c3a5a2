"""Run a method over a stream: calibrate then freeze, online, or in episodes; each behind the guard."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.adaptation.descent import Moving
from mammopath.adaptation.guard import Evidence, Probe, Site, Verdict, judge
from mammopath.adaptation.methods import Adaptation
from mammopath.adaptation.setup import look
from mammopath.adaptation.values import Note, Seen, State, Stepped, Stream, Task, Views
from mammopath.settings import AdaptSettings

ROUNDING = 1e-5
"""Logits that differ by no more are one answer."""

Attempt = Callable[[Task, State, Seen], Stepped]


@dataclass(frozen=True)
class Outcome:
    """What is known after some cases of a stream, or all.

    Attributes:
        state: to go on from. kept: last one that was judged and accepted; the source's where none was.
        scores: malignancy logit of each batch, as answered when it came.
        evidence: newest cases, as they were answered. embeddings: of the same cases.
        notes: of each step. learned: for each batch, which of its cases entered an update.
        verdicts: of the guard, in order. adapted_cases: cases answered otherwise than by the source.
        rollbacks: times the source was restored.
        probe: as last looked at, ``unprobed`` cases ago. fresh: cases since the start or the last refusal.
        passes: over the cases.
    """

    state: State
    kept: State
    scores: tuple[Float[Tensor, " _"], ...] = ()
    evidence: Evidence | None = None
    embeddings: Float[Tensor, "n d"] | None = None
    notes: tuple[Note, ...] = ()
    learned: tuple[Bool[Tensor, " _"], ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    adapted_cases: int = 0
    rollbacks: int = 0
    probe: Probe | None = None
    unprobed: int = 0
    fresh: int = 0
    passes: int = 1


def begin(task: Task) -> State:
    """The state of the source."""
    return State(Moving(task.source))


def answer(task: Task, method: Adaptation, state: State, seen: Seen) -> Float[Tensor, " b"]:
    """What a network that keeps this state says of cases; no styled views are needed."""
    if method.moves == "nothing":
        return method.fold(task, state).score(seen.plain.embedding)
    with torch.no_grad():
        return task.read(state.moving.params, seen.views.plain).score


def calibrate(task: Task, method: Adaptation, stream: Stream) -> Outcome:
    """Adapt on the first cases, judge once, and answer the whole stream with what was kept."""
    state, seen = begin(task), _leading(task, stream)
    notes: list[Note] = []
    passes = _passes(task.settings, method, len(seen))
    learned = [torch.zeros_like(one.plain.score, dtype=torch.bool) for one in seen]
    for place, one in list(enumerate(seen)) * passes:
        stepped = method.step(task, state, one)
        state, notes = stepped.state, [*notes, stepped.note()]
        learned[place] = learned[place] | stepped.used
    evidence = _all_evidence([answer(task, method, state, one) for one in seen], seen)
    evidence = evidence.thinned(task.settings.guard.window)
    site = Site(task.prevalence, mixed=False)
    verdict = judge(evidence, _probed(task, method, state), task.settings.guard, site=site)
    kept = state if verdict.decision == "accept" else begin(task)
    done = Outcome(kept, kept, notes=tuple(notes), learned=tuple(learned), verdicts=(verdict,), passes=passes)
    return _answered(task, method, stream, done, seen=seen)


def _answered(
    task: Task, method: Adaptation, stream: Stream, done: Outcome, *, seen: Sequence[Seen]
) -> Outcome:
    """Answer a whole stream with what was kept; the source's answers stay bit for bit where it was kept."""
    accepted = done.verdicts[-1].decision == "accept"
    answers, adapted = [], 0
    for place in range(len(stream)):
        one = seen[place] if place < len(seen) else look(task, Views(stream[place].plain))
        score = answer(task, method, done.kept, one) if accepted else one.plain.score
        answers.append(score)
        adapted += _differ(score, one.plain.score)
    return replace(done, scores=tuple(answers), adapted_cases=adapted)


def online(task: Task, method: Adaptation, stream: Stream) -> Outcome:
    """Answer and adapt batch by batch; what is kept in the end is the last state that was accepted."""
    done = _along(task, method, stream, attempt=method.step, patience=task.settings.guard.patience)
    if done.evidence is None or done.embeddings is None:
        return done
    evidence = done.evidence
    if method.moves == "nothing":
        # The folded head answers without styled views and with all supports: it is judged by itself.
        adapted = method.fold(task, done.kept).score(done.embeddings)
        evidence = replace(evidence, adapted=adapted, counted=None)
    # The state that is kept may have gone on since the probe was last looked at.
    verdict = _judged(task, evidence, _probed(task, method, done.kept), fresh=len(evidence))
    kept = done.kept if verdict.decision == "accept" else begin(task)
    return replace(done, kept=kept, verdicts=(*done.verdicts, verdict))


def episodic(task: Task, method: Adaptation, stream: Stream) -> Outcome:
    """Adapt to each batch from the source and forget it; what is kept in the end is the source."""

    def episode(task: Task, state: State, seen: Seen) -> Stepped:
        return _episode(task, method, seen)

    done = _along(task, method, stream, attempt=episode, patience=len(stream) + 1)
    return replace(done, kept=begin(task))


def _episode(task: Task, method: Adaptation, seen: Seen) -> Stepped:
    state, start = begin(task), begin(task)
    stepped = Stepped(
        start, start, seen.plain.score, 0.0, torch.zeros_like(seen.plain.score, dtype=torch.bool)
    )
    steps = task.settings.steps if method.moves != "nothing" else min(task.settings.steps, 1)
    for _ in range(steps):
        stepped = method.step(task, state, seen)
        state = stepped.state
    score = stepped.score if method.moves == "nothing" else answer(task, method, state, seen)
    return replace(stepped, state=start, judged=state, score=score)


def _along(task: Task, method: Adaptation, stream: Stream, *, attempt: Attempt, patience: int) -> Outcome:
    done = Outcome(begin(task), begin(task))
    for views in stream:
        if done.rollbacks < patience:
            seen = look(task, views)
            done = _advanced(task, method, done, seen=seen, stepped=attempt(task, done.state, seen))
        else:
            seen = look(task, Views(views.plain))
            unused = torch.zeros_like(seen.plain.score, dtype=torch.bool)
            done = replace(done, scores=(*done.scores, seen.plain.score), learned=(*done.learned, unused))
    return done


def _advanced(task: Task, method: Adaptation, done: Outcome, *, seen: Seen, stepped: Stepped) -> Outcome:
    rules, count = task.settings.guard, len(seen.plain.score)
    evidence = _evidence(stepped.score, seen)
    evidence = evidence if done.evidence is None else done.evidence.joined(evidence)
    evidence = evidence.newest(max(rules.window, count))
    fresh, unprobed = done.fresh + count, done.unprobed + count
    first = fresh >= rules.min_cases and done.probe is None
    due = first or unprobed >= rules.probe_every or method.moves == "nothing"
    probe = _probed(task, method, stepped.judged) if due else done.probe
    verdict = _judged(task, evidence, probe, fresh=fresh)
    refused, accepted = verdict.decision == "refuse", verdict.decision == "accept"
    start = begin(task)
    return replace(
        done,
        state=start if refused else stepped.state,
        kept=stepped.judged if accepted else start if refused else done.kept,
        scores=(*done.scores, stepped.score if accepted else seen.plain.score),
        evidence=evidence.withdrawn(count) if refused else evidence,
        embeddings=_newest(done.embeddings, seen.plain.embedding, rules.window),
        notes=(*done.notes, stepped.note()),
        learned=(*done.learned, stepped.used),
        verdicts=(*done.verdicts, verdict),
        adapted_cases=done.adapted_cases + accepted * _differ(stepped.score, seen.plain.score),
        rollbacks=done.rollbacks + refused,
        probe=None if refused else probe,
        unprobed=0 if due or refused else unprobed,
        fresh=0 if refused else fresh,
    )


def _judged(task: Task, evidence: Evidence, probe: Probe | None, *, fresh: int) -> Verdict:
    site = Site(task.prevalence, mixed=True, fresh=fresh)
    return judge(evidence, probe, task.settings.guard, site=site)


def _evidence(score: Float[Tensor, " b"], seen: Seen) -> Evidence:
    return Evidence(score, seen.plain.score, seen.styled_scores())


def _all_evidence(answers: Sequence[Float[Tensor, " _"]], seen: Sequence[Seen]) -> Evidence:
    source = torch.cat([one.plain.score for one in seen])
    return Evidence(torch.cat(list(answers)), source, torch.cat([one.styled_scores() for one in seen], dim=1))


def _differ(score: Float[Tensor, " b"], source: Float[Tensor, " b"]) -> int:
    """Answers that are not the source's, beyond rounding."""
    return int(((score - source).abs() > ROUNDING).sum())


def _probed(task: Task, method: Adaptation, state: State) -> Probe | None:
    if not task.probe or not task.settings.guard.enabled:
        return None
    return Probe(
        torch.cat([answer(task, method, state, seen) for seen in task.probe]),
        torch.cat([seen.plain.score for seen in task.probe]),
        torch.cat([seen.views.plain.malignant for seen in task.probe]).to(task.centre),
    )


def _leading(task: Task, stream: Stream) -> list[Seen]:
    """Leading batches that hold at least ``cases`` cases, or all; style-only views are let go once seen."""
    found: list[Seen] = []
    wanted = task.settings.cases
    while len(found) < len(stream) and (not wanted or sum(len(one.plain.score) for one in found) < wanted):
        one = look(task, stream[len(found)])
        found.append(replace(one, views=replace(one.views, styled=())))
    return found


def _passes(settings: AdaptSettings, method: Adaptation, batches: int) -> int:
    """Passes over the cases that calibrate: as many as asked for, more where these are too few steps.

    Supports and directions are counts of cases: a second pass would count each case twice.
    """
    if method.moves == "nothing" or not settings.epochs:
        return min(settings.epochs, 1)
    return max(settings.epochs, math.ceil(settings.least_steps / batches))


def _newest(old: Tensor | None, new: Float[Tensor, "b d"], count: int) -> Float[Tensor, "n d"]:
    return (new if old is None else torch.cat([old, new]))[-count:]
