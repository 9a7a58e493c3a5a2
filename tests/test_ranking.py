"""Ranking measures, DeLong and thresholds against scikit-learn and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sk

from mammopath.metrics.auc import auc_interval
from mammopath.metrics.delong import delong_covariance, delong_interval, delong_test
from mammopath.metrics.operating import operating_point, specificity_threshold, youden_threshold
from mammopath.metrics.ranking import (
    auc,
    auc_statistic,
    average_precision,
    average_precision_statistic,
    roc_curve,
    sensitivity_at,
)

CASES = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=40)


def _cases(seed=0, n=200, ties=False):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(float)
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores) if ties else scores


def _both_classes(labels):
    return 0 < labels.sum() < len(labels)


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_auc_roc_and_average_precision_equal_scikit_learn(cases):
    labels = np.array([c[0] for c in cases], float)
    scores = np.array([c[1] for c in cases], float)
    if not _both_classes(labels):
        assert np.isnan(auc(labels, scores))
        assert not len(roc_curve(labels, scores).threshold)
        return
    assert auc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores))
    ours, theirs = roc_curve(labels, scores), sk.roc_curve(labels, scores, drop_intermediate=False)
    for mine, reference in zip((ours.false_positive, ours.sensitivity, ours.threshold), theirs, strict=True):
        np.testing.assert_allclose(mine, reference)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("statistic", "reference"),
    [(auc_statistic, sk.roc_auc_score), (average_precision_statistic, sk.average_precision_score)],
)
def test_weighted_statistics_equal_repeated_cases(statistic, reference, ties):
    labels, scores = _cases(1, ties=ties)
    weights = np.random.default_rng(2).integers(0, 4, (5, len(labels)))
    ours = statistic(labels, scores)(weights.astype(float))
    theirs = [reference(np.repeat(labels, w), np.repeat(scores, w)) for w in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_unknown_labels_are_left_out_and_missing_scores_are_not_hidden():
    labels, scores = _cases(3)
    unknown = np.append(labels, [np.nan, np.nan])
    assert auc(unknown, np.append(scores, [9.0, np.nan])) == auc(labels, scores)
    assert average_precision(unknown, np.append(scores, [9.0, np.nan])) == average_precision(labels, scores)
    scores[0] = np.nan
    assert np.isnan([auc(labels, scores), average_precision(labels, scores)]).all()
    assert np.isnan(operating_point(labels, scores, 0.5).balanced_accuracy)
    assert np.isnan(delong_interval(labels, scores).value)


@given(CASES, st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_sensitivity_at_specificity_is_reached_by_its_threshold(cases, specificity):
    labels = np.array([c[0] for c in cases], float)
    scores = np.array([c[1] for c in cases], float)
    value = sensitivity_at(labels, scores, specificity=specificity)
    threshold = specificity_threshold(labels, scores, specificity=specificity)
    if not _both_classes(labels):
        assert np.isnan([value, threshold]).all()
        return
    point = operating_point(labels, scores, threshold)
    assert point.specificity >= specificity - 1e-12
    assert point.sensitivity == pytest.approx(value)


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_youden_threshold_has_the_best_balanced_accuracy_of_all(cases):
    labels = np.array([c[0] for c in cases], float)
    scores = np.array([c[1] for c in cases], float)
    threshold = youden_threshold(labels, scores)
    if not _both_classes(labels):
        assert np.isnan(threshold)
        assert np.isnan(operating_point(labels, scores, threshold).balanced_accuracy)
        return
    found = operating_point(labels, scores, threshold)
    best = max(sk.balanced_accuracy_score(labels, scores >= t) for t in [*scores, np.inf])
    assert found.balanced_accuracy == pytest.approx(best)
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, scores >= threshold))


def _delong_by_pairs(labels, scores):
    """The structural components of DeLong 1988, from all pairs, for k methods."""
    kernel = [
        np.array([[(a > b) + 0.5 * (a == b) for b in s[labels == 0]] for a in s[labels == 1]]) for s in scores
    ]
    by_positive = np.array([k.mean(axis=1) for k in kernel])
    by_negative = np.array([k.mean(axis=0) for k in kernel])
    m, n = by_positive.shape[1], by_negative.shape[1]
    return np.array([k.mean() for k in kernel]), np.cov(by_positive) / m + np.cov(by_negative) / n


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_the_computation_from_all_pairs(ties):
    labels, first = _cases(4, n=60, ties=ties)
    second = np.round(first + np.random.default_rng(5).normal(size=60), 0 if ties else 9)
    areas, covariance = delong_covariance(labels, np.stack([first, second]))
    by_pairs, reference = _delong_by_pairs(labels, [first, second])
    np.testing.assert_allclose(areas, by_pairs, atol=1e-12)
    np.testing.assert_allclose(covariance, reference, atol=1e-12)
    test = delong_test(labels, first, second)
    error = np.sqrt(reference[0, 0] + reference[1, 1] - 2 * reference[0, 1])
    assert test.value == pytest.approx(by_pairs[0] - by_pairs[1])
    assert test.p == pytest.approx(2 * norm.sf(abs(test.value) / error))
    assert test.low < test.value < test.high


def test_delong_interval_stays_inside_and_says_nothing_for_perfect_separation():
    labels = np.array([0.0] * 20 + [1.0] * 20)
    scores = np.arange(40.0)
    assert np.isnan([delong_interval(labels, scores).low, delong_interval(labels, scores).high]).all()
    scores[20] = 5.5
    interval = delong_interval(labels, scores)
    assert 0.7 < interval.low < interval.value < interval.high < 1
    assert delong_test(labels, scores, 2 * scores).p == 1.0
    assert np.isnan(delong_interval(labels[:20], scores[:20]).value)


def test_delong_agrees_with_mlstatkit():
    reference = pytest.importorskip("MLstatkit", reason="needs MLstatkit (optional second implementation)")
    labels, first = _cases(6, n=300)
    second = first + np.random.default_rng(7).normal(size=300)
    z, p = reference.Delong_test(labels, first, second)[:2]
    ours = delong_test(labels, first, second)
    assert ours.p == pytest.approx(p, rel=1e-6)
    assert abs(norm.isf(ours.p / 2)) == pytest.approx(abs(z), rel=1e-6)


def test_independent_cases_get_delong_and_one_class_gets_nan():
    labels, scores = _cases(9)
    assert auc_interval(labels, scores, np.arange(200)).method == "DeLong"
    empty = auc_interval(np.full(3, np.nan), np.zeros(3), np.arange(3))
    alone = auc_interval(np.ones(4), np.full(4, 0.7), np.array(["a", "a", "b", "b"]), draws=100)
    assert np.isnan([empty.value, alone.value, alone.low, alone.high]).all()
    point = operating_point(np.ones(4), np.full(4, 0.7), 0.5)
    assert (point.sensitivity, np.isnan(point.balanced_accuracy)) == (1.0, True)
