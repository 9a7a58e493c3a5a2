"""Stain separation against skimage's written formula; normalisation on mixtures of known stains."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.prepare.stain import (
    HED_VECTORS,
    MACENKO_AMOUNTS,
    MACENKO_VECTORS,
    hed_from_rgb,
    jitter_hed,
    lab_from_rgb,
    macenko,
    optical_density,
    reinhard,
    rgb_from_hed,
    rgb_from_lab,
    stain_vectors,
)

PURPLE, PINK = (0.60, 0.72, 0.35), (0.12, 0.93, 0.35)


def mixture(*, seed: int = 0, strength: float = 1.0, side: int = 48) -> Float[Tensor, "1 3 h w"]:
    """Tissue whose pixels hold random amounts of two known stains, with bare glass on the left."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.4, (2, side, side)) * (rng.random((2, side, side)) > 0.3) * strength
    amounts[:, :, :6] = 0
    vectors = np.array([PURPLE, PINK]) / np.linalg.norm([PURPLE, PINK], axis=1, keepdims=True)
    density = np.einsum("sc,shw->chw", vectors, amounts)
    return torch.tensor(np.exp(-density), dtype=torch.float32)[None]


def test_hed_is_what_skimage_computes() -> None:
    rgb = np.random.default_rng(0).uniform(0.02, 1, (5, 4, 3))
    # skimage.color.rgb2hed: log(rgb)/log(1e-6) @ inv(rgb_from_hed), then negative amounts to 0
    theirs = np.log(np.maximum(rgb, 1e-6)) / np.log(1e-6) @ np.linalg.inv(np.array(HED_VECTORS))
    ours = hed_from_rgb(torch.tensor(rgb).permute(2, 0, 1)) / -np.log(1e-6)
    np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), theirs, rtol=1e-6, atol=1e-9)


def test_hed_of_one_pixel_by_hand() -> None:
    # pure haematoxylin of amount 1 has exactly its own optical density
    rgb = torch.tensor(np.exp(-np.array(HED_VECTORS[0])))[:, None, None]
    torch.testing.assert_close(hed_from_rgb(rgb).flatten(), torch.tensor([1.0, 0.0, 0.0]).double())


def test_there_and_back() -> None:
    rgb = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    torch.testing.assert_close(rgb_from_hed(hed_from_rgb(rgb)), rgb, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rgb_from_lab(lab_from_rgb(rgb)), rgb, atol=1e-4, rtol=1e-3)
    assert optical_density(torch.ones(3, 2, 2)).abs().max() == 0


def test_jitter_changes_the_stain_it_names_and_no_other() -> None:
    rgb = mixture()[0]
    moved = jitter_hed(rgb, torch.tensor([1.2, 1.0, 1.0]), torch.tensor([0.0, 0.03, 0.0]))
    before, after = hed_from_rgb(rgb), hed_from_rgb(moved)
    inside = (moved < 0.999).all(0)  # pixels that the clamp to white left alone
    torch.testing.assert_close(after[0][inside], before[0][inside] * 1.2, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(after[1][inside], before[1][inside] + 0.03, atol=2e-3, rtol=1e-3)
    same = jitter_hed(rgb, torch.ones(3), torch.zeros(3))
    torch.testing.assert_close(same, rgb, atol=1e-5, rtol=1e-4)


def test_jitter_has_gradients() -> None:
    rgb = mixture()[0].requires_grad_()
    jitter_hed(rgb, torch.full((3,), 1.1), torch.zeros(3)).sum().backward()
    assert rgb.grad is not None
    assert rgb.grad.isfinite().all()


def test_macenko_finds_known_stains() -> None:
    found = stain_vectors(torch.cat([mixture(seed=1), mixture(seed=2, strength=0.6)]))
    truth = torch.nn.functional.normalize(torch.tensor([PURPLE, PINK]), dim=1)
    assert ((found * truth).sum(-1) > 0.99).all(), "within 8 degrees of haematoxylin and eosin"
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 2))


def test_macenko_brings_strong_and_weak_staining_together() -> None:
    strong, weak = mixture(strength=1.0), mixture(strength=0.5)
    after = macenko(torch.cat([strong, weak]))
    assert (strong - weak).abs().mean() > 0.1
    assert (after[0] - after[1]).abs().mean() < 0.03
    found = stain_vectors(after)
    assert ((found * torch.tensor(MACENKO_VECTORS)).sum(-1) > 0.98).all()


def test_macenko_reaches_the_reference_amounts() -> None:
    density = optical_density(macenko(mixture(strength=0.4))).flatten(2)[0]
    amounts = torch.linalg.lstsq(torch.tensor(MACENKO_VECTORS).T, density).solution
    most = amounts.quantile(0.99, dim=1)
    torch.testing.assert_close(most, torch.tensor(MACENKO_AMOUNTS), rtol=0.05, atol=0)


@pytest.mark.parametrize("shade", [1.0, 0.97])
def test_blank_glass_stays_as_it_is(shade: float) -> None:
    glass = torch.full((1, 3, 20, 20), shade)
    torch.testing.assert_close(macenko(glass), glass)


def test_reinhard_gives_the_wanted_statistics() -> None:
    target = lab_from_rgb(mixture(seed=3, strength=0.7))
    mean, spread = target.mean((0, 2, 3)), target.std((0, 2, 3))
    moved = lab_from_rgb(reinhard(mixture(seed=4, strength=1.2), mean, spread))
    torch.testing.assert_close(moved.mean((0, 2, 3)), mean, atol=0.02, rtol=0.05)
    own = reinhard(mixture(seed=3, strength=0.7), mean, spread)
    torch.testing.assert_close(own, mixture(seed=3, strength=0.7), atol=1e-3, rtol=1e-2)


def test_lab_of_grey_has_no_colour() -> None:
    # equation 4's rows sum to about 1, so grey gives equal cone responses
    lab = lab_from_rgb(torch.full((3, 1, 1), 0.5))
    assert lab[1:].abs().max() < 0.01
    assert lab[0].item() == pytest.approx(np.sqrt(3) * np.log10(0.5), abs=0.01)
