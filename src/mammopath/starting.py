"""Where training starts: a malignancy head that is a linear probe of what the untrained network reads."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from mammopath.baselines import Choice, choose, linear_model
from mammopath.features import Bank
from mammopath.model.network import Network
from mammopath.predict import embeddings
from mammopath.types import Record


def start_from_probe(
    network: Network, bank: Bank, records: Sequence[Record], rows: Sequence[int]
) -> dict[str, Choice]:
    """Set the malignancy head of each modality to logistic regression on the embeddings of training rows.

    A head that starts at random pulls what is below it away from what pretraining knew before it has learnt
    anything itself; one that starts at the probe's solution does not (Kumar et al. 2022, LP-FT). The penalty
    is chosen by cross-validation over the patients of the training rows, as for the baseline.

    Args:
        network: changed in place; its other weights stay as they are.
        bank: where the content of rows comes from.
        records: all of them.
        rows: that train, of any modality; those without a label are left out.

    Returns:
        What was chosen, for each modality whose rows hold both classes; the heads of others stay.
    """
    chosen: dict[str, Choice] = {}
    for modality in network.modalities:
        known = [r for r in rows if records[r].modality == modality and records[r].malignant in (0, 1)]
        labels = np.array([int(records[r].malignant) for r in known])
        if len(set(labels)) < 2:
            continue
        features = embeddings(network, bank, records, known)
        chosen[modality] = choose(features[:, None], labels, [records[r].patient for r in known])
        weight, bias = probe(features, labels, c=chosen[modality].c)
        head = network.of(modality).heads.malignancy
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weight)[None])
            head.bias.fill_(bias)
    return chosen


def probe(
    features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], *, c: float
) -> tuple[Float[np.ndarray, " d"], float]:
    """Weights and bias, for features as they are, of logistic regression on standardised ones."""
    scaler, fitted = (part for _, part in linear_model(c).fit(features, labels).steps)
    weight = fitted.coef_[0] / scaler.scale_
    return weight.astype(np.float32), float(fitted.intercept_[0] - weight @ scaler.mean_)
