"""Speed of our ViT-S/14 forward against transformers' Dinov2Model with the same weights; prints JSON.

Run: ``python benchmarks/vit_forward.py [weights.safetensors] [rounds] [batch] [sizes]``. Without a weights
file both take the same random weights. The competitors take turns in every round and are timed in CPU
seconds, so that what else the machine does hurts all of them alike; a ratio is that of medians, above 1
where ours is faster. ``bf16`` runs under autocast, as frozen trunks do in training; ``bf16_weights`` converts
the whole model.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from mammopath.model.adapters import ADAPTERS
from mammopath.model.encoders import ENCODERS
from mammopath.model.vit import BlockParts, Layout, ViT
from mammopath.model.weights import read_state

SHAPE = ENCODERS["vit_small_patch14_dinov2"].shape
Forward = Callable[[], Tensor]

NAMES = (
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
)
"""Our names -> theirs."""


def main(weights: str = "", rounds: str = "15", batch: str = "4", sizes: str = "224,518") -> None:
    torch.manual_seed(0)
    ours = ViT(SHAPE).eval()
    if weights:
        ours.load_state_dict(read_state(Path(weights), SHAPE))
    theirs = twin(ours)
    found: dict[str, object] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    with torch.inference_mode():
        for size in map(int, sizes.split(",")):
            images = torch.randn(max(1, int(batch) * 224 // size), 3, size, size)
            found[f"{size}_largest_difference"] = (ours(images) - theirs(images)[0]).abs().max().item()
            for name in ("fp32", "bf16", "bf16_weights"):
                found[f"{size}_{name}"] = compare(ours, theirs, images, name, rounds=int(rounds))
    print(json.dumps(found, indent=2))


def compare(
    ours: ViT, theirs: nn.Module, images: Tensor, precision: str, *, rounds: int
) -> dict[str, object]:
    kind = torch.bfloat16 if precision == "bf16_weights" else torch.float32
    mine, other, x = deepcopy(ours).to(kind), deepcopy(theirs).to(kind), images.to(kind)
    parts = [BlockParts(**ADAPTERS["adaptformer"](SHAPE.width, 64, 0.1)).to(kind) for _ in ours.blocks]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        seconds = interleaved(
            {
                "ours": lambda: mine(x),
                "transformers": lambda: other(x)[0],
                "ours_with_adapters": lambda: with_adapters(mine, x, parts),
            },
            rounds,
        )
    rates = {name: round(len(images) / value, 2) for name, value in seconds.items()}
    return {
        "images_per_cpu_second": rates,
        "ours_over_transformers": round(seconds["transformers"] / seconds["ours"], 3),
        "adapters_over_none": round(seconds["ours"] / seconds["ours_with_adapters"], 3),
    }


def with_adapters(vit: ViT, images: Tensor, parts: list[BlockParts]) -> Tensor:
    x, layout = vit.embedded(images), Layout(vit.shape.prefix)
    for block, own in zip(vit.blocks, parts, strict=True):
        x = block(x, layout, own)
    return vit.norm(x)


def interleaved(runs: dict[str, Forward], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number > 1:
                times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def twin(vit: ViT) -> nn.Module:
    """Dinov2Model with the weights of ``vit``."""
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, attn_implementation="sdpa")
    model = Dinov2Model(config).eval()
    state = model.state_dict()
    for ours, value in vit.state_dict().items():
        name = reduce(lambda text, rule: re.sub(*rule, text), NAMES, ours)
        if ".qkv." in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("qkv", f"{part}_proj")].copy_(piece)
        else:
            state[name].copy_(value)
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
