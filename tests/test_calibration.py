"""Calibration measures against scikit-learn, known values and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from mammopath.metrics.calibration import (
    brier,
    calibration_error_statistic,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
    with_temperature,
)


def _cases(seed=0, n=2000, temperature=1.0):
    """Labels that follow ``expit(logit)``, and logits stretched by ``temperature``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=n)
    return (rng.random(n) < expit(logits)).astype(float), logits * temperature


def test_brier_and_log_loss_equal_scikit_learn():
    labels, logits = _cases()
    probabilities = expit(logits)
    assert brier(labels, probabilities) == pytest.approx(sk.brier_score_loss(labels, probabilities))
    assert log_loss(labels, probabilities) == pytest.approx(sk.log_loss(labels, probabilities))
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-12))


def test_reliability_bins_equal_scikit_learn_and_hold_equal_mass():
    labels, logits = _cases(1, n=1500)
    parts = reliability(labels, expit(logits))
    observed, predicted = calibration_curve(labels, expit(logits), n_bins=15, strategy="quantile")
    np.testing.assert_allclose(parts.observed, observed)
    np.testing.assert_allclose(parts.predicted, predicted)
    assert set(parts.cases) == {100.0}
    gaps = np.abs(observed - predicted)
    assert expected_calibration_error(labels, expit(logits)) == pytest.approx(gaps.mean())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=50), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_cases_does_not_matter_with_ties(cases, random):
    shuffled = random.sample(cases, len(cases))
    values = [
        expected_calibration_error(np.array([c[0] for c in x], float), np.array([c[1] / 4 for c in x]))
        for x in (cases, shuffled)
    ]
    assert values[0] == pytest.approx(values[1])
    assert 0 <= values[0] <= 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again_and_calibrates(temperature):
    labels, logits = _cases(2, n=20_000, temperature=temperature)
    found = fit_temperature(labels, logits)
    assert found == pytest.approx(temperature, rel=0.05)
    assert log_loss(labels, with_temperature(logits, found)) <= log_loss(labels, expit(logits))
    assert expected_calibration_error(labels, with_temperature(logits, found)) < 0.03


def test_undefined_is_nan_and_unknown_labels_are_left_out():
    labels, logits = _cases(3, n=50)
    more = np.append(labels, np.nan), np.append(logits, 0.3)
    assert fit_temperature(*more) == fit_temperature(labels, logits)
    assert brier(more[0], expit(more[1])) == brier(labels, expit(logits))
    nothing = np.full(3, np.nan), np.full(3, 0.5)
    for measure in (brier, log_loss, expected_calibration_error, fit_temperature):
        assert np.isnan(measure(*nothing))
    assert np.isnan(fit_temperature(np.ones(5), np.arange(5.0)))


def test_cases_that_are_all_right_say_nothing_of_temperature() -> None:
    labels, logits = np.array([0, 1, 1, 0]), np.array([-0.1, 0.2, 3.0, -2.0])
    assert np.isnan(fit_temperature(labels, logits))
    assert np.isfinite(fit_temperature(labels, logits - 0.3))


def test_calibration_error_under_weights_is_that_of_repeated_cases_in_the_same_bins():
    rng = np.random.default_rng(0)
    probability, labels = rng.random(200), (rng.random(200) < 0.4).astype(float)
    labels[:7] = np.nan
    statistic = calibration_error_statistic(labels, probability)
    assert statistic(np.ones((1, 200)))[0] == pytest.approx(expected_calibration_error(labels, probability))
    weights = rng.integers(0, 4, 200)
    edges = np.quantile(probability[7:], np.linspace(0, 1, 16)[1:-1])
    rows = np.repeat(np.arange(200)[7:], weights[7:])
    bins = np.searchsorted(edges, probability[rows])
    parts = [abs((probability[rows] - labels[rows])[bins == b].sum()) for b in range(15)]
    assert statistic(weights[None].astype(float))[0] == pytest.approx(sum(parts) / len(rows))
    assert np.isnan(calibration_error_statistic(np.full(3, np.nan), np.ones(3))(np.ones((2, 3)))).all()
