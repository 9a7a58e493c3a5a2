"""Distances against scipy and scikit-learn, the false alarm rate of p-values, and the rule of answers."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from mammopath.errors import DataError
from mammopath.metrics.abstention import ANSWERS, answers
from mammopath.metrics.ood import (
    fit_familiar,
    least_usual,
    mahalanobis,
    neighbour,
    smallest,
    surprise,
    unfamiliar,
)


def _images(seed, n, d=12):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mixing + 5.0


def test_with_every_direction_it_is_the_plain_mahalanobis_distance():
    train, new = _images(0, 200), _images(1, 30)
    familiar = fit_familiar(train, np.zeros(200), directions=12)
    inverse = np.linalg.inv(np.cov(train.T))
    plain = [scipy_mahalanobis(x, train.mean(axis=0), inverse) for x in new]
    np.testing.assert_allclose(mahalanobis(familiar, new), np.array(plain) / np.sqrt(12), rtol=1e-6)


def test_with_few_directions_it_is_that_of_probabilistic_principal_components():
    train, new = _images(0, 200), _images(1, 30)
    familiar = fit_familiar(train, np.zeros(200), directions=4)
    standard = (train - train.mean(axis=0)) / train.std(axis=0)
    precision = PCA(4).fit(standard).get_precision()
    z = (new - train.mean(axis=0)) / train.std(axis=0)
    theirs = np.sqrt(np.einsum("nd,de,ne->n", z, precision, z) / 12)
    # scikit-learn adds the noise variance to none of the kept directions either
    np.testing.assert_allclose(mahalanobis(familiar, new), theirs, rtol=1e-6)


def test_the_distance_is_to_the_nearest_site():
    train = np.concatenate([_images(0, 100), _images(1, 100) + 200.0])
    site = np.repeat(["a", "b"], 100)
    one, two = fit_familiar(train, np.zeros(200)), fit_familiar(train, site)
    between = _images(2, 20) + 100.0
    assert mahalanobis(two, between).min() > 3 * mahalanobis(one, between).max()
    assert mahalanobis(two, _images(3, 50) + 200.0).max() < 2.5


def test_neighbours_are_those_of_scikit_learn():
    train, new = _images(0, 120), _images(1, 25)
    familiar = fit_familiar(train, np.zeros(120), directions=6, bank=80)
    standard = (new - familiar.mean) / familiar.scale
    along = (standard @ familiar.directions.T) / np.sqrt(familiar.spread)
    found, _ = NearestNeighbors(n_neighbors=7).fit(familiar.bank).kneighbors(along)
    np.testing.assert_allclose(neighbour(familiar, new, k=7), found[:, -1], rtol=1e-6)
    np.testing.assert_allclose(neighbour(familiar, new, k=500), cdist(along, familiar.bank).max(axis=1))


def test_familiar_images_are_refused_at_the_nominal_rate_and_others_always():
    refused = []
    for seed in range(20):
        familiar = fit_familiar(_images(seed, 300), np.zeros(300), directions=5)
        usual = mahalanobis(familiar, _images(1000 + seed, 200))
        p = surprise(usual, mahalanobis(familiar, _images(2000 + seed, 500)))
        refused.append(unfamiliar(p, error=0.1).mean())
        far = surprise(usual, mahalanobis(familiar, _images(seed, 20) + 50.0))
        assert unfamiliar(far, error=0.1).all()
    assert np.mean(refused) == pytest.approx(0.1, abs=0.02)


def test_p_values_by_hand_and_without_a_distance():
    p = surprise(np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 9.0, np.nan]))
    np.testing.assert_allclose(p, [1.0, 0.75, 0.25, np.nan])
    assert unfamiliar(p, error=0.25).tolist() == [False, False, True, False]


def test_a_unit_of_many_images_is_refused_no_oftener_than_an_image():
    rng = np.random.default_rng(0)
    p = np.array([smallest(rng.random(8)) for _ in range(4000)])
    assert unfamiliar(p).mean() == pytest.approx(0.05, abs=0.012)
    assert smallest(np.array([0.01, 0.4, np.nan])) == pytest.approx(0.02)
    assert smallest(np.array([0.9, 0.8])) == 1.0
    assert np.isnan(smallest(np.array([np.nan])))


def test_so_few_distances_that_nothing_can_be_unfamiliar_are_told_apart_from_enough():
    assert least_usual() == 39
    for count, refused in ((38, False), (39, True)):
        assert unfamiliar(2 * surprise(np.arange(float(count)), np.array([1e9]))).tolist() == [refused]


def test_constant_features_and_few_images():
    train = _images(0, 40)
    train[:, 3] = 7.0
    assert np.isfinite(mahalanobis(fit_familiar(train, np.zeros(40)), train)).all()
    with pytest.raises(DataError, match="8 with finite"):
        fit_familiar(train[:7], np.zeros(7))
    train[0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        fit_familiar(train, np.zeros(40))


def test_more_features_than_images():
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(60, 300)), rng.normal(size=(200, 300))
    familiar = fit_familiar(train, np.zeros(60))
    usual, other = mahalanobis(familiar, new[:100]), mahalanobis(familiar, new[100:] + 0.8)
    assert (other[:, None] > usual).mean() > 0.95


def test_answers_hold_back_what_is_undecided_or_unfamiliar():
    sets = np.array([[True, False], [False, True], [True, True], [False, False], [False, True]])
    said, why = answers(sets, np.array([False, False, False, False, True]))
    assert said.tolist() == [ANSWERS[0], ANSWERS[1], *["insufficient"] * 3]
    assert why.tolist() == [
        "",
        "",
        "both answers are possible",
        "unlike either class",
        "unlike the training sites",
    ]
