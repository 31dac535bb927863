from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.stats import Probe, boundary, isotonic, next_rate

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


def search(rng, probes, requests=300, start=4.0):
    found = [Probe(start, rng.binomial(requests, curve(start)) / requests, requests)]
    while len(found) < probes:
        rate = next_rate(found, 0.9)
        found.append(Probe(rate, rng.binomial(requests, curve(rate)) / requests, requests))
    return found


def test_a_search_brackets_narrows_and_covers():
    """From a start at half of it, 14 noisy probes find the 90 % point: unbiased within 1 %, covered in at least 85 %."""
    rng = np.random.default_rng(1)
    truth = 10 + 0.5 * math.log(1 / 0.9 - 1)
    found = [boundary(search(rng, 14), 0.9) for _ in range(60)]
    assert np.mean([b.rate for b in found]) == pytest.approx(truth, rel=0.01)
    assert np.mean([b.interval.lo <= truth <= b.interval.hi for b in found]) >= 0.85
    assert np.median([b.interval.hi - b.interval.lo for b in found]) < 0.06 * truth


def test_unbracketed_boundaries_are_said_to_be():
    """Met everywhere: the boundary is beyond all probes; met nowhere: below all; and the next probe goes there."""
    good = [Probe(1, 1.0, 500), Probe(2, 1.0, 500)]
    bad = [Probe(1, 0.1, 500), Probe(2, 0.0, 500)]
    assert boundary(good, 0.9).rate == math.inf
    assert boundary(good, 0.9).interval == (2, math.inf)
    assert next_rate(good, 0.9) == 4
    assert boundary(bad, 0.9).rate == 0
    assert boundary(bad, 0.9).interval == (0, 1)
    assert next_rate(bad, 0.9) == 0.5


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
