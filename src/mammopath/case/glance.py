"""One pass of images of one modality through a run's network: what it says, and what its maps show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.utils.rnn import pad_sequence

from mammopath.cohort.loader import collate, label_table
from mammopath.confidence import Confidence
from mammopath.maps.methods import METHODS
from mammopath.maps.scene import Said, Scene, one_of
from mammopath.model.packing import grid_of
from mammopath.runs import Run
from mammopath.tensors import Batch, Output, Sample
from mammopath.types import Record


@dataclass(frozen=True)
class Glance:
    """Images of one modality after one pass.

    Attributes:
        run: whose network it was.
        batch: tokens at the cut. output: what the network says of them.
        familiar: p-value of each image's being like the training sites; None where not known.
    """

    run: Run
    batch: Batch
    output: Output
    familiar: Sequence[float | None]

    def maps(self, place: int, methods: Iterable[str]) -> dict[str, Float[np.ndarray, "rows cols"]]:
        """Values of map methods over one image; the cheap ones only say again what the pass brought."""
        one = one_of(self.batch, place)
        count = one.valid.shape[1]
        said = Said(
            self.output.token_logit[place, :count].float(), self.output.attention[place, :count].float()
        )
        scene = Scene(self.run.network, one, said)
        return {name: METHODS[name].make(scene) for name in methods}


def glance(
    run: Run, known: Confidence | None, records: Sequence[Record], samples: Sequence[Sample]
) -> Glance:
    """Run prepared images of one modality through the network.

    Args:
        run: trained.
        known: of the modality; tells the familiar from the strange.
        records: of the images.
        samples: of the same, in the same order.
    """
    network, modality = run.network, records[0].modality
    plain = collate(label_table(records, {}), range(len(records)), samples, cell=network.cell(modality))
    bf16 = run.settings.train.precision == "bf16"
    with torch.no_grad(), torch.autocast(network.device().type, torch.bfloat16, enabled=bf16):
        batch, features = _through_trunk(run, known, plain.to(network.device()), samples)
        output = network.upper(batch)
    return Glance(run, batch, output, _familiar(known, output, features))


def _through_trunk(
    run: Run, known: Confidence | None, batch: Batch, samples: Sequence[Sample]
) -> tuple[Batch, Float[np.ndarray, "b f"] | None]:
    """Tokens at the cut, and in the same pass what a frozen trunk knows the familiar by."""
    network, precision = run.network, run.settings.train.trunk_precision
    if known is None or known.reference is None or known.reference.features != "trunk":
        return network.with_tokens(batch, precision=precision), None
    told = network.describe(samples, batch.modality, precision=precision)
    block = network.of(batch.modality).top - 1
    grids = [grid_of(s, network.cell(batch.modality)) for s in samples]
    filled = batch.with_tokens(pad_sequence([d.tokens for d in told], batch_first=True))
    filled = replace(filled, prefix=network.shape.prefix, grid=torch.tensor(grids, device=batch.valid.device))
    return filled, np.stack([d.statistics[block].half().float().cpu().numpy() for d in told])


def _familiar(
    known: Confidence | None, output: Output, features: Float[np.ndarray, "b f"] | None
) -> list[float | None]:
    if known is None or known.reference is None:
        return [None] * len(output.logit)
    told = output.embedding.float().cpu().numpy() if features is None else features
    return [float(p) for p in known.reference.p(told.astype(float))]
