"""Adapters: no change when fresh, the published formulas when trained, blind to padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mammopath.model.adapters import ADAPTERS, AdaptFormer, Convpass, LoRA
from mammopath.model.vit import Block, BlockParts, Layout, ViTShape

SHAPE = ViTShape(patch=4, width=24, depth=1, heads=3, mlp=32, grid=(3, 2))
GRID = Layout(prefix=1, grids=((3, 2), (3, 2)))


def block() -> Block:
    torch.manual_seed(0)
    made = Block(SHAPE).eval()
    for scale in (made.ls1, made.ls2):
        assert scale is not None
        nn.init.normal_(scale.gamma)
    return made


def stirred(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_fresh_adapter_changes_nothing(kind: str) -> None:
    x = torch.randn(2, 7, 24)
    parts = BlockParts(**ADAPTERS[kind](24, 8, 0.1))
    assert torch.equal(block()(x, GRID, parts), block()(x, GRID))


@pytest.mark.parametrize("kind", [k for k in ADAPTERS if k != "none"])
def test_a_trained_adapter_changes_something_and_learns_in_every_parameter(kind: str) -> None:
    x = torch.randn(2, 7, 24)
    parts = BlockParts(**ADAPTERS[kind](24, 8, 0.1))
    stirred(parts)
    out = block()(x, GRID, parts)
    assert not torch.allclose(out, block()(x, GRID), atol=1e-3)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts.parameters())


def test_adaptformer_is_equation_4() -> None:
    adapter, h = AdaptFormer(24, 8, 0.1), torch.randn(2, 7, 24)
    stirred(adapter)
    hidden = F.relu(h @ adapter.down.weight.T + adapter.down.bias)
    expected = 0.1 * (hidden @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(adapter(h, GRID), expected)


def test_lora_is_a_change_of_the_matrix_itself() -> None:
    plain, lora, x = block(), LoRA(24, 4, 0.5), torch.randn(2, 7, 24)
    stirred(lora)
    adapted = plain(x, GRID, BlockParts(on_qkv=lora))
    with torch.no_grad():
        plain.attn.qkv.weight += 0.5 * lora.up.weight @ lora.down.weight
    torch.testing.assert_close(adapted, plain(x, GRID))


def test_convpass_sees_the_neighbours_on_the_grid() -> None:
    adapter = Convpass(24, 8, 1.0)
    stirred(adapter)
    h = torch.randn(1, 13, 24)
    layout = Layout(prefix=1, grids=((4, 3),))
    moved = h.clone()
    moved[0, 1 + 4] += 1.0
    changed = (adapter(moved, layout) - adapter(h, layout)).abs().sum(-1)[0] > 1e-6
    near = torch.tensor([r <= 2 for r in range(4) for _ in range(3)])
    assert torch.equal(changed[1:], near)
    assert not changed[0]


def test_convpass_is_the_written_out_convolution() -> None:
    adapter = Convpass(24, 8, 0.3)
    stirred(adapter)
    h = torch.randn(2, 7, 24)

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)

    hidden = gelu(adapter.down(h))
    planes = F.pad(hidden[:, 1:].transpose(1, 2).reshape(2, 8, 3, 2), (1, 1, 1, 1))
    mixed = torch.zeros(2, 8, 3, 2)
    for row in range(3):
        for column in range(2):
            window = planes[:, :, row : row + 3, column : column + 3]
            mixed[:, :, row, column] = torch.einsum("bcxy,dcxy->bd", window, adapter.conv.weight)
    centre = hidden[:, :1] @ adapter.conv.weight[:, :, 1, 1].T
    mixed = torch.cat([centre, mixed.flatten(2).transpose(1, 2)], dim=1) + adapter.conv.bias
    torch.testing.assert_close(adapter(h, GRID), 0.3 * adapter.up(gelu(mixed)), atol=1e-5, rtol=1e-5)


def test_convpass_takes_grids_of_several_sizes_and_is_blind_to_padding() -> None:
    adapter = Convpass(24, 8, 1.0)
    stirred(adapter)
    small, large = torch.randn(1, 5, 24), torch.randn(1, 7, 24)
    both = torch.randn(2, 7, 24) * 100
    both[0, :5], both[1] = small[0], large[0]
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[0, 5:] = False
    together = adapter(both, Layout(1, keep, ((2, 2), (3, 2))))
    torch.testing.assert_close(together[:1, :5], adapter(small, Layout(1, grids=((2, 2),))))
    torch.testing.assert_close(together[1:], adapter(large, Layout(1, grids=((3, 2),))))


def test_convpass_asks_for_the_grid() -> None:
    with pytest.raises(ValueError, match=r"fill Batch\.grid"):
        Convpass(24, 8, 1.0)(torch.randn(1, 7, 24), Layout(prefix=1))
