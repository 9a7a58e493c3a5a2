"""Differences with the noise of retraining: by hand, against scipy, and by simulation."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind

from mammopath.metrics.retraining import Noise, difference_retrained, of_seeds

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from coverage import coverage, false_winners, retrained_winners


def test_without_sampling_error_it_is_welchs_t_test():
    first, second = np.array([0.80, 0.82, 0.85, 0.81]), np.array([0.78, 0.79, 0.80])
    value = float(first.mean() - second.mean())
    found = difference_retrained(value, np.full(50, value), [of_seeds(first), of_seeds(second)])
    theirs = ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    limits = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))


def test_without_noise_of_training_it_is_the_bootstrap():
    draws = np.random.default_rng(0).normal(0.02, 0.01, 20_000)
    found = difference_retrained(0.02, draws, [of_seeds(np.array([0.8, 0.8])), Noise(0.0, 1)])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=3e-4)
    assert found.p == pytest.approx(2 * min((draws <= 0).mean(), (draws >= 0).mean()), abs=0.01)


def test_few_draws_can_win():
    draws = np.random.default_rng(0).normal(0.05, 0.01, 200)
    noise = [of_seeds(np.array([0.8, 0.801, 0.799]))] * 2
    assert difference_retrained(0.05, draws, noise).p * 30 < 0.05, "a count of 200 draws would stop at 0.01"


def test_one_seed_says_nothing_of_training_again():
    found = difference_retrained(0.1, np.random.default_rng(0).normal(size=99), [of_seeds(np.array([0.8]))])
    assert found.value == 0.1
    assert np.isnan([found.low, found.high, found.p]).all()
    equal = difference_retrained(0.0, np.zeros(50), [Noise(0.0, 1)])
    assert (equal.low, equal.high, equal.p) == (0.0, 0.0, 1.0)


@pytest.mark.slow
def test_limits_hold_the_truth_in_93_to_97_of_100_samples():
    found = coverage(1000, 1) | {f"{kind}, two cases": rate for kind, rate in coverage(1000, 2).items()}
    assert all(0.93 <= rate <= 0.97 for rate in found.values()), found


@pytest.mark.slow
def test_no_false_winner_beyond_the_nominal_rate_after_holm():
    found = false_winners(1000)
    assert found.pop("without_holm") > 0.1
    assert all(rate <= 0.065 for rate in found.values()), found


@pytest.mark.slow
def test_seeds_alone_make_no_winner():
    """The whole table, 1,000 samples of each row, is in benchmarks/coverage.py."""
    found = retrained_winners(300, seeds=3, spread=0.2)
    assert found["patients"] > 0.5, "patients alone call luck a winner"
    assert found["retrained"] <= 0.065
