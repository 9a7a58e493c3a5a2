"""Attention rollout: attention of all blocks above the cut, multiplied through (Abnar & Zuidema 2020)."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.maps.scene import Scene, packed


def rollout(scene: Scene) -> Float[np.ndarray, "rows cols"]:
    """Share of the attention flow from image tokens to the readout; sums to 1.

    Heads are averaged and half of each block's flow takes the residual way (equation 1 of the paper). The
    readout takes half of its flow from CLS and half from the tokens, by their pooling weights. Blind to
    what is being predicted: no gradient is asked.
    """
    watch: list[Tensor] = []
    one = packed(scene.network, scene.batch)
    with torch.no_grad():
        output = scene.network.upper(one.batch, watch=watch)
        prefix = scene.batch.prefix
        row = torch.cat([output.attention.new_zeros(prefix), 0.5 * output.attention[0]])
        row[0] = 0.5
        for weights in reversed(watch):
            row = 0.5 * row + 0.5 * (row @ weights[0].mean(0))
        flow = row[prefix:]
        return scene.spread(flow / flow.sum().clamp_min(1e-12), one)
