"""Deletion and insertion: what becomes of the score when a map's places are taken away, or given alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mammopath.maps.scene import Scene
from mammopath.metrics.maps import Heat, area, steps
from mammopath.tensors import Batch

STEPS = 10
"""Points of a curve beside its first."""


def curves(scene: Scene, heat: Heat) -> Mapping[str, Float[np.ndarray, " k"]]:
    """Malignancy logit while the most important tokens go, and while they come, one tenth at a time.

    A token is taken away by making it padding: nothing attends to it, and it is not pooled. So no grey box
    that the network has never seen stands in its place (the objection of Hooker et al. 2019 to RISE's way).
    One token always stays: the last one to go, or the first one to come.
    """
    valid = scene.batch.valid[0]
    gone = [torch.from_numpy(places.copy()) for places in steps(heat, STEPS)]
    first, last = int(gone[-1][0]), int(gone[-1][-1])
    without = torch.stack([_keeping(valid, places, keep=False, least=last) for places in gone])
    alone = torch.stack([_keeping(valid, places, keep=True, least=first) for places in gone])
    logits = _logits(scene, torch.cat([without, alone]))
    return {"deletion": logits[: STEPS + 1], "insertion": logits[STEPS + 1 :]}


def gains(scene: Scene, heat: Heat, random: Heat) -> dict[str, float]:
    """How much better a map is than a random order, in logits: positive is better for both.

    Deletion counts how much faster the score of an image called malignant falls, insertion how much faster
    it rises; for an image called benign, the other way around.
    """
    mine, theirs = curves(scene, heat), curves(scene, random)
    sign = 1.0 if float(mine["deletion"][0]) >= 0 else -1.0
    return {
        "deletion": sign * (area(theirs["deletion"]) - area(mine["deletion"])),
        "insertion": sign * (area(mine["insertion"]) - area(theirs["insertion"])),
    }


def _keeping(valid: Bool[Tensor, " n"], places: Tensor, *, keep: bool, least: int) -> Bool[Tensor, " n"]:
    """The tokens that stay: ``places`` or the others; ``least`` if none would."""
    chosen = torch.zeros_like(valid)
    chosen[places] = True
    left = valid & (chosen if keep else ~chosen)
    if not left.any():
        left[least] = True
    return left


def _logits(scene: Scene, valid: Bool[Tensor, "k n"]) -> Float[np.ndarray, " k"]:
    many = _repeated(scene.batch, len(valid))
    with torch.no_grad():
        return scene.network.upper(replace(many, valid=valid)).logit.double().cpu().numpy()


def _repeated(batch: Batch, count: int) -> Batch:
    """The one image of a batch so many times, each its own patient."""
    mine: dict[str, Any] = dict(vars(batch))
    mine |= {k: v.expand(count, *v.shape[1:]) for k, v in mine.items() if isinstance(v, Tensor)}
    return replace(Batch(**mine), patient=torch.arange(count, device=batch.valid.device))
