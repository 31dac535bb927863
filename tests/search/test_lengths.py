from __future__ import annotations

import numpy as np
import pytest

from inferometer.errors import UserError
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


def test_unknown_statistics_are_refused():
    """Also a figure, which has no percentile."""
    with pytest.raises(UserError):
        needed(pilot(100), ["token_rate"])
