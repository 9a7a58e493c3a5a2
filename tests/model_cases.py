"""Tiny networks, samples and batches for the tests of the model room."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mammopath.model.network import Network
from mammopath.model.vit import ViTShape
from mammopath.settings import ModelSettings
from mammopath.tensors import Batch, Sample, share_per_token
from mammopath.types import Modality

TINY = ViTShape(patch=4, width=24, depth=4, heads=3, mlp=32, grid=(4, 4))
CHANNELS = {"mammogram": 1, "pathology": 3}


def network(shape: ViTShape = TINY, *, seed: int = 0, **changes: Any) -> Network:
    """A tiny network in evaluation mode whose LayerScale lets every block count."""
    values = {"adapter_width": 8, "pool_width": 8, "align_width": 16} | changes
    torch.manual_seed(seed)
    net = Network(ModelSettings(**values), shape).eval()
    torch.manual_seed(seed)
    loud(net, ".gamma", torch.tensor(0.5))
    loud(net, "pos_embed", torch.randn(net.trunk.pos_embed.shape))
    net.start_parts()
    return net


def loud(net: torch.nn.Module, ending: str, value: Tensor) -> None:
    """Set parameters whose name ends so."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(ending):
                parameter.copy_(value.expand_as(parameter))


def stir(net: torch.nn.Module, part: str, *, seed: int = 1) -> None:
    """Random values for parameters whose name contains ``part``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if part in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def sample(
    modality: Modality = "mammogram", size: tuple[int, int] = (24, 16), *, seed: int = 0, padded: int = 0
) -> Sample:
    """A random image; its last ``padded`` columns of pixels are padding."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(size, dtype=torch.bool)
    valid[:, size[1] - padded :] = False
    image = torch.rand(CHANNELS[modality], *size, generator=generator)
    return Sample(image, valid, torch.full(size, float("nan")))


def batch(
    samples: Sequence[Sample],
    modality: Modality = "mammogram",
    *,
    cell: int = 4,
    patient: Sequence[int] = (),
    pair: Sequence[int] = (),
) -> Batch:
    """A batch of samples, each its own patient unless said otherwise."""
    count = len(samples)
    valid = [share_per_token(s.valid.float(), cell) > 0.5 for s in samples]
    padded = torch.nn.utils.rnn.pad_sequence(valid, batch_first=True)
    return Batch(
        modality=modality,
        malignant=torch.zeros(count),
        severity=torch.zeros(count),
        domain=torch.zeros(count, dtype=torch.long),
        patient=torch.tensor(list(patient) or list(range(count))),
        pair=torch.tensor(list(pair) or [-1] * count),
        row=torch.arange(count),
        valid=padded,
        lesion=torch.full(padded.shape, float("nan")),
        samples=tuple(samples),
    )
