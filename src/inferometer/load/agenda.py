"""Which row of a plan starts next, and when: the whole of the load's timing, without a socket or a clock.

Times are ns since the run's epoch and come in as arguments. Rules:
1. A row with an intended time is due then, whatever else is going on (open loop).
2. A row without one takes the next free slot, and is intended at the moment that slot became free (closed loop).
   A session keeps its slot until its last turn is over.
   At the beginning slots open 0.1 ms apart.
3. A row with parents is intended `think_ns` after the last of them ended; if one failed, it is never sent, and is
   handed out by `take_dropped` with the reason.
Nothing is ever skipped because it is late: late load is sent late, and the lag is recorded by whoever sends it.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from inferometer.plan import Plan
from inferometer.timeline import ABSENT, Ints

SLOT_NS = 100_000  # between the openings of two slots of a closed loop


class Start(NamedTuple):
    """A row that is to be sent now, and since when it should have been."""

    row: int
    intended_ns: int


class Agenda:
    """The starts of one plan (or of one worker's stripe of it); mutable, owned by one driver."""

    def __init__(self, plan: Plan, *, stop_ns: int | None = None) -> None:
        """`stop_ns`: no row is started that is intended at or after it."""
        waits_for = np.diff(plan.parent_offset)
        first = waits_for == 0
        timed = first & (plan.intended_ns != ABSENT)
        self._timed = np.flatnonzero(timed).tolist()
        self._timed_ns = plan.intended_ns[timed].tolist()
        self._next = 0  # index into _timed
        self._slotted = np.flatnonzero(first & ~timed)
        self._next_slotted = 0  # index into _slotted
        # Since when each slot is free. They open one after the other: nobody can send a thousand
        # requests in one instant, and a loop that begins in one goes on in waves.
        self._free = deque(range(0, (plan.concurrency or 0) * SLOT_NS, SLOT_NS))
        self._later: list[tuple[int, int]] = []  # heap of (intended_ns, row): turns and retries
        self._think_ns = plan.think_ns
        self._waits_for = waits_for.tolist()
        self._children = _children(plan)
        self._since_ns: dict[int, int] = {}  # the latest end among a waiting row's parents
        self._has_slot = first & ~timed & bool(plan.concurrency)
        self._root = _roots(plan)
        self._left = np.bincount(self._root, minlength=len(plan))  # rows of each root not over yet
        self._dropped: list[tuple[Start, str]] = []
        self._stop_ns = stop_ns

    def next_ns(self) -> int | None:
        """When the next row is due; None while that hangs on a request in flight, or when none is left."""
        times = []
        if self._next < len(self._timed):
            times.append(self._timed_ns[self._next])
        if self._later:
            times.append(self._later[0][0])
        if self._next_slotted < len(self._slotted) and self._free:
            times.append(self._free[0])
        earliest = min(times, default=None)
        if earliest is not None and self._stop_ns is not None and earliest >= self._stop_ns:
            return None
        return earliest

    def due(self, now_ns: int) -> list[Start]:
        """Take all rows that should have started by `now_ns`, in order of intended time."""
        starts = []
        limit_ns = now_ns if self._stop_ns is None else min(now_ns, self._stop_ns - 1)
        while self._next < len(self._timed) and self._timed_ns[self._next] <= limit_ns:
            starts.append(Start(self._timed[self._next], self._timed_ns[self._next]))
            self._next += 1
        while self._later and self._later[0][0] <= limit_ns:
            intended_ns, row = heappop(self._later)
            starts.append(Start(row, intended_ns))
        while self._next_slotted < len(self._slotted) and self._free and self._free[0] <= limit_ns:
            row = int(self._slotted[self._next_slotted])
            starts.append(Start(row, self._free.popleft()))
            self._next_slotted += 1
        return starts if len(starts) < 2 else sorted(starts, key=_by_time)

    def ended(self, row: int, t_ns: int, *, ok: bool) -> None:
        """Say that a row ended: its slot is free, and the turns that waited for it may come due."""
        self._leave(row, t_ns)
        for child in self._children.get(row, ()):
            if not ok:
                self._drop(child, t_ns, row)
                continue
            self._waits_for[child] -= 1
            self._since_ns[child] = max(t_ns, self._since_ns.get(child, t_ns))
            if self._waits_for[child] == 0:
                since_ns = self._since_ns.pop(child)
                heappush(self._later, (since_ns + int(self._think_ns[child]), child))

    def again(self, row: int, t_ns: int) -> None:
        """Put a row back, due at `t_ns` (a retry; its slot stays taken)."""
        heappush(self._later, (t_ns, row))

    def stop(self, t_ns: int) -> None:
        """Start nothing that is intended at or after `t_ns`."""
        self._stop_ns = t_ns if self._stop_ns is None else min(self._stop_ns, t_ns)

    def take_dropped(self) -> list[tuple[Start, str]]:
        """The rows that will never be sent because an earlier turn failed, each handed out once."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def exhausted(self) -> bool:
        """Whether a closed loop has a free slot but no row left to fill it (the plan was too short)."""
        return bool(self._free) and self._next_slotted >= len(self._slotted)

    def _leave(self, row: int, t_ns: int) -> None:
        """A slot is free when the whole session that took it is over."""
        root = self._root[row]
        self._left[root] -= 1
        if self._left[root] == 0 and self._has_slot[root]:
            self._free.append(t_ns)

    def _drop(self, row: int, t_ns: int, failed: int) -> None:
        if self._waits_for[row] < 0:
            return
        self._waits_for[row] = -1
        self._leave(row, t_ns)
        self._dropped.append((Start(row, t_ns), f"an earlier turn failed (row {failed})"))
        for child in self._children.get(row, ()):
            self._drop(child, t_ns, row)


def _by_time(start: Start) -> int:
    return start.intended_ns


def _roots(plan: Plan) -> Ints:
    """The first row of each row's session: itself, where it waits for nobody."""
    root = np.arange(len(plan), dtype=np.int64)
    first_parent = plan.parent_offset[:-1]
    for row in np.flatnonzero(np.diff(plan.parent_offset) > 0).tolist():  # parents come first
        root[row] = root[plan.parent_row[first_parent[row]]]
    return root


def _children(plan: Plan) -> dict[int, list[int]]:
    owner = np.repeat(np.arange(len(plan)), np.diff(plan.parent_offset))
    children: dict[int, list[int]] = {}
    for parent, child in zip(plan.parent_row.tolist(), owner.tolist(), strict=True):
        children.setdefault(parent, []).append(child)
    return children
