"""Causal trimming against its published formula, and on a toy whose style and content are known."""

import math

import pytest
import torch
from torch import Tensor

from mammopath.adaptation import causal

WIDTH = 24


def basis(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Orthonormal content (4 rows) and style (3 rows) of a feature space."""
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)))
    return q[:4], q[4:7]


def views(cases: int, count: int, *, noise: float = 0.02, seed: int = 1) -> Tensor:
    """Cases whose content stays and whose style changes from view to view."""
    g = torch.Generator().manual_seed(seed)
    content, style = basis()
    own = torch.randn(cases, 1, 4, generator=g) @ content + torch.randn(cases, 1, 3, generator=g) @ style
    change = torch.randn(cases, count - 1, 3, generator=g) @ style
    change = torch.cat([torch.zeros(cases, 1, WIDTH), change], dim=1)
    return own + change + noise * torch.randn(cases, count, WIDTH, generator=g)


def largest_angle(first: Tensor, second: Tensor) -> float:
    """Largest principal angle between two row spaces, in degrees."""
    cosines = torch.linalg.svdvals(first.double() @ second.double().T)
    return math.degrees(math.acos(min(1.0, cosines.min().item())))


def published(all_views: list[Tensor], rows: Tensor, count: int) -> list[Tensor]:
    """The formula as published: d x d scatter, SVD, one direction after the other, running prototypes."""
    prototypes, seen, logits = torch.zeros_like(rows), 0, []
    for batch in all_views:
        trimmed, new = [], []
        for case in batch.double():
            x = case - case.mean(0)
            directions = torch.linalg.svd(x.T @ x).Vh[:count]
            z, q = case[0], rows.double()
            for v in directions:
                z, q = z - (z @ v) * v, q - (q @ v)[:, None] * v
            trimmed.append(z)
            new.append(q)
        mean = torch.stack(new).mean(0)
        prototypes = mean if not seen else (prototypes * seen + mean * len(batch)) / (seen + len(batch))
        seen += len(batch)
        logits.append(torch.stack(trimmed) @ prototypes.T)
    return logits


def test_the_removed_directions_are_the_style_ones() -> None:
    _, style = basis()
    for found in causal.style_directions(views(8, 33), 3):
        assert largest_angle(found, style) < 5
    state = causal.begin(torch.zeros(2, WIDTH))
    for seed in range(4):
        batch = views(8, 5, seed=seed)
        state = causal.extend(
            state, batch, rows=torch.zeros(2, WIDTH), directions=causal.style_directions(batch, 3)
        )
    assert largest_angle(causal.site_directions(state, 3), style) < 5


def test_content_survives_and_style_does_not() -> None:
    content, style = basis()
    batch = views(8, 33, noise=0.0)
    kept = causal.trim(batch[:, :1], causal.style_directions(batch, 3))
    assert torch.allclose(kept @ content.T, batch[:, :1] @ content.T, atol=1e-5)
    assert (kept @ style.T).abs().max() < 1e-5


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_stream_follows_the_published_formula(count: int) -> None:
    rows = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))
    batches = [views(n, 6, noise=0.3, seed=n) for n in (1, 4, 7)]
    state = causal.begin(rows)
    for batch, expected in zip(batches, published(batches, rows, count), strict=True):
        directions = causal.style_directions(batch, count)
        state = causal.extend(state, batch, rows=rows, directions=directions)
        assert torch.allclose(
            causal.trimmed_logits(batch[:, 0], directions, state), expected.float(), atol=1e-4
        )


def test_directions_are_orthonormal_and_as_many_as_views_allow() -> None:
    found = causal.style_directions(views(3, 4, noise=0.3), 10)
    assert found.shape == (3, 3, WIDTH)
    assert torch.allclose(found @ found.mT, torch.eye(3).expand(3, 3, 3), atol=1e-4)


def test_views_that_do_not_differ_remove_nothing() -> None:
    same = views(4, 2)[:, :1].expand(-1, 5, -1)
    directions = causal.style_directions(same, 3)
    assert torch.equal(directions, torch.zeros_like(directions))
    assert torch.equal(causal.trim(same, directions), same)
    state = causal.extend(causal.begin(same[0, :2]), same, rows=same[0, :2], directions=directions)
    assert not causal.site_directions(state, 3).any()


def test_no_directions_wanted_changes_nothing() -> None:
    batch = views(4, 5)
    assert torch.equal(causal.trim(batch, causal.style_directions(batch, 0)), batch)


def test_one_large_batch_or_many_small_ones_make_the_same_prototypes() -> None:
    rows, batch = torch.randn(2, WIDTH), views(12, 5, noise=0.3)
    whole = causal.extend(causal.begin(rows), batch, rows=rows, directions=causal.style_directions(batch, 2))
    parts = causal.begin(rows)
    for case in batch.split([1, 4, 7]):
        parts = causal.extend(parts, case, rows=rows, directions=causal.style_directions(case, 2))
    assert parts.cases == whole.cases == 12
    assert torch.allclose(parts.rows, whole.rows, atol=1e-5)
    assert torch.allclose(parts.scatter, whole.scatter)
