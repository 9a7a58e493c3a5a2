"""Settings of the commands for whole slides."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mammopath.settings import ImageScore, PatchSettings, Settings, TrainSettings


class TrunkSettings(Settings):
    """The frozen trunk that patches of slides go through."""

    encoder: str = "vit_tiny_demo"
    """A key of the table of encoders (``mammopath weights list``)."""
    weights: Path | None = None
    """Pretrained weights (safetensors); none leaves the trunk as it was drawn, for trials."""
    block: int = Field(4, ge=1)
    """Block after which patches are read, counted from 1; below the top is often better."""


class SlideSettings(Settings):
    """``mammopath slides``: from whole slides to files of patch features."""

    patches: PatchSettings = PatchSettings()
    trunk: TrunkSettings = TrunkSettings()
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the trunk."""
    threads: int = Field(1, ge=1)
    """CPU threads of one worker."""
    workers: int = Field(1, ge=1)
    """Processes; each takes the next slide that no other has, and may die of one without harm to the rest."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""


class BagSettings(SlideSettings):
    """``mammopath slides train`` and ``stages``: a network of bags of patches."""

    train: TrainSettings = TrainSettings()
    """The training loop; ``batch`` counts slides of each centre."""
    tasks: dict[str, float] = Field({"boxes": 1.0, "lesion": 0.3})
    """Weights of tasks: the map learns from outlines where there are some, and from labels."""
    bag: int = Field(256, ge=1)
    """Patches of a slide in a step, drawn anew each time; all of them are read when a slide is judged."""
    image_score: ImageScore = "pooled"
    """What a slide's malignancy is read from."""
    validation: float = Field(0.25, gt=0, lt=0.5)
    """Share of each training centre's patients that chooses the step."""
    test_share: float = Field(0.2, gt=0, lt=0.9)
    """Share of patients that `slides train` keeps apart to test on, where no site is left out for that."""
    join_um: float = Field(75.0, ge=0)
    """Lesions nearer to one another than this are measured as one."""
    seed: int = 0
    """Of splits, draws and initialisation."""
