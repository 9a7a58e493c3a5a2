"""Conformal coverage and risk-coverage against simulation and brute force."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from mammopath.metrics.abstention import (
    conformal_sets,
    coverage_per_class,
    fit_conformal,
    risk_coverage,
)


def _cases(seed, n):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(float)
    return labels, expit(rng.normal(size=n) + 2 * labels - 1)


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_each_class_is_covered_at_its_nominal_rate(error):
    realised = []
    for seed in range(100):
        labels, probabilities = _cases(seed, 400)
        new_labels, new_probabilities = _cases(1000 + seed, 400)
        sets = conformal_sets(fit_conformal(labels, probabilities, error=error), new_probabilities)
        realised.append(coverage_per_class(sets, new_labels))
    np.testing.assert_allclose(np.mean(realised, axis=0), 1 - error, atol=0.015)


def test_the_cut_is_the_conformal_rank_by_hand():
    labels = np.zeros(9)
    probabilities = np.arange(1, 10) / 10
    cut = fit_conformal(labels, probabilities, error=0.2)
    assert cut.negative == pytest.approx(0.8)  # the 8th of 9: ceil(10 * 0.8)
    assert cut.positive == np.inf  # no positives: never left out
    sets = conformal_sets(cut, np.array([0.1, 0.95]))
    np.testing.assert_array_equal(sets, [[True, True], [False, True]])
    assert np.isnan(coverage_per_class(sets[:1], np.zeros(1))[1])


def test_risk_coverage_equals_a_loop():
    labels, probabilities = _cases(5, 60)
    found = risk_coverage(labels, probabilities, threshold=0.4)
    wrong = (probabilities >= 0.4) != labels
    confidence = np.where(probabilities >= 0.4, (probabilities - 0.4) / 0.6, (0.4 - probabilities) / 0.4)
    order = np.argsort(-confidence)
    expected = [wrong[order[: k + 1]].mean() for k in range(60)]
    np.testing.assert_allclose(found.risk, expected)
    assert found.area == pytest.approx(np.mean(expected))
    assert found.coverage[-1] == 1.0
    assert found.risk[-1] == pytest.approx(wrong.mean())


def test_equally_confident_cases_share_their_risk_and_no_cases_are_nan():
    labels = np.array([0.0, 1.0, 1.0, np.nan])
    found = risk_coverage(labels, np.full(4, 0.9))
    np.testing.assert_allclose(found.risk, 1 / 3)
    assert np.isnan(risk_coverage(np.full(2, np.nan), np.zeros(2)).area)


class _Told(ClassifierMixin, BaseEstimator):
    """A classifier whose probability of malignancy is its only feature."""

    classes_ = np.array([0, 1])

    def fit(self, features, labels):
        return self

    def predict_proba(self, features):
        return np.column_stack([1 - features[:, 0], features[:, 0]])

    def predict(self, features):
        return (features[:, 0] > 0.5).astype(int)

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels")
def test_sets_of_each_class_are_those_of_mapie_calibrated_on_that_class(error):
    mapie = pytest.importorskip("mapie.classification", reason="needs mapie (second implementation)")
    labels, probabilities = _cases(3, 300)
    _, new = _cases(4, 500)
    ours = conformal_sets(fit_conformal(labels, probabilities, error=error), new)
    for label in (0, 1):
        mine = labels == label
        theirs = mapie.SplitConformalClassifier(
            _Told(), confidence_level=1 - error, conformity_score="lac", prefit=True
        ).conformalize(probabilities[mine][:, None], labels[mine].astype(int))
        assert (theirs.predict_set(new[:, None])[1][:, label, 0] == ours[:, label]).all()
