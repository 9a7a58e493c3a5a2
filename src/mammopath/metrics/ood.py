"""How unlike the training images an image is: Mahalanobis distance, and distance to its neighbours there.

Features are of a trunk, one row per image. Distances have no unit; they are judged against those of other
images of the training sites (``surprise``), so that they need no scale.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mammopath.errors import DataError

SMALLEST = 1e-6
"""Least spread of a feature or direction: one that is constant in training would weigh infinitely."""

LEAST_REST = 1e-3
"""Least variance beside the directions, as a share of theirs; few images span all that they vary in."""


@dataclass(frozen=True)
class Familiar:
    """What the training images look like: site centres, the directions they vary in, some of the images.

    Attributes:
        mean, scale: of each feature; everything below is of standardised features.
        directions: orthonormal, in which the images of a group vary most; spread: variance along each.
        rest: mean variance in all other directions.
        centres: of the groups (training sites).
        bank: some training images along the directions, in units of their spread.
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "q d"]
    spread: Float[np.ndarray, " q"]
    rest: float
    centres: Float[np.ndarray, "g d"]
    bank: Float[np.ndarray, "m q"]


def fit_familiar(
    features: Float[np.ndarray, "n d"],
    groups: Shaped[np.ndarray, " n"],
    *,
    directions: int = 32,
    bank: int = 512,
    seed: int = 0,
) -> Familiar:
    """Describe training images by one Gaussian per group with a covariance in common (Lee et al. 2018).

    The covariance has full rank but few parameters: ``directions`` variances of their own and one for the
    rest (probabilistic principal components, Tipping and Bishop 1999), because there are fewer images than
    features would need.

    Args:
        features: of training images.
        groups: their sites; the distance is to the nearest group, so that sites need not look alike.
        directions: how many keep a variance of their own; fewer where there are few images.
        bank: how many images are kept for ``neighbour``.
        seed: of their choice.

    Raises:
        DataError: fewer than 8 images, or a feature is not finite.
    """
    if len(features) < 8 or not np.isfinite(features).all():
        raise DataError(
            f"{len(features)} training images cannot say what is familiar; 8 with finite features"
        )
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), SMALLEST)
    standard = ((features - mean) / scale).astype(float)
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)[:, None]
    centres = np.stack([standard[member == g].mean(axis=0) for g in range(len(sizes))])
    within = standard - centres[member]
    freedom = max(1, len(features) - len(centres))
    kept = min(directions, freedom // 4 + 1, features.shape[1])
    values, vectors = np.linalg.eigh(within.T @ within / freedom)  # far cheaper than an SVD of all images
    spread, axes = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
    left = features.shape[1] - kept
    rest = float(spread[kept:].sum() / left) if left else 1.0  # nothing lies beside all directions
    chosen = np.random.default_rng(seed).permutation(len(standard))[:bank]
    spread = np.maximum(spread[:kept], SMALLEST)
    return Familiar(
        mean=mean,
        scale=scale,
        directions=axes[:kept],
        spread=spread,
        rest=max(rest, LEAST_REST * float(spread.mean())),
        centres=centres,
        bank=(standard[chosen] @ axes[:kept].T) / np.sqrt(spread),
    )


def mahalanobis(familiar: Familiar, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Mahalanobis distance to the nearest group, per square root of a feature: about 1 in training."""
    standard = (features - familiar.mean) / familiar.scale
    squares = [_squared(familiar, standard - centre) for centre in familiar.centres]
    return np.sqrt(np.min(squares, axis=0) / features.shape[1])


def neighbour(
    familiar: Familiar, features: Float[np.ndarray, "n d"], *, k: int = 10
) -> Float[np.ndarray, " n"]:
    """Distance to the ``k``-th nearest image of the bank, along the directions (Sun et al. 2022)."""
    standard = (features - familiar.mean) / familiar.scale
    along = (standard @ familiar.directions.T) / np.sqrt(familiar.spread)
    squares = (along**2).sum(axis=1)[:, None] + (familiar.bank**2).sum(axis=1) - 2 * along @ familiar.bank.T
    place = min(k, len(familiar.bank)) - 1
    return np.sqrt(np.maximum(np.partition(squares, place, axis=1)[:, place], 0.0))


def surprise(usual: Float[np.ndarray, " m"], distances: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Conformal p-value of being as familiar as the images behind ``usual`` (Bates et al. 2023).

    ``usual`` are distances of images that did not take part in the fit. For others like them a p-value of at
    most a comes up in at most a share a of cases; NaN where a distance is.
    """
    ordered = np.sort(usual)
    further = len(ordered) - np.searchsorted(ordered, distances, "left")
    return np.where(np.isnan(distances), np.nan, (1 + further) / (1 + len(ordered)))


def smallest(p: Float[np.ndarray, " k"]) -> float:
    """p-value of a unit of several images: the smallest of theirs times their number (Bonferroni), at most 1.

    Without the factor a unit of many images would be called unfamiliar far more often than an image. NaN
    where no image has one; images without one do not count.
    """
    known = p[~np.isnan(p)]
    return float(min(1.0, len(known) * known.min())) if len(known) else float("nan")


def least_usual(error: float = 0.05) -> int:
    """Fewest distances behind ``surprise`` with which twice its p-value can fall to ``error``: 39 at 5 %."""
    return int(np.ceil(2 / error - 1e-9)) - 1


def unfamiliar(p: Float[np.ndarray, " n"], *, error: float = 0.05) -> Bool[np.ndarray, " n"]:
    """Which images are too unlike the training sites to be answered; one without a p-value is not."""
    return np.nan_to_num(p, nan=1.0) <= error


def _squared(familiar: Familiar, away: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    along = away @ familiar.directions.T
    beside = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    return (along**2 / familiar.spread).sum(axis=1) + beside / familiar.rest
