"""Which parameters a method may move: parts of one modality, never the trunk or a linear head."""

import re
from typing import Literal

from torch import Tensor

from mammopath.adaptation.values import Head
from mammopath.errors import AdaptationError
from mammopath.model.network import Network
from mammopath.types import Modality

Moves = Literal["nothing", "norms", "lower norms", "style", "body"]

PATTERNS: dict[Moves, str] = {
    "nothing": r"(?!)",
    "norms": r"blocks\.\d+\.norm[12]\.|norm\.|heads\.norm\.",
    "lower norms": r"blocks\.\d+\.norm[12]\.|norm\.",
    "style": r"blocks\.\d+\.|norm\.",
    "body": r"blocks\.\d+\.|norm\.|mix$|heads\.tokens\.|heads\.norm\.",
}
"""What moves, by names inside the parts of a modality.

``norms``: every normalisation affine. ``lower norms``: without the top quarter of blocks, the final norm and
the head's (SAR and DeYO leave out blocks 9 to 11 of 12), as far as any is left. ``style``: normalisation
affines and adapters of the trunk. ``body``: all that lies in front of the linear heads.
"""


def movable(network: Network, modality: Modality, moves: Moves) -> dict[str, Tensor]:
    """Copies of the parameters that a method moves, by their name in the network.

    The trunk is never among them: both modalities run through it, and it is not part of every run folder.

    Raises:
        AdaptationError: the method moves weights and this network has none of that kind.
    """
    prefix = f"parts.{modality}."
    chosen = {
        name: value.detach().clone()
        for name, value in network.named_parameters()
        if name.startswith(prefix) and re.match(PATTERNS[moves], name[len(prefix) :])
    }
    if moves == "lower norms":
        chosen = _lower(chosen, len(network.of(modality).blocks)) or chosen
    if moves != "nothing" and not chosen:
        raise AdaptationError(
            f"the network has no {moves} of its own for {modality} images to move: train it with"
            " model.modality_norms or an adapter, or use t3a or tact"
        )
    return chosen


def head_of(network: Network, modality: Modality) -> Head:
    """The malignancy head of one modality."""
    layer, name = network.of(modality).heads.malignancy, f"parts.{modality}.heads.malignancy"
    return Head(
        layer.weight.detach().clone(), layer.bias.detach().clone(), (f"{name}.weight", f"{name}.bias")
    )


def _lower(params: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    top = blocks - blocks // 4
    numbers = {name: re.search(r"\.blocks\.(\d+)\.", name) for name in params}
    return {n: v for n, v in params.items() if (found := numbers[n]) and int(found[1]) < top}
