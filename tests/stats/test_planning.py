from __future__ import annotations

import math

import numpy as np
import pytest

from inferometer.stats import (
    needed_n,
    quantile_ci,
    requests_for_mean,
    requests_for_quantile,
    series_quantile_ci,
)


def test_independent_exponential_has_a_closed_form():
    """For an exponential, ±x of quantile q takes z² q/(1 - q) / (x ln(1 - q))² values."""
    pilot = np.random.default_rng(1).exponential(size=20_000)
    for q in (0.5, 0.9, 0.99):
        exact = 1.96**2 * q / (1 - q) / (0.05 * math.log(1 - q)) ** 2
        assert requests_for_quantile(pilot, q, 0.05).requests == pytest.approx(exact, rel=0.15)


def test_the_planned_run_has_the_planned_precision():
    """A run of the planned length gives p90 within the ±5 % asked for, give or take a tenth of it."""
    rng = np.random.default_rng(2)
    plan = requests_for_quantile(rng.lognormal(size=2000), 0.9, 0.05)
    ci = quantile_ci(rng.lognormal(size=plan.requests), 0.9)
    assert plan.because == "precision"
    assert (ci.hi - ci.lo) / 2 == pytest.approx(0.05 * math.exp(1.2816), rel=0.2)


def test_a_queue_needs_more_requests_than_independent_ones(mm1):
    """At load 0.7 the same precision takes several times the requests, and the planned run then has it."""
    rng = np.random.default_rng(3)
    plans = [requests_for_quantile(mm1(0.7, 8000, rng), 0.9, 0.15).requests for _ in range(15)]
    shuffled = requests_for_quantile(rng.permutation(mm1(0.7, 4000, rng)), 0.9, 0.15).requests
    typical = int(np.median(plans))
    assert typical > 5 * shuffled
    widths = []
    for _ in range(15):
        (ci,) = series_quantile_ci(mm1(0.7, typical, rng), [0.9])
        widths.append((ci.hi - ci.lo) / 2 / (math.log(10) / 0.3))
    assert np.median(widths) == pytest.approx(0.15, rel=0.4)


def test_existence_can_ask_for_more_than_precision():
    """A tail that is known to ±60 % from few requests still needs the sample that its interval needs."""
    plan = requests_for_quantile(np.random.default_rng(4).exponential(size=300), 0.99, 0.6)
    assert plan.because == "existence"
    assert needed_n(0.99) <= plan.effective_n <= needed_n(0.99) * (2.1 / 1.96) ** 2


def test_clusters_are_planned_in_requests():
    """50 equal gaps per request are worth one: the plan counts requests, not gaps."""
    x = np.random.default_rng(5).exponential(size=2000)
    alone = requests_for_quantile(x, 0.5, 0.05)
    pooled = requests_for_quantile(np.repeat(x, 50), 0.5, 0.05, offsets=np.arange(2001) * 50)
    assert pooled.requests == pytest.approx(alone.requests, rel=0.35)


def test_a_pilot_that_cannot_tell():
    """Ten requests, nothing, or a quantile at 0 plan nothing."""
    assert requests_for_quantile(np.arange(10.0), 0.9, 0.05) is None
    assert requests_for_quantile([], 0.9, 0.05) is None
    assert requests_for_quantile(np.zeros(100), 0.5, 0.05) is None
    assert requests_for_mean([], 0.05) is None
    assert requests_for_mean(np.arange(10.0), 0.05) is None


def test_requests_for_the_mean():
    """(z CV / x)² independent values, with t for z."""
    pilot = np.random.default_rng(6).exponential(size=20_000)
    plan = requests_for_mean(pilot, 0.05)
    assert plan.requests == pytest.approx((2.09 / 0.05) ** 2, rel=0.1)
