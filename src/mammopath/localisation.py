"""Where a network's maps point: pointing game and free-response ROC against annotated findings.

Everything is judged on the grid of tokens. A token lies on a lesion if its square touches an annotated
finding, which is to say that the token's centre lies in the finding grown by half a token's side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from mammopath.metrics.froc import Marks, Regions, froc, froc_statistic, mark, pointing_hit
from mammopath.metrics.intervals import Bootstrap, Interval, Statistic, bootstrap
from mammopath.sources.slides import is_slide
from mammopath.tensors import Batch, Output
from mammopath.types import Modality, Record

RATES = (0.5, 1.0, 2.0, 4.0)
"""False positives per image whose sensitivities are averaged."""

PEAKS = 8
"""Strongest peaks of a map that become detections."""

ATTENTION = "attention"
"""The map that every network has."""

ROUND = np.ones((3, 3), dtype=bool)
"""A token's neighbours: tokens that touch in an edge or a corner."""

Heat = Float[np.ndarray, "rows cols"]
"""A value above 0 for each token; NaN on padding."""


@dataclass(frozen=True)
class View:
    """The maps of one completely annotated image, and its lesions.

    Attributes:
        modality, site, patient, malignant: of the record.
        heat: maps by name.
        lesion: tokens that touch a finding.
        lost: it has findings, but the prepared image shows none of them: a lesion missed by every map.
    """

    modality: Modality
    site: str
    patient: str
    malignant: float
    heat: Mapping[str, Heat]
    lesion: Bool[np.ndarray, "rows cols"]
    lost: bool = False

    @property
    def valid(self) -> Bool[np.ndarray, "rows cols"]:
        """Tokens that are image and not padding."""
        return ~np.isnan(next(iter(self.heat.values())))


@dataclass(frozen=True)
class Gain:
    """How much better a map does than something else on the same patients: differences, with limits."""

    pointing: Interval
    froc: Interval


@dataclass(frozen=True)
class Localisation:
    """How one map finds the lesions of a set of images.

    Attributes:
        images: judged, lesion-free ones included; with_lesion: of these; lesions: in all of them.
        pointing: share of images with a lesion on which the map's highest token lies.
        pointing_chance: the same for a token drawn at random.
        froc: mean sensitivity at ``RATES`` false positives per image; froc_chance: of a map of noise.
        froc_at: sensitivity at each of them.
        over_chance: against a random token and a map of noise.
        over_attention: against the attention map of the same network; None for that map itself.
    """

    images: int
    with_lesion: int
    lesions: int
    pointing: Interval
    pointing_chance: float
    froc: Interval
    froc_chance: float
    froc_at: list[float]
    over_chance: Gain
    over_attention: Gain | None


def views(output: Output, batch: Batch, records: Sequence[Record], *, lesion_map: bool) -> list[View]:
    """Maps of the images of a batch; images that are not completely annotated are left out.

    Args:
        output: of the batch.
        batch: with the grids of its tokens.
        records: of its images.
        lesion_map: the lesion map was trained, so that it has something to say beside the attention.
    """
    found = []
    for i, record in enumerate(records):
        valid, lesion = batch.valid[i].cpu(), batch.lesion[i].cpu()
        if batch.grid is None or is_slide(record) or not valid.any() or lesion[valid].isnan().any():
            continue  # patches of a bag lie nowhere
        rows, columns = batch.grid[i].tolist()
        maps = {ATTENTION: output.attention[i].cpu().double() * valid.sum()}
        if lesion_map:
            maps = {"lesion": output.token_logit[i].cpu().double().sigmoid()} | maps
        heat = {k: _on_grid(v.masked_fill(~valid, torch.nan), rows, columns) for k, v in maps.items()}
        touched = _on_grid((lesion > 0) & valid, rows, columns)
        lost = bool(record.findings) and not touched.any()
        whose = (record.modality, record.domain, record.patient, record.malignant)
        found.append(View(*whose, heat, touched, lost))
    return found


def localise(images: Sequence[View], name: str, *, malignant: bool, draws: int = 400) -> Localisation | None:
    """Judge one map; None where there is no lesion to find.

    Args:
        images: their lesion maps speak of malignant lesions.
        name: of the map.
        malignant: look for the lesions of malignant images alone: those of the others are background.
        draws: of the patient bootstrap.
    """
    images = [v if v.malignant == 1 or not malignant else _without_lesion(v) for v in images]
    sought = [v for v in images if v.lesion.any() or v.lost]
    if not sought:
        return None
    marks = {k: [marked(v, v.heat[k]) for v in images] for k in (name, ATTENTION) if k in images[0].heat}
    noise = [marked(v, _noise(v, seed)) for seed, v in enumerate(images)]
    chances = np.array([float(v.lesion[v.valid].mean()) for v in sought])
    hits = {k: [_pointing(v, k, c) for v, c in zip(sought, chances, strict=True)] for k in marks}
    pointing = _over_patients([_mean(np.array(h)) for h in (*hits.values(), chances)], sought, draws)
    found = _over_patients([froc_statistic(m, rates=RATES) for m in (*marks.values(), noise)], images, draws)
    return Localisation(
        images=len(images),
        with_lesion=len(sought),
        lesions=sum(len(m.hits) for m in marks[name]),
        pointing=pointing.interval(),
        pointing_chance=float(chances.mean()),
        froc=found.interval(),
        froc_chance=froc(noise, rates=RATES).score,
        froc_at=[float(value) for value in froc(marks[name], rates=RATES).at],
        over_chance=_gain(pointing, found, -1),
        over_attention=_gain(pointing, found, 1) if len(marks) > 1 else None,
    )


def _gain(pointing: Bootstrap, found: Bootstrap, other: int) -> Gain:
    """The first statistic of both minus another one, under the same draws of patients."""
    return Gain(*(_difference(drawn, other) for drawn in (pointing, found)))


def _difference(drawn: Bootstrap, other: int) -> Interval:
    gap = drawn.difference(0, other)
    return Interval(gap.value, gap.low, gap.high, drawn.interval().method)


def peaks(heat: Heat) -> Float[np.ndarray, "n 3"]:
    """Local maxima of a map, the ``PEAKS`` highest: rows of value, x, y in tokens; one for each plateau."""
    filled = np.nan_to_num(heat, nan=-np.inf)
    highest = ndimage.maximum_filter(filled, footprint=ROUND, mode="constant", cval=-np.inf)
    plateaus, _ = ndimage.label((filled == highest) & ~np.isnan(heat), ROUND)
    numbers, first = np.unique(plateaus, return_index=True)
    places = first[numbers > 0]
    places = places[np.argsort(-filled.flat[places], kind="stable")][:PEAKS]
    rows, columns = np.unravel_index(places, heat.shape)
    return np.stack([filled.flat[places], columns + 0.5, rows + 0.5], axis=1)


def marked(view: View, heat: Heat) -> Marks:
    """Peaks of a map against the lesions of its image; findings that touch on the grid are one lesion."""
    label, count = ndimage.label(view.lesion, ROUND)
    if count:
        return mark(peaks(heat), Regions(label.astype(int), np.zeros(count, dtype=bool)))
    return Marks(peaks(heat)[:, 0], np.zeros(int(view.lost)))


def _without_lesion(view: View) -> View:
    return replace(view, lesion=np.zeros_like(view.lesion), lost=False)


def _pointing(view: View, name: str, chance: float) -> float:
    """A map that is the same everywhere points anywhere; a lesion that is not shown is never hit."""
    hit = pointing_hit(view.heat[name], view.lesion)
    return chance if np.isnan(hit) else hit


def _over_patients(statistics: Sequence[Statistic], images: Sequence[View], draws: int) -> Bootstrap:
    return bootstrap(statistics, np.array([v.patient for v in images]), draws=draws)


def _mean(values: Float[np.ndarray, " n"]) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _noise(view: View, seed: int) -> Heat:
    random = np.random.default_rng(seed).random(view.lesion.shape)
    return np.where(view.valid, random, np.nan)


def _on_grid(values: Tensor, rows: int, columns: int) -> np.ndarray:
    return values[: rows * columns].reshape(rows, columns).numpy()
