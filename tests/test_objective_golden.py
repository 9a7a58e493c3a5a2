"""Golden values: what the original implementations return on the same inputs."""

import pytest
import torch
from torch import Tensor

from mammopath.objectives.invariance import irm_penalty, irm_penalty_full_batch, vrex_penalty
from mammopath.objectives.mixstyle import mix_style
from objective_toys import det

LAM = torch.tensor([6.176478772879079e-11, 0.8789440393447876, 0.6876343488693237, 0.0001625466684345156])
RANDOM = (
    [2, 0, 1, 3],
    -37.966584622859955,
    423.53331315517426,
    [
        -1.749630093574524,
        -1.0978976488113403,
        -0.7526850700378418,
        -0.8763515949249268,
        -1.4107344150543213,
        -2.1045053005218506,
    ],
)
CROSSDOMAIN = (
    [3, 2, 0, 1],
    -23.157545752823353,
    437.0709617212415,
    [
        1.7238208055496216,
        2.378462314605713,
        2.7252156734466553,
        2.60099720954895,
        2.0642292499542236,
        1.3673617839813232,
    ],
)
CLASSES = torch.tensor([0, 1, 2, 3, 1, 0, 3, 2])


@pytest.mark.parametrize(("perm", "total", "absolute", "first"), [RANDOM, CROSSDOMAIN])
def test_mixstyle_is_that_of_its_authors(
    perm: list[int], total: float, absolute: float, first: list[float]
) -> None:
    pixels = det((4, 3, 5, 6)) + det((4, 3, 1, 1), 2, 1)
    tokens = pixels.flatten(2).transpose(1, 2)
    valid = torch.ones(4, 30, dtype=torch.bool)
    mixed = mix_style(tokens, valid, partner=torch.tensor(perm), keep=LAM).transpose(1, 2)
    torch.testing.assert_close(mixed.flatten()[:6], torch.tensor(first), rtol=1e-5, atol=1e-6)
    assert mixed.double().sum().item() == pytest.approx(total, abs=1e-4)
    assert mixed.double().abs().sum().item() == pytest.approx(absolute, abs=1e-4)


def logits() -> Tensor:
    return det((8, 4), 2).requires_grad_()


def test_the_two_half_penalty_is_that_of_domainbed() -> None:
    x = logits()
    penalty = irm_penalty(x, CLASSES)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.7219853401184082, rel=1e-5)
    assert x.grad.abs().sum().item() == pytest.approx(2.688645124435425, rel=1e-5)
    expected = [-0.2222195416688919, 0.029076650738716125, 0.11779917776584625, 0.07534368336200714]
    torch.testing.assert_close(x.grad.flatten()[:4], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_the_full_batch_penalty_is_that_of_irm_version_1() -> None:
    x = logits()
    penalty = irm_penalty_full_batch(x, CLASSES)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.7220462560653687, rel=1e-5)
    assert x.grad.abs().sum().item() == pytest.approx(2.689465284347534, rel=1e-5)


def test_the_binary_penalty_is_that_of_coloured_mnist() -> None:
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0])
    penalty = irm_penalty_full_batch(det((6, 1), 1.5)[:, 0], labels)
    assert penalty.item() == pytest.approx(0.0002285301306983456, rel=1e-3)


def test_the_variance_of_risks_is_that_of_vrex() -> None:
    assert vrex_penalty(torch.tensor([0.5, 0.7, 1.2])).item() == pytest.approx(0.08666668087244034, rel=1e-6)
