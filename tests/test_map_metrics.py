"""Figures of maps by hand-made cases: what is broken must be caught, what is right must pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mammopath.metrics.maps import (
    alike,
    area,
    edge_map,
    expected_hits,
    iou,
    is_constant,
    on_grid_of,
    order,
    rank_correlation,
    sanity,
    steps,
)


def noise(count: int, *, seed: int = 0, shape: tuple[int, int] = (6, 5)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    maps = [rng.random(shape) for _ in range(count)]
    for heat in maps:
        heat[0, :2] = np.nan
    return maps


def test_a_map_that_follows_image_and_weights_passes() -> None:
    assert sanity(noise(9), noise(9, seed=1)).verdict == "passed"


@pytest.mark.parametrize(
    ("maps", "blind", "why"),
    [
        ([np.full((6, 5), 0.2)] * 5, noise(5), "constant in 100 %"),
        ([np.full((6, 5), 1 / 3) + 1e-12 * n for n in noise(5)], noise(5, seed=2), "constant"),
        ([noise(1)[0] + 1e-3 * n for n in noise(5, seed=3)], noise(5), "same for every image"),
        (noise(5), [m + 0.01 for m in noise(5)], "same for shuffled weights"),
        (noise(5), [1 - m for m in noise(5)], "same for shuffled weights"),
    ],
)
def test_broken_maps_are_caught(maps: list[np.ndarray], blind: list[np.ndarray], why: str) -> None:
    found = sanity(maps, blind)
    assert found.verdict.startswith("failed")
    assert why in found.verdict


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20))
def test_rank_correlation_is_spearman(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, dtype=float)[None] for column in zip(*pairs, strict=True))
    found = rank_correlation(a, b)
    if is_constant(a) or is_constant(b):
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a[0], b[0]).statistic, abs=1e-9)


def test_maps_of_different_grids_are_compared_at_the_places_of_the_first() -> None:
    assert np.isnan(alike([np.ones((2, 3)), np.ones((3, 2))])), "constant maps cannot be ranked"
    one = np.arange(12.0).reshape(4, 3)
    assert on_grid_of(one, np.kron(one, np.ones((2, 2)))).tolist() == one.tolist()
    assert alike([one, np.kron(one, np.ones((2, 2)))]) == pytest.approx(1.0)
    same = noise(1)[0]
    assert alike([same, same, same]) == pytest.approx(1.0)


def test_places_go_from_the_most_important_and_padding_never_does() -> None:
    heat = np.array([[0.1, np.nan, 0.9], [0.4, 0.4, 0.0]])
    assert order(heat).tolist() == [2, 3, 4, 0, 5]
    found = [s.tolist() for s in steps(heat, 5)]
    assert found == [[], [2], [2, 3], [2, 3, 4], [2, 3, 4, 0], [2, 3, 4, 0, 5]]


def test_area_is_the_mean_height() -> None:
    assert area(np.array([1.0, 1.0, 1.0])) == pytest.approx(1.0)
    assert area(np.linspace(0, 1, 11)) == pytest.approx(0.5)
    assert area(np.array([0.0, 1.0, 0.0])) == pytest.approx(0.5)


def test_edges_lie_on_edges() -> None:
    image = np.zeros((40, 30), np.float32)
    image[:, 15:] = 1
    heat = edge_map(image, 10)
    assert heat.shape == (4, 3)
    assert (heat.argmax(axis=1) == 1).all()
    assert (heat[:, 0] == 0).all()


def test_overlap_and_hits_count() -> None:
    heat = np.array([[0.9, 0.8], [0.1, np.nan]])
    lesion = np.array([[True, False], [True, False]])
    assert iou(heat, lesion) == pytest.approx(1 / 3)
    assert np.isnan(iou(heat, np.zeros((2, 2), dtype=bool)))


def test_equal_weights_share_their_places_and_no_weight_points_nowhere() -> None:
    right = np.array([True, True, False, False, False, False])
    assert expected_hits(np.array([0.1, 0.6, 0.5, 0.4, 0.3, 0.2]), right, top=5) == pytest.approx(0.2)
    assert expected_hits(np.ones(6), right, top=5) == pytest.approx(right.mean()), "ties are not hits"
    assert expected_hits(np.zeros(6), right, top=5) == pytest.approx(right.mean())
    assert expected_hits(np.array([0.0, 0.7, 0.2, 0.0, 0.0, 0.0]), right, top=5) == pytest.approx(0.5)
    assert expected_hits(np.array([0.5, 0.9, 0.5, 0.5, 0.0, 0.0]), right, top=2) == pytest.approx(
        (1 + 1 / 3) / 2
    )
    assert np.isnan(expected_hits(np.zeros(0), np.zeros(0, dtype=bool)))


@pytest.mark.parametrize(
    ("maps", "blind"),
    [
        ([], []),
        (noise(1), noise(1, seed=1)),
        (noise(3), noise(3, seed=1)),
        (noise(4), [np.zeros((6, 5))] * 4),
        (noise(6), [*noise(3, seed=1), *[np.zeros((6, 5))] * 3]),
    ],
)
def test_without_evidence_a_method_is_not_tested(maps: list[np.ndarray], blind: list[np.ndarray]) -> None:
    assert sanity(maps, blind).verdict.startswith("not tested")


def test_a_map_of_the_place_alone_is_caught_whatever_the_sizes_of_images() -> None:
    maps = [np.add.outer(np.linspace(0, 1, 6 + i), np.linspace(0, 0.1, 9 - i)) for i in range(6)]
    rng = np.random.default_rng(0)
    found = sanity(maps, [rng.random(m.shape) for m in maps])
    assert "same for every image" in found.verdict
