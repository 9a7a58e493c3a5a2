"""A network whose weights are shuffled: what it says is noise, so a map that does not change is not of it."""

import copy

import torch

from mammopath.model.network import Network


def shuffled(network: Network, *, seed: int = 0) -> Network:
    """A copy in which the numbers of every parameter are in a random order (after Adebayo et al. 2018).

    Each parameter keeps its own distribution, so that activations keep their size. What is below the cut is
    left alone where tokens at the cut are what is explained.
    """
    made = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            mixed = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[mixed].view_as(parameter))
    return made.eval()
