"""Causal trimming: remove the directions in which features move when only style changes.

TACT, Liu et al., NeurIPS 2025 (arXiv 2510.11133). A case and its style-only augmentations share
what causes the label; the principal directions of what differs between them are style.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trimmed:
    """Running state of trimming over a stream.

    Attributes:
        rows: mean over cases of the classifier's rows after trimming.
        scatter: sum over cases of the scatter matrix of their views.
        cases: seen so far.
    """

    rows: Float[Tensor, "c d"]
    scatter: Float[Tensor, "d d"]
    cases: int = 0


def style_directions(views: Float[Tensor, "b v d"], count: int) -> Float[Tensor, "b k d"]:
    """Largest principal directions of each case's views around their mean, unit length or zero.

    v views span at most v - 1 directions. Where a case's views span fewer than ``count``, the rest are
    zero, so removing them removes nothing; a decomposition of the d x d covariance, as published, would
    return arbitrary directions there.

    Args:
        views: features of each case: as it is, and under style-only augmentations.
        count: directions wanted.

    Returns:
        k = min(count, v - 1) directions per case, largest first.
    """
    count = min(count, views.shape[1] - 1)
    centred = _centred(views)
    # The v x v Gram matrix has the same non-zero spectrum as the d x d scatter matrix, and v << d.
    values, vectors = torch.linalg.eigh(centred @ centred.mT)
    values, vectors = values.flip(-1)[:, :count], vectors.flip(-1)[:, :, :count]
    real = values > 1e-10 * values[:, :1].clamp(min=1e-30)
    lengths = torch.where(real, values, 1.0).sqrt()
    directions = (vectors.mT @ centred) / lengths[..., None]
    return (directions * real[..., None]).to(views.dtype)


def trim(x: Float[Tensor, "b c d"], directions: Float[Tensor, "b k d"]) -> Float[Tensor, "b c d"]:
    """Remove from each row of x its parts along orthonormal directions (TACT, eq. 4): x - x V^T V."""
    return x - (x @ directions.mT) @ directions


def begin(rows: Float[Tensor, "c d"]) -> Trimmed:
    """Nothing seen, nothing trimmed."""
    return Trimmed(rows, torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.double, device=rows.device))


def extend(
    state: Trimmed,
    views: Float[Tensor, "b v d"],
    rows: Float[Tensor, "c d"],
    directions: Float[Tensor, "b k d"],
) -> Trimmed:
    """Take a batch into the running mean of trimmed rows and into the site's scatter matrix."""
    new = trim(rows.expand(len(views), -1, -1), directions).mean(0)
    cases = state.cases + len(views)
    centred = _centred(views).flatten(0, 1)
    mean = new if state.cases == 0 else state.rows + (new - state.rows) * (len(views) / cases)
    return Trimmed(mean, state.scatter + centred.T @ centred, cases)


def trimmed_logits(
    features: Float[Tensor, "b d"], directions: Float[Tensor, "b k d"], state: Trimmed
) -> Float[Tensor, "b c"]:
    """Trimmed features times running trimmed prototypes, without a bias (TACT, eq. 5)."""
    return trim(features[:, None], directions)[:, 0] @ state.rows.T


def site_directions(state: Trimmed, count: int) -> Float[Tensor, "k d"]:
    """Largest principal directions of the style changes of all cases seen; zeros where there are fewer."""
    values, vectors = torch.linalg.eigh(state.scatter)
    values, vectors = values.flip(-1)[:count], vectors.flip(-1)[:, :count]
    real = values > 1e-10 * values[:1].clamp(min=1e-30)
    return (vectors.T * real[:, None]).to(state.rows.dtype)


def _centred(views: Float[Tensor, "b v d"]) -> Float[Tensor, "b v d"]:
    """Views around their mean in double precision; exactly zero where they differ by rounding alone."""
    exact = views.double()
    centred = exact - exact.mean(1, keepdim=True)
    differs = centred.square().sum((1, 2)) > 1e-10 * exact.square().sum((1, 2))
    return centred * differs[:, None, None]
