"""What of the network is trained: settings checked, parameters switched, grouped and saved."""

from typing import Any

from torch import nn

from mammopath.errors import ConfigError
from mammopath.model.vit import ViT, ViTShape
from mammopath.settings import ModelSettings, TrainSettings
from mammopath.types import Modality

EMBEDDING = ("cls_token", "reg_token", "pos_embed")
"""Trunk parameters in front of the first block that keep no weight decay."""


def check_settings(settings: ModelSettings, shape: ViTShape) -> None:
    """Refuse settings that contradict each other or that would leave an ingredient unused.

    Raises:
        ConfigError: names the key and what to change.
    """
    if not settings.readout:
        raise ConfigError("model.readout: name at least one modality")
    for modality in settings.readout:
        _check_readout(settings, shape, modality)
        _check_cut(settings, modality)
    if settings.fusion and len(settings.readout) < 2:
        raise ConfigError("model.fusion needs both modalities in model.readout")


def trained_blocks(settings: ModelSettings) -> range:
    """Numbers (from 1) of the trunk blocks that are trained."""
    top = max(max(blocks) for blocks in settings.readout.values())
    count = {"none": 0, "last_k": min(settings.last_k, top), "all": top}[settings.train_trunk]
    return range(top - count + 1, top + 1)


def switch_trunk(trunk: ViT, settings: ModelSettings) -> None:
    """Set ``requires_grad`` of every trunk parameter; those that never run are left out."""
    trunk.requires_grad_(False)
    for number in trained_blocks(settings):
        for name, parameter in trunk.blocks[number - 1].named_parameters():
            # Each modality brings its own norms; the trunk's would never run.
            parameter.requires_grad_(not (settings.modality_norms and name.startswith("norm")))
    trunk.norm.requires_grad_(settings.train_trunk != "none" and not settings.modality_norms)
    if settings.train_trunk == "all":
        for name in EMBEDDING:
            if (parameter := getattr(trunk, name)) is not None:
                parameter.requires_grad_(True)


def parameter_groups(network: nn.Module, train: TrainSettings, *, top: int) -> list[dict[str, Any]]:
    """Groups for the optimiser: learning rates by depth, no weight decay on norms, biases and scalars.

    Block ``top`` of the trunk gets ``trunk_lr``, each block below it ``layer_decay`` times that of the
    one above (Clark et al. 2020), embeddings and stems the least; everything else gets ``lr``.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.split(".")[-1] in EMBEDDING
            key = (_learning_rate(name, train, top), 0.0 if plain else train.weight_decay)
            found.setdefault(key, []).append(parameter)
    return [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in found.items()]


def _learning_rate(name: str, train: TrainSettings, top: int) -> float:
    parts = name.split(".")
    if parts[0] == "trunk" and parts[1] == "blocks":
        return train.trunk_lr * train.layer_decay ** (top - 1 - int(parts[2]))
    if parts[:2] == ["trunk", "norm"]:
        return train.trunk_lr
    if parts[0] == "trunk" or "stem" in parts:
        return train.trunk_lr * train.layer_decay**top
    return train.lr


def _check_readout(settings: ModelSettings, shape: ViTShape, modality: Modality) -> None:
    blocks = settings.readout[modality]
    where = f"model.readout.{modality}"
    if not blocks or sorted(set(blocks)) != list(blocks):
        raise ConfigError(f"{where}: name blocks once each, in ascending order, got {list(blocks)}")
    if blocks[0] < 1 or blocks[-1] > shape.depth:
        raise ConfigError(
            f"{where}: blocks count from 1 to {shape.depth} ({settings.encoder}), got {list(blocks)}"
        )
    if settings.token_pool.get(modality, 1) < 1:
        raise ConfigError(f"model.token_pool.{modality}: at least 1, got {settings.token_pool[modality]}")


def _check_cut(settings: ModelSettings, modality: Modality) -> None:
    cut, blocks = settings.cut.get(modality, 0), settings.readout[modality]
    where = f"model.cut.{modality}"
    if not 0 <= cut <= blocks[0]:
        raise ConfigError(f"{where}: between 0 and the lowest readout block {blocks[0]}, got {cut}")
    if settings.adapter != "none" and cut == blocks[-1]:
        raise ConfigError(
            f"model.adapter: {settings.adapter} would never run, no {modality} block lies above the cut"
            f" {cut}: lower {where}, or set model.adapter: none"
        )
    trained = trained_blocks(settings)
    if trained and cut >= trained[0]:
        raise ConfigError(
            f"{where}: blocks {trained[0]} to {trained[-1]} are trained (model.train_trunk), so activations"
            f" can be cached up to block {trained[0] - 1} only, got {cut}"
        )
