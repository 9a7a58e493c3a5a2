"""Averages of the weights along training."""

import pytest
import torch
from torch import Tensor

from mammopath.objectives.averaging import WeightAverage, loss_valley


class OneWeight:
    """A network with one trained weight and a counter."""

    def __init__(self, value: float) -> None:
        self.state = {"w": torch.tensor(float(value)), "n": torch.tensor(3)}

    def trained_state(self) -> dict[str, Tensor]:
        return self.state

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        self.state = dict(state)


def train(average: WeightAverage, values: list[float], *, every: int = 0, losses: tuple = ()) -> None:
    for step, value in enumerate(values, start=1):
        average.update(OneWeight(value).trained_state(), step=step)
        if every and step % every == 0:
            with average.applied(OneWeight(value)):
                pass
            average.validated(losses[step // every - 1])


def test_without_averaging_the_network_keeps_its_weights() -> None:
    average, network = WeightAverage("none"), OneWeight(4.0)
    train(average, [1.0, 2.0])
    with average.applied(network):
        assert network.state["w"] == 4.0
    assert average.final() is None


def test_the_moving_average_by_hand() -> None:
    average, network, values = WeightAverage("ema", decay=0.5), OneWeight(9.0), [1.0, 2.0, 5.0, 7.0]
    train(average, values)
    expected = values[0]
    for step, value in enumerate(values[1:], start=2):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied(network):
        assert network.state["w"].item() == pytest.approx(expected)
        assert network.state["n"] == 3
    assert network.state["w"] == 9.0


def test_own_weights_come_back_after_an_error() -> None:
    average, network = WeightAverage("ema"), OneWeight(9.0)
    train(average, [1.0])
    with pytest.raises(ZeroDivisionError), average.applied(network):
        _ = 1 / 0
    assert network.state["w"] == 9.0


def test_the_average_does_not_follow_weights_that_change_in_place() -> None:
    average, network = WeightAverage("ema"), OneWeight(1.0)
    average.update(network.trained_state(), step=1)
    network.state["w"].add_(5)
    assert average.moving["w"] == 1.0


@pytest.mark.parametrize(
    ("losses", "valley"),
    [
        ([5.0, 4, 3, 2, 1], (4, 4)),  # never converged: the last alone
        ([5.0, 4, 1, 1.1, 1.2, 1.0], (2, 5)),  # converged, never left
        ([3.0, 1, 1, 1] + [9.0] * 6, (1, 3)),  # left for six validations
        ([3.0, 1, 1, 1] + [9.0] * 5, (1, 8)),  # not long enough
        ([3.0, 1, 1, 1, 9, 9, 9, 1, 9, 9, 9, 9, 9, 9], (1, 7)),  # came back in between
        ([1.0, 2.0], (1, 1)),
    ],
)
def test_the_valley_is_found(losses: list[float], valley: tuple[int, int]) -> None:
    assert loss_valley([float(loss) for loss in losses]) == valley


def test_swad_is_the_mean_of_every_step_of_the_valley() -> None:
    average = WeightAverage("swad")
    values = [10.0, 20, 1, 2, 3, 4, 5, 6]
    train(average, values, every=2, losses=(9.0, 1.0, 1.1, 1.2))
    final = average.final()
    assert final is not None
    assert final["w"].item() == pytest.approx(sum(values[2:]) / 6)


def test_swad_validates_the_plain_weights() -> None:
    average, network = WeightAverage("swad"), OneWeight(9.0)
    train(average, [1.0, 2.0])
    with average.applied(network):
        assert network.state["w"] == 9.0


def test_swad_without_losses_is_an_error_not_a_silent_nothing() -> None:
    average, network = WeightAverage("swad"), OneWeight(1.0)
    with average.applied(network):
        pass
    with pytest.raises(RuntimeError, match="validated"), average.applied(network):
        pass
