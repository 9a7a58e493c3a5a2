"""Ranks over sites against published tables, brute force and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from mammopath.metrics.ranks import critical_difference, detectable, rank_methods, smallest_sign_p


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_those_of_demsars_table(k, q):
    assert critical_difference(k, 30) == pytest.approx(q * math.sqrt(k * (k + 1) / 180), abs=2e-3)


def test_demsars_example():
    # Demsar 2006, table 2 and section 3.2.2: four classifiers on 14 data sets, CD 1.25 at 5 %
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)


def test_ranks_by_hand():
    found = rank_methods(np.array([[0.9, 0.8, 0.7], [0.6, 0.8, 0.8], [0.5, 0.4, 0.3]]))
    np.testing.assert_allclose(found.mean, [(1 + 3 + 1) / 3, (2 + 1.5 + 2) / 3, (3 + 1.5 + 3) / 3])
    assert (found.best.tolist(), found.worst.tolist()) == ([1, 1.5, 1.5], [3, 2, 3])
    assert 0 < found.p <= 1


def test_few_sites_or_equal_methods_have_no_test():
    assert math.isnan(rank_methods(np.array([[0.9, 0.8, 0.7]])).critical)
    assert math.isnan(rank_methods(np.array([[0.9, 0.8], [0.7, 0.6]])).p)
    assert math.isnan(rank_methods(np.full((4, 3), 0.5)).p)


def test_no_pair_is_told_apart_too_often_by_chance():
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(300):
        found = rank_methods(rng.normal(size=(8, 5)))
        wins += bool(np.ptp(found.mean) > found.critical)
    assert wins / 300 <= 0.08


def test_four_sites_cannot_be_significant():
    assert smallest_sign_p(4) == stats.binomtest(4, 4).pvalue == 0.125
    assert smallest_sign_p(6) < 0.05
    found = rank_methods(np.arange(80.0).reshape(4, 20))  # 20 methods in the same order at 4 sites
    assert found.critical > 0.7 * np.ptp(found.mean)


def test_detectable_differences_are_found_as_often_as_promised():
    rng = np.random.default_rng(1)
    for sites in (4, 8):
        difference = detectable(sites, 0.03)
        drawn = rng.normal(difference, 0.03, size=(4000, sites))
        found = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.025)
    assert detectable(4, 0.03) > 2 * detectable(8, 0.03) * 0.8
    assert math.isinf(detectable(1, 0.03))
