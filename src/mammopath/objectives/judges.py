"""Penalties that learn or remember something of a modality's sites: GroupDRO, Fishr, DANN."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mammopath.objectives.invariance import (
    fishr_penalty,
    gradient_reversed,
    gradient_variance,
    group_weights,
    head_gradients,
    site_loss,
)
from mammopath.objectives.sites import Site, risks


class WorstSite(nn.Module):
    """Risk under weights that drift to the worst site, less the mean risk (GroupDRO).

    Added to the mean risk with weight 1 it is GroupDRO; with weight 0, ERM.
    """

    share: Tensor

    def __init__(self, sites: int, *, step_size: float) -> None:
        super().__init__()
        self.step_size = step_size
        self.register_buffer("share", torch.full((sites,), 1 / sites))

    def forward(self, sites: Sequence[Site]) -> Float[Tensor, ""]:
        """Excess of the weighted risk; moves the weights of these sites in training."""
        here = [site.index for site in sites]
        now = risks(sites)
        present = self.share[here].sum()
        moved = group_weights(self.share[here], now, step_size=self.step_size)
        if self.training:
            self.share[here] = moved * present
        return (moved * now).sum() - now.mean()


class GradientSpread(nn.Module):
    """Spread of running variances of the head's gradients (Fishr).

    A running mean is divided by ``1 - decay``, as in the original code, so that the gradient of the
    penalty does not depend on the decay.
    """

    running: Tensor

    def __init__(self, sites: int, *, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("running", torch.zeros(sites, width + 1))

    def forward(self, sites: Sequence[Site]) -> Float[Tensor, ""]:
        """Penalty of these sites; takes their variances into the running ones in training."""
        here = [site.index for site in sites]
        now = torch.stack([gradient_variance(head_gradients(s.features, s.logits, s.labels)) for s in sites])
        running = self.decay * self.running[here] + (1 - self.decay) * now
        if self.training:
            self.running[here] = running.detach()
        return fishr_penalty(running / (1 - self.decay))


class Discriminator(nn.Module):
    """Tells the site from the features, while the features learn to hide it (DANN, CDANN)."""

    def __init__(self, sites: int, *, width: int, hidden: int, conditional: bool) -> None:
        super().__init__()
        self.conditional = conditional
        self.layers = nn.Sequential(
            nn.Linear(width + 2 * conditional, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, sites),
        )

    def forward(self, sites: Sequence[Site]) -> Float[Tensor, ""]:
        """Cross-entropy of the site; given the class, and balanced in it, for CDANN."""
        features = gradient_reversed(torch.cat([site.features for site in sites]), strength=1.0)
        labels = torch.cat([site.labels for site in sites])
        truth = torch.cat([torch.full_like(site.labels, site.index) for site in sites]).long()
        if not self.conditional:
            return site_loss(self.layers(features), truth, torch.ones_like(labels))
        given = torch.cat([features, F.one_hot(labels.long(), 2).to(features)], 1)
        return site_loss(self.layers(given), truth, torch.cat([site.weights for site in sites]))
