"""The kernel: a clock, a heap, and one total order of everything that happens.

Time in here is int64 *picoseconds*: durations come from cost models as reals, and are rounded once each. At 1 ps the
rounding of 10⁵ iterations in a row adds up to under 1 ns, which is what a timeline resolves (at 1 ns it would be some
0.1 µs: visible beside a reference). 2⁶³ ps are 106 days.

Events are ordered by (time, rank, sequence number). The rank says what goes first at one instant: requests arrive,
get past the front end, then idle replicas look for work, then iterations end; so what arrives at the very end of an iteration is seen by the
decision that follows. Equal ranks go in the order in which they were pushed. Nothing depends on addresses or hashes.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

PS_PER_NS = 1_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

ARRIVAL, ENTER, WAKE, END = range(4)


Event = tuple[int, int, int, Any]
"""(t_ps, rank, sequence number, what): `what` is only for whoever pushed it. A plain tuple: there are many."""


class Kernel:
    """The events to come, and the time of the last one taken."""

    __slots__ = ("_heap", "_seq", "now_ps")

    def __init__(self) -> None:
        self.now_ps = 0
        self._heap: list[Event] = []
        self._seq = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, t_ps: int, rank: int, what: Any) -> None:
        """Let `what` happen at `t_ps`, which is not in the past."""
        if t_ps < self.now_ps:
            raise AssertionError(f"an event at {t_ps} ps was pushed at {self.now_ps} ps")
        self._seq += 1
        heappush(self._heap, (t_ps, rank, self._seq, what))

    def peek(self) -> int | None:
        """When the next event is; None where there is none."""
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Event:
        """Take the next event, and move the clock to it."""
        event = heappop(self._heap)
        self.now_ps = event[0]
        return event

    def alone_until(self, t_ps: int) -> bool:
        """Move the clock to `t_ps` if nothing else happens before or at it; whether that was so."""
        if self._heap and self._heap[0][0] <= t_ps:
            return False
        self.now_ps = t_ps
        return True


def to_ps(seconds: float) -> int:
    """Seconds as whole picoseconds."""
    return round(seconds * PS_PER_S)
