"""The instrument's own error, and when it makes a run invalid."""

import numpy as np

from inferometer.clock import MILLISECOND, SECOND
from inferometer.load.gauges import LAG_BUCKETS, Gauges, lag_bucket, lag_of_bucket
from inferometer.load.instrument import (
    Report,
    beyond_calibration,
    busiest_second,
    own_lag_ns,
    record,
)
from inferometer.timeline import ABSENT, build, offsets

ROWS, TOKENS, GAP = 50, 20, 20 * MILLISECOND


def timeline(*, lag_ns=0, connect_ns=ABSENT, status="ok"):
    """50 requests, TTFT 200 ms, 20 tokens 20 ms apart."""
    intended = np.arange(ROWS, dtype=np.int64) * 10 * MILLISECOND
    first = intended + 200 * MILLISECOND
    chunk_ns = (first[:, None] + GAP * np.arange(TOKENS)).ravel()
    return build(
        ROWS,
        request_id=[f"r{row}" for row in range(ROWS)],
        intended_ns=intended,
        sent_ns=intended + lag_ns,
        ended_ns=intended + SECOND,
        status=status,
        output_tokens=TOKENS,
        connect_ns=connect_ns,
        chunk_offset=offsets(np.full(ROWS, TOKENS)),
        chunk_ns=chunk_ns,
        chunk_tokens=1,
        chunk_channel=0,
    )


def report(*, lag_ns=10_000, cpu_s=1.0, stamps="kernel", clamped=0, clock_steps=0):
    """One worker that was busy a tenth of the time."""
    counts = [0] * LAG_BUCKETS
    counts[lag_bucket(lag_ns)] = ROWS * TOKENS
    gauges = Gauges()
    same = {
        name: getattr(gauges, name) for name in Report.__struct_fields__ if hasattr(gauges, name)
    }
    same |= {
        "lag_counts": counts,
        "lag_max_ns": lag_ns,
        "cpu_s": cpu_s,
        "wall_s": 10.0,
        "clock_steps": clock_steps,
    }
    return Report(
        worker=0, stamps=stamps, clamped=clamped, stopped=None, exhausted=False, notes={}, **same
    )


def reasons(t=None, *reports):
    return record(t or timeline(), list(reports) or [report()], planned=ROWS)["invalid_reasons"]


def test_a_quiet_instrument_is_valid():
    """Small beside what it measured."""
    out = record(timeline(), [report()], planned=ROWS)

    assert out["valid"]
    assert out["cpu_share"] == 0.1
    assert out["send_lag"]["max"] == 0
    assert 0 < out["loop_lag"]["p99"] <= 12e-6


def test_late_sends_make_a_run_invalid():
    """30 ms late beside a TTFT of 200 ms is more than a tenth."""
    assert "sent late" in reasons(timeline(lag_ns=30 * MILLISECOND))[0]
    assert not reasons(timeline(lag_ns=15 * MILLISECOND))


def test_the_wait_for_a_connection_is_not_the_instruments():
    """It is the server's or the network's, and has its own column."""
    t = timeline(lag_ns=30 * MILLISECOND, connect_ns=29 * MILLISECOND)

    assert own_lag_ns(t).max() == MILLISECOND
    assert not reasons(t)


def test_a_late_loop_matters_sooner_with_user_stamps():
    """5 ms beside gaps of 20 ms: fine where the kernel stamps, too much where the loop does."""
    assert not reasons(None, report(lag_ns=5 * MILLISECOND))
    assert "event loop" in reasons(None, report(lag_ns=5 * MILLISECOND, stamps="user"))[0]
    assert "event loop" in reasons(None, report(lag_ns=15 * MILLISECOND))[0]


def test_a_saturated_worker_says_so():
    """Nothing can be told from a worker without a moment to spare; the busiest one counts."""
    assert "saturated" in reasons(None, report(), report(cpu_s=9.8))[0]


def test_a_stepped_clock_is_told_when_it_moved_stamps():
    """A step alone may have met no stamp."""
    assert "stepped" in reasons(None, report(clamped=3, clock_steps=1))[0]
    assert not reasons(None, report(clock_steps=1))


def test_a_run_without_a_completed_request_is_invalid():
    """And the first error is named."""
    assert "no request completed" in reasons(timeline(status="timeout"))[0]


def cited(believed=2_000.0, stamps="kernel"):
    return {
        "when": "2030-01-01T00:00:00+00:00",
        "believed_tokens_per_s": believed,
        "gap_error_p99_s": 1e-5,
        "stamp_error_p99_s": 1e-5,
        "stamps": stamps,
    }


def beyond(calibration, *, workers=1):
    """What is said of 1,000 tokens within one second, measured with kernel stamps."""
    out = {"calibration": calibration, "stamps": {"mode": "kernel"}, "workers": workers}
    return beyond_calibration(timeline(), out)


def test_a_run_within_its_calibration_says_nothing():
    """Nor does one without a calibration: the screen says that in its own words."""
    busiest = busiest_second(timeline())
    assert busiest == sum(200 + 10 * row + 20 * k < 1000 for row in range(ROWS) for k in range(20))
    assert beyond(cited()) == []
    assert beyond(None) == []
    assert beyond(cited(believed=busiest)) == []


def test_a_run_beyond_its_calibration_is_warned_not_invalid():
    """More tokens in the busiest second than a worker was believed for; two workers are believed for twice as many."""
    (warning,) = beyond(cited(believed=busiest_second(timeline()) - 1.0))
    assert "beyond the calibration" in warning
    assert beyond(cited(believed=busiest_second(timeline()) / 2), workers=2) == []


def test_a_calibration_for_other_stamps_or_for_nothing_is_told():
    """It says nothing about this run."""
    assert "calibrated with user stamps" in beyond(cited(stamps="user"))[0]
    assert "no load was found" in beyond(cited(believed=None))[0]


def test_the_busiest_second_of_nothing_is_empty():
    """No chunk, no token."""
    none = timeline().take(np.zeros(0, dtype=np.int64))
    assert busiest_second(none) == 0


def test_lag_buckets_are_narrow():
    """A bucket's upper edge is at most an eighth above what fell into it."""
    lags = np.unique(np.geomspace(1, 1e11, 2000).astype(np.int64)).tolist()

    assert all(lag <= lag_of_bucket(lag_bucket(lag)) <= lag * 1.125 + 1 for lag in lags)
    assert [lag_bucket(lag) for lag in lags] == sorted(lag_bucket(lag) for lag in lags)
