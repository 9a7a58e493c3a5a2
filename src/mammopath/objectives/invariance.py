"""Penalties that ask the same of every training site. Pure; each names its paper.

Cases of a site come shuffled within their class. ``weights`` balance the classes of a site, because a
site with another prevalence has another risk without being any different.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

MIN_CASES = 4
"""Two for each of the two halves of a site's cases."""


def weighted_mean(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the values; the weights need not sum to 1."""
    return (values * weights).sum() / weights.sum()


def multiplier_gradient(
    logits: Float[Tensor, "n *classes"], labels: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Derivative of each case's cross-entropy with respect to a factor on its logits, at 1.

    Binary for one logit a case, softmax for several. Written out, since it costs a second backward pass
    if autograd does it.
    """
    if logits.ndim == 1:
        return (logits.sigmoid() - labels) * logits
    wrong = logits.softmax(1) - F.one_hot(labels.long(), logits.shape[1])
    return (wrong * logits).sum(1)


def irm_penalty(
    logits: Float[Tensor, "n *classes"],
    labels: Shaped[Tensor, " n"],
    *,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Invariance penalty of one site (IRMv1, Arjovsky et al. 2019, section 3.1 and appendix D).

    The product of the gradients of two halves (even and odd cases): the square of one minibatch gradient
    would over-estimate the squared gradient of the risk. It can be negative.

    Raises:
        ValueError: fewer than 2 cases in a half; with 1 case a half the formula says nothing of a site,
            with 0 it is silently 0.
    """
    if len(logits) < MIN_CASES:
        raise ValueError(f"IRM needs at least {MIN_CASES} cases of a site, 2 in each half; got {len(logits)}")
    gradient = multiplier_gradient(logits, labels)
    weights = torch.ones_like(gradient) if weights is None else weights
    even, odd = slice(0, None, 2), slice(1, None, 2)
    return weighted_mean(gradient[even], weights[even]) * weighted_mean(gradient[odd], weights[odd])


def irm_penalty_full_batch(
    logits: Float[Tensor, "n *classes"], labels: Shaped[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Squared gradient of all cases of a site: the form of the original code, for large batches."""
    return multiplier_gradient(logits, labels).mean().square()


def vrex_penalty(risks: Float[Tensor, " e"]) -> Float[Tensor, ""]:
    """Population variance of the sites' mean risks (V-REx, Krueger et al. 2021).

    Raises:
        ValueError: fewer than 2 sites.
    """
    _need_two(len(risks), "V-REx")
    return risks.var(unbiased=False)


def group_weights(
    weights: Float[Tensor, " e"], risks: Float[Tensor, " e"], *, step_size: float
) -> Float[Tensor, " e"]:
    """Site weights after an exponentiated step towards the worst site (GroupDRO, Sagawa et al. 2020)."""
    raised = weights * (step_size * risks.detach()).exp()
    return raised / raised.sum()


def coral_penalty(features: Sequence[Float[Tensor, "_ d"]]) -> Float[Tensor, ""]:
    """Squared distance of feature means and covariances, averaged over pairs of sites.

    CORAL (Sun and Saenko 2016) in the form of DomainBed, which adds the means.

    Raises:
        ValueError: fewer than 2 sites, or a site with fewer than 2 cases.
    """
    _need_two(len(features), "CORAL")
    return torch.stack([_moment_distance(a, b) for a, b in combinations(features, 2)]).mean()


def _moment_distance(a: Float[Tensor, "na d"], b: Float[Tensor, "nb d"]) -> Float[Tensor, ""]:
    if min(len(a), len(b)) < 2:
        raise ValueError("CORAL needs at least 2 cases of a site")
    mean_distance = (a.mean(0) - b.mean(0)).square().mean()
    return mean_distance + (_covariance(a) - _covariance(b)).square().mean()


def _covariance(features: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def gradient_reversed(features: Float[Tensor, "n d"], *, strength: float) -> Float[Tensor, "n d"]:
    """The same values with their gradient times ``-strength`` (DANN, Ganin et al. 2016)."""
    fixed = features.detach()
    return fixed - strength * (features - fixed)


def site_loss(
    site_logits: Float[Tensor, "n e"], site: Int[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the site discriminator (DANN); CDANN weighs cases by their class (Li et al. 2018)."""
    return weighted_mean(F.cross_entropy(site_logits, site.long(), reduction="none"), weights)


def head_gradients(
    features: Float[Tensor, "n d"], logits: Float[Tensor, " n"], labels: Float[Tensor, " n"]
) -> Float[Tensor, "n e"]:
    """Gradient of each case's binary cross-entropy with respect to weight and bias of a linear head."""
    return (logits.sigmoid() - labels)[:, None] * F.pad(features, (0, 1), value=1.0)


def gradient_variance(gradients: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Population variance of the gradients of one site's cases, by coordinate."""
    return gradients.var(0, unbiased=False)


def fishr_penalty(variances: Float[Tensor, "e d"]) -> Float[Tensor, ""]:
    """Spread of the sites' gradient variances about their mean (Fishr, Rame et al. 2022).

    Raises:
        ValueError: fewer than 2 sites.
    """
    _need_two(len(variances), "Fishr")
    return (variances - variances.mean(0)).square().mean()


def bottleneck_penalty(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean variance of a site's features (IB-IRM, Ahuja et al. 2021).

    Raises:
        ValueError: fewer than 2 cases.
    """
    if len(features) < 2:
        raise ValueError("a variance needs at least 2 cases of a site")
    return features.var(0).mean()


def _need_two(sites: int, name: str) -> None:
    if sites < 2:
        raise ValueError(f"{name} compares sites: it needs at least 2, got {sites}")
