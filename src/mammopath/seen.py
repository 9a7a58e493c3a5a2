"""What a trained network says of images that trained nothing, kept for diagnostics."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from mammopath.cohort.loader import Pick
from mammopath.cohort.splits import thin
from mammopath.features import Bank
from mammopath.localisation import View, views
from mammopath.model.network import Network, Precision
from mammopath.objectives.align import Side
from mammopath.predict import scoring, whole_patients
from mammopath.tensors import Batch, Output
from mammopath.types import Modality, Record

MOST = 1000
"""Images per site that are looked at, whole patients."""


@dataclass
class Seen:
    """What a network says of the rows of one part of a fold.

    Attributes:
        rows, embedding: of the images of each modality, a batch each.
        people: of each modality in the alignment space, a batch each.
        views: of the completely annotated images.
    """

    rows: dict[Modality, list[int]] = field(default_factory=dict)
    embedding: dict[Modality, list[Float[np.ndarray, "_ e"]]] = field(default_factory=dict)
    people: dict[Modality, list[Side]] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)


def look(
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    rows: Sequence[int],
    *,
    lesion_map: bool,
    precision: Precision = "fp32",
) -> Seen:
    """Run rows through the network and keep what the diagnostics need.

    Args:
        network: put into evaluation mode and left in it.
        bank: where the content comes from.
        records: all of them.
        rows: which to look at; at most ``MOST`` of each site are, whole patients.
        lesion_map: keep the lesion map too.
        precision: of the part above the cut.
    """
    seen = Seen()
    chosen = [rows[i] for i in thin([records[r] for r in rows], limit=MOST, seed=0)]
    for modality, group in whole_patients(records, chosen, size=64):
        batch = bank.batch(modality, [Pick(row, 0) for row in group]).to(network.device())
        with scoring(network, precision):
            output = network(batch)
        seen.rows.setdefault(modality, []).extend(group)
        seen.embedding.setdefault(modality, []).append(output.embedding.cpu().numpy())
        seen.people.setdefault(modality, []).append(people(output, batch))
        seen.views += views(output, batch, [records[r] for r in group], lesion_map=lesion_map)
    return seen


def people(output: Output, batch: Batch) -> Side:
    """The patients of a batch: malignant if any of their images is, of unknown label if none is known."""
    member = output.patients[:, None] == batch.patient
    worst = torch.where(member, batch.malignant.nan_to_num(nan=-1.0), -1.0).amax(1)
    pair = torch.where(member, batch.pair, -1).amax(1)
    return Side(output.projection.cpu(), worst.masked_fill(worst < 0, torch.nan).cpu(), pair.cpu())
