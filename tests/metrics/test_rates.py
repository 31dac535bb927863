"""Rates over a window, and in-flight by a sweep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import SECOND
from inferometer.metrics import rates
from inferometer.metrics.rates import Window

S = SECOND
RUN = (
    {"intended": 0, "chunks": [(1 * S, 2), (2 * S, 2)], "prompt_tokens": 10},
    {"intended": 1 * S, "sent": 2 * S, "chunks": [(3 * S, 1), (9 * S, 3)], "prompt_tokens": 20},
    {"intended": 3 * S, "chunks": [(4 * S, 5)], "status": "truncated", "ended": 10 * S},
    {"intended": 4 * S, "sent": None, "status": "dropped", "ended": 4 * S},
)


def test_rates_over_the_busy_window(timeline_of):
    """From the first intended time to the last end, 10 s: what failed adds no token and no request."""
    timeline = timeline_of(*RUN)
    window = rates.busy_window(timeline)
    assert window == Window(0, 10 * S)
    assert rates.request_rate(timeline, window) == 0.2
    assert rates.token_rate(timeline, window) == 0.8
    assert rates.total_token_rate(timeline, window) == 3.8
    assert rates.goodput(np.array([True, False, False, False]), window) == 0.1


def test_tokens_after_the_last_arrival_are_not_in_the_arriving_window(timeline_of):
    """To 4 s: four tokens of the first request and one of the second; the other three came in the drain."""
    timeline = timeline_of(*RUN)
    window = rates.arriving_window(timeline)
    assert window == Window(0, 4 * S)
    assert rates.token_rate(timeline, window) == 5 / 4
    assert rates.request_rate(timeline, window) == 1 / 4


def test_arrivals_as_offered_and_as_sent(timeline_of):
    """n - 1 intervals over their span; what was never sent was offered nevertheless."""
    timeline = timeline_of(*RUN)
    assert rates.offered_rate(timeline) == 3 / 4
    assert rates.sent_rate(timeline) == 2 / 3


def test_without_a_window_there_is_no_rate(timeline_of):
    """No request, or one instant: NaN, never 0 and never infinite."""
    for timeline in (timeline_of(), timeline_of({"chunks": []})):
        window = rates.busy_window(timeline)
        assert np.isnan(rates.request_rate(timeline, window))
        assert np.isnan(rates.token_rate(timeline, window))
        assert np.isnan(rates.offered_rate(timeline))
        assert np.isnan(rates.mean_in_flight(rates.in_flight(timeline), window))


def test_in_flight_is_a_sweep_over_sends_and_ends(timeline_of):
    """Steps at 0 (+1), 2 (one ends as one starts), 3 (+1), 9 and 10 s; the dropped request never flies."""
    steps = rates.in_flight(timeline_of(*RUN))
    assert (steps.t_ns // S).tolist() == [0, 2, 3, 9, 10]
    assert steps.level.tolist() == [1, 1, 2, 1, 0]
    assert rates.peak_in_flight(steps) == 2
    assert rates.mean_in_flight(steps, Window(2 * S, 4 * S)) == 1.5


SPANS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), min_size=1, max_size=20)


@settings(deadline=None, max_examples=100)
@given(SPANS)
def test_littles_law_holds_exactly(timeline_of, spans):
    """Time-average in flight x window = summed time in flight."""
    timeline = timeline_of(*({"intended": a * S, "ended": (a + length) * S} for a, length in spans))
    window = rates.busy_window(timeline)
    mean = rates.mean_in_flight(rates.in_flight(timeline), window)
    if window.end_ns > window.start_ns:
        assert mean * window.seconds == pytest.approx(sum(length for _, length in spans))


@settings(deadline=None, max_examples=100)
@given(SPANS, st.integers(0, 150))
def test_levels_count_who_is_under_way(timeline_of, spans, t):
    """At any time the level is the number of requests sent and not ended."""
    steps = rates.in_flight(
        timeline_of(*({"intended": a, "ended": a + length} for a, length in spans))
    )
    place = int(np.searchsorted(steps.t_ns, t, side="right")) - 1
    level = 0 if place < 0 else int(steps.level[place])
    assert level == sum(a <= t < a + length for a, length in spans)
