"""Time as an argument.

One monotonic clock in int64 nanoseconds serves the whole instrument; nothing else may read the time.
On Linux it is CLOCK_MONOTONIC, which all processes of a host share, so that a plan's epoch, a worker's stamps and
an emulator's own log of its writes are directly comparable.
A wall-clock time is known only through one `Anchor` per run, written to the manifest and used for display.

`RealClock` sleeps; `VirtualClock` jumps, so that a test of a ten-hour schedule takes a millisecond.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000


class Clock(Protocol):
    """What code that waits may ask of time."""

    def now_ns(self) -> int:
        """Nanoseconds on a monotonic scale; only differences mean anything."""
        ...

    def sleep_until(self, t_ns: int) -> None:
        """Return once `now_ns() >= t_ns`, at once where that is already so."""
        ...


class RealClock:
    """The host's monotonic clock."""

    now_ns = staticmethod(time.monotonic_ns)

    def sleep_until(self, t_ns: int) -> None:
        """Block the calling thread until `t_ns`."""
        while (left := t_ns - time.monotonic_ns()) > 0:
            time.sleep(left / SECOND)


class VirtualClock:
    """A clock that moves only when somebody sleeps on it."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The virtual time."""
        return self._now_ns

    def sleep_until(self, t_ns: int) -> None:
        """Jump to `t_ns`; never backwards."""
        self._now_ns = max(self._now_ns, t_ns)


class Anchor(NamedTuple):
    """One instant read on both clocks: `unix_ns` is the wall clock when the monotonic one said `monotonic_ns`."""

    monotonic_ns: int
    unix_ns: int


def anchor() -> Anchor:
    """The tightest of a few bracketed readings of both clocks (error: half of a bracket, well under 1 µs)."""
    brackets = []
    for _ in range(8):
        before = time.monotonic_ns()
        unix = time.time_ns()
        after = time.monotonic_ns()
        brackets.append((after - before, (before + after) // 2, unix))
    _, monotonic, unix = min(brackets)
    return Anchor(monotonic, unix)


def resolution_ns() -> int:
    """The smallest step that the monotonic clock was seen to take [ns]."""
    steps = []
    for _ in range(64):
        first = time.monotonic_ns()
        while (second := time.monotonic_ns()) == first:
            pass
        steps.append(second - first)
    return min(steps)
