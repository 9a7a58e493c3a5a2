"""The trunk against the outputs of another implementation, and against explicit formulas."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mammopath.model.encoders import ENCODERS
from mammopath.model.vit import Attention, Block, BlockParts, Layout, Mlp, ViT, ViTShape
from mammopath.model.weights import read_state

SHAPE = ViTShape(patch=4, width=24, depth=2, heads=3, mlp=32, grid=(4, 4), registers=2)


def vit(shape: ViTShape = SHAPE) -> ViT:
    torch.manual_seed(0)
    model = ViT(shape).eval()
    for name, parameter in model.named_parameters():
        if "gamma" in name or "pos" in name or "token" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.weights
def test_pretrained_weights_give_the_golden_outputs(shared_weights: Path) -> None:
    shape = ENCODERS["vit_small_patch14_dinov2"].shape
    model = ViT(shape).eval()
    model.load_state_dict(read_state(shared_weights, shape))
    golden = np.load(shared_weights.with_name("vit_small_patch14_dinov2.golden.npz"))
    generator = torch.Generator().manual_seed(0)
    for size in (518, 224):
        images = torch.randn(2, 3, size, size, generator=generator)
        with torch.inference_mode():
            tokens = model(images)
        np.testing.assert_allclose(tokens[:, 0], golden[f"cls_{size}"], atol=1e-4)
        np.testing.assert_allclose(tokens[:, 1:].mean(1), golden[f"token_mean_{size}"], atol=1e-4)


def test_parameter_names_are_those_of_timm() -> None:
    names = set(ViT(SHAPE).state_dict())
    block = {
        *("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight"),
        *("attn.proj.bias", "ls1.gamma", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias"),
        *("mlp.fc2.weight", "mlp.fc2.bias", "ls2.gamma"),
    }
    around = {"cls_token", "reg_token", "pos_embed", "norm.weight", "norm.bias"}
    stem = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert names == around | stem | {f"blocks.{i}.{name}" for i in (0, 1) for name in block}


def test_block_is_the_written_out_formula() -> None:
    block, x = vit().blocks[0], torch.randn(2, 5, 24)
    assert isinstance(block, Block)
    h = F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, eps=1e-6)
    q, k, v = (F.linear(h, w, b) for w, b in _thirds(block.attn))
    heads = []
    for part in (slice(0, 8), slice(8, 16), slice(16, 24)):
        score = q[..., part] @ k[..., part].transpose(1, 2) / 8**0.5
        heads.append(score.softmax(-1) @ v[..., part])
    assert block.ls1 is not None
    assert block.ls2 is not None
    y = x + block.ls1.gamma * block.attn.proj(torch.cat(heads, dim=-1))
    h = F.layer_norm(y, (24,), block.norm2.weight, block.norm2.bias, eps=1e-6)
    hidden = F.linear(h, block.mlp.fc1.weight, block.mlp.fc1.bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    y = y + block.ls2.gamma * F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
    torch.testing.assert_close(block(x, Layout(prefix=3)), y, atol=1e-5, rtol=1e-5)


def _thirds(attention: Attention) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True))


def test_swiglu_is_the_written_out_formula() -> None:
    mlp, x = Mlp(replace(SHAPE, swiglu=True)), torch.randn(2, 5, 24)
    assert mlp.fc1.weight.shape == (64, 24)
    gate = F.linear(x, mlp.fc1.weight[:32], mlp.fc1.bias[:32])
    value = F.linear(x, mlp.fc1.weight[32:], mlp.fc1.bias[32:])
    expected = F.linear(gate * torch.sigmoid(gate) * value, mlp.fc2.weight, mlp.fc2.bias)
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize("positioned", [0, 1, 3])
def test_prefix_tokens_get_the_positions_that_the_shape_says(positioned: int) -> None:
    model = vit(replace(SHAPE, positioned=positioned))
    assert model.reg_token is not None
    bare = torch.cat([model.cls_token[0], model.reg_token[0]])
    expected = bare.clone()
    expected[:positioned] += model.pos_embed[0, :positioned]
    torch.testing.assert_close(model.prefix_tokens(), expected)
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 3 + 16, 24)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_of_a_tall_image_are_interpolated_row_by_row(antialias: bool) -> None:
    model = vit(replace(SHAPE, antialias=antialias))
    found = model.positions((6, 3))
    plane = model.pos_embed[0, 1:].detach().reshape(4, 4, 24).permute(2, 0, 1)[None]
    wanted = F.interpolate(plane, size=(6, 3), mode="bicubic", antialias=antialias)
    torch.testing.assert_close(found.reshape(6, 3, 24).permute(2, 0, 1)[None], wanted)
    torch.testing.assert_close(model.positions((4, 4)), model.pos_embed[0, 1:])


def test_positions_follow_the_place_in_the_image() -> None:
    model = vit()
    ramp = torch.linspace(0, 1, 4)[:, None].expand(4, 4).reshape(16, 1).expand(16, 24)
    with torch.no_grad():
        model.pos_embed[0, 1:] = ramp
    rows = model.positions((8, 2)).reshape(8, 2, 24)
    assert (rows.diff(dim=0) > 0).all()
    torch.testing.assert_close(rows[:, 0], rows[:, 1])


def test_padding_changes_nothing_for_real_tokens() -> None:
    block, x = vit().blocks[0], torch.randn(2, 7, 24)
    keep = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    padded = block(x, Layout(prefix=3, keep=keep))
    torch.testing.assert_close(padded[1:, :5], block(x[1:, :5], Layout(prefix=3)))


def test_a_modality_brings_its_norms_and_the_rest_is_the_block() -> None:
    block, x, layout = vit().blocks[0], torch.randn(2, 5, 24), Layout(prefix=3)
    own = BlockParts(torch.nn.LayerNorm(24, eps=1e-6), torch.nn.LayerNorm(24, eps=1e-6))
    torch.testing.assert_close(block(x, layout, own), block(x, layout))
    torch.nn.init.constant_(own.norm1.weight, 2.0)
    assert not torch.allclose(block(x, layout, own), block(x, layout))


def test_an_impossible_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="width 24 is not divisible by 5 heads"):
        replace(SHAPE, heads=5)
    with pytest.raises(ValueError, match="positioned must be 0, 1 or 3, got 2"):
        replace(SHAPE, positioned=2)


def test_attention_computed_in_the_open_is_the_attention_that_is_used() -> None:
    block, x = vit().blocks[0], torch.randn(2, 7, 24)
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[0, 5:] = False
    seen: list[torch.Tensor] = []
    torch.testing.assert_close(
        block(x, Layout(1, keep, watch=seen)), block(x, Layout(1, keep)), atol=1e-5, rtol=1e-5
    )
    assert len(seen) == 1
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, seen[0].shape[1], 7))
    assert (seen[0][0, :, :, 5:] == 0).all()
