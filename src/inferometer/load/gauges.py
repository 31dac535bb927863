"""What a driver counts of itself, and what it asks of the operating system before it starts.

Lags are kept as a histogram with 8 buckets per power of two (at most 12.5 % wide), because one is noted per pass of
the loop and a list of them would grow with the run.
"""

from __future__ import annotations

import gc
import resource
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from inferometer.errors import UserError

LAG_BUCKETS = 320  # up to an hour


@dataclass(slots=True)
class Gauges:
    """What the driver counts of itself; the raw material of the instrument record."""

    started: int = 0
    ended: int = 0
    failed: int = 0
    peak_in_flight: int = 0
    opened: int = 0
    opened_ahead: int = 0
    reused: int = 0
    stale: int = 0
    retries: int = 0
    reads: int = 0
    bytes: int = 0
    user_stamps: int = 0
    clock_steps: int = 0
    passes: int = 0
    lag_counts: list[int] = field(default_factory=lambda: [0] * LAG_BUCKETS)
    lag_max_ns: int = 0
    gc_pauses_ns: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    recent_first_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    recent_gap_ns: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    recent_lag_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))


def lag_bucket(lag_ns: int) -> int:
    """The bucket of a lag: 8 per power of two, so that a bucket is at most 12.5 % wide."""
    if lag_ns < 8:
        return lag_ns
    shift = lag_ns.bit_length() - 4
    return min(LAG_BUCKETS - 1, (shift + 1) * 8 + ((lag_ns >> shift) & 7))


def lag_of_bucket(bucket: int) -> int:
    """The upper edge of a bucket [ns]."""
    if bucket < 8:
        return bucket
    shift, rest = bucket // 8 - 1, bucket % 8
    return ((8 + rest + 1) << shift) - 1


class CollectorOff:
    """Keeps Python's cyclic collector off while the clock runs, and counts the pauses if somebody turns it on."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges
        self._began_ns = 0

    def __enter__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._note)

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)
        gc.enable()
        gc.unfreeze()

    def _note(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._began_ns = time.monotonic_ns()
        else:
            self._gauges.gc_pauses_ns.append(time.monotonic_ns() - self._began_ns)


def allow_descriptors(needed: int) -> None:
    """Raise the soft limit of open files as far as needed; UserError where the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed += 64
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(
            f"{needed} open files are needed, {hard} are allowed",
            where="ulimit -n",
            remedy="raise the limit, or use fewer streams or more --workers",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def sharpen_timers() -> None:
    """Ask Linux to wake this thread when it is due, not up to 50 µs later (PR_SET_TIMERSLACK)."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return
