"""Latencies per request, against closed forms and against the gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import MILLISECOND, SECOND
from inferometer.metrics import latency, tokens

MS = MILLISECOND
# Intended at 100 ms, sent at 130 ms; tokens at 300 (role chunk before), 320, 320 + 2, 600 ms; usage chunk at 610 ms.
REQUEST = {
    "intended": 100 * MS,
    "sent": 130 * MS,
    "scheduled_ns": 180 * MS,
    "connect_ns": 20 * MS,
    "chunks": [(200 * MS, 0), (300 * MS, 1), (320 * MS, 3), (600 * MS, 1), (610 * MS, 0)],
    "ended": 620 * MS,
}
CLOSED_FORMS = {
    latency.ttft: 0.2,
    latency.ttfat: 0.2,
    latency.ttlt: 0.5,
    latency.ttft_from_sent: 0.17,
    latency.ttlt_from_sent: 0.47,
    latency.tpot: 0.3 / 4,
    latency.normalized_latency: 0.1,
    latency.ttst: 0.02,
    latency.max_gap: 0.28,
    latency.stalls: 1,
    latency.stall_time: 0.28,
    latency.scheduling_delay: 0.08,
    latency.send_lag: 0.03,
    latency.connect: 0.02,
}


@pytest.mark.parametrize("metric", CLOSED_FORMS, ids=lambda f: f.__name__)
def test_closed_forms(timeline_of, metric):
    """Each latency of one known request is what its definition says."""
    assert metric(timeline_of(REQUEST)).tolist() == pytest.approx([CLOSED_FORMS[metric]])


@pytest.mark.parametrize("metric", CLOSED_FORMS, ids=lambda f: f.__name__)
def test_what_did_not_happen_is_nan_never_zero(timeline_of, metric):
    """A request that was never sent, and a timeline without any request, have no value of any latency."""
    unsent = {"sent": None, "status": "dropped", "ended": 5}
    assert np.isnan(metric(timeline_of(unsent))).tolist() == [True]
    assert metric(timeline_of()).tolist() == []


def test_a_failed_request_has_no_latency_even_if_it_had_tokens(timeline_of):
    """Tokens before a reset are not a reply: plain latencies are NaN, with failures they are infinite."""
    timeline = timeline_of(REQUEST, REQUEST | {"status": "truncated"})
    ttft = latency.ttft(timeline)
    assert np.isnan(ttft[1])
    assert latency.with_failures(ttft, timeline).tolist() == [pytest.approx(0.2), np.inf]
    assert latency.send_lag(timeline).tolist() == pytest.approx([0.03, 0.03])


def test_with_failures_leaves_an_undefined_value_undefined(timeline_of):
    """A good reply of one token has no TPOT; that is no failure."""
    timeline = timeline_of({"chunks": [(1, 1)]})
    assert np.isnan(latency.with_failures(latency.tpot(timeline), timeline)).tolist() == [True]


@pytest.mark.parametrize(
    "metric",
    [latency.tpot, latency.ttst, latency.max_gap, latency.stalls, latency.stall_time],
    ids=lambda f: f.__name__,
)
def test_one_token_has_no_gap(timeline_of, metric):
    """Everything about gaps is undefined for a reply of one token, not 0."""
    assert np.isnan(metric(timeline_of({"chunks": [(7, 1)]}, {"chunks": []}))).all()


def test_second_token_may_come_with_the_first(timeline_of):
    """Two tokens in the first chunk: the second-token delay is a true 0."""
    assert latency.ttst(timeline_of({"chunks": [(7, 2), (9, 1)]})).tolist() == [0.0]


def test_first_answer_token_comes_after_the_reasoning(timeline_of):
    """ttft counts any channel, ttfat only content and tool calls; reasoning alone has no answer."""
    timeline = timeline_of(
        {"chunks": [(SECOND, 1, "reasoning"), (3 * SECOND, 1, "content")]},
        {"chunks": [(SECOND, 1, "reasoning"), (2 * SECOND, 1, "tool")]},
        {"chunks": [(SECOND, 1, "reasoning")]},
        {"chunks": [(4 * SECOND, 1, "content")]},
    )
    assert latency.ttft(timeline).tolist() == [1, 1, 1, 4]
    np.testing.assert_equal(latency.ttfat(timeline), [3, 2, np.nan, 4])


def test_normalized_latency_hides_the_wait_that_ttft_shows(timeline_of):
    """The example of Agrawal et al. 2025, anti-pattern 8: 10 s of wait, then 20 ms a token, for 10 and 1000 tokens."""
    first = 10 * SECOND + 20 * MS
    requests = [{"chunks": [(first + i * 20 * MS, 1) for i in range(n)]} for n in (10, 1000)]
    timeline = timeline_of(*requests)
    assert latency.normalized_latency(timeline) == pytest.approx([1.02, 0.03])
    assert latency.ttft(timeline) == pytest.approx([10.02, 10.02])


def test_the_default_stall_is_slower_than_reading(timeline_of):
    """6 tokens/s is reading speed: a gap of exactly 1/6 s (in whole ns) is no stall, one ns more is."""
    timeline = timeline_of(
        {"chunks": [(0, 1), (latency.STALL_NS, 1)]}, {"chunks": [(0, 1), (latency.STALL_NS + 1, 1)]}
    )
    assert pytest.approx(SECOND / latency.STALL_NS) == 6
    assert latency.stalls(timeline).tolist() == [0, 1]


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(0, 60))
def test_gap_metrics_agree_with_the_gaps(some_requests, timeline_of, data, threshold):
    """max_gap, stalls, stall_time, ttst and tpot are functions of each request's gaps."""
    timeline = timeline_of(*data.draw(some_requests))
    gaps = tokens.gaps_ns(timeline)
    got = [
        metric(timeline)
        for metric in (
            latency.max_gap,
            latency.ttst,
            latency.tpot,
            lambda t: latency.stalls(t, threshold),
            lambda t: latency.stall_time(t, threshold),
        )
    ]
    for i in range(len(timeline)):
        mine = gaps.values[gaps.offset[i] : gaps.offset[i + 1]]
        long = mine[mine > threshold]
        expected = [np.nan] * 5
        if len(mine):
            expected = [
                mine.max() / SECOND,
                mine[0] / SECOND,
                mine.mean() / SECOND,
                len(long),
                long.sum() / SECOND,
            ]
        np.testing.assert_allclose([column[i] for column in got], expected, rtol=1e-12)
