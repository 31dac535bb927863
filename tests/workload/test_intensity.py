"""Rates that change with time: the integral, its inverse, and the processes driven by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.workload.arrivals import Ramp, Sine, Spikes, Steps, Table
from inferometer.workload.burstiness import gap_cv
from inferometer.workload.draws import Stream
from inferometer.workload.intensity import Intensity

RATE = st.floats(0, 50)
PIECES = st.lists(st.tuples(st.floats(0.1, 30), RATE, RATE), min_size=1, max_size=6).filter(
    lambda pieces: sum(p[0] * (p[1] + p[2]) for p in pieces) > 1
)


@settings(deadline=None, max_examples=60)
@given(PIECES, st.booleans(), st.lists(st.floats(0, 500), min_size=1, max_size=20))
def test_when_is_the_inverse_of_mass(pieces, cyclic, masses):
    """The time at which so much is expected is a time at which so much is expected."""
    shape = Intensity(*zip(*pieces, strict=True), cyclic=cyclic)
    mass = np.sort(np.array(masses))
    times = shape.when(mass)
    reached = np.isfinite(times)
    assert not np.any(np.diff(times[reached]) < 0)
    assert shape.mass(times[reached]) == pytest.approx(mass[reached], rel=1e-6, abs=1e-5)


def test_a_rate_that_ends_at_zero_ends_the_process():
    """After a ramp down to 0 nothing arrives any more, however many are asked for."""
    times = Ramp(start=10, end=0, over_s=20).draw(Stream(0, "a"), 1000)
    assert times[-1] <= 20 * SECOND
    assert 60 < len(times) < 140


@pytest.mark.parametrize(
    ("process", "seconds", "expected"),
    [
        (Ramp(start=0, end=40, over_s=10), 10, 200),
        (Ramp(start=0, end=40, over_s=10), 15, 400),
        (Steps(start=10, end=30, steps=3, each_s=5), 15, 300),
        (Sine(rate=20, amplitude=0.8, period_s=10), 5, 100 + 2 * 0.8 * 20 * 10 / (2 * np.pi)),
        (Spikes(rate=5, peak=100, every_s=10, length_s=1), 20, 290),
        (Table(counts=(30, 0, 90), every_s=2), 12, 240),
        (Table(counts=(30, 0, 90), every_s=2, rate=50), 12, 600),
    ],
)
def test_the_mean_count_is_the_integral_of_the_rate(process, seconds, expected):
    """Over many seeds, the number of requests is what the rate integrates to."""
    counts = [len(process.draw(Stream(s, "a"), None, seconds * SECOND)) for s in range(150)]
    assert np.mean(counts) == pytest.approx(expected, rel=0.03)


def test_requests_fall_where_the_rate_is():
    """A table's stretches get their shares, and an empty stretch nothing, round after round."""
    times = Table(counts=(100, 0, 300), every_s=5).draw(Stream(1, "a"), 20_000)
    place = times // (5 * SECOND) % 3
    assert np.bincount(place, minlength=3) / 20_000 == pytest.approx([0.25, 0, 0.75], abs=0.02)


def test_the_operational_cv_is_that_of_the_gaps_without_the_rate():
    """At a constant rate, the CV of the gaps is the one that was asked for."""
    times = Table(counts=(50,), every_s=10, cv=3.0).draw(Stream(2, "a"), 50_000) / SECOND
    assert gap_cv(times) == pytest.approx(3.0, rel=0.06)


@settings(deadline=None, max_examples=25)
@given(
    st.one_of(
        st.builds(Ramp, start=st.floats(0, 9), end=st.floats(0.1, 9), over_s=st.floats(1, 99)),
        st.builds(Sine, rate=st.floats(0.1, 20), amplitude=st.floats(0, 1), period_s=st.just(60.0)),
        st.builds(
            Table, counts=st.lists(st.floats(1, 99), min_size=1).map(tuple), every_s=st.just(3.0)
        ),
    ),
    st.integers(0, 5),
)
def test_limits_hold_and_times_never_fall(process, seed):
    """Times are sorted int64 in [0, horizon), and both limits give at most either."""
    by_count = process.draw(Stream(seed, "a"), 40)
    by_time = process.draw(Stream(seed, "a"), None, 5 * SECOND)
    by_both = process.draw(Stream(seed, "a"), 10, 5 * SECOND)
    assert len(by_count) == 40
    assert len(by_both) <= 10
    for times in (by_count, by_time, by_both):
        assert times.dtype == np.int64
        assert not np.any(np.diff(times) < 0)
    assert not len(by_time) or 0 <= by_time[0] <= by_time[-1] < 5 * SECOND


def test_a_rate_of_zero_throughout_is_refused():
    """Nothing would ever arrive: one line says so."""
    with pytest.raises(UserError, match="rate is 0"):
        Table(counts=(0, 0), every_s=1).draw(Stream(0, "a"), 5)
