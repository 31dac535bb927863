from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from inferometer.stats import moving, mser5, steady_state, trend, warm_up


def test_mser5_minimises_the_standard_error():
    """Equal to trying every cut of batches of five up to half the run, the slow way."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=400) + 8 * np.exp(-np.arange(400) / 30)
    y = x.reshape(-1, 5).mean(axis=1)
    tried = [np.var(y[d:]) / (y.size - d) for d in range(y.size // 2 + 1)]
    assert mser5(x) == 5 * int(np.argmin(tried))
    assert 50 <= mser5(x) <= 150


def test_a_cold_start_is_cut_and_a_busy_start_is_not(mm1):
    """A server that warms up over 5 % of the run loses that part; a stationary queue keeps its first requests."""
    rng = np.random.default_rng(2)
    cold = rng.exponential(size=2000)
    cold[:100] *= np.linspace(10, 1, 100)
    assert 40 <= warm_up(cold) <= 150
    kept = [warm_up(mm1(0.7, 3000, rng)) == 0 for _ in range(40)]
    assert np.mean(kept) >= 0.75


def test_short_and_constant_series_have_no_warm_up():
    """Below ten batches of five nothing is cut, nor where nothing varies."""
    assert mser5([9, 1, 1, 1]) == warm_up([9, 1, 1, 1]) == 0
    assert warm_up(np.ones(500)) == 0


def test_trend_agrees_with_kendall_on_independent_values():
    """The slope is Theil and Sen's, and the p-value scipy's for Kendall's tau, while no autocorrelation is seen."""
    x = np.random.default_rng(3).normal(size=20) + np.arange(20) * 0.1
    found = trend(x)
    assert found.slope == pytest.approx(scipy_stats.theilslopes(x).slope)
    assert found.rise == pytest.approx(20 * found.slope)
    theirs = scipy_stats.kendalltau(np.arange(20), x, method="asymptotic").pvalue
    assert found.p_value == pytest.approx(theirs, abs=0.02)


def test_trend_of_a_line_is_sure_and_of_a_constant_is_none():
    """A line has its own slope, whatever its length; a constant has none; seven values are too few."""
    line = trend(np.arange(1000) * 0.5)
    assert line.slope == pytest.approx(0.5)
    assert line.p_value < 1e-6
    assert trend(np.ones(50)) == (0, 0, 1)
    with pytest.raises(ValueError, match="7 values"):
        trend(np.arange(7))


def test_trend_is_rarely_seen_in_a_stationary_queue(mm1):
    """At load 0.8 the 2 % test errs in at most 6 % of 100 runs."""
    rng = np.random.default_rng(4)
    assert np.mean([trend(mm1(0.8, 2000, rng)).p_value < 0.02 for _ in range(100)]) <= 0.06


def test_past_saturation_there_is_no_steady_state(mm1, overloaded):
    """A queue offered 1.2 times its capacity is told in nearly every run, one at 0.7 is called steady."""
    rng = np.random.default_rng(5)
    over = [steady_state({"in flight": overloaded(1.2, 1000, rng)}).verdict for _ in range(30)]
    under = [steady_state({"in flight": mm1(0.7, 3000, rng)}).verdict for _ in range(30)]
    assert over.count("no steady state") >= 27
    assert under.count("steady") >= 27


def test_the_longest_cut_of_all_series_counts():
    """One series warms up, another drains: the window is what both leave; gaps in a series are held, not zero."""
    rng = np.random.default_rng(6)
    rate, ttft = rng.normal(100, 5, 600), rng.normal(1, 0.1, 600)
    ttft[:60] += 3
    rate[-50:] = 20
    ttft[200:205] = math.nan
    found = steady_state({"token rate": rate, "ttft": ttft})
    assert found.verdict == "steady"
    assert 55 <= found.start <= 80
    assert 530 <= found.stop <= 555


def test_a_run_that_never_settles_is_said_to():
    """A rate that falls through the whole run has no steady state, and the reason names it."""
    x = np.linspace(100, 40, 300) + np.random.default_rng(7).normal(0, 3, 300)
    found = steady_state({"token rate": x})
    assert found.verdict == "no steady state"
    assert "token rate" in found.reason


def test_a_shown_but_small_drift_is_steady():
    """A drift of 5 % of the mean is significant in a long quiet run, and does not matter."""
    x = np.linspace(100, 105, 2000) + np.random.default_rng(8).normal(0, 1, 2000)
    assert trend(x).p_value < 0.001
    assert steady_state({"token rate": x}).verdict == "steady"


def test_too_short_and_malformed_grids():
    """A dozen seconds is too short; series of one grid have one length; a series has at least one value."""
    assert steady_state({"a": np.ones(12)}).verdict == "too short to tell"
    with pytest.raises(ValueError, match="one length"):
        steady_state({"a": np.ones(50), "b": np.ones(51)})
    with pytest.raises(ValueError, match="without a value"):
        steady_state({"a": np.full(50, math.nan)})


def test_a_spike_in_the_first_half_is_no_warm_up():
    """A series that is zero but for a rare wait has no transient at the wait, quiet as its second half may be."""
    x = np.zeros(300)
    x[[20, 21, 95]] = 1.0
    assert warm_up(x) == 0


def test_a_warm_up_is_no_drain_seen_backwards():
    """A cold tenth is cut at the start, and nothing at the end."""
    x = np.random.default_rng(9).gamma(16, 1 / 16, 300)
    x[:30] += 5
    found = steady_state({"ttft": x})
    assert found.verdict == "steady"
    assert 30 <= found.start <= 40
    assert found.stop == 300


def test_a_transient_that_does_not_matter_is_kept():
    """A first tenth that is surely higher, by a part in a hundred, moves the mean by a thousandth."""
    x = np.random.default_rng(10).normal(100, 0.1, 300)
    x[:30] += 1
    assert warm_up(x) == 0


def test_half_a_run_of_transient_is_too_short_to_tell():
    """Where the cut takes half, nobody knows what is left; a trend would have been told."""
    rng = np.random.default_rng(11)
    x = np.r_[rng.normal(11, 0.5, 160), rng.normal(10, 0.5, 140)]
    found = steady_state({"token rate": x})
    assert found.verdict == "too short to tell"
    assert "half of the run" in found.reason


def test_the_first_large_and_shown_movement_is_named():
    """With its direction and its share of the mean; a small one, or noise, is none."""
    rng = np.random.default_rng(12)
    noise, rise = rng.normal(10, 1, 200), np.linspace(5, 15, 200) + rng.normal(0, 1, 200)
    found = moving({"noise": noise, "queue": rise})
    assert found.series == "queue"
    assert found.rise == pytest.approx(1.0, rel=0.2)
    assert str(found).startswith("queue rises by")
    assert str(moving({"queue": rise[::-1]})).startswith("queue falls by")
    assert moving({"noise": noise}) is None
    assert moving({"queue": rise}, large=2.0) is None
