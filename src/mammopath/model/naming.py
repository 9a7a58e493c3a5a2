"""State dicts of other programs, renamed to the names of the trunk (those of timm)."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mammopath.model.vit import ViTShape

State = dict[str, Tensor]

RULES: tuple[tuple[str, str], ...] = (
    (r"^embeddings\.(cls_token)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(embeddings\.)?register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.(weights_in|w12)\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|w3)\.", ".mlp.fc2."),
)
"""Names in ``transformers`` (Dinov2Model, ViTModel) and in DINOv2's own code -> names in timm."""

SPARE = re.compile(r"^(embeddings\.)?mask_token$|^head\.|^fc_norm\.|^pooler\.|^classifier\.")
"""Tensors that a trunk has no use for."""


def trunk_names(state: Mapping[str, Tensor], shape: ViTShape) -> State:
    """Strip a common prefix, rename, join split queries, keys and values, and fit the prefix positions.

    Names that no rule knows are left as they are.
    """
    renamed: State = {}
    for name, value in _without_prefix(state).items():
        if not SPARE.search(name):
            renamed[_renamed(name)] = value.float()
    return _with_positions(_joined(renamed), shape)


def _renamed(name: str) -> str:
    for pattern, new in RULES:
        name = re.sub(pattern, new, name)
    return name


def _without_prefix(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names after what stands in front of the CLS token; what lacks it belongs to something else."""
    found = [re.fullmatch(r"(.*?)(embeddings\.)?cls_token", name) for name in state]
    prefixes = [match.group(1) for match in found if match]
    if len(prefixes) != 1 or not prefixes[0]:
        return state
    return {name.removeprefix(prefixes[0]): v for name, v in state.items() if name.startswith(prefixes[0])}


def _joined(state: State) -> State:
    pattern = re.compile(r"(.*)\.attention\.attention\.query\.(weight|bias)")
    for name in list(state):
        if match := pattern.fullmatch(name):
            block, kind = match.groups()
            parts = [f"{block}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")]
            if all(part in state for part in parts):
                state[f"{block}.attn.qkv.{kind}"] = torch.cat([state.pop(part) for part in parts])
    return state


def _with_positions(state: State, shape: ViTShape) -> State:
    """Positions of prefix tokens as the shape has them; adding one to its token is the same thing."""
    if "pos_embed" not in state or "cls_token" not in state:
        return state
    extra = state["pos_embed"].shape[1] - shape.grid[0] * shape.grid[1]
    if extra == 1 and shape.positioned == 0:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if extra == 0 and shape.positioned == 1:
        state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, 1, 0))
    return state
