"""Which row of a plan starts next, and when: the whole of the load's timing, without a socket, a clock or an engine.

Every world that plays a plan asks it: the load driver in ns of real time, the simulator in ps of simulated time. Times
are whole numbers of 1/`per_ns` ns since the run's epoch, and come in as arguments. Rules:
1. A row with an intended time is due then, whatever else is going on (open loop).
2. A row without one takes the next free slot, and is intended at the moment that slot became free (closed loop).
   A session keeps its slot until its last turn is over.
   At the beginning slots open 0.1 ms apart.
3. A row with parents is intended `think_ns` after the last of them ended; if one failed, it is never sent, and is
   handed out by `take_dropped` with the reason.
Nothing is ever skipped because it is late: late load is sent late, and the lag is recorded by whoever sends it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.plan import Plan
from inferometer.timeline import ABSENT

SLOT_NS = 100_000  # between the openings of two slots of a closed loop
NEVER = 1 << 63
RAN_OUT = "the plan ran out of rows before the time was up; give --requests"


class Start(NamedTuple):
    """A row that is to be sent now, and since when it should have been."""

    row: int
    intended: int


class Agenda:
    """The starts of one plan (or of one worker's stripe of it); mutable, owned by whoever plays it."""

    def __init__(self, plan: Plan, *, until: int = NEVER, per_ns: int = 1) -> None:
        """`until`: no row is started that is intended at or after it."""
        waits_for = np.diff(plan.parent_offset)
        first = waits_for == 0
        timed = first & (plan.intended_ns != ABSENT)
        self._timed = np.flatnonzero(timed).tolist()
        self._timed_at = [*(plan.intended_ns[timed] * per_ns).tolist(), NEVER]
        self._next = 0  # index into _timed
        self._slotted = np.flatnonzero(first & ~timed).tolist()
        self._next_slotted = 0  # index into _slotted
        # Since when each slot is free, a heap. They open one after the other: nobody can send a thousand
        # requests in one instant, and a loop that begins in one goes on in waves.
        slots = plan.concurrency or 0
        self._free = list(range(0, slots * SLOT_NS * per_ns, SLOT_NS * per_ns))
        self._later: list[tuple[int, int]] = []  # heap of (intended, row): turns and retries
        self._per_ns = per_ns
        self._request_id = plan.request_id
        self._think_ns = plan.think_ns
        self._waits_for = waits_for.tolist()  # parents that have not ended; below 0: one failed
        self._children = _children(plan)
        self._since: dict[int, int] = {}  # the latest end among a waiting row's parents
        # Rows that are not over yet, by the session that has a slot for them; an open loop has none.
        self._root = _roots(plan) if slots else []
        self._left = _counts(self._root, first & ~timed)
        self._dropped: list[tuple[Start, str]] = []
        self._until = until

    def next_time(self) -> int | None:
        """When the next row is due; None while that hangs on a request in flight, or when none is left."""
        earliest = self._timed_at[self._next]
        if self._later and self._later[0][0] < earliest:
            earliest = self._later[0][0]
        if self._free and self._next_slotted < len(self._slotted) and self._free[0] < earliest:
            earliest = self._free[0]
        return earliest if earliest < self._until else None

    def due(self, now: int) -> list[Start]:
        """Take all rows that should have started by `now`, in order of intended time."""
        starts = []
        limit = now if now < self._until else self._until - 1
        while self._timed_at[self._next] <= limit:
            starts.append(Start(self._timed[self._next], self._timed_at[self._next]))
            self._next += 1
        while self._later and self._later[0][0] <= limit:
            intended, row = heappop(self._later)
            starts.append(Start(row, intended))
        while self._free and self._free[0] <= limit and self._next_slotted < len(self._slotted):
            starts.append(Start(self._slotted[self._next_slotted], heappop(self._free)))
            self._next_slotted += 1
        return starts if len(starts) < 2 else sorted(starts, key=_by_time)

    def ended(self, row: int, t: int, *, ok: bool) -> bool:
        """Say that a row ended: its slot is free, and the turns that waited for it may come due.

        False where that changed nothing, so that nobody need ask for the `next_time`.
        """
        children = self._children.get(row)
        if self._root:
            self._leave(row, t)
        if children and ok:
            self._come_nearer(children, t)
        elif children:
            self._drop(list(children), t, row)
        return bool(children or self._root)

    def again(self, row: int, t: int) -> None:
        """Put a row back, due at `t` (a retry; its slot stays taken)."""
        heappush(self._later, (t, row))

    def stop(self, t: int) -> None:
        """Start nothing that is intended at or after `t`."""
        self._until = min(self._until, t)

    def take_dropped(self) -> list[tuple[Start, str]]:
        """The rows that will never be sent because an earlier turn failed, each handed out once."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def exhausted(self) -> bool:
        """Whether a closed loop has a free slot but no row left to fill it (the plan was too short)."""
        return bool(self._free) and self._next_slotted >= len(self._slotted)

    def _leave(self, row: int, t: int) -> None:
        """A slot is free when the whole session that took it is over."""
        root = self._root[row]
        self._left[root] -= 1
        if self._left[root] == 0:
            heappush(self._free, t)

    def _come_nearer(self, rows: list[int], t: int) -> None:
        """One parent less to wait for; after the last one, the pause."""
        for row in rows:
            self._waits_for[row] -= 1
            self._since[row] = max(t, self._since.get(row, t))
            if self._waits_for[row] == 0:
                think = int(self._think_ns[row]) * self._per_ns
                heappush(self._later, (self._since.pop(row) + think, row))

    def _drop(self, rows: list[int], t: int, failed: int) -> None:
        """Drop rows, and all that waits for them; a list and not recursion, because sessions have thousands of turns."""
        why = f"an earlier turn failed ({self._request_id[failed]})"
        for row in rows:  # grows while it is read
            if self._waits_for[row] < 0:
                continue
            self._waits_for[row] = -1
            if self._root:
                self._leave(row, t)
            self._dropped.append((Start(row, t), why))
            rows += self._children.get(row, ())


def _by_time(start: Start) -> int:
    return start.intended


def _roots(plan: Plan) -> list[int]:
    """The first row of each row's session: itself, where it waits for nobody."""
    root = list(range(len(plan)))
    first_parent = plan.parent_offset[:-1]
    for row in np.flatnonzero(np.diff(plan.parent_offset) > 0).tolist():  # parents come first
        root[row] = root[plan.parent_row[first_parent[row]]]
    return root


def _counts(root: list[int], slotted: NDArray[np.bool_]) -> list[int]:
    """Rows by root; 0 where the root takes no slot, so that it never comes down to 0."""
    rows = np.bincount(np.array(root, dtype=np.int64), minlength=len(root))
    counts: list[int] = np.where(slotted[: len(root)], rows, 0).tolist()
    return counts


def _children(plan: Plan) -> dict[int, list[int]]:
    owner = np.repeat(np.arange(len(plan)), np.diff(plan.parent_offset))
    children: dict[int, list[int]] = {}
    for parent, child in zip(plan.parent_row.tolist(), owner.tolist(), strict=True):
        children.setdefault(parent, []).append(child)
    return children
