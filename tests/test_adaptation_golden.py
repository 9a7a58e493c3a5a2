"""Numbers of the original implementations (Tent, EATA, SAR, T3A) on small networks, by our own steps."""

import math

import pytest
import torch

from adaptation_toys import ConvNorm, PatchNorm, det, first_state, golden_images, golden_task, seen
from mammopath.adaptation import prototypes, updates
from mammopath.adaptation.descent import Descent
from mammopath.adaptation.entropy import entropy
from mammopath.adaptation.values import Stepped
from mammopath.config import AdaptSettings

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
    after = one.state.moving.params
    assert one.loss == pytest.approx(0.5620389580726624, abs=1e-5)
    assert two.loss == pytest.approx(0.07870829850435257, abs=1e-5)
    # The golden parameters are those after two steps, the golden outputs those of the second forward pass.
    after = two.state.moving.params
    assert close(after["bn.weight"], [1.0478403568267822, 0.9633727073669434, 0.8961716890335083, 0.8778237700462341, 0.9168811440467834, 0.9950243830680847, 1.0753867626190186, 1.1201814413070679])  # fmt: skip
    assert close(after["bn.bias"], [0.05548664554953575, -0.04231378063559532, -0.11865135282278061, -0.140255406498909, -0.09586123377084732, -0.005749397911131382, 0.08847244828939438, 0.1404024064540863])  # fmt: skip


def test_eata_with_its_margin_scaled_to_four_classes() -> None:
    (one,) = run(ConvNorm(), NORM, updates.eata, AdaptSettings(margin=0.4), PLAIN, 1)
    assert int(one.used.sum()) == 4
    assert close(one.state.moving.params["bn.bias"], [0.05138399824500084, -0.033995967358350754, -0.10258413851261139, -0.12417217344045639, -0.08586514741182327, -0.008128225803375244, 0.07224341481924057, 0.11764190346002579])  # fmt: skip


def test_eata_drops_redundant_cases_of_the_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mammopath.adaptation.entropy.redundancy", lambda classes: 0.05)
    one, two = run(ConvNorm(), NORM, updates.eata, AdaptSettings(margin=0.95), PLAIN, 2)
    assert (int(one.used.sum()), int(two.used.sum())) == (6, 0)
    assert close(two.state.moving.params["bn.bias"], [0.11104603856801987, -0.07266200333833694, -0.2210485190153122, -0.26725417375564575, -0.1865135133266449, -0.018225282430648804, 0.15782056748867035, 0.2582176625728607])  # fmt: skip


def test_sar() -> None:
    settings, rule = AdaptSettings(margin=0.95), Descent("sgd", 0.1, 0.9)
    (one,) = run(PatchNorm(), ("norm1.weight", "norm1.bias"), updates.sar, settings, rule, 1)
    after = one.state.moving.params
    assert one.state.surprise == pytest.approx(1.145511507987976, abs=1e-5)
    assert close(after["norm1.weight"], [1.0175375938415527, 1.0106556415557861, 1.0423640012741089, 0.9863715171813965, 0.9991679787635803, 0.9996217489242554, 0.9990788102149963, 0.9954079389572144])  # fmt: skip
    assert close(after["norm1.bias"], [0.011005423031747341, 0.011739038862287998, 0.023608596995472908, -0.016871094703674316, 0.0024318445939570665, -6.133767601568252e-05, 0.006712190341204405, -0.015190270729362965])  # fmt: skip


def test_t3a() -> None:
    weight, bias, z = det((4, 8), 1, 0.3), det((4,), 0.1), det((6, 8), 1, 0.9)
    supports = prototypes.extend(prototypes.begin(weight, bias), z, z @ weight.T + bias, keep=2)
    out = z @ prototypes.prototypes(supports, 4).T
    assert close(out.flatten()[:6], [2.0340476036071777, 0.6629027128219604, -0.9025574922561646, -2.1044061183929443, 1.948821783065796, 1.6608134508132935])  # fmt: skip
    assert out.sum().item() == pytest.approx(10.86386775970459, abs=1e-4)
    assert (len(supports.label), out.argmax(1).tolist()) == (8, [0, 0, 1, 2, 3, 3])


def test_entropy_is_between_zero_and_log_c() -> None:
    assert entropy(torch.zeros(1, 5)).item() == pytest.approx(math.log(5))
    assert entropy(torch.tensor([[1e4, 0.0]])).item() == 0.0
