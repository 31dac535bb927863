"""The steady state of a run: what it is judged by, what it is not blamed for, and what is left out on request."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inferometer.clock import MILLISECOND, SECOND
from inferometer.metrics import score
from inferometer.metrics.steady import steady_state, trimmed
from inferometer.plan import build_plan
from inferometer.run import Manifest, Run

MS = MILLISECOND


@pytest.fixture(scope="session")
def run_of(timeline_of):
    """`run_of(intended_ns, ttft_ns)`: an open loop's run of 11 tokens each, 10 ms apart; or a closed loop's."""

    def make(intended_ns, ttft_ns, *, closed=False, phase=None, **rest):
        requests = [
            {
                "intended": int(start),
                "chunks": [(int(start + ttft) + k * 10 * MS, 1) for k in range(11)],
                "phase": "measure" if phase is None else phase[i],
            }
            | {name: column[i] for name, column in rest.items()}
            for i, (start, ttft) in enumerate(zip(intended_ns, ttft_ns, strict=True))
        ]
        plan = (
            build_plan(
                len(requests), prompt_tokens=1, output_tokens=11, concurrency=4 if closed else None
            )
            if closed
            else None
        )
        return Run(timeline_of(*requests), Manifest(world="simulated"), plan)

    return make


@pytest.fixture(scope="session")
def poisson():
    """`poisson(n, rate_per_s, seed)`: n intended times."""

    def draw(n, rate_per_s, seed=0):
        gaps = np.random.default_rng(seed).exponential(SECOND / rate_per_s, n)
        return np.cumsum(gaps).astype(np.int64)

    return draw


def jitter(n, mean_ms=100, seed=1):
    """TTFTs around a mean."""
    return (np.random.default_rng(seed).gamma(16, mean_ms / 16, n) * MS).astype(np.int64)


def queue(intended_ns, service_ns):
    """TTFTs of a single server."""
    free, out = 0, []
    for at in intended_ns.tolist():
        free = max(free, at) + service_ns
        out.append(free - at)
    return np.array(out)


def test_a_steady_run_is_steady_and_keeps_all(run_of, poisson):
    """The window is that of the arrivals; every request stays in the numbers."""
    start = poisson(500, 20)
    card = score(run_of(start, jitter(500)))
    found = card.steady_state
    assert found.verdict == "steady"
    assert found.warmup_end_s < 1
    assert found.drain_start_s == pytest.approx(start[-1] / SECOND, rel=0.03)
    assert not found.in_place_of_numbers
    assert card.row("ttft").n == 500
    assert math.isfinite(card.row("ttft").ci["p50"].lo)


def test_an_open_loop_past_saturation_has_no_numbers(run_of, poisson):
    """A server that needs 50 ms for each of 30 requests a second."""
    start = poisson(600, 30)
    found = steady_state(run_of(start, queue(start, 50 * MS)))
    assert found.verdict == "no steady state"
    assert found.in_place_of_numbers
    assert "in flight rises" in found.reason


def test_a_long_warm_up_does_not_hide_saturation(run_of, poisson):
    """By the measured phase the queue is long, and what it grows by then is small beside it."""
    start = poisson(1200, 30)
    phase = np.where(np.arange(1200) < 1000, "warmup", "measure")
    found = steady_state(run_of(start, queue(start, 50 * MS), phase=phase))
    assert (found.verdict, found.in_place_of_numbers) == ("no steady state", True)


def test_a_load_that_moves_is_not_the_servers_fault(run_of):
    """A rate that rises from 5 to 60/s at a constant latency: no steady state, by design, and the numbers stand."""
    start = np.cumsum(SECOND / np.linspace(5, 60, 800)).astype(np.int64)
    card = score(run_of(start, jitter(800)))
    assert card.steady_state.verdict == "no steady state"
    assert not card.steady_state.in_place_of_numbers
    assert "the load does, too: arrivals rises" in card.steady_state.reason
    assert not card.withholds("ttft")


def test_a_closed_loop_is_judged_without_its_number_in_flight(run_of):
    """What is constant by construction proves nothing; a server that slows down is told, and its numbers stand."""
    ttft = np.linspace(50, 400, 600).astype(np.int64) * MS
    start = np.cumsum(ttft // 4)
    found = steady_state(run_of(start, ttft, closed=True))
    assert found.verdict == "no steady state"
    assert not found.in_place_of_numbers
    assert "in flight" not in found.reason


def test_a_warm_up_is_told_and_left_out_on_request_only(run_of, poisson):
    """A cold start over the first 5 %: found, scored by default, and left out by `steady=True`, which says so."""
    start, ttft = poisson(2000, 20), jitter(2000)
    ttft[:100] *= 10
    run = run_of(start, ttft)
    usual, steady = score(run), score(run, steady=True)
    found = usual.steady_state
    assert found.verdict == "steady"
    assert found.warmup_end_s == pytest.approx(start[100] / SECOND, rel=0.3)
    assert usual.requests.total == 2000
    assert not found.applied
    assert steady.steady_state.applied
    assert steady.requests.by_phase["warmup"] == pytest.approx(100, abs=40)
    assert steady.row("ttft").quantiles["p99"] < 0.3 < usual.row("ttft").quantiles["p99"]
    assert run.timeline.phase.tolist() == ["measure"] * 2000


def test_what_a_person_declared_as_warm_up_is_not_searched(run_of, poisson):
    """The cold start lies in phase warmup: the rest begins where that ends, and no more is cut."""
    start, ttft = poisson(2000, 20), jitter(2000)
    ttft[:100] *= 10
    phase = np.where(np.arange(2000) < 120, "warmup", "measure")
    found = steady_state(run_of(start, ttft, phase=phase))
    assert found.verdict == "steady"
    assert found.warmup_end_s == pytest.approx(start[120] / SECOND)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ((99, 100, "ok"), "99 requests"),
        ((200, 16_000, "ok"), "times the"),
        ((200, 100, "timeout"), "no request has a first token"),
    ],
)
def test_too_short_to_tell(run_of, poisson, what, says):
    """Too few requests, too few of their lives, or nothing to see: a reason, and null in JSON."""
    n, ttft_ms, status = what
    run = run_of(poisson(n, 20), jitter(n, ttft_ms), status=[status] * n)
    out = json.loads(json.dumps(score(run).to_dict(), allow_nan=False))["steady_state"]
    assert out["verdict"] == "too short to tell"
    assert says in out["reason"]
    assert out["warmup_end_s"] is None


def test_nothing_is_trimmed_where_nothing_is_steady(run_of, poisson):
    """Of a run without a steady state no part is one."""
    start = poisson(600, 30)
    run = run_of(start, queue(start, 50 * MS))
    assert trimmed(run, steady_state(run)) is run


def test_most_steady_runs_are_called_so(run_of, poisson):
    """A queue at 70 % load, forty times: at most a few are doubted, and none loses its numbers."""
    found = []
    for seed in range(40):
        start = poisson(800, 14, seed)
        found.append(steady_state(run_of(start, queue(start, 50 * MS))))
    assert sum(state.verdict == "steady" for state in found) >= 35
    assert not any(state.in_place_of_numbers for state in found)
