"""Numbers of the original implementations (Tent, EATA, SAR, T3A) on small networks, by our own steps."""

import math

import pytest
import torch

from adaptation_toys import ConvNorm, PatchNorm, det, first_state, golden_images, golden_task, seen
from mammopath.adaptation import prototypes, updates
from mammopath.adaptation.descent import Descent
from mammopath.adaptation.entropy import entropy
from mammopath.adaptation.values import Stepped
from mammopath.settings import AdaptSettings

NORM = ("bn.weight", "bn.bias")
PLAIN = Descent("sgd", 0.1, 0.0)


def close(found: torch.Tensor, golden: list[float]) -> bool:
    return torch.allclose(found, torch.tensor(golden), atol=2e-5, rtol=1e-5)


def run(net, names, step, settings: AdaptSettings, rule: Descent, times: int) -> list[Stepped]:
    task = golden_task(net, names, settings, rule)
    state, images = first_state(task), seen(task, golden_images())
    done = []
    for _ in range(times):
        done.append(step(task, state, images))
        state = done[-1].state
    return done


def test_tent() -> None:
    one, two = run(ConvNorm(), NORM, updates.tent, AdaptSettings(), PLAIN, 2)
    assert one.loss == pytest.approx(0.5620389580726624, abs=1e-5)
    assert two.loss == pytest.approx(0.07870829850435257, abs=1e-5)
    after = two.state.moving.params
    assert close(
        after["bn.weight"],
        [1.0478404, 0.9633727, 0.8961717, 0.8778238, 0.9168811, 0.9950244, 1.0753868, 1.1201814],
    )
    assert close(
        after["bn.bias"],
        [0.0554866, -0.0423138, -0.1186514, -0.1402554, -0.0958612, -0.0057494, 0.0884724, 0.1404024],
    )


def test_eata_with_its_margin_scaled_to_four_classes() -> None:
    (one,) = run(ConvNorm(), NORM, updates.eata, AdaptSettings(margin=0.4), PLAIN, 1)
    assert int(one.used.sum()) == 4
    assert close(
        one.state.moving.params["bn.bias"],
        [0.0513840, -0.0339960, -0.1025841, -0.1241722, -0.0858651, -0.0081282, 0.0722434, 0.1176419],
    )


def test_eata_drops_redundant_cases_of_the_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammopath.adaptation.entropy.redundancy", lambda classes: 0.05)
    one, two = run(ConvNorm(), NORM, updates.eata, AdaptSettings(margin=0.95), PLAIN, 2)
    assert (int(one.used.sum()), int(two.used.sum())) == (6, 0)
    assert close(
        two.state.moving.params["bn.bias"],
        [0.1110460, -0.0726620, -0.2210485, -0.2672542, -0.1865135, -0.0182253, 0.1578206, 0.2582177],
    )


def test_sar() -> None:
    settings, rule = AdaptSettings(margin=0.95), Descent("sgd", 0.1, 0.9)
    (one,) = run(PatchNorm(), ("norm1.weight", "norm1.bias"), updates.sar, settings, rule, 1)
    after = one.state.moving.params
    assert one.state.surprise == pytest.approx(1.145511507987976, abs=1e-5)
    assert close(
        after["norm1.weight"],
        [1.0175376, 1.0106556, 1.0423640, 0.9863715, 0.9991680, 0.9996217, 0.9990788, 0.9954079],
    )
    assert close(
        after["norm1.bias"],
        [0.0110054, 0.0117390, 0.0236086, -0.0168711, 0.0024318, -6.134e-05, 0.0067122, -0.0151903],
    )


def test_t3a() -> None:
    weight, bias, z = det((4, 8), 1, 0.3), det((4,), 0.1), det((6, 8), 1, 0.9)
    supports = prototypes.extend(prototypes.begin(weight, bias), z, z @ weight.T + bias, keep=2)
    out = z @ prototypes.prototypes(supports, 4).T
    assert close(out.flatten()[:6], [2.0340476, 0.6629027, -0.9025575, -2.1044061, 1.9488218, 1.6608135])
    assert out.sum().item() == pytest.approx(10.86386775970459, abs=1e-4)
    assert (len(supports.label), out.argmax(1).tolist()) == (8, [0, 0, 1, 2, 3, 3])


def test_entropy_is_between_zero_and_log_c() -> None:
    assert entropy(torch.zeros(1, 5)).item() == pytest.approx(math.log(5))
    assert entropy(torch.tensor([[1e4, 0.0]])).item() == 0.0
