"""Whose tissue a region attends to: the contrast against loops, who takes part, and that it can be learnt."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mammopath.model.fusion import Fusion, Side
from mammopath.objectives.correspondence import LEAST, correspondence_loss, link_loss
from mammopath.objectives.ledger import Ledger
from mammopath.objectives.recipe import LinkRecipe
from mammopath.tensors import Batch, FusedOutput, Output
from mammopath.types import Modality
from objective_toys import det

WIDTH, TOKENS = 6, 5


def by_hand(score: Tensor, own: Tensor, rival: Tensor, weight: Tensor) -> float:
    """The formula, region by region and token by token."""
    total, score = 0.0, score.detach()
    for q in range(len(score)):
        mine = sum(float(weight[t]) * math.exp(score[q, t]) for t in range(score.shape[1]) if own[q, t])
        every = sum(math.exp(score[q, t]) for t in range(score.shape[1]) if own[q, t] or rival[q, t])
        total -= math.log(mine / every)
    return total / len(score)


def test_the_loss_is_the_formula() -> None:
    score = det((3, 7), 2.0)
    own = torch.zeros(3, 7, dtype=torch.bool)
    own[0, :2] = own[1, 3:6] = own[2, 6] = True
    rival = ~own
    rival[:, 2] = False  # of another site: no part in it
    weight = torch.tensor([1.0, 0.2, 0.5, 1.0, 0.01, 0.3, 0.9])
    found = correspondence_loss(score, own, rival, weight)
    assert float(found) == pytest.approx(by_hand(score, own, rival, weight), rel=1e-5)


def test_it_is_zero_where_no_attention_is_left_for_rivals() -> None:
    score = torch.tensor([[30.0, 30.0, -30.0]])
    own = torch.tensor([[True, True, False]])
    assert float(correspondence_loss(score, own, ~own, torch.ones(3))) == pytest.approx(0.0, abs=1e-6)


# ---------------------------------------------------------------- who takes part


def side(pairs: list[int], seed: int) -> Side:
    tokens = torch.randn(len(pairs), TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Side(tokens, torch.ones(len(pairs), TOKENS, dtype=torch.bool), torch.tensor(pairs))


def read(modality: Modality, one: Side, domains: list[int], *, seed: int) -> tuple[Output, Batch]:
    """An output of which only the lesion map matters, and a batch of which only sites and pairs do."""
    count = len(one.pair)
    zero, logit = (
        torch.zeros(count),
        torch.randn(count, TOKENS, generator=torch.Generator().manual_seed(seed)),
    )
    output = Output(
        modality, zero, zero[:, None], logit, logit, one.tokens[:, 0], one.valid, one.pair, zero,
        one.tokens[:, 0], one.tokens,
    )  # fmt: skip
    batch = Batch(
        modality, zero, zero, torch.tensor(domains), one.pair, one.pair, one.pair, one.valid,
        torch.zeros(count, TOKENS), one.tokens,
    )  # fmt: skip
    return output, batch


class Step:
    """A step of some patients, one image each, through a fusion."""

    def __init__(self, pairs: list[int], domains: list[int]) -> None:
        torch.manual_seed(0)
        self.fusion = Fusion(WIDTH, hidden=8, gate=4, dropout=0.0, hide=0.0)
        self.sides = {"mammogram": side(pairs, 1), "pathology": side(pairs, 2)}
        made = {m: read(m, s, domains, seed=i) for i, (m, s) in enumerate(self.sides.items(), start=3)}
        self.outputs = {m: output for m, (output, _) in made.items()}
        self.batches = {m: batch for m, (_, batch) in made.items()}

    def fused(self) -> FusedOutput:
        return self.fusion(self.sides["mammogram"], self.sides["pathology"])

    def loss(
        self, share: float = 0.4, fused: FusedOutput | None = None
    ) -> tuple[Tensor | None, dict[str, int]]:
        ledger = Ledger()
        recipe = LinkRecipe(weight=1.0, share=share)
        value = link_loss(recipe, self.outputs, self.batches, fused or self.fused(), ledger=ledger)
        return value, ledger.counters


def expected(step: Step, pairs: list[int], domains: list[int], *, asks: int) -> float:
    """The loss of the step from its definition, patient by patient."""
    f, total, count = step.fusion, 0.0, 0
    for i, site in enumerate(domains):
        rivals = [j for j, other in enumerate(domains) if other == site and j != i]
        if not rivals:
            continue
        columns = [(j, t) for j in (i, *rivals) for t in range(TOKENS)]
        keys = torch.stack([f.key(step.sides["pathology"].tokens[j, t]) for j, t in columns])
        chance = step.outputs["pathology"].token_logit.sigmoid()
        weight = torch.stack([(chance[j, t] / chance[j].max()).clamp_min(LEAST) for j, t in columns])
        own = torch.tensor([[j == i for j, _ in columns]])
        for token in step.outputs["mammogram"].token_logit[i].argsort(descending=True)[:asks]:
            score = (f.query(step.sides["mammogram"].tokens[i, token]) @ keys.T / 8**0.5)[None]
            total, count = total + by_hand(score, own, ~own, weight), count + 1
    return total / count


def test_suspicious_regions_ask_among_the_tissue_of_their_site() -> None:
    pairs, domains = [4, 2, 7, 9, 5], [0, 0, 1, 1, 0]
    step = Step(pairs, domains)
    value, counters = step.loss()
    assert value is not None
    assert value.item() == pytest.approx(expected(step, pairs, domains, asks=2), rel=1e-4)
    assert counters == {"link": 10}


def test_a_patient_without_a_rival_at_the_site_does_not_ask() -> None:
    assert Step([1, 2], [0, 1]).loss() == (None, {})
    value, counters = Step([1, 2, 3], [0, 1, 0]).loss()
    assert value is not None
    assert counters == {"link": 4}


def test_a_patient_of_whom_fusion_hid_a_modality_takes_no_part() -> None:
    step = Step([1, 2, 3], [0, 0, 0])
    fused = step.fused()
    hidden = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    value, counters = step.loss(fused=replace(fused, link=fused.link * hidden))
    alone, _ = Step([1, 2, 3], [0, 1, 0]).loss()
    assert value is not None
    assert alone is not None
    assert value.item() == pytest.approx(alone.item(), rel=1e-5)
    assert counters == {"link": 4}


def test_the_lesion_map_says_who_asks_and_is_not_moved_by_it() -> None:
    step = Step([1, 2], [0, 0])
    for output in step.outputs.values():
        output.token_logit.requires_grad_(True)
    value, _ = step.loss()
    assert value is not None
    value.backward()
    assert all(o.token_logit.grad is None for o in step.outputs.values())
    assert step.fusion.query.weight.grad is not None


# ---------------------------------------------------------------- it can be learnt


def attention_on_own(step: Step) -> float:
    """Share of attention on a patient's own tissue, among that of all."""
    fused = step.fused()
    assert fused.ask is not None
    assert fused.answer is not None
    score = fused.ask.flatten(0, 1) @ fused.answer.flatten(0, 1).T / 8**0.5
    owner = torch.arange(len(fused.pairs)).repeat_interleave(TOKENS)
    return ((score.softmax(1) * (owner[:, None] == owner)).sum(1).mean()).item()


def test_what_both_modalities_share_is_found_by_pairing_alone() -> None:
    """A code of each patient shows in both modalities: its tissue is found in images never seen."""
    torch.manual_seed(0)
    step = Step(list(range(8)), [0] * 8)
    optimizer = torch.optim.Adam(step.fusion.parameters(), lr=2e-2)
    for _ in range(100):
        _show_what_is_shared(step)
        value, _ = step.loss(share=1.0)
        assert value is not None
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    _show_what_is_shared(step)
    assert attention_on_own(step) > 0.5  # 1/8 by chance


def _show_what_is_shared(step: Step) -> None:
    """New images: three bits, of each patient others, in all tokens of both modalities, and noise."""
    code = torch.randperm(8)[:, None] // torch.tensor([4, 2, 1]) % 2
    shown = torch.cat([code, 1 - code], dim=1).float()[:, None]
    for modality, one in step.sides.items():
        step.sides[modality] = replace(one, tokens=2 * shown + 0.3 * torch.randn(8, TOKENS, WIDTH))
