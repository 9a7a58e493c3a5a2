"""Augmentation: a draw is replayed exactly, and image, validity and lesion move together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mammopath.prepare.augment import IDENTITY, Augmentation, apply, draw, draw_style, hide_middle
from mammopath.settings import AugmentSettings
from mammopath.tensors import Sample
from mammopath.types import MODALITIES, Modality

SETTINGS = AugmentSettings()

DRAWN_3 = (0.9775474, 0.7360698, 1.0487399, 1.8884242)
"""Gamma, contrast, zoom and angle of the draw of seed 3."""


def sample(modality: Modality, *, height: int = 84, width: int = 56) -> Sample:
    """A dark picture with one bright square, which is the lesion, and padding on the right."""
    channels = 1 if modality == "mammogram" else 3
    image = torch.full((channels, height, width), 0.3)
    lesion = torch.zeros(height, width)
    lesion[20:34, 14:28] = 1
    image[:, 20:34, 14:28] = 0.8
    valid = torch.ones(height, width, dtype=torch.bool)
    valid[:, width - 14 :] = False
    return Sample(image * valid, valid, lesion)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero().float().mean(0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_identity_changes_nothing(modality: Modality) -> None:
    before = sample(modality)
    after = apply(before, IDENTITY)
    for name, value in vars(before).items():
        assert torch.equal(getattr(after, name), value)


@pytest.mark.parametrize("modality", MODALITIES)
@given(seed=st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_a_draw_is_replayed_and_keeps_the_promises(modality: Modality, seed: int) -> None:
    first = draw(SETTINGS, modality, generator=seeded(seed))
    assert first == draw(SETTINGS, modality, generator=seeded(seed))
    before = sample(modality)
    once, twice = apply(before, first), apply(before, first)
    assert torch.equal(once.image, twice.image)
    assert torch.equal(once.lesion, twice.lesion)
    assert once.image.shape == before.image.shape
    assert once.image.min() >= 0
    assert once.image.max() <= 1
    assert once.image[:, ~once.valid].abs().sum() == 0
    assert set(once.lesion.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_lesion_stays_on_the_bright_square(modality: Modality) -> None:
    plain = AugmentSettings(gamma=0, contrast=0, blur=0, noise=0, hed=0, brightness=0)
    for seed in range(30):
        after = apply(sample(modality), draw(plain, modality, generator=seeded(seed)))
        bright = after.image.mean(0) > 0.55
        assert (bright == (after.lesion > 0)).float().mean() > 0.985
        assert torch.dist(centre(bright), centre(after.lesion)) < 0.7


@pytest.mark.parametrize("modality", MODALITIES)
def test_style_leaves_the_shape_alone(modality: Modality) -> None:
    before = sample(modality)
    moved = 0
    for seed in range(10):
        drawn = draw_style(SETTINGS, modality, generator=seeded(seed))
        after = apply(before, drawn)
        assert (drawn.mirror, drawn.quarters, drawn.angle, drawn.zoom) == (False, 0, 0.0, 1.0)
        assert torch.equal(after.valid, before.valid)
        assert torch.equal(after.lesion, before.lesion)
        moved += not torch.allclose(after.image, before.image, atol=0.01)
    assert moved == 10


def test_mammograms_keep_their_chest_wall_and_pathology_turns() -> None:
    mammograms = [draw(SETTINGS, "mammogram", generator=seeded(s)) for s in range(50)]
    fields = [draw(SETTINGS, "pathology", generator=seeded(s)) for s in range(50)]
    assert not any(a.mirror or a.quarters for a in mammograms)
    assert {a.quarters for a in fields} == {0, 1, 2, 3}
    assert {a.mirror for a in fields} == {False, True}
    still = AugmentSettings(flip=False)
    assert not any(draw(still, "pathology", generator=seeded(s)).mirror for s in range(20))


def test_draws_stay_within_the_settings() -> None:
    drawn = [draw(SETTINGS, "mammogram", generator=seeded(s)) for s in range(200)]
    assert max(abs(a.angle) for a in drawn) <= SETTINGS.rotate
    assert max(abs(a.zoom - 1) for a in drawn) <= SETTINGS.zoom
    assert max(a.blur for a in drawn) <= SETTINGS.blur
    assert np.std([a.angle for a in drawn]) == pytest.approx(SETTINGS.rotate / 3**0.5, rel=0.15)


def test_rotation_is_by_that_angle_on_a_tall_image() -> None:
    before = sample("mammogram", height=112, width=56)
    after = apply(before, Augmentation(angle=10.0))
    middle = torch.tensor([55.5, 27.5])
    start, end = centre(before.lesion) - middle, centre(after.lesion) - middle
    turned = torch.atan2(*end) - torch.atan2(*start)
    assert abs(np.degrees(turned.item())) == pytest.approx(10.0, abs=1.0)
    assert end.norm() == pytest.approx(start.norm().item(), rel=0.02)


def test_zoom_scales_areas() -> None:
    before = sample("pathology")
    after = apply(before, Augmentation(zoom=1.2, outside="reflection"))
    assert after.lesion.sum() == pytest.approx(before.lesion.sum().item() * 1.44, rel=0.1)


def test_reflection_leaves_no_padding_and_padding_is_marked() -> None:
    whole = Sample(torch.rand(3, 28, 28), torch.ones(28, 28, dtype=torch.bool), torch.zeros(28, 28))
    assert apply(whole, Augmentation(zoom=0.8, outside="reflection")).valid.all()
    padded = apply(whole, Augmentation(zoom=0.8))
    assert padded.valid.float().mean() == pytest.approx(0.64, abs=0.06)


def test_quarter_turns_keep_the_size_of_a_field_that_is_not_square() -> None:
    before = sample("pathology", height=56, width=84)
    after = apply(before, Augmentation(quarters=1))
    assert torch.equal(after.image, before.image.rot90(2, (1, 2)))
    square = sample("pathology", height=56, width=56)
    assert torch.equal(apply(square, Augmentation(quarters=1)).image, square.image.rot90(1, (1, 2)))


def test_unknown_lesions_stay_unknown() -> None:
    before = sample("mammogram")
    unknown = Sample(before.image, before.valid, torch.full_like(before.lesion, torch.nan))
    assert apply(unknown, Augmentation(angle=7.0, zoom=1.1)).lesion.isnan().all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_middle_is_hidden_and_all_else_stays(modality: Modality) -> None:
    before = sample(modality)
    after = hide_middle(before)
    changed = (after.image != before.image).any(0)
    assert not (changed & ~before.valid).any()
    assert changed.sum().item() == pytest.approx(before.valid.sum().item() / 2, rel=0.1)
    rows = changed.any(1).nonzero()[:, 0]
    assert not changed[: rows[0]].any()
    assert not changed[rows[-1] + 1 :].any()
    assert after.image[:, changed].std(dim=1).max() < 1e-5


def test_only_style_views_change_pixel_size_and_compression() -> None:
    for modality in MODALITIES:
        trained = [draw(SETTINGS, modality, generator=seeded(i)) for i in range(20)]
        assert {(a.coarser, a.jpeg) for a in trained} == {(1.0, 0)}
    breasts = [draw_style(SETTINGS, "mammogram", generator=seeded(i)) for i in range(40)]
    assert all(1 <= a.coarser <= 2 and a.jpeg == 0 for a in breasts)
    assert len({a.coarser for a in breasts}) > 30
    tissue = [draw_style(SETTINGS, "pathology", generator=seeded(i)) for i in range(40)]
    assert all(50 <= a.jpeg <= 95 and a.coarser == 1 for a in tissue)


def test_training_draws_are_as_they_were_before_style_views_had_more() -> None:
    """Views stored for training keep their names, so their content must stay."""
    found = draw(SETTINGS, "mammogram", generator=seeded(3))
    assert (found.gamma, found.contrast, found.zoom, found.angle) == pytest.approx(DRAWN_3, abs=1e-6)


def test_larger_pixels_lose_detail_and_keep_the_mean() -> None:
    board = (torch.arange(56)[:, None] + torch.arange(56)).remainder(2).float()[None]
    whole = Sample(board, torch.ones(56, 56, dtype=torch.bool), torch.zeros(56, 56))
    after = apply(whole, Augmentation(coarser=2.0)).image
    assert after.shape == board.shape
    torch.testing.assert_close(after, torch.full_like(after, 0.5))


def test_compression_costs_more_the_lower_its_quality() -> None:
    image = torch.rand(3, 56, 84, generator=seeded(1))
    whole = Sample(image, torch.ones(56, 84, dtype=torch.bool), torch.zeros(56, 84))
    errors = [(apply(whole, Augmentation(jpeg=q)).image - image).abs().mean() for q in (95, 70, 50)]
    assert 0 < errors[0] < errors[1] < errors[2] < 0.3


def test_blur_is_scipys_gaussian() -> None:
    image = torch.rand(1, 40, 30, generator=seeded(0))
    after = apply(
        Sample(image, torch.ones(40, 30, dtype=torch.bool), torch.zeros(40, 30)), Augmentation(blur=1.3)
    )
    theirs = ndimage.gaussian_filter(image[0].numpy(), 1.3, mode="nearest", radius=4)
    np.testing.assert_allclose(after.image[0].numpy(), theirs, atol=1e-5)


def test_gamma_contrast_and_brightness_by_hand() -> None:
    image = torch.tensor([[[0.25, 0.64]]])
    known = Sample(image, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2))
    after = apply(known, Augmentation(gamma=0.5, contrast=0.5, brightness=0.05))
    # roots 0.5 and 0.8, mean 0.65: 0.65 -+ 0.075, then 0.05 more
    torch.testing.assert_close(after.image, torch.tensor([[[0.625, 0.775]]]))
