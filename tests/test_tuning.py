"""What is trained, how fast, and what a run keeps of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mammopath.errors import WeightsError
from mammopath.model.network import Network
from mammopath.settings import TrainSettings
from mammopath.types import MODALITIES
from model_cases import batch, network, sample, stir

PRETRAINED = Path("trunk.safetensors")

HEADS = {
    *("tokens.both.weight", "tokens.both.bias", "tokens.score.weight"),
    *("images.both.weight", "images.both.bias", "images.score.weight"),
    *("norm.weight", "norm.bias", "malignancy.weight", "malignancy.bias", "severity.weight", "severity.bias"),
    *("ordinal.weight", "ordinal.bias"),
    *("lesion.weight", "lesion.bias", "align.0.weight", "align.0.bias", "align.2.weight", "align.2.bias"),
}
NORMS = {f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
ADAPTER = {f"beside_mlp.{layer}.{kind}" for layer in ("down", "up") for kind in ("weight", "bias")}
SHARED = {
    *("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias", "ls1.gamma", "ls2.gamma"),
    *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
}


def parts_above(cut: int) -> set[str]:
    """Trained names of both modalities' parts of the tiny network, read at block 4."""
    one = {f"heads.{name}" for name in HEADS} | {"norm.weight", "norm.bias"}
    one |= {f"blocks.{i}.{name}" for i in range(4 - cut) for name in NORMS | ADAPTER}
    return {f"parts.{m}.{name}" for m in MODALITIES for name in one}


def trunk_blocks(*numbers: int) -> set[str]:
    return {f"trunk.blocks.{n - 1}.{name}" for n in numbers for name in SHARED}


def test_with_a_frozen_trunk_only_parts_above_the_cut_are_kept() -> None:
    net = network(weights=PRETRAINED, cut=dict.fromkeys(MODALITIES, 2))
    assert set(net.trained_state()) == parts_above(2)


def test_with_the_last_blocks_trained_they_are_kept_without_their_unused_norms() -> None:
    net = network(weights=PRETRAINED, train_trunk="last_k", last_k=1, cut=dict.fromkeys(MODALITIES, 2))
    assert set(net.trained_state()) == parts_above(2) | trunk_blocks(4)


def test_with_the_whole_trunk_trained_stems_and_embeddings_are_kept_too() -> None:
    net = network(weights=PRETRAINED, train_trunk="all")
    stems = {f"parts.{m}.stem.proj.{kind}" for m in MODALITIES for kind in ("weight", "bias")}
    around = {"trunk.cls_token", "trunk.pos_embed"}
    assert set(net.trained_state()) == parts_above(0) | trunk_blocks(1, 2, 3, 4) | stems | around


def test_blocks_above_the_readout_and_shared_norms_are_trained_only_where_they_run() -> None:
    net = network(
        train_trunk="last_k", last_k=1, readout=dict.fromkeys(MODALITIES, (3,)), modality_norms=False
    )
    trained = {n for n, p in net.trunk.named_parameters() if p.requires_grad}
    assert trained == {f"blocks.2.{name}" for name in SHARED | NORMS} | {"norm.weight", "norm.bias"}


def test_without_a_weights_file_everything_is_kept() -> None:
    net = network()
    assert set(net.trained_state()) == set(net.state_dict())


@pytest.mark.parametrize("mode", ["none", "last_k", "all"])
@pytest.mark.parametrize("adapter", ["adaptformer", "lora", "convpass"])
def test_gradients_reach_every_trained_parameter(mode: str, adapter: str) -> None:
    net = network(train_trunk=mode, adapter=adapter, fusion=True, readout=dict.fromkeys(MODALITIES, (3, 4)))
    stir(net, "parts")
    for part in ("absent", "fusion"):
        stir(net, part)
    batches = {
        m: batch([sample(m, seed=i) for i in range(3)], m, patient=[0, 0, 1], pair=[0, 0, i])
        for i, m in enumerate(MODALITIES, start=1)
    }
    outputs = {m: net(b) for m, b in batches.items()}
    said = [x for o in (*outputs.values(), net.fuse(outputs, batches)) for x in vars(o).values()]
    loss = sum(((x - 0.3) ** 3).sum() for x in said if isinstance(x, Tensor) and x.requires_grad)
    assert isinstance(loss, Tensor)
    loss.backward()
    idle = [
        n
        for n, p in net.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert idle == []
    assert not [n for n, p in net.named_parameters() if p.grad is not None and not p.requires_grad]


def test_a_trained_state_goes_into_another_network() -> None:
    one = network(weights=PRETRAINED, seed=1)
    other = network(weights=PRETRAINED, seed=1)
    stir(one, "parts")
    picture = batch([sample()])
    assert not torch.equal(one(picture).logit, other(picture).logit)
    other.load_trained_state(one.trained_state())
    stems = {n: p for n, p in one.state_dict().items() if ".stem." in n}
    other.load_state_dict(stems, strict=False)
    assert torch.equal(one(picture).logit, other(picture).logit)


def test_a_state_of_other_settings_is_refused() -> None:
    state = network(weights=PRETRAINED).trained_state()
    with pytest.raises(WeightsError, match="trained with other model settings"):
        network(weights=PRETRAINED, adapter="none").load_trained_state(state)
    changed = state | {"parts.mammogram.heads.lesion.bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"1 tensors do not fit.*lesion\.bias"):
        network(weights=PRETRAINED).load_trained_state(changed)


def test_groups_hold_every_trained_parameter_once_with_the_rate_of_its_depth() -> None:
    net = network(train_trunk="all")
    groups = net.parameter_groups(TrainSettings(lr=1.0, trunk_lr=0.1, layer_decay=0.5, weight_decay=0.2))
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(rate)
    assert set(rate) == {id(p) for p in net.parameters() if p.requires_grad}
    named = {n: rate[id(p)] for n, p in net.named_parameters() if p.requires_grad}
    assert named["trunk.blocks.3.mlp.fc1.weight"] == pytest.approx((0.1, 0.2))
    assert named["trunk.blocks.3.mlp.fc1.bias"] == pytest.approx((0.1, 0.0))
    assert named["trunk.blocks.0.ls1.gamma"] == pytest.approx((0.1 / 8, 0.0))
    assert named["trunk.pos_embed"] == pytest.approx((0.1 / 16, 0.0))
    assert named["parts.pathology.stem.proj.weight"] == pytest.approx((0.1 / 16, 0.2))
    assert named["parts.mammogram.blocks.0.beside_mlp.up.weight"] == (1.0, 0.2)
    assert named["parts.mammogram.blocks.0.norm1.weight"] == (1.0, 0.0)
    assert named["parts.mammogram.heads.malignancy.weight"] == (1.0, 0.2)


def test_the_fingerprint_names_the_trunk_and_nothing_else() -> None:
    def fingerprint(net: Network) -> str:
        return net.lower_fingerprint()

    net = network()
    assert fingerprint(net) == fingerprint(network())
    before = fingerprint(net)
    stir(net, "heads")
    assert fingerprint(net) == before
    stir(net, "trunk.blocks.3.mlp.fc2.bias")
    assert fingerprint(net) != before
