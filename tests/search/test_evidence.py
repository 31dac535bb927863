from __future__ import annotations

import math

import numpy as np
import pytest

from inferometer.errors import NotMeasurable
from inferometer.run import Manifest, Run
from inferometer.search.evidence import criteria
from inferometer.slo import parse
from inferometer.timeline import build, offsets


def run_of(*requests, every_s=1.0):
    """A run from (ttft_s, gap_s, ...) per request, `every_s` apart; an empty one failed after half a second."""
    stamps, ended, status = [], [], []
    for i, times in enumerate(requests):
        at = np.rint((i * every_s + np.cumsum(times)) * 1e9).astype(np.int64)
        stamps.append(at)
        ended.append(int(at[-1]) if len(at) else round((i * every_s + 0.5) * 1e9))
        status.append("ok" if len(at) else "http_error")
    counts = np.array([len(at) for at in stamps])
    intended = np.rint(np.arange(len(requests)) * every_s * 1e9).astype(np.int64)
    timeline = build(
        len(requests),
        request_id=[f"r{i}" for i in range(len(requests))],
        intended_ns=intended,
        sent_ns=intended,
        ended_ns=ended,
        status=status,
        output_tokens=counts,
        chunk_offset=offsets(counts),
        chunk_ns=np.concatenate(stamps),
        chunk_tokens=1,
        chunk_channel=0,
    )
    return Run(timeline, Manifest(world="simulated", complete=True))


def seen(run, text):
    """The criteria of an SLO, by their text."""
    return {c.text: c for c in criteria(run, parse(text))}


def test_a_failed_request_counts_against_a_percentile():
    """Eight fast ones and two that failed are 80 % within the bound, whatever a percentile of survivors says."""
    found = seen(run_of(*[(0.1,)] * 8, (), ()), "ttft.p90 <= 1s")
    assert found["ttft.p90 <= 1s"].share == pytest.approx(0.8)
    assert found["ttft.p90 <= 1s"].level == pytest.approx(0.9)
    assert not found["ttft.p90 <= 1s"].met
    assert found["completed"].share == pytest.approx(0.8)


def test_gaps_are_counted_by_gap_and_worth_their_requests():
    """One long gap of twenty is 5 %, seen by two requests."""
    run = run_of((0.1, *[0.01] * 9, 1.0), (0.1, *[0.01] * 10))
    found = seen(run, "tbt.p90 <= 50ms")["tbt.p90 <= 50ms"]
    assert found.share == pytest.approx(0.95)
    assert found.n == 2
    assert 0 < found.effective_n <= 20


def test_a_fluid_token_rate_is_a_share_of_requests():
    """Tokens 50 ms apart keep up with 10 a second, and not with 40."""
    run = run_of(*[(0.1, *[0.05] * 10)] * 30)
    slow = seen(run, "fluid_token_rate >= 10/s")["fluid_token_rate >= 10/s"]
    fast = seen(run, "fluid_token_rate >= 40/s")["fluid_token_rate >= 40/s"]
    assert (slow.share, fast.share) == (1, 0)
    assert slow.level == pytest.approx(0.99)


def test_an_error_rate_is_a_share_that_completed():
    """At most 10 % errors is at least 90 % good; no criterion on completion is added to it."""
    found = seen(run_of(*[(0.1,)] * 9, ()), "error_rate <= 10%")
    assert found["error_rate <= 10%"].level == pytest.approx(0.9)
    assert found["error_rate <= 10%"].share == pytest.approx(0.9)
    assert "completed" not in found


@pytest.mark.parametrize("text", ["scheduling_delay.p50 <= 1s", "each: scheduling_delay <= 1s"])
def test_what_was_not_measured_is_refused(text):
    """A scheduling delay of a black box needs a prefill curve; the search must not run without."""
    with pytest.raises(NotMeasurable, match="prefill curve"):
        seen(run_of(*[(0.1,)] * 30), text)


@pytest.mark.parametrize(("bound_ms", "share"), [(103, 0.507), (97, 0.492)])
def test_a_mean_has_a_share_against_its_bound(bound_ms, share):
    """400 TTFTs of 100 ± 20 ms: b / (b + x), with the error that the mean has: 1 % of it, a quarter of that of the share."""
    ttft = np.random.default_rng(5).normal(0.1, 0.02, 400).clip(0.001)
    text = f"ttft.mean <= {bound_ms}ms"
    found = seen(run_of(*[(t,) for t in ttft]), text)[text]
    assert found.level == 0.5
    assert found.share == pytest.approx(share, abs=0.005)
    assert found.met == (bound_ms == 103)
    assert math.sqrt(0.25 / found.effective_n) == pytest.approx(0.01 / 4, rel=0.2)


def test_what_must_be_high_counts_the_other_way():
    """A fluidity index of 1 against a bound of 0.5 is met, and worth something."""
    text = "fluidity_index.mean >= 0.5"
    run = run_of(*[(0.1, *[0.01 + 0.2 * (i % 3 == 0)] * 5) for i in range(40)])
    found = criteria(run, parse(f"{text}; with token_deadline=50ms and first_deadline=1s"))[0]
    assert found.met
    assert 0.5 < found.share < 1


def test_a_growing_backlog_is_not_stable():
    """Requests that each wait for all before them pile up; those that do not, do not."""
    late = run_of(*[(0.001 + 0.09 * i,) for i in range(200)], every_s=0.1)
    fine = run_of(*[(0.25,)] * 200, every_s=0.1)
    assert seen(late, "ttft.p50 <= 100s")["stable"].share == 0
    assert seen(fine, "ttft.p50 <= 100s")["stable"].share == 1
