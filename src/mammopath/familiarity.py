"""What is familiar to a run: features of its training images, and how far other images are from them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float

from mammopath.cohort.splits import Fold
from mammopath.confidence import Confidence, Reference, settle, write_confidence
from mammopath.features import Bank, TokenBank
from mammopath.metrics.ood import fit_familiar, least_usual, mahalanobis, neighbour
from mammopath.model.network import Network, Precision
from mammopath.predict import embeddings, write_table
from mammopath.types import Modality, Record

FILE = "familiarity.parquet"

LEAST_TRAIN = 8
"""Training images without which nothing is said of what is familiar."""

MOST = 2000
"""Training images that the description of what is familiar rests on, spread evenly over the rows."""


def write_trust(
    folder: Path,
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    table: pl.DataFrame,
    *,
    part: Fold,
    precision: Precision = "fp32",
) -> None:
    """Write into a run folder what the run may be trusted with, and how familiar each test image is.

    Args:
        folder: of the run, under construction.
        network: trained.
        bank: where the content comes from.
        records: all of them.
        table: predictions of the validation and test rows.
        part: who trained, who selected, who is judged.
        precision: of the part above the cut.
    """
    known: dict[Modality, Confidence] = settle(table)
    rows: list[pl.DataFrame] = []
    for modality, one in known.items():
        mine, held, judged = (
            [r for r in own if records[r].modality == modality] for own in (part.train, part.val, part.test)
        )
        found = reference(network, bank, records, train=mine, val=held, precision=precision)
        known[modality] = replace(one, reference=found)
        if found and judged:
            p = found.p(row_features(network, bank, records, judged, precision=precision))
            names = [records[r].image_id for r in judged]
            rows.append(pl.DataFrame({"image_id": names, "modality": modality, "familiar_p": p}))
    write_confidence(folder, known)
    if rows:
        write_table(folder / FILE, pl.concat(rows))


def reference(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    *,
    train: Sequence[int],
    val: Sequence[int],
    precision: Precision = "fp32",
) -> Reference | None:
    """What is familiar to a network, of the rows of one modality; None where too few images say it.

    With fewer than 39 validation images no p-value could reach 5 %, so that nothing would ever be unfamiliar:
    not known is the truer answer.
    """
    fitted, held = spread_evenly(train, MOST), spread_evenly(val, MOST)
    if len(fitted) < LEAST_TRAIN or len(held) < least_usual():
        return None
    kind = "trunk" if isinstance(bank, TokenBank) else "embedding"
    ours, theirs = (
        row_features(network, bank, records, rows, precision=precision) for rows in (fitted, held)
    )
    familiar = fit_familiar(ours, np.array([records[r].domain for r in fitted]))
    return Reference(kind, familiar, mahalanobis(familiar, theirs), neighbour(familiar, theirs))


def row_features(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    *,
    precision: Precision = "fp32",
) -> Float[np.ndarray, "n d"]:
    """Features of rows of one modality in their order, as ``Reference.features`` says."""
    if isinstance(bank, TokenBank):
        block = network.of(records[rows[0]].modality).top - 1
        return np.stack([bank.statistics(row)[block].numpy() for row in rows])
    return embeddings(network, bank, records, rows, precision=precision)


def spread_evenly(rows: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the rows, evenly over all of them."""
    return [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else list(rows)
