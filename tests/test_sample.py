"""Samples: read by modality, lesions painted where the eye sees them, the way back to level 0 kept."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mammopath.errors import ImageReadError
from mammopath.prepare.sample import load_sample, prepare_fingerprint
from mammopath.settings import MammogramSettings, PathologySettings, PrepareSettings
from mammopath.types import Finding, Modality, Record, Spacing

SETTINGS = PrepareSettings(
    mammogram=MammogramSettings(height=224, width=112, high=1.0),
    pathology=PathologySettings(height=112, width=112),
)


def breast(folder: Path, *, mirrored: bool = False, dtype: type = np.uint8) -> Path:
    """Half an ellipse with a bright square of 30 pixels at columns 100-130, rows 180-210."""
    y, x = np.mgrid[:400, :300].astype(float)
    image = 120 * np.clip(1 - (x / 180) ** 2 - ((y - 200) / 150) ** 2, 0, 1) ** 0.4 + 4
    image[180:210, 100:130] = 250
    image = (image[:, ::-1] if mirrored else image) * (257 if dtype == np.uint16 else 1)
    Image.fromarray(image.astype(dtype)).save(folder / "breast.png")
    return folder / "breast.png"


def field(folder: Path) -> Path:
    rgb = np.random.default_rng(0).integers(100, 200, (168, 224, 3)).astype(np.uint8)
    rgb[40:70, 150:180] = 10
    Image.fromarray(rgb).save(folder / "field.png")
    return folder / "field.png"


def record(path: Path, modality: Modality = "mammogram", **known: object) -> Record:
    plain = Record("x/1", path, patient="p", domain="d", modality=modality)
    return replace(plain, **known)


def square(left: float, top: float) -> Finding:
    return Finding("box", ((left, top), (left + 30.0, top + 30.0)), malignant=1.0)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_finding_lies_on_what_it_names(tmp_path: Path, mirrored: bool, dtype: type) -> None:
    path = breast(tmp_path, mirrored=mirrored, dtype=dtype)
    finding = square(170.0 if mirrored else 100.0, 180.0)
    made = load_sample(
        record(path, findings=(finding,), attributes={"annotated": "yes"}), SETTINGS, multiple=16
    )
    bright = made.sample.image[0] > 0.8
    assert set(made.sample.lesion.unique().tolist()) == {0.0, 1.0}
    assert (bright == (made.sample.lesion > 0)).float().mean() > 0.995
    y, x = (made.sample.lesion > 0).nonzero().float().mean(0).tolist()
    back = made.frame.inverse().point(x + 0.5, y + 0.5)
    assert back == pytest.approx((185 if mirrored else 115, 195), abs=2)


def test_a_finding_in_a_field(tmp_path: Path) -> None:
    tissue = record(
        field(tmp_path), "pathology", findings=(square(150.0, 40.0),), attributes={"annotated": "yes"}
    )
    made = load_sample(tissue, SETTINGS, multiple=14)
    assert made.sample.image.shape == (3, 84, 112)
    assert ((made.sample.image.mean(0) < 0.2) == (made.sample.lesion > 0)).float().mean() > 0.99


@pytest.mark.parametrize(
    ("known", "outside"),
    [
        ({"malignant": 0.0, "severity": 0.0}, 0.0),  # normal: nothing anywhere
        ({"malignant": 1.0}, math.nan),  # malignant, but where?
        ({"malignant": 0.0, "severity": 1.0}, math.nan),
        ({"malignant": 1.0, "attributes": {"annotated": "yes"}}, 0.0),
        ({}, math.nan),
    ],
)
def test_outside_findings_there_is_none_or_nobody_knows(tmp_path: Path, known: dict, outside: float) -> None:
    path = breast(tmp_path)
    empty = load_sample(record(path, **known), SETTINGS, multiple=16).sample.lesion
    np.testing.assert_array_equal(empty, np.full((224, 112), outside))
    some = load_sample(
        record(path, findings=(square(100.0, 180.0),), **known), SETTINGS, multiple=16
    ).sample.lesion
    np.testing.assert_array_equal(some[some != 1], np.full(int((some != 1).sum()), outside))
    assert (some == 1).sum() > 50


def test_promises_of_a_sample(tmp_path: Path) -> None:
    for modality, path, channels in (("mammogram", breast(tmp_path), 1), ("pathology", field(tmp_path), 3)):
        sample = load_sample(record(path, modality), SETTINGS, multiple=28).sample
        assert sample.image.dtype == torch.float32
        assert sample.valid.dtype == torch.bool
        assert sample.image.shape == (channels, *sample.valid.shape)
        assert all(side % 28 == 0 for side in sample.valid.shape)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1


def test_a_grey_mammogram_stored_as_rgb_is_the_same(tmp_path: Path) -> None:
    grey = load_sample(record(breast(tmp_path)), SETTINGS, multiple=16).sample
    Image.open(tmp_path / "breast.png").convert("RGB").save(tmp_path / "rgb.png")
    assert torch.equal(
        load_sample(record(tmp_path / "rgb.png"), SETTINGS, multiple=16).sample.image, grey.image
    )


def test_spacing_of_the_record_is_used(tmp_path: Path) -> None:
    tall = load_sample(record(breast(tmp_path), spacing=Spacing(100.0, 200.0)), SETTINGS, multiple=16)
    assert tall.frame.scale_y == pytest.approx(2 * tall.frame.scale_x, rel=0.02)


def test_what_shows_nothing_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((60, 40), 7, np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(ImageReadError, match="same value") as refused:
        load_sample(record(tmp_path / "flat.png"), SETTINGS, multiple=16)
    assert refused.value.code == "pixels"
    with pytest.raises(ImageReadError, match="needs colour"):
        load_sample(record(breast(tmp_path), "pathology"), SETTINGS, multiple=16)
    with pytest.raises(ImageReadError, match="no such file"):
        load_sample(record(tmp_path / "absent.png"), SETTINGS, multiple=16)


def test_fingerprint_follows_the_settings_of_its_modality() -> None:
    plain = PrepareSettings()
    film = PrepareSettings(mammogram=MammogramSettings(low=0.01))
    tissue = PrepareSettings(pathology=PathologySettings(um=0.5))
    for modality, changed, other in (("mammogram", film, tissue), ("pathology", tissue, film)):
        assert prepare_fingerprint(plain, modality) == prepare_fingerprint(other, modality)
        assert prepare_fingerprint(plain, modality) != prepare_fingerprint(changed, modality)
    assert prepare_fingerprint(plain, "mammogram") != prepare_fingerprint(plain, "pathology")


def test_keys_that_came_later_leave_stored_activations_valid_at_their_defaults() -> None:
    """These are the fingerprints from before the keys ``um`` and ``pectoral`` of mammograms."""
    plain = PrepareSettings()
    assert prepare_fingerprint(plain, "mammogram").startswith("12fc223051ec9cb8")
    assert prepare_fingerprint(plain, "pathology").startswith("f7e8c709e03c2378")
    for changed in (MammogramSettings(um=100.0), MammogramSettings(pectoral="exclude")):
        told = prepare_fingerprint(PrepareSettings(mammogram=changed), "mammogram")
        assert told != prepare_fingerprint(plain, "mammogram")


def test_a_scale_without_spacing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    settings = PrepareSettings(mammogram=MammogramSettings(um=100.0))
    with pytest.raises(ImageReadError, match=r"spacing is not known.*\n.*spacing_um") as told:
        load_sample(record(breast(tmp_path)), settings, multiple=16)
    assert told.value.code == "geometry"


def test_findings_beyond_a_canvas_of_fixed_scale_are_not_painted(tmp_path: Path) -> None:
    """At 20 um, 448 x 224 pixels show 9 x 4.5 mm of the middle of the breast, from its chest wall."""
    settings = PrepareSettings(mammogram=MammogramSettings(um=20.0))
    known = record(breast(tmp_path), spacing=Spacing.square(100.0))
    painted = []
    for left in (5.0, 120.0):
        made = load_sample(replace(known, findings=(square(left, 190.0),)), settings, multiple=16)
        painted.append(bool((made.sample.lesion == 1).any()))
    assert painted == [True, False]


@pytest.mark.data
def test_a_real_full_film_in_dicom(shared_data: Path) -> None:
    path = next((shared_data / "mammogram_dicom" / "cbis_ddsm").rglob("*.dcm"))
    made = load_sample(record(path), PrepareSettings(), multiple=14)
    assert made.sample.image.shape == (1, 448, 224)
    assert 0.2 < made.sample.image[0][made.sample.valid].mean() < 0.7
