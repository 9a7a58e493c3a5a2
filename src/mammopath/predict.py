"""Scores of a trained network for any rows, and their table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.loader import Pick
from mammopath.features import Bank
from mammopath.files import writing
from mammopath.model.network import Network, Precision
from mammopath.types import Modality, Record


@dataclass(frozen=True)
class Scores:
    """Malignancy logits of images.

    Attributes:
        rows: of the records, ascending.
        logit: of each image.
        patient_logit: of the patient of each image, from all its images of one modality.
        level: severity category of each image, 0 to 3; None where the method does not learn it.
    """

    rows: Int[np.ndarray, " n"]
    logit: Float[np.ndarray, " n"]
    patient_logit: Float[np.ndarray, " n"]
    level: Float[np.ndarray, " n"] | None = None


def predict(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    *,
    size: int = 64,
    precision: Precision = "fp32",
) -> Scores:
    """Score rows of any modality; the images of a patient always meet in one batch.

    Args:
        network: put into evaluation mode and left in it.
        bank: where the content comes from.
        records: all of them.
        rows: which to score.
        size: images per batch, more where a patient has more.
        precision: of the part above the cut.
    """
    found: list[tuple[int, float, float, float]] = []
    with scoring(network, precision):
        for modality, group in whole_patients(records, rows, size=size):
            batch = bank.batch(modality, [Pick(row, 0) for row in group])
            output = network(batch.to(network.device()))
            place = torch.searchsorted(output.patients, batch.patient.to(output.patients))
            patient = output.patient_logit[place]
            level = corn_level(output.severity).tolist()
            found += zip(group, output.logit.tolist(), patient.tolist(), level, strict=True)
    found.sort()
    columns = list(zip(*found, strict=True)) if found else [(), (), (), ()]
    return Scores(np.array(columns[0], dtype=np.int64), *(np.array(c, dtype=float) for c in columns[1:]))


def embeddings(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    *,
    precision: Precision = "fp32",
) -> Float[np.ndarray, "n e"]:
    """What the heads of a network read of images, in the order of ``rows``, all of one modality.

    The network is put into evaluation mode and left in it.
    """
    found: dict[int, np.ndarray] = {}
    with scoring(network, precision):
        for modality, group in whole_patients(records, rows, size=64):
            batch = bank.batch(modality, [Pick(row, 0) for row in group]).to(network.device())
            found |= dict(zip(group, network(batch).embedding.float().cpu().numpy(), strict=True))
    return np.stack([found[row] for row in rows])


@contextmanager
def scoring(network: Network, precision: Precision) -> Iterator[None]:
    """Inference in evaluation mode, which the network is left in; ``precision`` is of what lies above."""
    network.eval()
    lower_bits = torch.autocast(network.device().type, torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), lower_bits:
        yield


def corn_level(logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Severity category of CORN logits: how many chained probabilities exceed one half (Shi et al. 2023)."""
    return (logits.float().sigmoid().cumprod(dim=1) > 0.5).sum(dim=1).float()


def whole_patients(
    records: Sequence[Record], rows: Sequence[int], *, size: int
) -> Iterator[tuple[Modality, list[int]]]:
    """Groups of about ``size`` rows of one modality that never split a patient."""
    order = sorted(rows, key=lambda r: (records[r].modality, records[r].domain, records[r].patient, r))
    group: list[int] = []
    for row in order:
        new_patient = group and records[row].patient != records[group[-1]].patient
        other = group and records[row].modality != records[group[-1]].modality
        if group and (other or (new_patient and len(group) >= size)):
            yield records[group[0]].modality, group
            group = []
        group.append(row)
    if group:
        yield records[group[0]].modality, group


def prediction_table(
    records: Sequence[Record], scores: Scores, *, part: Mapping[int, str], test_split: set[int]
) -> pl.DataFrame:
    """One row per scored image; ``part`` says whether it validated or tested the run.

    ``severity`` is the true category and ``severity_level`` the predicted one, NaN where not known.
    """
    chosen = [records[row] for row in scores.rows]
    with np.errstate(over="ignore"):
        probability = 1 / (1 + np.exp(-scores.logit))
    return pl.DataFrame(
        {
            "image_id": [r.image_id for r in chosen],
            "patient": [r.patient for r in chosen],
            "site": [r.domain for r in chosen],
            "modality": [r.modality for r in chosen],
            "laterality": [r.laterality for r in chosen],
            "view": [r.view for r in chosen],
            "malignant": [r.malignant for r in chosen],
            "severity": [float(r.severity) for r in chosen],
            "severity_level": np.full(len(chosen), np.nan) if scores.level is None else scores.level,
            "logit": scores.logit,
            "patient_logit": scores.patient_logit,
            "score": probability,
            "part": [part[int(row)] for row in scores.rows],
            "in_test_split": [int(row) in test_split for row in scores.rows],
        }
    )


def write_table(path: Path, table: pl.DataFrame, *, stamp: str = "") -> None:
    """Write a table as Parquet, whole or not at all; the notice and ``stamp`` go into its metadata."""
    told = {"notice": RESEARCH_USE_ONLY} | ({"stamp": stamp} if stamp else {})
    with writing(path) as part:
        table.write_parquet(part, metadata=told)
