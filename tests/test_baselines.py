"""The plain baseline: what cross-validation chooses, also where there is next to nothing to choose from."""

import math

import numpy as np
import pytest

from mammopath.baselines import C_DEFAULT, choose


def _features(n, *, useful=1, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, 3, 4))
    features[:, useful] += 3.0 * labels[:, None]
    return features, labels


def test_the_block_that_tells_the_classes_apart_is_chosen():
    features, labels = _features(60)
    found = choose(features, labels, [f"p{i // 2}" for i in range(60)])
    assert found.block == 1
    assert found.auc > 0.95


def test_two_patients_are_cross_validated_in_two_folds():
    features, labels = _features(8)
    found = choose(features, labels, ["a"] * 4 + ["b"] * 4)
    assert found.block == 1
    assert 0.5 < found.auc <= 1


@pytest.mark.parametrize(
    "patients", [["a"] * 6, ["a", "a", "b", "c", "d", "e"]], ids=["one patient", "one patient with both"]
)
def test_where_nothing_can_be_chosen_the_top_block_and_a_strong_penalty_are_taken(patients):
    features, _ = _features(6)
    labels = np.array([1, 1, 0, 0, 0, 0])
    found = choose(features, labels, patients)
    assert (found.block, found.c) == (2, C_DEFAULT)
    assert math.isnan(found.auc)
