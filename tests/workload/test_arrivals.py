"""Laws of the arrival processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.timeline import ABSENT
from inferometer.workload.arrivals import (
    Closed,
    Constant,
    Gamma,
    Poisson,
    Weibull,
    arrivals,
)
from inferometer.workload.draws import Stream
from inferometer.workload.intensity import weibull_shape

RENEWAL = st.one_of(
    st.builds(Poisson, rate=st.floats(0.5, 200)),
    st.builds(Gamma, rate=st.floats(0.5, 200), cv=st.floats(0.2, 6)),
    st.builds(Weibull, rate=st.floats(0.5, 200), cv=st.floats(0.2, 6)),
)
PROCESSES = st.one_of(RENEWAL, st.builds(Constant, rate=st.floats(0.5, 200)))


@settings(deadline=None, max_examples=40)
@given(PROCESSES, st.integers(0, 9), st.integers(1, 500), st.floats(0.5, 20))
def test_limits_hold_and_times_never_fall(process, seed, requests, seconds):
    """Times are sorted int64 in [0, horizon), and both limits give the shorter of either."""
    horizon = round(seconds * SECOND)
    by_count = process.draw(Stream(seed, "a"), requests)
    by_time = process.draw(Stream(seed, "a"), None, horizon)
    by_both = process.draw(Stream(seed, "a"), requests, horizon)
    assert len(by_count) == requests
    assert len(by_both) <= min(
        requests, len(by_time) if isinstance(process, Constant) else requests
    )
    for times in (by_count, by_time, by_both):
        assert times.dtype == np.int64
        assert not np.any(np.diff(times) < 0)
        assert not len(times) or times[0] >= 0
    assert not len(by_time) or by_time[-1] < horizon


@settings(deadline=None, max_examples=20)
@given(PROCESSES, st.integers(0, 9))
def test_the_same_seed_gives_the_same_times(process, seed):
    """A draw is a function of the seed, and of nothing else."""
    first, second = (process.draw(Stream(seed, "a"), 50) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_poisson_counts_have_a_variance_equal_to_their_mean():
    """Over a duration the number of requests is Poisson: neither truncated nor made to fit."""
    counts = [len(Poisson(rate=20).draw(Stream(s, "a"), None, 5 * SECOND)) for s in range(800)]
    assert np.mean(counts) == pytest.approx(100, rel=0.015)
    assert np.var(counts) == pytest.approx(100, rel=0.15)


def test_poisson_gaps_are_exponential_with_their_whole_tail():
    """Gaps pass a KS test against the exponential law, and the longest of 50,000 is past 8 means."""
    gaps = np.diff(Poisson(rate=50).draw(Stream(2, "a"), 50_000)) / SECOND * 50
    assert stats.kstest(gaps, "expon").pvalue > 1e-3
    assert gaps.max() > 8


@pytest.mark.parametrize("process", [Gamma(rate=10, cv=3), Weibull(rate=10, cv=3)])
def test_bursty_processes_start_in_their_steady_state(process):
    """The mean count over a short horizon is rate x time; a process that begins with a whole gap sends 4 more."""
    counts = [len(process.draw(Stream(s, "a"), None, 4 * SECOND)) for s in range(900)]
    standard_error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - 40) < 4 * standard_error
    assert standard_error < 0.7


@pytest.mark.parametrize("kind", [Gamma, Weibull])
@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_rate_and_cv_are_as_asked(kind, cv):
    """Over many requests, the mean gap and its coefficient of variation are those of the spec."""
    gaps = np.diff(kind(rate=8, cv=cv).draw(Stream(4, "a"), 100_000)) / SECOND
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


@pytest.mark.parametrize("cv", [0.05, 0.5, 1.0, 4.0, 50.0])
def test_the_weibull_shape_gives_the_cv(cv):
    """scipy's Weibull of that shape has that CV."""
    mean, variance = stats.weibull_min.stats(weibull_shape(cv), moments="mv")
    assert float(np.sqrt(variance) / mean) == pytest.approx(cv, rel=1e-5)


def test_constant_arrivals_do_not_drift():
    """The 30,000th request at 3 per second is due at 10,000 s, to the nanosecond."""
    assert Constant(rate=3).draw(Stream(0, "a"), 30_001)[-1] == 10_000 * SECOND


def test_a_closed_loop_has_no_times_and_an_upper_bound_of_rows():
    """Rows of a closed loop are ABSENT; with a duration there are 20 per slot and second, and fewer of very many."""
    assert set(Closed(concurrency=3).draw(Stream(0, "a"), 7).tolist()) == {ABSENT}
    assert len(Closed(concurrency=3).draw(Stream(0, "a"), None, 10 * SECOND)) == 600
    assert len(Closed(concurrency=3).draw(Stream(0, "a"), None, SECOND // 10)) == 12
    assert len(Closed(concurrency=1000).draw(Stream(0, "a"), None, 10 * SECOND)) == 50_000
    assert len(Closed(concurrency=9000).draw(Stream(0, "a"), None, 100 * SECOND)) == 200_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gamma:rate=4,cv=2", Gamma(rate=4, cv=2)),
        ({"kind": "constant", "rate": 2}, Constant(rate=2)),
        (Poisson(rate=1), Poisson(rate=1)),
        ("closed:concurrency=8", Closed(concurrency=8)),
    ],
)
def test_every_spelling_leads_to_the_same_spec(text, expected):
    """Short forms, mappings and specs are one thing."""
    assert arrivals(text) == expected


@pytest.mark.parametrize(
    "text", ["gamma:rate=-1", "poisson", "nothing:rate=1", "poisson:rate=1,cv=2"]
)
def test_a_wrong_spec_is_refused_with_its_path(text):
    """A complaint names where in the input it is."""
    with pytest.raises(UserError, match=r"\$\.arrivals"):
        arrivals(text)
