"""A whole slide through a run's network, a few fields at a time: what is said of it, and where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.case.glance import glance
from mammopath.confidence import Confidence
from mammopath.errors import ImageReadError
from mammopath.images.slide import Slide
from mammopath.maps.methods import CHEAP
from mammopath.metrics.ood import smallest
from mammopath.prepare.mosaic import Mosaic
from mammopath.progress import Track, silent
from mammopath.runs import Run
from mammopath.tensors import Output, Sample
from mammopath.types import Record, Skipped

BATCH = 4
"""Fields in memory at a time."""

TOLD = 8
"""Fields of a slide that are linked, read together with mammograms and drawn by every map method: the most
suspicious ones."""


@dataclass(frozen=True)
class WholeSlide:
    """A slide that was opened, and its fields."""

    record: Record
    slide: Slide
    mosaic: Mosaic


@dataclass(frozen=True)
class Scan:
    """What a network says of a slide, from its fields.

    Attributes:
        whole: the slide.
        logit, embedding: of each field that could be read, as of an image.
        pooled: malignancy logit of their gated-attention mean: of the slide. graded: severity logits, of each
            field as much as its share in that mean.
        familiar: p-value of the slide's being like the training sites; None where not known.
        maps: of the methods that cost nothing, over the slide; attention sums to 1.
        told: numbers of the most suspicious fields, the worst first.
        skipped: fields that could not be read.
    """

    whole: WholeSlide
    logit: Float[Tensor, " n"]
    embedding: Float[Tensor, "n e"]
    pooled: float
    graded: Float[Tensor, " k"]
    familiar: float | None
    maps: Mapping[str, Float[np.ndarray, "rows cols"]]
    told: Sequence[int]
    skipped: Sequence[Skipped]

    def samples(self) -> list[Sample]:
        """The most suspicious fields, read once more."""
        with self.whole.slide as slide:
            return [self.whole.mosaic.sample(slide, number) for number in self.told]


@dataclass(frozen=True)
class _Part:
    """What is kept of a few fields: not their tokens."""

    numbers: Sequence[int]
    output: Output
    familiar: Sequence[float | None]
    maps: Sequence[Mapping[str, Float[np.ndarray, "rows cols"]]]


def scan(
    run: Run, known: Confidence | None, whole: WholeSlide, *, finds_lesions: bool, track: Track = silent
) -> Scan:
    """Run every field of a slide through the network; memory does not grow with the slide's pixels.

    Args:
        run: trained on fields of tissue.
        known: of its pathology.
        whole: the slide.
        finds_lesions: the lesion map was trained, and says which fields are suspicious; else their logit.
        track: shows progress.

    Raises:
        ImageReadError: not one field can be read.
    """
    skipped: list[Skipped] = []
    parts: list[_Part] = []
    starts = range(0, len(whole.mosaic), BATCH)
    for start in track(starts, f"fields of {whole.record.path.name}", len(starts)):
        numbers, samples = _read(whole, range(start, min(start + BATCH, len(whole.mosaic))), skipped)
        if numbers:
            seen = glance(run, known, [whole.record] * len(numbers), samples)
            maps = [seen.maps(place, CHEAP) for place in range(len(numbers))]
            parts.append(_Part(numbers, replace(seen.output, tokens=None), seen.familiar, maps))
    if not parts:
        raise ImageReadError(whole.record.path, f"no field can be read ({skipped[0].why})", code="pixels")
    return _joined(run, whole, parts, skipped, finds_lesions=finds_lesions)


def _read(
    whole: WholeSlide, numbers: Iterable[int], skipped: list[Skipped]
) -> tuple[list[int], list[Sample]]:
    """Those of the fields that can be read."""
    good, samples = [], []
    for number in numbers:
        try:
            samples.append(whole.mosaic.sample(whole.slide, number))
            good.append(number)
        except ImageReadError as error:
            x, y = whole.mosaic.corners[number].round().astype(int).tolist()
            skipped.append(Skipped(f"{whole.record.image_id} at {x},{y}", error.code, error.why))
    return good, samples


def _joined(
    run: Run, whole: WholeSlide, parts: Sequence[_Part], skipped: Sequence[Skipped], *, finds_lesions: bool
) -> Scan:
    numbers = [n for part in parts for n in part.numbers]
    own = dict(zip(numbers, (m for part in parts for m in part.maps), strict=True))
    logit, embedding, severity = (
        torch.cat([getattr(part.output, name).float() for part in parts])
        for name in ("logit", "embedding", "severity")
    )
    with torch.no_grad():
        pooled, weight = run.network.of("pathology").heads.patient(embedding, logit)
    share = dict(zip(numbers, weight.tolist(), strict=True))
    peak = {n: float(np.nanmax(m["lesion"])) for n, m in own.items()}
    alarm = peak if finds_lesions else dict(zip(numbers, logit.tolist(), strict=True))
    known = [p for part in parts for p in part.familiar if p is not None]
    return Scan(
        whole=whole,
        logit=logit,
        embedding=embedding,
        pooled=float(pooled),
        graded=weight @ severity,
        familiar=smallest(np.array(known)) if known else None,
        maps={
            "lesion": whole.mosaic.joined({n: m["lesion"] for n, m in own.items()}),
            "attention": whole.mosaic.joined({n: share[n] * m["attention"] for n, m in own.items()}),
        },
        told=sorted(numbers, key=lambda n: -alarm[n])[:TOLD],
        skipped=tuple(skipped),
    )
