"""The small tables: what a chart shows is what the run says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.metrics.scorecard import view_of
from inferometer.report import tables
from inferometer.timeline import build


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=400))
@settings(deadline=None, max_examples=60)
def test_a_point_of_the_distribution_is_one(values):
    """Each drawn share is that of the values at or below its place, where no value is drawn twice."""
    found = tables.cdf(np.array(values))
    ordered = np.sort(values)
    shares = np.array(found["share"])
    assert np.all(np.diff(shares) >= 0)
    assert shares[-1] == pytest.approx(1)
    rank = np.rint(shares * len(values)).astype(int) - 1
    np.testing.assert_allclose(found["value"], ordered[rank], rtol=1e-5)


def test_failures_keep_the_curve_below_one(run_of):
    """Of 300 requests, 6 failed: the last point of the curve is 294/300 of those measured."""
    view = view_of(run_of())
    ok = int(view.ok.sum())
    assert tables.cdf(np.arange(ok), of=len(view))["share"][-1] == pytest.approx(ok / len(view))


def test_bands_hold_the_curve(run_of):
    """The 95 % band of TTFT lies around its quantiles, and only where the sample carries it."""
    view = view_of(run_of())
    band = tables.ttft_band(view)
    assert max(band["share"]) < 0.99
    from inferometer.metrics import latency

    values = latency.ttft(view.timeline)[view.ok]
    for share, lo, hi in zip(band["share"], band["lo"], band["hi"], strict=True):
        assert lo <= np.quantile(values, share) <= hi


def test_the_worst_request_stalls(run_of):
    """The picked requests are in order of what was waited, and stalls are gaps above the threshold, TTFT never."""
    view = view_of(run_of())
    assert [one.name for one in tables.picked(view)] == ["best", "median", "worst"]
    steps, stalls = tables.token_timeline(view)
    assert set(stalls["request"]) == {"worst"}
    assert all(
        end - start > 1 / 6 for start, end in zip(stalls["start"], stalls["end"], strict=True)
    )
    assert all(start > 0 for start in stalls["start"])
    assert steps["tokens"][0] == 0


def test_bins_lose_nothing(run_of):
    """Arrivals and tokens in bins sum to those of the run; in flight averages to the scorecard's mean."""
    from inferometer.metrics import rates

    timeline = run_of().timeline
    on = tables.axis(timeline)
    found = tables.arrivals(timeline, on)
    for what, expected in {
        "intended": 300,
        "sent": 300,
        "completed": int(timeline.ok.sum()),
    }.items():
        rate = [r for r, w in zip(found["rate"], found["what"], strict=True) if w == what]
        assert sum(rate) * on.width_s == pytest.approx(expected, rel=1e-4)
    load = tables.load(timeline, on)
    assert sum(load["token_rate"]) * on.width_s == pytest.approx(
        timeline.output_tokens.sum(), rel=1e-4
    )
    steps, window = rates.in_flight(timeline), rates.busy_window(timeline)
    assert np.mean(load["in_flight"]) == pytest.approx(
        rates.mean_in_flight(steps, window), rel=1e-3
    )


def test_lengths_are_counted_once(run_of):
    """The heat map holds every completed request of phase measure."""
    view = view_of(run_of())
    assert sum(tables.by_prompt(view)["count"]) == int(view.ok.sum())


def test_one_length_is_drawn(run_of):
    """A run of fixed prompt lengths still has a cell with a width."""
    run = run_of(prompt_tokens=np.full(300, 256))
    table = tables.by_prompt(view_of(run))
    assert all(a < b for a, b in zip(table["p0"], table["p1"], strict=True))


def test_an_empty_run_has_no_axis():
    """Nothing happened: no bins, no phases, no invented 0."""
    empty = build(0, request_id=[], intended_ns=[], ended_ns=[], status=[])
    assert tables.axis(empty) is None
    assert tables.phases(empty) == {"phase": [], "start": [], "end": []}
    assert tables.cdf(np.zeros(0)) == {"value": [], "share": []}


def test_telemetry_goes_by_the_names_servers_use(run_of):
    """vLLM's gauge is drawn as "running", on the run's own axis."""
    run = run_of()
    found = tables.telemetry(run, tables.axis(run.timeline))
    assert set(found["what"]) == {"running"}
    assert len(found["t"]) == len(run.telemetry["t_ns"])
