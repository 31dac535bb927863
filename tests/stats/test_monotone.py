from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.stats import Probe, boundary, isotonic, sharpened, smoothed

modest = settings(deadline=None, max_examples=60)


@modest
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=1, max_size=20))
def test_isotonic_is_the_projection(points):
    """Rises, keeps the weighted mean, repeats itself, and solves min over s of max over r of block means."""
    y, w = np.array(points).T
    fit = isotonic(y, w)
    assert (np.diff(fit) >= -1e-12).all()
    assert fit @ w == pytest.approx(y @ w, abs=1e-9)
    assert isotonic(fit, w) == pytest.approx(fit)
    for i in range(y.size):
        slow = min(
            max(np.average(y[r : s + 1], weights=w[r : s + 1]) for r in range(i + 1))
            for s in range(i, y.size)
        )
        assert fit[i] == pytest.approx(slow, abs=1e-9)


def curve(rate, middle=10.0, width=0.5):
    return 1 / (1 + math.exp((rate - middle) / width))


def beside(rng, probes=10, requests=300, middle=10.0, width=0.5):
    """Probes 4 % below and above the 90 % point, by turns, and one on either side far away."""
    truth = middle + width * math.log(1 / 0.9 - 1)
    rates = [truth * (0.96, 1.04)[k % 2] for k in range(probes)] + [truth / 2, truth * 2]
    share = [rng.binomial(requests, curve(rate, middle, width)) / requests for rate in rates]
    return truth, [Probe(rate, s, requests) for rate, s in zip(rates, share, strict=True)]


@pytest.mark.parametrize("width", [0.2, 0.5, 2.0])
def test_a_line_covers_with_half_the_width(width):
    """Steep or flat, the fitted line is unbiased within 1 %, covers in at least 85 %, and is narrower than the steps."""
    rng = np.random.default_rng(1)
    found = [(truth, sharpened(p, 0.9), boundary(p, 0.9)) for truth, p in (beside(rng, width=width) for _ in range(100))]  # fmt: skip
    assert np.mean([b.rate / truth for truth, b, _ in found]) == pytest.approx(1, abs=0.01)
    assert np.mean([b.interval.lo <= truth <= b.interval.hi for truth, b, _ in found]) >= 0.85
    ratio = [
        (b.interval.hi - b.interval.lo) / (safe.interval.hi - safe.interval.lo)
        for _, b, safe in found
    ]
    assert np.median(ratio) < 0.7


def test_a_line_holds_its_estimate():
    """Whatever the probes, the interval holds the estimate; without a line it is that of the steps."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        rates = rng.uniform(1, 4, 8)
        found = [Probe(r, rng.uniform(), rng.integers(1, 500)) for r in rates]
        line = sharpened(found, 0.7)
        assert line.interval.lo <= line.rate <= line.interval.hi
        if math.isnan(line.slope):
            assert line.interval.lo <= boundary(found, 0.7).rate <= line.interval.hi


@modest
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.5, 50)), min_size=1, max_size=20))
def test_smoothing_stays_among_the_values(points):
    """At every x the smoothed value is positive and finite, and of equal values it is that value."""
    x, y = np.array(points).T
    assert np.isfinite(smoothed(x, y, np.ones(x.size), 0.15)).all()
    assert (smoothed(x, y, np.ones(x.size), 0.15) > 0).all()
    level = smoothed(x, np.full(x.size, 7.0), np.ones(x.size), 0.15)
    assert level == pytest.approx(7.0, rel=0.15)


def test_smoothing_follows_an_exponential():
    """Noise of mean 1 on exp(8 x) leaves it within 20 % at the middle, whichever way the noise leans."""
    rng = np.random.default_rng(4)
    x = np.linspace(-0.3, 0.3, 200)
    y = np.exp(8 * x) * rng.gamma(1.0, 1.0, x.size)
    assert smoothed(x, y, np.ones(x.size), 0.15)[100] == pytest.approx(1.0, rel=0.2)


def test_a_step_is_found_between_its_sides():
    """All good at 10, all bad at 10.4: the boundary lies between, and a line makes nothing else of it."""
    line = sharpened([Probe(10, 1.0, 500), Probe(10.4, 0.1, 500), Probe(9.7, 1.0, 500)], 0.9)
    assert 10 <= line.rate <= 10.4
    assert 9.9 <= line.interval.lo <= line.interval.hi <= 10.4


def test_probes_that_scatter_more_than_they_say_widen_the_interval():
    """Where runs differ from one to the next, the counts of requests know nothing of it; the scatter about the line does."""
    rates = [9, 9.3, 9.6, 9.9, 10.2, 10.5, 10.8]
    shares = [curve(r, 12) for r in rates]
    wild = [s + d for s, d in zip(shares, (0, 0.03, -0.06, 0.06, -0.06, 0.06, 0), strict=True)]
    calm = sharpened([Probe(r, s, 2_000) for r, s in zip(rates, shares, strict=True)], 0.95)
    torn = sharpened([Probe(r, min(s, 1), 2_000) for r, s in zip(rates, wild, strict=True)], 0.95)
    assert (torn.interval.hi - torn.interval.lo) > 2 * (calm.interval.hi - calm.interval.lo)


def test_unbracketed_boundaries_are_said_to_be():
    """Met everywhere: the boundary is beyond all probes; met nowhere: below all; no line is drawn through that."""
    good = [Probe(1, 1.0, 500), Probe(2, 1.0, 500)]
    bad = [Probe(1, 0.1, 500), Probe(2, 0.0, 500)]
    assert boundary(good, 0.9).rate == math.inf
    assert sharpened(good, 0.9) == boundary(good, 0.9)
    assert boundary(good, 0.9).interval == (2, math.inf)
    assert boundary(bad, 0.9).rate == 0
    assert boundary(bad, 0.9).interval == (0, 1)


def test_an_unsure_probe_does_not_bound():
    """A share of 88 % seen in 20 requests is no proof of being below 90 %; seen in 20,000 it is."""
    sure = Probe(1, 0.99, 20_000)
    assert boundary([sure, Probe(2, 0.88, 20)], 0.9).interval.hi == math.inf
    assert boundary([sure, Probe(2, 0.88, 20_000)], 0.9).interval == (1, 2)


def test_repeats_are_pooled():
    """Two probes at one rate are one with their counts together."""
    twice = [Probe(1, 0.95, 100), Probe(2, 0.8, 100), Probe(2, 0.9, 300)]
    once = [Probe(2, 0.875, 400), Probe(1, 0.95, 100)]
    assert boundary(twice, 0.9).rate == pytest.approx(boundary(once, 0.9).rate)
    assert boundary(twice, 0.9).interval == boundary(once, 0.9).interval


def test_no_probe_says_nothing():
    """Without a probe there is neither an estimate nor an interval."""
    found = boundary([], 0.9)
    assert math.isnan(found.rate)
    assert math.isnan(found.interval.lo)


def test_the_estimate_is_linear_between_two_sure_probes():
    """1.0 at rate 1 and 0.8 at rate 3: 0.9 is crossed at 2."""
    assert boundary([Probe(1, 1.0, 1e6), Probe(3, 0.8, 1e6)], 0.9).rate == pytest.approx(2)
