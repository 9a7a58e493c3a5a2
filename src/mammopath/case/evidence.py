"""What a run keeps for new cases beside its confidence: fused calibration, map thresholds, references."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.cohort.loader import Pick
from mammopath.confidence import Settled
from mammopath.errors import WeightsError
from mammopath.familiarity import spread_evenly
from mammopath.features import Bank
from mammopath.files import write_text, writing
from mammopath.images.dicom_facts import MODALITY_UNTOLD
from mammopath.localisation import peaks
from mammopath.metrics.abstention import fit_conformal
from mammopath.metrics.calibration import fit_temperature, with_temperature
from mammopath.metrics.operating import youden_threshold
from mammopath.model.network import Network
from mammopath.objectives.recipe import Recipe
from mammopath.predict import whole_patients
from mammopath.tensors import Batch, Output
from mammopath.types import MODALITIES, Modality, Record, Spacing

FILE, ARRAYS = "evidence.json", "evidence.safetensors"

FALSE_ALARMS = 0.5
"""Peaks per validation image without malignancy that the threshold of the lesion map lets through."""

REFERENCES, PLACES = 48, 4
"""Training images of each modality kept as reference, and places in each."""


@dataclass(frozen=True)
class Known:
    """One place in a training image: whose, what it was, which token."""

    image_id: str
    path: str
    patient: str
    site: str
    malignant: float
    row: int
    column: int
    laterality: str = ""
    um: tuple[float, float] | None = None

    def record(self, modality: Modality) -> Record:
        """The image again, to look at the place."""
        spacing = Spacing(*self.um) if self.um else None
        return Record(
            self.image_id,
            Path(self.path),
            self.patient,
            self.site,
            modality,
            laterality=self.laterality,
            spacing=spacing,
            attributes={"flags": MODALITY_UNTOLD},  # it has trained: what it is was settled then
        )


@dataclass(frozen=True)
class Evidence:
    """What a run keeps for new cases; everything may be missing.

    Attributes:
        both: calibration of the fused logit, from validation patients with both modalities.
        both_cases: their labels and fused logits, for intervals.
        thresholds: of the lesion map, by modality.
        known: reference places by modality; tokens: what the network read there, in the same order.
    """

    both: Settled | None = None
    both_cases: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    thresholds: Mapping[Modality, float] = field(default_factory=dict)
    known: Mapping[Modality, tuple[Known, ...]] = field(default_factory=dict)
    tokens: Mapping[Modality, Float[Tensor, "_ d"]] = field(default_factory=dict)


def gather(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    *,
    train: Sequence[int],
    val: Sequence[int],
    recipe: Recipe,
    fused: bool,
) -> Evidence:
    """Look at training and validation images once more, for what new cases will need.

    Args:
        network: trained.
        bank: where the content comes from.
        records: all of them.
        train: rows whose images become reference.
        val: rows that settle calibration and thresholds.
        recipe: what the network was to learn.
        fused: whether it did learn to read both modalities together: a step had a patient with both.
    """
    learns = recipe.tasks.lesion > 0 or recipe.tasks.boxes > 0
    network.eval()
    with torch.no_grad():
        thresholds = {
            m: _threshold(network, bank, records, _negatives(records, val, m))
            for m in recipe.modalities
            if learns
        }
        known = {m: _references(network, bank, records, train, m) for m in recipe.modalities}
        found = Evidence(
            thresholds=thresholds,
            known={m: k for m, (k, _) in known.items()},
            tokens={m: t for m, (_, t) in known.items()},
        )
        if network.fusion is None or not fused:
            return found
        labels, logits = _fused(network, bank, records, val)
    cases = tuple(labels.tolist()), tuple(logits.tolist())
    return replace(found, both=_settled(labels, logits), both_cases=cases)


def write_evidence(folder: Path, found: Evidence) -> None:
    """Write evidence into a run folder."""
    told = {
        "both": _plain(asdict(found.both)) if found.both else None,
        "both_cases": found.both_cases,
        "thresholds": _plain(found.thresholds),
        "known": {m: [_plain(asdict(k)) for k in places] for m, places in found.known.items()},
    }
    write_text(folder / FILE, json.dumps(told, indent=1))
    if found.tokens:
        with writing(folder / ARRAYS) as path:
            halves = {m: t.half().contiguous() for m, t in found.tokens.items()}
            safetensors.torch.save_file(halves, path)


def read_evidence(folder: Path) -> Evidence:
    """Evidence of a run; empty where the run has none.

    Raises:
        WeightsError: a file is damaged.
    """
    if not (folder / FILE).exists():
        return Evidence()
    try:
        told = json.loads((folder / FILE).read_text())
        has = (folder / ARRAYS).exists()
        tokens = safetensors.torch.load_file(folder / ARRAYS) if has else {}
        known = {m: tuple(Known(**_numbers(k)) for k in told["known"][m]) for m in told["known"]}
        return Evidence(
            both=Settled(**_numbers(told["both"])) if told["both"] else None,
            both_cases=_cases(told.get("both_cases", [[], []])),
            thresholds=_numbers(told["thresholds"]),
            known=known,
            tokens={m: tokens[m].float() for m in known},
        )
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{folder}/{FILE} is damaged ({error!r}); train the run again") from None


# ---------------------------------------------------------------- looking


def _negatives(records: Sequence[Record], rows: Sequence[int], modality: Modality) -> list[int]:
    return [r for r in rows if records[r].modality == modality and records[r].malignant == 0]


def _threshold(network: Network, bank: Bank, records: Sequence[Record], rows: Sequence[int]) -> float:
    """Least value that lets at most ``FALSE_ALARMS`` peaks per image pass; NaN without images."""
    heights: list[float] = []
    for modality, group in whole_patients(records, rows, size=32):
        batch = bank.batch(modality, [Pick(r, 0) for r in group]).to(network.device())
        output = network(batch)
        for i in range(len(group)):
            heights += peaks(grid_values(output.token_logit[i].sigmoid(), batch, i))[:, 0].tolist()
    if not rows:
        return math.nan
    allowed = int(FALSE_ALARMS * len(rows))
    heights.sort(reverse=True)
    return heights[allowed] + 1e-6 if allowed < len(heights) else 0.5


def grid_values(values: Float[Tensor, " n"], batch: Batch, place: int) -> Float[np.ndarray, "rows cols"]:
    """Values of the tokens of one image of a batch as rows and columns, NaN on padding."""
    assert batch.grid is not None
    rows, columns = batch.grid[place].tolist()
    masked = values.double().masked_fill(~batch.valid[place], torch.nan)
    return masked[: rows * columns].reshape(rows, columns).cpu().numpy()


def _references(
    network: Network, bank: Bank, records: Sequence[Record], rows: Sequence[int], modality: Modality
) -> tuple[tuple[Known, ...], Float[Tensor, "n d"]]:
    """The places of some training images that the lesion map holds for the most suspicious ones."""
    mine = [r for r in rows if records[r].modality == modality and records[r].malignant in (0, 1)]
    chosen = spread_evenly(mine, REFERENCES)
    known: list[Known] = []
    tokens: list[Tensor] = []
    for row in chosen:
        batch = bank.batch(modality, [Pick(row, 0)]).to(network.device())
        output = network(batch)
        assert output.tokens is not None and batch.grid is not None  # noqa: PT018
        best = output.token_logit[0].masked_fill(~batch.valid[0], -torch.inf).topk(PLACES).indices
        tokens.append(output.tokens[0, best].cpu())
        columns = int(batch.grid[0, 1])
        known += [_known(records[row], int(i) // columns, int(i) % columns) for i in best]
    return tuple(known), torch.cat(tokens) if tokens else torch.zeros(0, network.shape.width)


def _known(record: Record, row: int, column: int) -> Known:
    um = (record.spacing.um_x, record.spacing.um_y) if record.spacing else None
    whose = (record.image_id, str(record.path.absolute()), record.patient, record.domain, record.malignant)
    return Known(*whose, row, column, record.laterality, um)


def _fused(
    network: Network, bank: Bank, records: Sequence[Record], rows: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and fused logits of the patients among rows who have both modalities."""
    people: dict[str, dict[Modality, list[int]]] = {}
    for row in rows:
        if key := records[row].pair_key:
            people.setdefault(key, {}).setdefault(records[row].modality, []).append(row)
    labels, logits = [], []
    for sides in people.values():
        label = [records[r].malignant for group in sides.values() for r in group]
        if len(sides) == len(MODALITIES) and not any(map(math.isnan, label)):
            labels.append(max(label))
            logits.append(_fused_logit(network, bank, sides))
    return np.array(labels), np.array(logits)


def _fused_logit(network: Network, bank: Bank, sides: Mapping[Modality, Sequence[int]]) -> float:
    batches = {m: bank.batch(m, [Pick(r, 0) for r in g]).to(network.device()) for m, g in sides.items()}
    outputs: dict[Modality, Output] = {m: network(b) for m, b in batches.items()}
    return float(network.fuse(outputs, batches).logit[0])


def _settled(labels: np.ndarray, logits: np.ndarray) -> Settled | None:
    if not 0 < labels.sum() < len(labels):
        return None
    temperature = fit_temperature(labels, logits)
    probability = with_temperature(logits, 1.0 if math.isnan(temperature) else temperature)
    cut = fit_conformal(labels, probability, error=0.1)
    threshold = float(youden_threshold(labels, probability))
    return Settled(len(labels), int(labels.sum()), temperature, threshold, cut.negative, cut.positive)


def _plain(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """JSON has neither NaN nor infinity."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _cases(told: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    labels, logits = told
    return tuple(map(float, labels)), tuple(map(float, logits))


def _numbers(values: Mapping[str, Any]) -> dict[Any, Any]:
    numbers = {k: float(v) if v in ("nan", "inf", "-inf") else v for k, v in values.items()}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()}
