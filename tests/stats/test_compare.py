from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.stats import (
    Interval,
    Sample,
    alike,
    common,
    crossings,
    difference_ci,
    hodges_lehmann,
    quantile,
    ratio_ci,
    shift_function,
)

NUMBERS = st.lists(st.integers(-1000, 1000), min_size=1, max_size=25)
modest = settings(deadline=None, max_examples=60)


@modest
@given(NUMBERS, NUMBERS)
def test_hodges_lehmann_is_the_median_of_all_differences(a, b):
    """Equal to listing all pairs."""
    slow = np.median(np.subtract.outer(np.array(b), np.array(a)))
    assert hodges_lehmann(a, b) == pytest.approx(slow, abs=1e-9)


def test_hodges_lehmann_of_ten_billion_pairs():
    """A shift of 0.3 between samples of 100,000 is found without listing pairs; nothing against nothing is NaN."""
    x = np.random.default_rng(1).exponential(size=100_000)
    assert hodges_lehmann(x, x[::-1] + 0.3) == pytest.approx(0.3)
    assert math.isnan(hodges_lehmann([], [1.0]))


def test_mover_of_symmetric_intervals_adds_in_quadrature():
    """With equal arms the difference has the root of the sum of squares, as normal theory says."""
    found = difference_ci(10, Interval(7, 13), 30, Interval(26, 34))
    assert tuple(found) == pytest.approx((15, 25))


def test_mover_uses_the_arms_that_face_each_other():
    """The lower end comes from b's lower and a's upper arm."""
    found = difference_ci(0, Interval(-1, 4), 10, Interval(7, 11))
    assert tuple(found) == pytest.approx((10 - 5, 10 + math.hypot(1, 1)))


def test_ratio_is_the_difference_of_logarithms():
    """A ratio of 2 with ends that multiply; of a value at 0 there is none."""
    found = ratio_ci(1, Interval(0.5, 2), 2, Interval(1, 4))
    arm = math.exp(math.hypot(math.log(2), math.log(2)))
    assert tuple(found) == pytest.approx((2 / arm, 2 * arm))
    assert math.isnan(ratio_ci(0, Interval(0, 1), 2, Interval(1, 4)).lo)


def test_shift_function_covers_between_two_queues(mm1):
    """Load 0.5 against 0.6, 5,000 requests each: the median's shift is covered, and a tighter level is narrower."""
    rng = np.random.default_rng(2)
    truth = math.log(2) * (1 / 0.4 - 1 / 0.5)
    hits = []
    for _ in range(60):
        a, b = Sample(mm1(0.5, 5000, rng)), Sample(mm1(0.6, 5000, rng))
        (one,) = shift_function(a, b, [0.5])
        hits.append(one.interval.lo <= truth <= one.interval.hi)
    assert np.mean(hits) >= 0.88
    wide = shift_function(a, b, [0.5, 0.9], together=True)
    assert wide[0].interval.hi - wide[0].interval.lo > one.interval.hi - one.interval.lo
    assert wide[0].difference == pytest.approx(wide[0].b - wide[0].a)


def test_shift_is_unknown_where_a_quantile_is():
    """p99 of 100 requests has no interval, so neither has its shift; the estimate stands."""
    x = np.random.default_rng(3).exponential(size=100)
    (p99,) = shift_function(Sample(x), Sample(x + 1), [0.99])
    assert math.isnan(p99.interval.lo)
    assert p99.difference == pytest.approx(1)


def test_shift_of_clustered_samples():
    """With offsets the interval is that of clusters: wider than of the same values alone."""
    x = np.random.default_rng(4).exponential(size=200)
    flat = np.repeat(x, 20)
    offsets = np.arange(201) * 20
    (clustered,) = shift_function(Sample(flat, offsets), Sample(flat, offsets), [0.5])
    (alone,) = shift_function(Sample(x), Sample(x), [0.5])
    assert clustered.interval.hi - clustered.interval.lo >= 0.7 * (
        alone.interval.hi - alone.interval.lo
    )


def test_a_crossing_is_found_where_it_is():
    """A lognormal of larger spread crosses one of smaller at the median, below which it is the lower one."""
    rng = np.random.default_rng(5)
    narrow, wide = rng.lognormal(0, 0.3, 8000), rng.lognormal(0, 0.8, 8000)
    (found,) = crossings(Sample(narrow), Sample(wide))
    assert found.lower_below == "b"
    assert found.interval.lo < 0.5 < found.interval.hi
    assert found.q == pytest.approx(0.5, abs=0.06)
    assert found.value == pytest.approx(1, abs=0.1)
    (mirrored,) = crossings(Sample(wide), Sample(narrow))
    assert mirrored.lower_below == "a"


def test_no_crossing_without_evidence():
    """Two samples of one source cross by chance everywhere and are not said to; nor does a plain shift."""
    rng = np.random.default_rng(6)
    x, y = rng.exponential(size=2000), rng.exponential(size=2000)
    assert crossings(Sample(x), Sample(y)) == []
    assert crossings(Sample(x), Sample(y + 0.5)) == []


def test_common_requests_stand_in_the_order_of_the_first():
    """Requests of one side only are left out; a repeated id is a mistake."""
    at_a, at_b = common(["r3", "r1", "r2"], ["r1", "r9", "r3"])
    assert at_a.tolist() == [0, 1]
    assert at_b.tolist() == [2, 0]
    with pytest.raises(ValueError, match="twice"):
        common(["r1", "r1"], ["r1"])


def test_common_noise_leaves_the_difference(mm1):
    """The same arrivals on a server 10 % slower: the interval is several times narrower, and holds the truth."""
    rng = np.random.default_rng(7)
    a = mm1(0.5, 4000, rng)
    b = a * 1.1 + rng.normal(0, 0.01, a.size)
    shared = alike(a <= quantile(a, 0.5), b <= quantile(b, 0.5))
    (paired,) = shift_function(Sample(a), Sample(b), [0.5], correlation=[shared])
    (apart,) = shift_function(Sample(a), Sample(b), [0.5])
    assert paired.interval.lo <= 0.1 * quantile(a, 0.5) <= paired.interval.hi
    assert apart.interval.hi - apart.interval.lo > 4 * (paired.interval.hi - paired.interval.lo)


@modest
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_what_is_alike_is_a_share(seed, part):
    """Between 0 and 1; nearly 1 of a series with itself, 0 with its opposite, and of a few requests nothing is said."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(2, 400))
    assert 0 <= alike(u, part * u + (1 - part) * v) < 1.0000001
    assert alike(u, u) > 0.999
    assert alike(u, -u) == 0
    assert alike(u[:50], u[:50]) == 0


def test_unlike_runs_are_seldom_called_alike():
    """Of two independent series at most one in five shows any correlation after the deduction."""
    rng = np.random.default_rng(3)
    seen = [alike(*rng.normal(size=(2, 400))) for _ in range(200)]
    assert np.mean(np.array(seen) > 0) <= 0.2


def test_mover_of_equal_estimates_that_err_together_is_a_point():
    """With correlation 1 equal arms cancel; with 0 they add in quadrature."""
    ci = Interval(7, 13)
    assert tuple(difference_ci(10, ci, 10, ci, 1.0)) == pytest.approx((0, 0), abs=1e-9)
    assert tuple(difference_ci(10, ci, 10, ci, 0.0)) == pytest.approx((-3 * 2**0.5, 3 * 2**0.5))
