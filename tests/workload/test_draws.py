"""Laws of the random numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inferometer.workload.draws import Stream, exp, log, normal_quantile

N = 40_000


def test_the_first_numbers_of_a_stream_are_fixed():
    """A stream is part of every fingerprint, so its numbers are written down here, to the last bit."""
    stream = Stream(7, "arrivals")
    expected = ["0x1.84889655a4d9cp-3", "0x1.71bfc2f09f4d7p-1", "0x1.c8cf442cc9401p-1"]
    assert [x.hex() for x in stream.uniform(3).tolist()] == expected
    expected = ["0x1.6301033ad666fp-2", "0x1.909c9bf6a6bcap+0", "0x1.f0a26a9f8a62fp-3"]
    assert [x.hex() for x in Stream(7, "arrivals").gamma(0.4, 3).tolist()] == expected


def test_streams_of_other_purposes_are_independent():
    """Two purposes under one seed share no number and do not correlate."""
    a, b = Stream(1, "a").uniform(N), Stream(1, "b").uniform(N)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert not np.any(a == b)


@settings(deadline=None, max_examples=50)
@given(st.floats(min_value=1e-300, max_value=1e300))
def test_log_is_within_two_units_in_the_last_place(x):
    """Our logarithm agrees with the one of the C library."""
    assert float(log(np.array([x]))[0]) == pytest.approx(float(np.log(x)), rel=5e-16, abs=1e-300)


@settings(deadline=None, max_examples=50)
@given(st.floats(min_value=-700, max_value=700))
def test_exp_is_within_two_units_in_the_last_place(x):
    """Our exponential agrees with the one of the C library."""
    assert float(exp(np.array([x]))[0]) == pytest.approx(float(np.exp(x)), rel=5e-16)


def test_exp_has_the_limits_of_a_double():
    """Far below the range it is 0, far above it is finite and huge."""
    assert exp(np.array([-1e6])).tolist() == [5e-324]
    assert float(exp(np.array([1e6]))[0]) > 8e307


@settings(deadline=None, max_examples=50)
@given(st.floats(min_value=1e-12, max_value=1 - 1e-12))
def test_the_normal_quantile_is_that_of_scipy(p):
    """Wichura's AS 241 agrees with scipy over the whole range that a uniform can reach."""
    expected = float(stats.norm.ppf(p))
    assert float(normal_quantile(np.array([p]))[0]) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("shape", [0.05, 0.3, 1.0, 7.5])
def test_gamma_numbers_follow_the_gamma_law(shape):
    """Marsaglia and Tsang's method, and its extension below shape 1, pass a Kolmogorov-Smirnov test."""
    drawn = Stream(3, "gamma", shape).gamma(shape, N)
    assert stats.kstest(drawn, "gamma", args=(shape,)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.4, 1.0, 3.0])
def test_weibull_numbers_follow_the_weibull_law(shape):
    """The power of an exponential is Weibull."""
    drawn = Stream(3, "weibull", shape).weibull(shape, N)
    assert stats.kstest(drawn, "weibull_min", args=(shape,)).pvalue > 1e-3


def test_normal_numbers_follow_the_normal_law():
    """The quantile of a uniform is normal, tails included."""
    assert stats.kstest(Stream(3, "normal").normal(N), "norm").pvalue > 1e-3


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.integers(0, 99))
def test_pick_never_picks_a_weight_of_zero(weights, seed):
    """What has no weight is not drawn, and everything that is drawn is in range."""
    picked = Stream(seed, "pick").pick(weights, 200)
    assert set(picked.tolist()) <= {index for index, weight in enumerate(weights) if weight}


def test_below_reaches_all_of_its_range_evenly():
    """Integers below a limit are uniform."""
    counts = np.bincount(Stream(5, "below").below(N, 10), minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3
