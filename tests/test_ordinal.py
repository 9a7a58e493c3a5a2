"""Ordinal measures against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mammopath.metrics.intervals import bootstrap
from mammopath.metrics.ordinal import (
    confusion,
    mean_absolute_error,
    quadratic_kappa,
    quadratic_kappa_statistic,
    recall_per_category,
    within_one,
)

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_all_measures_equal_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    table = sk.confusion_matrix(truth, predicted, labels=range(4))
    np.testing.assert_array_equal(confusion(truth, predicted), table)
    assert mean_absolute_error(truth, predicted) == pytest.approx(sk.mean_absolute_error(truth, predicted))
    assert within_one(truth, predicted) == pytest.approx(np.mean([abs(a - b) <= 1 for a, b in pairs]))
    recall = recall_per_category(truth, predicted)
    for category in range(4):
        rows = table[category].sum()
        expected = table[category, category] / rows if rows else np.nan
        assert recall[category] == pytest.approx(expected, nan_ok=True)
    if len({*truth, *predicted}) == 1:
        assert np.isnan(quadratic_kappa(truth, predicted))
    else:
        reference = sk.cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(4))
        assert quadratic_kappa(truth, predicted) == pytest.approx(reference)


def test_unknown_truth_is_left_out_and_nothing_is_nan():
    truth = np.array([0.0, 3.0, np.nan, 1.0])
    predicted = np.array([0, 2, 3, 1])
    keep = ~np.isnan(truth)
    assert quadratic_kappa(truth, predicted) == quadratic_kappa(truth[keep], predicted[keep])
    assert within_one(truth, predicted) == 1.0
    assert confusion(truth, predicted).sum() == 3
    nothing = np.full(2, np.nan), np.array([1, 2])
    for measure in (quadratic_kappa, mean_absolute_error, within_one):
        assert np.isnan(measure(*nothing))


def test_kappa_has_a_patient_bootstrap():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200)
    predicted = np.clip(truth + rng.integers(-1, 2, 200), 0, 3)
    drawn = bootstrap([quadratic_kappa_statistic(truth, predicted)], np.repeat(np.arange(100), 2), draws=300)
    interval = drawn.interval()
    assert interval.value == pytest.approx(sk.cohen_kappa_score(truth, predicted, weights="quadratic"))
    assert interval.low < interval.value < interval.high < 1
