"""The training loop: it learns, it repeats itself, it keeps the best step, it restarts where told."""

import math
from collections.abc import Iterator

import pytest
import torch

from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.methods import method_recipe
from mammopath.objectives.objective import Objective
from mammopath.settings import ModelSettings, TrainSettings
from mammopath.tensors import Batch, Sample
from mammopath.train import Best, Running, Watch, evaluating, fit, new_optimizer, set_learning_rate

SIDE = 32
MODEL = ModelSettings(train_trunk="all", readout={"mammogram": (1,), "pathology": (1,)}, dropout=0.0)
SETTINGS = TrainSettings(steps=30, validate_every=10, lr=3e-3, trunk_lr=1e-3, batch=8)


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build_network(MODEL)


def objective(net: Network, method: str = "erm", steps: int = 30) -> Objective:
    torch.manual_seed(0)
    domains = {"mammogram": 2, "pathology": 2}
    recipe = method_recipe(method, {})
    return Objective(recipe, width=net.embedding_width, align_width=256, domains=domains, steps=steps)


def batch(seed: int, size: int = 8) -> Batch:
    """Mammograms that are bright where malignant."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 2
    images = 0.3 + 0.1 * torch.randn(size, 1, SIDE, SIDE, generator=g) + 0.3 * labels[:, None, None, None]
    valid, lesion = torch.ones(SIDE, SIDE, dtype=torch.bool), torch.full((SIDE, SIDE), math.nan)
    tokens = (SIDE // 16) ** 2
    return Batch(
        modality="mammogram",
        malignant=labels.float(),
        severity=torch.full((size,), math.nan),
        domain=torch.arange(size) // 2 % 2,
        patient=torch.arange(size),
        pair=torch.full((size,), -1),
        row=torch.arange(size),
        valid=torch.ones(size, tokens, dtype=torch.bool),
        lesion=torch.full((size, tokens), math.nan),
        samples=tuple(Sample(image.clamp(0, 1), valid, lesion) for image in images),
        grid=torch.full((size, 2), SIDE // 16),
    )


def stream() -> Iterator[dict[str, Batch]]:
    seed = 0
    while True:
        yield {"mammogram": batch(seed)}
        seed += 1


def trained(method: str = "erm", **changes: object) -> tuple[Network, Best, list[dict[str, float]]]:
    net, rows = network(), []
    settings = SETTINGS.model_copy(update=changes)

    def validate(now: Network) -> dict[str, float]:
        with torch.inference_mode():
            test = batch(1000, 16)
            logit = now(test).logit
        right = ((logit > 0).float() == test.malignant).float().mean()
        return {"score": float(right)}

    best = fit(net, objective(net, method), stream(), settings, watch=Watch(validate, rows.append), seed=0)
    return net, best, rows


def test_it_learns_what_is_there_to_learn() -> None:
    _, best, rows = trained()
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert best.score > 0.9
    assert [row["step"] for row in rows] == [10, 20, 30]


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (trained()[0].trained_state() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["mixstyle", "irm", "full"])
def test_every_kind_of_method_goes_through_the_same_loop(method: str) -> None:
    _, _, rows = trained(method, steps=4, validate_every=2)
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_the_best_step_is_kept_and_ties_keep_the_earlier() -> None:
    best = Best()
    for step, score in enumerate([0.5, 0.7, 0.7, math.nan], start=1):
        best.offer(score, step, {"w": torch.tensor(float(step))})
    assert (best.step, best.score, float(best.state["w"])) == (2, 0.7, 2.0)


def test_a_score_that_is_never_known_keeps_the_first_step() -> None:
    best = Best()
    for step in (1, 2):
        best.offer(math.nan, step, {"w": torch.tensor(float(step))})
    assert best.step == 1
    best.offer(0.1, 3, {"w": torch.tensor(3.0)})
    assert best.step == 3


def test_select_last_takes_the_last() -> None:
    net = network()
    watch = Watch(lambda _: {"score": 0.0}, lambda _: None, select_last=True)
    best = fit(
        net,
        objective(net),
        stream(),
        SETTINGS.model_copy(update={"steps": 4, "validate_every": 2}),
        watch=watch,
    )
    assert best.step == 4


def test_the_learning_rate_rises_and_falls() -> None:
    net = network()
    settings = TrainSettings(steps=100, warmup=0.1, lr=1.0)
    optimizer = new_optimizer(net, objective(net), settings)
    rates = []
    for step in range(1, 101):
        set_learning_rate(optimizer, step, settings)
        rates.append(max(g["lr"] / g["peak"] for g in optimizer.param_groups))
    assert rates.index(max(rates)) == 9
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_no_decay_on_norms_biases_and_scalars() -> None:
    net = network()
    for group in new_optimizer(net, objective(net), SETTINGS).param_groups:
        if group["weight_decay"] > 0:
            assert all(p.ndim >= 2 for p in group["params"])


def test_every_trained_parameter_is_in_one_group() -> None:
    net = network()
    grouped = [id(p) for g in new_optimizer(net, objective(net), SETTINGS).param_groups for p in g["params"]]
    assert len(grouped) == len(set(grouped))
    assert {id(p) for p in net.parameters() if p.requires_grad} <= set(grouped)


def test_evaluation_mode_is_put_back() -> None:
    net = network().train()
    with evaluating(net):
        assert not net.training
    assert net.training


def test_running_means_start_again_after_each_look() -> None:
    running = Running()
    for value in (1.0, 3.0):
        running.add({"loss": torch.tensor(value)})
    assert running.take() == {"loss": 2.0}
    running.add({"loss": torch.tensor(5.0)})
    assert running.take() == {"loss": 5.0}
