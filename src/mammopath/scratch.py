"""A small convolutional network trained from scratch, one per modality: the baseline without pretraining."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mammopath.baselines import patient_means
from mammopath.cohort.loader import Pick, training_steps
from mammopath.cohort.splits import Fold
from mammopath.errors import DataError
from mammopath.metrics.ranking import auc
from mammopath.predict import Scores
from mammopath.prepare.augment import apply, draw
from mammopath.prepare.sample import load_sample
from mammopath.settings import AugmentSettings, PrepareSettings, TrainSettings
from mammopath.tensors import Sample
from mammopath.types import MODALITIES, Modality, Record

WIDTHS = (24, 48, 96, 128)
"""Channels of the four stages; each halves the image."""

LONGEST = 256
"""Images with a longer side are averaged down to at most this, so that a plain network sees a lesion and its
surroundings within its depth."""


class SmallCNN(nn.Module):
    """Four convolutions of stride 2, normed over channels; mean and maximum over the image; one logit."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sides = zip((channels, *WIDTHS), WIDTHS, strict=False)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in sides)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in WIDTHS)
        self.head = nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, images: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
        """Malignancy logit of each image; padding takes part in nothing."""
        mask = valid[:, None].float()
        x = images * mask
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            mask = F.adaptive_max_pool2d(mask, x.shape[-2:])
            x = F.relu(norm(x.movedim(1, -1)).movedim(-1, 1)) * mask
        mean = x.sum((2, 3)) / mask.sum((2, 3)).clamp(min=1.0)
        return self.head(torch.cat([mean, x.amax((2, 3))], dim=1)).squeeze(1)


@dataclass(frozen=True)
class Trained:
    """The best step of one modality by source validation."""

    network: SmallCNN
    step: int
    val_auc: float


def cnn_scores(
    samples: Mapping[int, Sample],
    records: Sequence[Record],
    part: Fold,
    *,
    settings: TrainSettings,
    augment: AugmentSettings,
    seed: int,
) -> tuple[Scores, dict[str, Trained]]:
    """Train on a fold's training rows, choose the step on its validation, score validation and test.

    Args:
        samples: prepared images by row.
        records: all of them.
        part: of the cohort.
        settings: steps, batch, learning rate, class balance.
        augment: random changes of training images.
        seed: of weights, batches and changes.

    Raises:
        DataError: the training rows of a modality hold one class only.
    """
    found: dict[int, float] = {}
    trained: dict[str, Trained] = {}
    small = {row: shrunk(sample) for row, sample in samples.items()}
    for modality in MODALITIES:
        mine, held, asked = (
            [r for r in rows if records[r].modality == modality]
            for rows in (part.train, part.val, (*part.val, *part.test))
        )
        if not mine or not asked:
            continue
        known = [r for r in mine if records[r].malignant in (0, 1)]
        if len({records[r].malignant for r in known}) < 2:
            raise DataError(f"cnn: the training sites hold one class of {modality} only; add a site")
        steps = training_steps(records, known, settings, draws=1, seed=seed)
        picks = (step[modality] for step in islice(steps, settings.steps))
        trained[modality] = _fit(small, records, picks, held, settings=settings, augment=augment, seed=seed)
        found |= dict(zip(asked, logits(trained[modality].network, small, asked), strict=True))
    rows = np.array(sorted(found), dtype=np.int64)
    logit = np.array([found[int(r)] for r in rows])
    return Scores(rows, logit, patient_means(records, rows, logit)), trained


@torch.inference_mode()
def logits(
    network: SmallCNN, samples: Mapping[int, Sample], rows: Sequence[int], *, size: int = 32
) -> list[float]:
    """Logit of each row, in evaluation mode."""
    network.eval()
    found: list[float] = []
    for start in range(0, len(rows), size):
        found += network(*together([samples[r] for r in rows[start : start + size]])).tolist()
    return found


def small_view(record: Record, settings: PrepareSettings) -> Sample:
    """An image as the small network sees it.

    Raises:
        ImageReadError: it cannot be read.
    """
    return shrunk(load_sample(record, settings, multiple=2 ** len(WIDTHS)).sample)


def shrunk(sample: Sample) -> Sample:
    """The sample averaged down by a whole factor, in half precision, which 8-bit pixels survive."""
    factor = -(-max(sample.valid.shape) // LONGEST)
    image = F.avg_pool2d(sample.image[None], factor)[0].half()
    valid = F.max_pool2d(sample.valid[None, None].float(), factor)[0, 0] > 0
    return Sample(image, valid, torch.zeros(valid.shape))


def together(samples: Sequence[Sample]) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b h w"]]:
    """Samples in one batch, padded at the bottom and on the right."""
    height, width = (max(s.valid.shape[k] for s in samples) for k in (0, 1))
    pads = [(0, width - s.valid.shape[1], 0, height - s.valid.shape[0]) for s in samples]
    images = torch.stack([F.pad(s.image.float(), pad) for s, pad in zip(samples, pads, strict=True)])
    valid = torch.stack([F.pad(s.valid, pad) for s, pad in zip(samples, pads, strict=True)])
    return images, valid


def _fit(
    samples: Mapping[int, Sample],
    records: Sequence[Record],
    steps: Iterator[list[Pick]],
    val: Sequence[int],
    *,
    settings: TrainSettings,
    augment: AugmentSettings,
    seed: int,
) -> Trained:
    """Train on the steps and keep the best by validation; ties keep the earlier one."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    best: Trained | None = None
    network: SmallCNN | None = None
    for number, picks in enumerate(steps, start=1):
        modality = records[picks[0].row].modality
        seen = [_view(samples[p.row], p, modality, augment, generator) for p in picks]
        images, valid = together(seen)
        if network is None:
            network = SmallCNN(images.shape[1])
            optimizer = torch.optim.AdamW(
                network.parameters(), settings.lr, weight_decay=settings.weight_decay
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, settings.lr, total_steps=settings.steps + 1, pct_start=max(0.05, settings.warmup)
            )
        network.train()
        truth = torch.tensor([float(records[p.row].malignant) for p in picks])
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(network(images, valid), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
        if number % settings.validate_every == 0 or number == settings.steps:
            score = _val_auc(network, samples, records, val)
            if best is None or score > best.val_auc:
                best = Trained(copy.deepcopy(network), number, score)
    assert best is not None  # there is at least one step, and the last one validates
    return best


def _view(
    sample: Sample, pick: Pick, modality: Modality, augment: AugmentSettings, generator: torch.Generator
) -> Sample:
    if pick.draw == 0:
        return sample
    full = Sample(sample.image.float(), sample.valid, sample.lesion)
    return apply(full, draw(augment, modality, generator=generator))


def _val_auc(
    network: SmallCNN, samples: Mapping[int, Sample], records: Sequence[Record], rows: Sequence[int]
) -> float:
    """Mean over sites with both classes; chance where none has them."""
    scores = dict(zip(rows, logits(network, samples, rows), strict=True))
    found = []
    for site in sorted({records[r].domain for r in rows}):
        mine = [r for r in rows if records[r].domain == site and records[r].malignant in (0, 1)]
        labels = np.array([records[r].malignant for r in mine])
        found.append(auc(labels, np.array([scores[r] for r in mine])))
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.5
