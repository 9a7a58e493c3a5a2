"""Activations of a frozen trunk, kept on disk: one small file per image and view.

The key of a file holds everything that its content depends on: weights, preprocessing, the cut, the
bytes of the image and the number of the augmented view. So a changed setting never meets old numbers,
and parallel writers of the same key write the same content.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import safetensors
import safetensors.torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mammopath.files import writing


@dataclass(frozen=True)
class Stored:
    """One view of one image at the cut.

    Attributes:
        tokens: prefix tokens, then patch tokens, in half precision.
        valid: which patch tokens are image and not padding.
        lesion: share of each patch token inside annotated findings; NaN where not annotated.
        statistics: CLS, mean and spread of the patch tokens after each block; no rows for augmented views.
        grid: rows and columns of the patch tokens.
    """

    tokens: Float[Tensor, "m d"]
    valid: Bool[Tensor, " n"]
    lesion: Float[Tensor, " n"]
    statistics: Float[Tensor, "depth s"]
    grid: Int[Tensor, "2"]


def view_key(recipe: str, image_hash: str, draw: int) -> str:
    """Name of one view: ``draw`` 0 is the plain one, ``recipe`` stands for weights, preprocessing and cut."""
    return hashlib.sha256(f"{recipe}|{image_hash}|{draw}".encode()).hexdigest()


@dataclass
class Memory:
    """Views that this process has read, up to a number of bytes: every run of a study asks for the same."""

    budget: int
    kept: dict[Path, Stored] = field(default_factory=dict)

    def offer(self, path: Path, stored: Stored) -> None:
        """Keep a view if there is room."""
        size = sum(value.numel() * value.element_size() for value in vars(stored).values())
        if size <= self.budget:
            self.budget -= size
            self.kept[path] = stored


@dataclass(frozen=True)
class TokenStore:
    """A folder of stored views."""

    folder: Path
    memory: ClassVar[Memory] = Memory(3 << 30)
    """Of the process, not of a store: studies send their store to workers anew with each run."""

    def path(self, key: str) -> Path:
        """Where a key lives."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether the view is there; files appear whole or not at all."""
        return self.path(key).exists()

    def put(self, key: str, stored: Stored) -> None:
        """Write one view; safe beside other writers."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in vars(stored).items()}
        with writing(path) as part:
            safetensors.torch.save_file(tensors, part)

    def get(self, key: str) -> Stored:
        """Read one view.

        Raises:
            KeyError: the view is not there, or its file is damaged (then it is removed, to be made again).
        """
        path = self.path(key)
        if path in self.memory.kept:
            return self.memory.kept[path]
        try:
            stored = Stored(**safetensors.torch.load_file(path))
        except FileNotFoundError:
            raise KeyError(key) from None
        except (OSError, TypeError, safetensors.SafetensorError):
            path.unlink(missing_ok=True)
            raise KeyError(key) from None
        self.memory.offer(path, stored)
        return stored
