"""Weights files: whose names are known, what does not fit, and that no pickle is read."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import Tensor

from mammopath.errors import ConfigError, WeightsError
from mammopath.model import weights
from mammopath.model.encoders import ENCODERS, Encoder
from mammopath.model.naming import trunk_names
from mammopath.model.vit import ViT, ViTShape
from mammopath.settings import ModelSettings
from model_cases import TINY, stir

State = dict[str, Tensor]


@pytest.fixture
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder(TINY, "none", "someone/tiny", "model.safetensors", mean=(0.7, 0.6, 0.7))
    monkeypatch.setitem(ENCODERS, "tiny", encoder)
    return encoder


def trunk_state(shape: ViTShape = TINY) -> State:
    torch.manual_seed(5)
    return {name: torch.randn_like(value) for name, value in ViT(shape).state_dict().items()}


def save(state: State, path: Path) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def as_transformers(state: State, *, swiglu: bool = False) -> State:
    """The same tensors under the names of Dinov2Model."""
    renamed: State = {"embeddings.mask_token": torch.zeros(1, 24)}
    around = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    inside = [
        ("attn.proj", "attention.output.dense"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    ]
    inside += [("mlp.fc1", "mlp.weights_in"), ("mlp.fc2", "mlp.weights_out")] if swiglu else []
    for name, value in state.items():
        if name in around:
            renamed[around[name]] = value
            continue
        new = name.replace("blocks.", "encoder.layer.")
        if ".attn.qkv." in new:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[new.replace("attn.qkv", f"attention.attention.{part}")] = piece
            continue
        for timm, theirs in inside:
            new = new.replace(timm, theirs)
        renamed[new] = value
    return renamed


def as_vit_model(state: State) -> State:
    """The same tensors under the names of ViTModel, which has no LayerScale."""
    renamed = as_transformers(state)
    pairs = [("norm1.", "layernorm_before."), ("norm2.", "layernorm_after.")]
    pairs += [("mlp.fc1.", "intermediate.dense."), ("mlp.fc2.", "output.dense.")]
    for old, new in pairs:
        renamed = {name.replace(old, new): value for name, value in renamed.items()}
    return renamed


def as_wrapped(state: State) -> State:
    return {f"model.visual.trunk.{k}": v for k, v in state.items()} | {"model.text.bias": torch.zeros(3)}


def with_head(state: State) -> State:
    return state | {"head.weight": torch.zeros(5, 24), "fc_norm.weight": torch.zeros(24)}


@pytest.mark.parametrize(
    ("shape", "convert"),
    [
        (TINY, dict),
        (TINY, as_transformers),
        (TINY, as_wrapped),
        (TINY, with_head),
        (TINY, lambda s: {f"dinov2.{k}": v for k, v in as_transformers(s).items()}),
        (replace(TINY, registers=3), as_transformers),
        (replace(TINY, swiglu=True), lambda s: as_transformers(s, swiglu=True)),
        (replace(TINY, layer_scale=False), as_vit_model),
    ],
    ids=["timm", "dinov2", "wrapped", "head", "prefix", "registers", "swiglu", "vit"],
)
def test_foreign_names_become_those_of_the_trunk(shape: ViTShape, convert: Callable[[State], State]) -> None:
    state = trunk_state(shape)
    found = trunk_names(convert(state), shape)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_half_precision_files_become_single_precision() -> None:
    found = trunk_names({k: v.half() for k, v in trunk_state().items()}, TINY)
    assert {v.dtype for v in found.values()} == {torch.float32}


@pytest.mark.parametrize(("stored", "wanted"), [(1, 0), (0, 1)])
def test_a_position_of_cls_may_be_part_of_cls(stored: int, wanted: int) -> None:
    shapes = [replace(TINY, registers=2, positioned=n) for n in (stored, wanted)]
    one, other = (ViT(shape).eval() for shape in shapes)
    one.load_state_dict(state := trunk_state(shapes[0]))
    other.load_state_dict(trunk_names(state, shapes[1]))
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(one(images), other(images), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("tiny_encoder")
def test_a_network_starts_from_its_weights_file(tmp_path: Path) -> None:
    state = trunk_state()
    path = save(state, tmp_path / "tiny.safetensors")
    readout = {"mammogram": (4,), "pathology": (4,)}
    net = weights.build_network(ModelSettings(encoder="tiny", weights=path, readout=readout))
    assert all(torch.equal(net.trunk.state_dict()[name], value) for name, value in state.items())
    own = net.of("pathology")
    assert torch.equal(own.blocks[2].norm1.weight, state["blocks.2.norm1.weight"])
    image = torch.rand(1, 3, 16, 16)
    normalised = (image - torch.tensor([0.7, 0.6, 0.7])[:, None, None]) / torch.tensor(net.std)[:, None, None]
    torch.testing.assert_close(own.stem(image), net.trunk.patch_embed(normalised), atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("tiny_encoder")
def test_a_run_comes_back_from_the_weights_file_and_what_was_trained(tmp_path: Path) -> None:
    path = save(trunk_state(), tmp_path / "tiny.safetensors")
    settings = ModelSettings(encoder="tiny", weights=path, train_trunk="last_k", last_k=1)
    net = weights.build_network(settings)
    stir(net, "heads")
    stir(net, "trunk.blocks.3.attn")
    again = weights.build_network(settings)
    again.load_trained_state(net.trained_state())
    assert all(torch.equal(again.state_dict()[name], value) for name, value in net.state_dict().items())


@pytest.mark.usefixtures("tiny_encoder")
def test_the_report_names_what_does_not_fit(tmp_path: Path) -> None:
    good = trunk_state()
    assert weights.check_weights(save(good, tmp_path / "good.safetensors"), "tiny").fits
    state = {k: v for k, v in good.items() if k != "norm.bias"}
    state |= {"blocks.4.norm1.bias": torch.zeros(24), "pos_embed": torch.zeros(1, 10, 24)}
    report = weights.check_weights(save(state, tmp_path / "bad.safetensors"), "tiny")
    assert not report.fits
    assert report.missing == ("norm.bias",)
    assert report.unexpected == ("blocks.4.norm1.bias",)
    assert report.mismatched == ("pos_embed [1, 10, 24] for [1, 17, 24]",)
    with pytest.raises(WeightsError, match=r"(?s)does not fit tiny.*missing \(1\): norm\.bias.*weights list"):
        weights.build_network(ModelSettings(encoder="tiny", weights=tmp_path / "bad.safetensors"))


def test_no_pickle_is_read(tmp_path: Path) -> None:
    torch.save(trunk_state(), tmp_path / "model.bin")
    with pytest.raises(WeightsError, match=r"pickles .* are never read"):
        weights.check_weights(tmp_path / "model.bin", "vit_tiny_demo")
    with pytest.raises(WeightsError, match="there is no such file"):
        weights.check_weights(tmp_path / "absent.safetensors", "vit_tiny_demo")
    whole = save(trunk_state(), tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:200])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.check_weights(tmp_path / "cut.safetensors", "vit_tiny_demo")


def test_an_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'virchow2'"):
        weights.find_encoder("virchov2")


@pytest.mark.weights
def test_the_shared_weights_fit_their_encoder_and_no_other(shared_weights: Path) -> None:
    assert weights.check_weights(shared_weights, "vit_small_patch14_dinov2").fits
    assert not weights.check_weights(shared_weights, "vit_base_patch14_dinov2").fits


PARAMETERS = {
    "vit_small_patch14_dinov2": 22.06e6,
    "vit_base_patch14_dinov2": 86.58e6,
    "vit_large_patch14_dinov2": 304.37e6,
    "uni": 303.35e6,
    "uni2_h": 681.39e6,
    "virchow": 631.2e6,
    "virchow2": 631.2e6,
    "h_optimus_0": 1134.8e6,
    "phikon": 85.8e6,
}
"""Published sizes of the encoders."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in ViT(ENCODERS[name].shape).parameters())
    assert count == pytest.approx(PARAMETERS[name], rel=2e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_says_where_it_comes_from(name: str) -> None:
    encoder = ENCODERS[name]
    assert encoder.licence
    assert encoder.source or name == "vit_tiny_demo"
    assert not encoder.file or encoder.file.endswith(".safetensors")


def hub(path: Path, etag: str) -> ModuleType:
    """A stand-in for the client of the hub."""
    made = ModuleType("huggingface_hub")
    made.hf_hub_url = lambda source, file: f"https://hub/{source}/{file}"
    made.get_hf_file_metadata = lambda url: SimpleNamespace(etag=etag)
    made.hf_hub_download = lambda source, file: str(path)
    return made


@pytest.mark.usefixtures("tiny_encoder")
def test_fetched_weights_appear_only_when_hash_and_shape_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = save(trunk_state(), tmp_path / "there.safetensors"), tmp_path / "here.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub(path, "0" * 64))
    with pytest.raises(WeightsError, match="the hub says 0000"):
        weights.get_weights("tiny", out)
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub(path, digest))
    assert weights.get_weights("tiny", out) == digest
    assert out.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.safetensors", "there.safetensors"]


@pytest.mark.usefixtures("tiny_encoder")
def test_offline_and_without_the_client_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = hub(tmp_path / "none", "")

    def refuse(url: str) -> None:
        raise ConnectionError(f"no route to {url}")

    offline.get_hf_file_metadata = refuse
    monkeypatch.setitem(sys.modules, "huggingface_hub", offline)
    with pytest.raises(WeightsError, match=r"(?s)cannot be fetched.*pass it by path"):
        weights.get_weights("tiny", tmp_path / "out.safetensors")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'mammopath\[hub\]'"):
        weights.get_weights("tiny", tmp_path / "out.safetensors")


def test_what_cannot_be_fetched_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"huggingface\.co/MahmoodLab/UNI"):
        weights.get_weights("uni", tmp_path / "uni.safetensors")
    with pytest.raises(ConfigError, match="trains from scratch"):
        weights.get_weights("vit_tiny_demo", tmp_path / "demo.safetensors")
