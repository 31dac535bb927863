from __future__ import annotations

import numpy as np
import pytest

from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import score
from inferometer.search.capacity import Ask
from inferometer.search.lengths import needed
from inferometer.search.queueing import Queue


def pilot(requests, load=5.0, seed=0):
    return Queue(8)(Ask(load=load, seed=seed, requests=requests, warmup=200))


def test_a_planned_run_is_as_precise_as_planned():
    """A run of the length that a pilot asks for reaches the precision, within the factor that a pilot's guess errs by."""
    row = needed(pilot(2_000), ["ttlt.p90"], precision=0.05)[0]
    ttlt = score(pilot(row.requests, seed=9)).row("ttlt")
    lo, hi = ttlt.ci["p90"]
    assert 0.02 < (hi - lo) / 2 / ttlt.quantiles["p90"] < 0.1
    assert row.seconds == pytest.approx(row.requests / 5.0, rel=0.1)


def test_twice_the_precision_takes_four_times_the_requests():
    """Half widths fall with the square root."""
    run = pilot(2_000)
    coarse, fine = (needed(run, ["ttlt.mean"], p)[0].requests for p in (0.1, 0.05))
    assert fine == pytest.approx(4 * coarse, rel=0.05)


def test_a_pilot_that_cannot_tell_says_so():
    """Ten requests carry no plan, and no number is made up."""
    row = needed(pilot(10), ["ttft.p99"])[0]
    assert row.requests is None
    assert np.isnan(row.now)


def test_what_the_card_refuses_is_not_shown_here():
    """p99 of 120 requests is planned for, and not claimed to have been seen; twenty requests are the least."""
    p99, p50 = needed(pilot(120, load=2.0), ["ttlt.p99", "ttlt.p50"], precision=0.9)
    assert np.isnan(p99.seen)
    assert p99.requests >= 368
    assert p50.seen > 0
    assert p50.requests >= 20


def test_past_saturation_no_length_helps():
    """A pilot without a steady state plans nothing, and says why."""
    with pytest.raises(NotMeasurable, match=r"in flight rises .* a lower load does"):
        needed(pilot(2_000, load=16.0))


@pytest.mark.parametrize(
    "name", ["token_rate", "ttft", "ttft.max", "ttft.pxx", "ttft.p0", "ttft.p100", "ttft.p", ""]
)
def test_unknown_statistics_are_refused(name):
    """Also a figure, which has no percentile, and percentiles that are none."""
    with pytest.raises(UserError, match="no statistic is called"):
        needed(pilot(100), [name])
