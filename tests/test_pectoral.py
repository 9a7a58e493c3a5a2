"""The pectoral muscle: a line near the true one, nothing where there is none, and out of the quantiles."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammopath.prepare.breast import coarse_copy, find_breast, wall_on_left
from mammopath.prepare.mammogram import prepare_mammogram
from mammopath.prepare.pectoral import find_pectoral
from mammopath.settings import MammogramSettings
from mammopath.sources import mias
from mammopath.types import Spacing

ROWS, COLUMNS = 640, 480


def film(*, across=0, down=0, seed=0) -> np.ndarray:
    """A breast at the left edge that reaches the top, and a muscle of that size in its corner."""
    y, x = np.mgrid[:ROWS, :COLUMNS].astype(float)
    depth = np.hypot(x / 300, (y - 240) / 320)
    image = 6 + 110 * np.clip(1 - depth**2, 0, 1) ** 0.3
    if across:
        image[(x / across + y / down < 1) & (depth < 1)] = 205
    return np.clip(image + np.random.default_rng(seed).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def muscle(pixels: np.ndarray) -> np.ndarray:
    found = find_breast(pixels)
    return find_pectoral(coarse_copy(pixels), found, on_left=wall_on_left(found, ""))


@pytest.mark.parametrize(("across", "down"), [(100, 200), (150, 300), (120, 150), (80, 260)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_line_is_near_the_true_one(across: int, down: int, mirrored: bool) -> None:
    pixels = film(across=across, down=down)
    found = muscle(pixels[:, ::-1] if mirrored else pixels)
    found = found[:, ::-1] if mirrored else found
    y, x = np.mgrid[: found.shape[0], : found.shape[1]] * (ROWS / found.shape[0])
    true = (x / across + y / down < 1) & (np.hypot(x / 300, (y - 240) / 320) < 1)
    assert (found & true).sum() / (found | true).sum() > 0.9


def test_no_muscle_is_seen_where_there_is_none() -> None:
    assert not muscle(film()).any()


def prepared(settings: MammogramSettings, view: str = "MLO"):
    pixels = film(across=150, down=300)
    return prepare_mammogram(
        pixels, spacing=Spacing.square(100.0), laterality="L", view=view, settings=settings
    )


def test_the_muscle_is_kept_out_of_the_quantiles_or_made_padding() -> None:
    plain, excluded, removed = (
        prepared(MammogramSettings(pectoral=kind)) for kind in ("keep", "exclude", "remove")
    )
    middle = slice(200, 300), slice(20, 120)
    assert excluded.image[0][middle].mean() > 1.4 * plain.image[0][middle].mean()
    assert (excluded.valid == plain.valid).all()
    assert 0.08 < 1 - removed.valid.sum() / plain.valid.sum() < 0.2
    bright = plain.valid & (plain.image[0] > 0.95)
    assert removed.valid[bright].mean() < 0.06, "a strip along the edge, where the breast is bright too"
    for kind in ("exclude", "remove"):
        assert (prepared(MammogramSettings(pectoral=kind), "CC").image == plain.image).all()


@pytest.mark.data
@pytest.mark.slow
def test_most_films_of_mias_show_a_plausible_muscle(shared_data: Path) -> None:
    """All of them are MLO views; the muscle is a tenth of the breast, brighter, without lesions."""
    shares, brighter, lesions = [], [], []
    for record in mias.index(shared_data / "mias"):
        pixels = np.asarray(Image.open(record.path).convert("L"))
        breast, grey = find_breast(pixels), coarse_copy(pixels)
        found = find_pectoral(grey, breast, on_left=wall_on_left(breast, ""))
        shares.append(found.sum() / breast.mask.sum())
        if found.any():
            brighter.append(np.median(grey[found]) > np.median(grey[breast.mask & ~found]))
        scale = found.shape[0] / pixels.shape[0]
        centres = [(np.array(finding.points[0]) * scale).astype(int) for finding in record.findings]
        lesions += [found[min(y, len(found) - 1), x] for x, y in centres]
    assert np.mean(np.array(shares) > 0) > 0.95
    assert 0.08 < np.median(shares) < 0.14
    assert np.quantile(shares, 0.95) < 0.3
    assert np.mean(brighter) > 0.95
    assert len(lesions) == 119
    assert not any(lesions)
