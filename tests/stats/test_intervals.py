from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from inferometer.stats import (
    mean_ci,
    needed_n,
    proportion_ci,
    quantile,
    quantile_ci,
    variance_components,
)
from inferometer.stats.intervals import rank_interval

SAMPLES = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60)
modest = settings(deadline=None, max_examples=60)


@modest
@given(SAMPLES, st.floats(0, 1))
def test_quantile_is_numpys(values, q):
    """A quantile of finite values is numpy's linear one."""
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-12, abs=1e-9)


def test_quantile_of_failures_is_infinite_where_it_touches_one():
    """+inf is a value: the median of three finite and two infinite values is finite, p90 is infinite, none is NaN."""
    values = [1.0, 2.0, 3.0, math.inf, math.inf]
    assert quantile(values, 0.5) == 3.0
    assert list(quantile(values, [0.55, 0.9, 1.0])) == [math.inf] * 3


def test_quantile_of_nothing_is_nan_and_of_nan_is_refused():
    """An empty sample has no quantile; an undefined value must be dropped by whoever knows why it is undefined."""
    assert math.isnan(quantile([], 0.5))
    with pytest.raises(ValueError, match="NaN among the values"):
        quantile([1.0, math.nan], 0.5)


@pytest.mark.parametrize(
    ("q", "level", "n"), [(0.5, 0.95, 6), (0.9, 0.9, 29), (0.9, 0.95, 36), (0.99, 0.95, 368)]
)
def test_needed_n_is_where_both_ends_exist(q, level, n):
    """From n on, q^n and (1 - q)^n leave at most half of the error each; the known values of the literature."""
    assert needed_n(q, level) == n
    tail = max(q, 1 - q)
    assert tail**n <= (1 - level) / 2 < tail ** (n - 1)


def test_p99_of_40_is_refused():
    """The interval is NaN below the needed sample and finite from it on."""
    values = np.arange(368.0)
    assert all(math.isnan(end) for end in quantile_ci(values[:40], 0.99))
    assert all(math.isnan(end) for end in quantile_ci(values[:367], 0.99))
    assert np.isfinite(quantile_ci(values, 0.99)).all()


@modest
@given(st.integers(20, 5000), st.sampled_from([0.1, 0.5, 0.9, 0.95]))
def test_rank_interval_leaves_the_same_in_each_tail(n, q):
    """The r-th order statistic of uniforms is Beta(r, n + 1 - r): each end has 2.5 % beyond it, exactly."""
    if n < needed_n(q):
        return
    lo, hi = (u * (n + 1) for u in rank_interval(q, n))
    assert scipy_stats.beta.sf(q, lo, n + 1 - lo) == pytest.approx(0.025, rel=1e-6)
    assert scipy_stats.beta.cdf(q, hi, n + 1 - hi) == pytest.approx(0.025, rel=1e-6)
    assert 1 <= lo < hi <= n


def test_quantile_ci_covers():
    """Over 400 exponential samples of 100, the p90 interval covers about 95 % of the time."""
    rng = np.random.default_rng(1)
    truth = -math.log(0.1)
    hits = [
        ci.lo <= truth <= ci.hi
        for ci in (quantile_ci(rng.exponential(1, 100), 0.9) for _ in range(400))
    ]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_mean_ci_is_students():
    """The t interval of scipy, and nothing from one value."""
    x = [1.0, 2.0, 4.0, 8.0]
    expected = scipy_stats.t.interval(0.9, 3, np.mean(x), scipy_stats.sem(x))
    assert tuple(mean_ci(x, 0.9)) == pytest.approx(expected)
    assert math.isnan(mean_ci([1.0]).lo)


@modest
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_proportion_ci_is_scipys(n, share, level):
    """Wilson and Clopper-Pearson agree with scipy's, ends 0 and 1 included."""
    k = round(share * n)
    exact = scipy_stats.binomtest(k, n)
    for ours, theirs in (("wilson", "wilson"), ("clopper-pearson", "exact")):
        expected = exact.proportion_ci(level, method=theirs)
        assert tuple(proportion_ci(k, n, level, ours)) == pytest.approx(
            (expected.low, expected.high), abs=1e-9
        )


def test_no_trials_say_nothing_and_more_hits_than_trials_are_refused():
    """0 of 0 has no interval; 3 of 2 is a mistake."""
    assert math.isnan(proportion_ci(0, 0).lo)
    with pytest.raises(ValueError, match="not a proportion"):
        proportion_ci(3, 2)


def test_variance_components_of_known_runs():
    """Runs that differ by a normal of variance 4, each with an error of variance 1, are told apart as such."""
    rng = np.random.default_rng(2)
    runs = rng.normal(0, 2, 4000) + rng.normal(0, 1, 4000)
    found = variance_components(runs, np.ones(4000))
    assert found.within == 1
    assert found.between == pytest.approx(4, rel=0.1)
    assert variance_components([5, 5, 5], [1, 1, 1]).between == 0
    assert math.isnan(variance_components([5], [1]).between)
