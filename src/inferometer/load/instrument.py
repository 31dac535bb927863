"""The instrument's own error, in every run: how late it sent, how late it looked, how busy it was, what it cannot know.

A run is *invalid* when that error is not small beside what was measured. The rules, each with its reason, are the
`_check_*` functions; docs/instrument.md defends the bounds. Invalid runs are kept: they are evidence too.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer.clock import MILLISECOND, SECOND, resolution_ns
from inferometer.load.gauges import lag_of_bucket
from inferometer.metrics import latency
from inferometer.timeline import ABSENT, Ints, Timeline

LATE_NS = 5 * MILLISECOND  # a send later than this is counted as late
SMALL = 0.10  # the instrument's error may be this share of what it measures
FLOOR_NS = MILLISECOND  # and is never called large below this
BUSY_SHARE = 0.95  # of a core, over the whole run


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker says at its end; times in ns, `lag_counts` as in `gauges.lag_bucket`."""

    worker: int
    stamps: str
    peak_in_flight: int
    opened: int
    opened_ahead: int
    reused: int
    stale: int
    retries: int
    reads: int
    bytes: int
    user_stamps: int
    clock_steps: int
    clamped: int
    passes: int
    lag_counts: list[int]
    lag_max_ns: int
    gc_pauses_ns: list[int]
    cpu_s: float
    wall_s: float
    stopped: str | None
    exhausted: bool
    notes: dict[str, int]


def record(timeline: Timeline, reports: list[Report], *, planned: int) -> dict[str, Any]:
    """The instrument section of the manifest, its verdict included. Times in seconds."""
    lag_ns = own_lag_ns(timeline)
    out: dict[str, Any] = {
        "workers": len(reports),
        "send_lag": _spread(lag_ns)
        | {"definition": "sent - intended - the wait for a connection to open"},
        "loop_lag": _histogram(reports)
        | {"definition": "the longest that a readable byte can have waited, by read"},
        "late_sends": int(np.count_nonzero(lag_ns > LATE_NS)),
        "cpu_share": max((r.cpu_s / r.wall_s for r in reports if r.wall_s), default=None),
        "cpu_s": sum(r.cpu_s for r in reports),
        "peak_in_flight": sum(r.peak_in_flight for r in reports),
        "connections": {
            "opened": sum(r.opened for r in reports),
            "opened_ahead": sum(r.opened_ahead for r in reports),
            "reused": sum(r.reused for r in reports),
            "found_closed": sum(r.stale for r in reports),
            "connect": _spread(timeline.connect_ns[timeline.connect_ns != ABSENT]),
        },
        "retries": sum(r.retries for r in reports),
        "stamps": {
            "mode": "+".join(sorted({r.stamps for r in reports})),
            "user_fallbacks": sum(r.user_stamps for r in reports),
            "clock_steps": sum(r.clock_steps for r in reports),
            "clamped": sum(r.clamped for r in reports),
            "reads": sum(r.reads for r in reports),
            "shared_by_several_chunks": _shared(timeline),
        },
        "gc": {
            "pauses": sum(len(r.gc_pauses_ns) for r in reports),
            "max_s": max((ns for r in reports for ns in r.gc_pauses_ns), default=0) / SECOND,
        },
        "clock": {"source": clock_source(), "resolution_s": resolution_ns() / SECOND},
        "planned": planned,
        "started": int(np.count_nonzero(timeline.status != "dropped")),
    }
    reasons = [reason for check in CHECKS if (reason := check(timeline, out))]
    return out | {"valid": not reasons, "invalid_reasons": reasons}


def own_lag_ns(timeline: Timeline) -> Ints:
    """How much later than intended each sent request went out through our own doing [ns].

    The wait for a connection to open is the network's and the server's, and has a column of its own.
    """
    sent = timeline.sent_ns != ABSENT
    waited = np.where(timeline.connect_ns == ABSENT, 0, timeline.connect_ns)[sent]
    return np.asarray(np.maximum(0, (timeline.sent_ns - timeline.intended_ns)[sent] - waited))


def notes_of(reports: list[Report]) -> list[str]:
    """Remarks that the replies gave rise to, with how many replies each."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.notes)
    return [f"{note} ({count} replies)" for note, count in total.most_common()]


def beyond_calibration(timeline: Timeline, out: dict[str, Any]) -> list[str]:
    """Where a run went further than the calibration that its record cites: a warning, for the run has its own checks."""
    cited = out["calibration"]
    if cited is None:
        return []
    mode, believed = out["stamps"]["mode"], cited["believed_tokens_per_s"]
    if believed is None:
        return ["calibrated, but no load was found at which this host can be believed"]
    if mode != cited["stamps"]:
        return [f"calibrated with {cited['stamps']} stamps; this run has {mode} stamps"]
    busiest, limit = busiest_second(timeline), believed * out["workers"]
    if busiest <= limit:
        return []
    warning = (
        f"beyond the calibration: {busiest:,} tokens in the busiest second, believed up to"
        f" {limit:,.0f} ({believed:,.0f} per worker); use more --workers, or calibrate for more"
    )
    return [warning]


def busiest_second(timeline: Timeline) -> int:
    """The largest number of tokens that arrived within one second of the run's clock."""
    if not timeline.chunks:
        return 0
    return int(np.bincount(timeline.chunk_ns // SECOND, weights=timeline.chunk_tokens).max())


def clock_source() -> str:
    """The kernel's clock source (tsc, kvm-clock, hpet...), where it says."""
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


# --- what makes a run invalid -----------------------------------------------------------------------------------------


def _check_sends(timeline: Timeline, out: dict[str, Any]) -> str | None:
    """Load that was not sent on time is not the load that was asked for."""
    p99 = out["send_lag"]["p99"]
    bound_s = max(FLOOR_NS / SECOND, SMALL * (_median_ttft_s(timeline) or 0.0))
    if p99 is not None and p99 > bound_s:
        return (
            f"requests were sent late: p99 {1e3 * p99:.1f} ms, more than {SMALL:.0%} of the median TTFT"
            f" ({1e3 * bound_s:.1f} ms); use more --workers or another machine"
        )
    return None


def _check_stamps(timeline: Timeline, out: dict[str, Any]) -> str | None:
    """A loop that looks later than tokens come cannot tell them apart.

    With user stamps the lag of the loop is the error of a stamp. Kernel stamps are blurred only where one read holds
    what arrived at several times, so the lag matters from half of a gap on.
    """
    gap_s, lag_s = _median_gap_s(timeline), out["loop_lag"]["p99"]
    if gap_s is None or lag_s is None:
        return None
    kernel = out["stamps"]["mode"] == "kernel"
    bound_s = max(FLOOR_NS / SECOND, (0.5 if kernel else SMALL) * gap_s)
    if lag_s > bound_s:
        return (
            f"the event loop was late: p99 {1e3 * lag_s:.1f} ms beside a median gap of {1e3 * gap_s:.1f} ms"
            f" (bound {1e3 * bound_s:.1f} ms); use more --workers or another machine"
        )
    return None


def _check_cpu(_: Timeline, out: dict[str, Any]) -> str | None:
    """A worker without a moment to spare measures itself."""
    share = out["cpu_share"]
    if share is not None and share > BUSY_SHARE:
        return f"a worker used {share:.0%} of its core: the instrument is saturated; use more --workers"
    return None


def _check_clock(_: Timeline, out: dict[str, Any]) -> str | None:
    """Kernel stamps are wall-clock times; a step of that clock while they were taken moves them."""
    if out["stamps"]["clamped"] and out["stamps"]["clock_steps"]:
        return f"the wall clock was stepped during the run, and {out['stamps']['clamped']} stamps with it; run again"
    return None


def _check_any(timeline: Timeline, _: dict[str, Any]) -> str | None:
    """Without one completed request there is nothing to believe."""
    if not len(timeline):
        return "no request was sent"
    if not timeline.ok.any():
        error = next((e for e in timeline.error if e), "no reason given")
        return f"no request completed; the first error: {error}"
    return None


CHECKS = (_check_any, _check_sends, _check_stamps, _check_cpu, _check_clock)


def _median_ttft_s(timeline: Timeline) -> float | None:
    ttft_s = latency.ttft(timeline)
    ttft_s = ttft_s[timeline.ok & ~np.isnan(ttft_s)]
    return float(np.median(ttft_s)) if len(ttft_s) else None


def _median_gap_s(timeline: Timeline) -> float | None:
    """The median time between two arrivals of a stream; chunks that share a stamp are one arrival."""
    gaps = np.diff(timeline.chunk_ns)
    inside = np.ones(len(gaps), dtype=bool)
    edges = timeline.chunk_offset[1:-1] - 1
    inside[edges[(edges >= 0) & (edges < len(gaps))]] = False
    gaps = gaps[inside & (gaps > 0)]
    return float(np.median(gaps)) / SECOND if len(gaps) else None


def _shared(timeline: Timeline) -> float | None:
    if not timeline.chunks:
        return None
    same = np.diff(timeline.chunk_ns) == 0
    return float(np.count_nonzero(same)) / timeline.chunks


def _spread(ns: Ints) -> dict[str, Any]:
    if not len(ns):
        return {"n": 0, "p50": None, "p99": None, "max": None}
    p50, p99 = np.percentile(ns, [50, 99]) / SECOND
    return {"n": len(ns), "p50": float(p50), "p99": float(p99), "max": float(ns.max()) / SECOND}


def _histogram(reports: list[Report]) -> dict[str, Any]:
    if not reports:
        return {"n": 0, "p50": None, "p99": None, "max": None}
    counts = np.sum([report.lag_counts for report in reports], axis=0)
    below = np.cumsum(counts)
    if not below[-1]:
        return {"n": 0, "p50": None, "p99": None, "max": None}
    p50, p99 = (
        lag_of_bucket(int(np.searchsorted(below, q * below[-1]))) / SECOND for q in (0.5, 0.99)
    )
    longest = max(report.lag_max_ns for report in reports) / SECOND
    return {"n": int(below[-1]), "p50": min(p50, longest), "p99": min(p99, longest), "max": longest}
