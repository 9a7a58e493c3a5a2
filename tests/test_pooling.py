"""Gated-attention pooling against loops over its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mammopath.model.pooling import TINY, Gate, masked_softmax, pool, pool_segments, pool_streamed


def gate(width: int = 5, *, trained: bool = True) -> Gate:
    torch.manual_seed(3)
    made = Gate(width, 4)
    if trained:
        torch.nn.init.normal_(made.score.weight, std=2.0)
    return made


def scores_by_hand(g: Gate, h: Tensor) -> list[float]:
    found = []
    for x in h:
        both = g.both.weight @ x + g.both.bias
        found.append((g.score.weight[0] @ (both[:4].tanh() * both[4:].sigmoid())).item())
    return found


def weights_by_hand(scores: list[float]) -> list[float]:
    exps = [math.exp(s) for s in scores]
    return [e / sum(exps) for e in exps]


def test_pooling_is_the_definition_on_the_valid_tokens() -> None:
    g, h = gate(), torch.randn(2, 6, 5)
    valid = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    found = pool(g, h, valid)
    for b in range(2):
        real = h[b][valid[b]]
        weights = torch.tensor(weights_by_hand(scores_by_hand(g, real)))
        mean = sum(w * x for w, x in zip(weights, real, strict=True))
        variance = sum(w * (x - mean) ** 2 for w, x in zip(weights, real, strict=True))
        torch.testing.assert_close(found.weights[b][valid[b]], weights)
        torch.testing.assert_close(found.mean[b], mean)
        torch.testing.assert_close(found.std[b], torch.as_tensor(variance).sqrt())
    assert (found.weights[~valid] == 0).all()


def test_fresh_attention_is_the_plain_mean_and_spread() -> None:
    h = torch.randn(3, 7, 5)
    found = pool(gate(trained=False), h, torch.ones(3, 7, dtype=torch.bool))
    torch.testing.assert_close(found.mean, h.mean(1))
    torch.testing.assert_close(found.std, h.std(1, correction=0))
    torch.testing.assert_close(found.weights, torch.full((3, 7), 1 / 7))


def test_what_stands_on_padding_does_not_matter() -> None:
    g, h = gate(), torch.randn(1, 6, 5)
    valid = torch.tensor([[True, True, True, True, False, False]])
    other = h.clone()
    other[:, 4:] = 1e4
    torch.testing.assert_close(pool(g, h, valid).mean, pool(g, other, valid).mean)


def test_empty_and_constant_bags_give_finite_values_and_gradients() -> None:
    h = torch.zeros(2, 4, 5, requires_grad=True)
    valid = torch.tensor([[False] * 4, [True] * 4])
    found = pool(gate(), h, valid)
    assert (found.weights[0] == 0).all()
    torch.testing.assert_close(found.std, torch.full((2, 5), TINY**0.5))
    (found.mean.sum() + found.std.sum()).backward()
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), shift=st.floats(-50, 50))
def test_streaming_equals_pooling_at_once(sizes: list[int], shift: float) -> None:
    g = gate()
    h = torch.randn(sum(sizes), 5) * 3 + shift
    whole = pool(g, h[None], torch.ones(1, len(h), dtype=torch.bool))
    streamed = pool_streamed(g, h.split(sizes))
    torch.testing.assert_close(streamed.weights, whole.weights[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(streamed.mean, whole.mean[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streamed.std, whole.std[0], atol=1e-3, rtol=1e-3)


def test_a_bag_of_a_hundred_thousand() -> None:
    g = gate()
    h = torch.randn(100_000, 5)
    with torch.inference_mode():
        whole = pool(g, h[None], torch.ones(1, len(h), dtype=torch.bool))
        streamed = pool_streamed(g, iter(h.split(4096)))
        segments, weights = pool_segments(g, h, torch.zeros(len(h), dtype=torch.long), 1)
    torch.testing.assert_close(streamed.mean, whole.mean[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(streamed.std, whole.std[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(segments[0], whole.mean[0], atol=1e-5, rtol=1e-4)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)


def test_extreme_scores_do_not_overflow() -> None:
    g, h = gate(), torch.randn(4, 5)
    with torch.no_grad():
        g.score.weight.mul_(1e4)
    for found in (pool_streamed(g, h.split(1)).mean, pool_segments(g, h, torch.zeros(4).long(), 1)[0]):
        assert torch.isfinite(found).all()


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty bag"):
        pool_streamed(gate(), [])


def test_segments_are_the_definition_per_segment() -> None:
    g, h = gate(), torch.randn(8, 5)
    owner = torch.tensor([2, 0, 2, 2, 0, 3, 3, 0])
    means, weights = pool_segments(g, h, owner, 4)
    for segment in (0, 2, 3):
        mine = owner == segment
        by_hand = torch.tensor(weights_by_hand(scores_by_hand(g, h[mine])))
        torch.testing.assert_close(weights[mine], by_hand)
        torch.testing.assert_close(means[segment], by_hand @ h[mine])
    assert (means[1] == 0).all()


def test_segments_learn_as_the_padded_form_does() -> None:
    g, h = gate(), torch.randn(6, 5)
    pooled = pool(g, h.view(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)).mean
    wanted = torch.autograd.grad(pooled.square().sum(), list(g.parameters()))
    means, _ = pool_segments(g, h, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    found = torch.autograd.grad(means.square().sum(), list(g.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_masked_softmax_of_nothing_is_zero() -> None:
    score = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    weights = masked_softmax(score, torch.tensor([[True, False], [False, False]]))
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    weights.sum().backward()
    assert score.grad is not None
    assert torch.isfinite(score.grad).all()
