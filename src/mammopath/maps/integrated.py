"""Integrated gradients of the malignancy logit over the tokens at the cut (Sundararajan et al. 2017)."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.maps.scene import Scene

STEPS = 24
"""Points of the path; Gauss-Legendre, so that the parts add up to the whole to a few per mille."""


def integrated(scene: Scene) -> Float[np.ndarray, "rows cols"]:
    """How much each token raises the malignancy logit by not being like the others; 0 where it lowers it."""
    return scene.on_grid(attributed(scene).sum(-1)[scene.batch.prefix :].clamp_min(0))


def attributed(scene: Scene, *, steps: int = STEPS) -> Float[Tensor, "m d"]:
    """Part of the logit's rise from an image of mean tokens to this one that each number brings.

    The baseline keeps CLS and gives every patch the mean of all: nothing stands out in it. Zeros would be
    none, as the norms in a transformer make a path towards zero a jump at its end. All parts together are
    the whole rise (completeness), up to the error of the quadrature.
    """
    end, start = scene.batch.tokens, blank(scene)
    assert end is not None
    places, weights = np.polynomial.legendre.leggauss(steps)
    slope = torch.zeros_like(start)
    for place, weight in zip(places, weights, strict=True):
        slope += float(weight) / 2 * _slope(scene, start + (end - start) * float((place + 1) / 2))
    return (slope * (end - start))[0]


def blank(scene: Scene) -> Float[Tensor, "1 m d"]:
    """The baseline: the image's tokens with every patch the mean of its real ones."""
    tokens, prefix = scene.batch.tokens, scene.batch.prefix
    assert tokens is not None
    mean = tokens[:, prefix:][scene.batch.valid].mean(0)
    return torch.cat([tokens[:, :prefix], mean.expand(1, tokens.shape[1] - prefix, -1)], dim=1)


def _slope(scene: Scene, tokens: Float[Tensor, "1 m d"]) -> Float[Tensor, "1 m d"]:
    with torch.enable_grad():
        leaf = tokens.clone().requires_grad_(True)
        logit = scene.network.upper(scene.batch.with_tokens(leaf)).logit
        return torch.autograd.grad(logit.sum(), leaf)[0]
