"""How far a run may be trusted on a case: temperature, threshold, conformal cuts, what is familiar.

All of it comes from the validation patients of the training sites and stands in the run folder, so that a
new case meets it unchanged: ``confidence.json``, and ``familiar.safetensors`` for the trunk's features.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
from jaxtyping import Bool, Float, Shaped

from mammopath.errors import DataError
from mammopath.evaluate import SINGLE, Unit, Units, by_unit
from mammopath.files import write_text, writing
from mammopath.metrics.abstention import ConformalCut, answers, conformal_sets, fit_conformal
from mammopath.metrics.calibration import fit_temperature, with_temperature
from mammopath.metrics.ood import Familiar, least_usual, mahalanobis, neighbour, surprise, unfamiliar
from mammopath.metrics.operating import youden_threshold
from mammopath.types import MODALITIES, Modality

FILE, ARRAYS = "confidence.json", "familiar.safetensors"

UNITS: tuple[Unit, ...] = ("image", "breast", "patient")
"""Units that are settled; a slide is one image."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What source validation settled for one unit of one modality; NaN where it could not.

    Attributes:
        cases, positives: that it rests on.
        temperature: divides the logit (Guo et al. 2017).
        threshold: on the calibrated probability, of the best Youden index.
        negative, positive: conformal cuts on the calibrated probability (``ConformalCut``).
    """

    cases: int
    positives: int
    temperature: float
    threshold: float
    negative: float
    positive: float

    def probability(self, logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Calibrated probabilities; as they are where no temperature could be fitted."""
        return with_temperature(logits, 1.0 if math.isnan(self.temperature) else self.temperature)


@dataclass(frozen=True)
class Reference:
    """What is familiar, and how far validation images of the same sites are from it.

    Attributes:
        features: which they are: ``trunk`` (class token, mean and spread of the tokens of the block that
            is read) or ``embedding`` (what the heads read, where the trunk itself was trained).
        distance: Mahalanobis distances of validation images; neighbour: to the bank, likewise.
    """

    features: str
    familiar: Familiar
    distance: Float[np.ndarray, " v"]
    neighbour: Float[np.ndarray, " v"]

    def p(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """p-value of being like the training sites, from both distances (twice the smaller, at most 1).

        NaN where so few images are behind it that it could never call anything unfamiliar.
        """
        if len(self.distance) < least_usual():
            return np.full(len(features), np.nan)
        first = surprise(self.distance, mahalanobis(self.familiar, features))
        second = surprise(self.neighbour, neighbour(self.familiar, features))
        return np.minimum(1.0, 2 * np.minimum(first, second))


@dataclass(frozen=True)
class Confidence:
    """Of one modality of a run; a unit without validation cases is absent."""

    settled: Mapping[Unit, Settled]
    reference: Reference | None = None

    def of(self, unit: Unit) -> Settled | None:
        """What was settled for a unit; for one that is a single record, what was for images."""
        return self.settled.get("image" if unit in SINGLE else unit)


@dataclass(frozen=True)
class Judgement:
    """What is said of cases.

    Attributes:
        probability: calibrated.
        called: at least the threshold; what would be said if nothing were held back.
        answer: one of ``abstention.ANSWERS``; why: the reason where it is ``insufficient``.
        familiar_p: p-value of being like the training sites; NaN where not known.
    """

    probability: Float[np.ndarray, " n"]
    called: Bool[np.ndarray, " n"]
    answer: Shaped[np.ndarray, " n"]
    why: Shaped[np.ndarray, " n"]
    familiar_p: Float[np.ndarray, " n"]


def judge(
    settled: Settled,
    logits: Float[np.ndarray, " n"],
    familiar_p: Float[np.ndarray, " n"] | None = None,
    *,
    error: float = 0.05,
) -> Judgement:
    """Answer cases, or say that what is known is insufficient.

    Args:
        settled: of the cases' modality and unit.
        logits: of the cases.
        familiar_p: of the same; of a unit of several images, ``ood.smallest`` of theirs. None: not known.
        error: share of familiar cases that may be refused as unfamiliar.
    """
    p = np.full(len(logits), np.nan) if familiar_p is None else familiar_p
    probability = settled.probability(logits)
    sets = conformal_sets(ConformalCut(settled.negative, settled.positive), probability)
    said, why = answers(sets, unfamiliar(p, error=error))
    return Judgement(probability, probability >= settled.threshold, said, why, p)


def settle(table: pl.DataFrame, *, error: float = 0.1) -> dict[Modality, Confidence]:
    """Fit everything that logits alone can tell, from the ``val`` rows of a prediction table."""
    found: dict[Modality, Confidence] = {}
    for modality in MODALITIES:
        val = table.filter(pl.col("part") == "val", pl.col("modality") == modality)
        units = {u: _settled(rows, error) for u in UNITS if (rows := by_unit(val, Units(u))).height}
        if units:
            found[modality] = Confidence(units)
    return found


def write_confidence(folder: Path, found: Mapping[Modality, Confidence]) -> None:
    """Write ``confidence.json`` and, where something is known to be familiar, its arrays."""
    told: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for modality, one in found.items():
        units = {unit: {k: _plain(v) for k, v in asdict(s).items()} for unit, s in one.settled.items()}
        told[modality] = {"units": units, "features": one.reference.features if one.reference else None}
        if one.reference:
            parts = vars(one.reference.familiar) | {
                "distance": one.reference.distance,
                "neighbour": one.reference.neighbour,
            }
            arrays |= {f"{modality}.{k}": np.array(v, dtype=np.float32, order="C") for k, v in parts.items()}
    write_text(folder / FILE, json.dumps(told, indent=2))
    if arrays:
        with writing(folder / ARRAYS) as path:
            safetensors.numpy.save_file(arrays, path)


def read_confidence(folder: Path) -> dict[Modality, Confidence]:
    """What ``write_confidence`` wrote.

    Raises:
        DataError: the run has none, or a file is damaged.
    """
    try:
        told = json.loads((folder / FILE).read_text())
        names = (folder / ARRAYS).exists()
        arrays = safetensors.numpy.load_file(folder / ARRAYS) if names else {}
        return {m: _read(m, told[m], arrays) for m in MODALITIES if m in told}
    except FileNotFoundError:
        raise DataError(f"{folder}: has no {FILE}; train the run again with this version") from None
    except (json.JSONDecodeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DataError(f"{folder}: {FILE} or {ARRAYS} is damaged ({error}); train the run again") from None


def _settled(val: pl.DataFrame, error: float) -> Settled:
    labels, logits = val["malignant"].to_numpy().astype(np.int64), val["logit"].to_numpy().astype(float)
    temperature = fit_temperature(labels, logits)
    probability = with_temperature(logits, 1.0 if math.isnan(temperature) else temperature)
    cut = fit_conformal(labels, probability, error=error)
    threshold = float(youden_threshold(labels, probability))
    return Settled(len(labels), int(labels.sum()), temperature, threshold, cut.negative, cut.positive)


def _read(modality: Modality, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Confidence:
    given = {u: told["units"][u] for u in UNITS if u in told["units"]}
    units = {u: Settled(**{k: _number(k, v) for k, v in values.items()}) for u, values in given.items()}
    if not told["features"]:
        return Confidence(units)
    own = {k: arrays[f"{modality}.{k}"].astype(float) for k in ("distance", "neighbour")}
    if len(own["distance"]) < least_usual():  # of a run of an earlier version
        return Confidence(units)
    parts = {f.name: arrays[f"{modality}.{f.name}"].astype(float) for f in fields(Familiar)}
    rest = float(parts.pop("rest"))
    familiar = Familiar(**parts, rest=rest)
    return Confidence(units, Reference(told["features"], familiar, own["distance"], own["neighbour"]))


def _plain(value: float | int) -> float | int | str | None:
    """JSON has neither NaN nor infinity."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "infinite"


def _number(name: str, value: Any) -> Any:
    if name in ("cases", "positives"):
        return int(value)
    return math.nan if value is None else math.inf if value == "infinite" else float(value)
