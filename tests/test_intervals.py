"""The patient bootstrap against a plain loop, scipy's BCa and known coverage."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mammopath.errors import DataError
from mammopath.metrics.intervals import bootstrap, holm
from mammopath.metrics.operating import balanced_accuracy_statistic
from mammopath.metrics.ranking import auc, auc_statistic


def _clustered(seed, patients=80, each=3, effect=1.0):
    """Images of one patient share a label and most of their score."""
    rng = np.random.default_rng(seed)
    label = (np.arange(patients) % 3 == 0).astype(float)
    shared = rng.normal(size=patients)
    scores = (shared + effect * label)[:, None] + 0.5 * rng.normal(size=(patients, each))
    return np.repeat(label, each), scores.ravel(), np.repeat(np.arange(patients), each)


def test_draws_equal_aucs_of_literally_resampled_patients():
    labels, scores, patients = _clustered(0, patients=30)
    found = bootstrap([auc_statistic(labels, scores)], patients, draws=50, seed=3)
    counts = []
    bootstrap([lambda w: (counts.append(w), w[:, 0])[1]], patients, draws=50, seed=3)
    weights = np.concatenate([c for c in counts if len(c) > 1]).astype(int)
    assert weights.shape == (50, 90)
    for draw, weight in zip(found.draws[0], weights, strict=True):
        assert all(len(set(weight[patients == p])) == 1 for p in np.unique(patients))
        again = roc_auc_score(np.repeat(labels, weight), np.repeat(scores, weight))
        assert draw == pytest.approx(again, abs=1e-12)
    assert found.values[0] == pytest.approx(auc(labels, scores))


def test_patients_are_drawn_uniformly_with_replacement():
    total = np.zeros(50)

    def remember(weights):
        total[:] += weights.sum(axis=0)
        assert (weights.sum(axis=1) == 50).all()
        return weights[:, 0]

    bootstrap([remember], np.arange(50), draws=4000)
    assert stats.chisquare(total - 1).pvalue > 1e-4  # the sample itself counts once


def test_strata_keep_their_number_of_patients():
    patients = np.repeat(np.arange(20), 2)
    strata = np.where(patients < 5, "a", "b")
    sums = bootstrap([lambda w: w[:, :10:2].sum(axis=1)], patients, draws=200, strata=strata)
    assert set(sums.draws[0]) == {5.0}


def test_bca_and_percentile_limits_equal_scipy():
    labels, scores, patients = _clustered(1, patients=60, effect=1.6)
    members = [np.flatnonzero(patients == p) for p in np.unique(patients)]

    def of_patients(chosen):
        rows = np.concatenate([members[int(p)] for p in chosen])
        return roc_auc_score(labels[rows], scores[rows])

    ours = bootstrap([auc_statistic(labels, scores)], patients, draws=5000, jackknife=True)
    sample = (np.arange(60),)
    drawn = stats.bootstrap(sample, of_patients, n_resamples=20, vectorized=False, rng=0)
    for kind in ("percentile", "bca"):
        # the same draws on both sides, so that only the formulas are compared
        drawn.bootstrap_distribution = ours.draws[0]
        options = {"vectorized": False, "method": kind, "bootstrap_result": drawn}
        theirs = stats.bootstrap(sample, of_patients, n_resamples=0, **options).confidence_interval
        mine = ours.interval(kind=kind)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert "BCa" in ours.interval(kind="bca").method


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_coverage_is_near_nominal(kind):
    truth = stats.norm.cdf(1.0 / np.sqrt(2 * 1.25))  # of two single images: sd sqrt(1 + 0.5^2)
    covered = 0
    for seed in range(120):
        labels, scores, patients = _clustered(seed, patients=90, each=2)
        drawn = bootstrap([auc_statistic(labels, scores)], patients, draws=300, seed=seed, jackknife=True)
        interval = drawn.interval(kind=kind)
        covered += interval.low <= truth <= interval.high
    assert 0.89 <= covered / 120 <= 0.99  # over 2,000 samples: 0.942 percentile, 0.958 BCa


def test_differences_are_paired():
    labels, scores, patients = _clustered(2, effect=2.5)
    noisy = scores + 2 * np.random.default_rng(0).normal(size=len(scores))
    drawn = bootstrap([auc_statistic(labels, s) for s in (scores, noisy, scores + 1)], patients, draws=500)
    better, same = drawn.difference(0, 1), drawn.difference(0, 2)
    assert better.low > 0
    assert better.p < 0.01
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert better.value == pytest.approx(auc(labels, scores) - auc(labels, noisy))


def test_no_false_winner_beyond_the_nominal_rate_after_holm():
    wins = 0
    for seed in range(60):
        labels, scores, patients = _clustered(seed, patients=60, each=2, effect=0.8)
        rng = np.random.default_rng(1000 + seed)
        arms = [scores + rng.normal(size=len(scores)) for _ in range(4)]
        drawn = bootstrap([auc_statistic(labels, s) for s in arms], patients, draws=300, seed=seed)
        wins += bool((holm(np.array([drawn.difference(k, 0).p for k in (1, 2, 3)])) < 0.05).any())
    assert wins <= 8  # nominal 3 of 60; the 99th percentile of the binomial is 8


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.5]))
    np.testing.assert_allclose(adjusted, [0.04, 0.09, np.nan, 0.09, 0.5])
    assert holm(np.array([0.9, 0.8])).max() == 1.0


def test_same_seed_same_draws_and_undefined_stays_nan():
    labels, scores, patients = _clustered(3, patients=12)
    one, two = (bootstrap([auc_statistic(labels, scores)], patients, draws=100, seed=s).draws for s in (5, 5))
    assert np.array_equal(one, two, equal_nan=True)
    nothing = bootstrap([auc_statistic(np.ones(36), scores)], patients, draws=100, jackknife=True)
    for interval in (nothing.interval(), nothing.interval(kind="bca"), nothing.difference(0, 0)):
        assert np.isnan([interval.value, interval.low, interval.high]).all()
    with pytest.raises(DataError, match="jackknife"):
        bootstrap([auc_statistic(labels, scores)], patients, draws=100).interval(kind="bca")
    with pytest.raises(DataError, match="needs cases"):
        bootstrap([], np.array([]))


def test_other_statistics_take_the_same_draws():
    labels, scores, patients = _clustered(4)
    drawn = bootstrap([balanced_accuracy_statistic(labels, scores, 0.5)], patients, draws=300)
    interval = drawn.interval()
    assert 0.4 < interval.low < interval.value < interval.high < 1
