"""The cluster: replicas, a router, and a plan that is played to them, on one kernel.

Knows who is released when, and collects what came of it; everything about a single replica is the engine's.
Order at one instant: arrivals (by plan row), then idle replicas look for work, then iterations end (`kernel`). A
replica's end event may be stale, because an arrival cut its stretch: an event counts only if it is the replica's
`peek`, so a stale one is no more than a look that finds nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from inferometer.plan import Plan
from inferometer.sim.engine import Replica, Seq
from inferometer.sim.kernel import ARRIVAL, END, PS_PER_NS, WAKE, Kernel
from inferometer.sim.routers import Router
from inferometer.timeline import ABSENT

SLOT_PS = (
    100_000 * PS_PER_NS
)  # between the openings of two slots of a closed loop, as the load driver opens them

Door = Callable[[int, int], str | None]
"""Why a request of (prompt, output) tokens can never be served; None if it can."""


class Releases:
    """Which row of a plan starts when: the load driver's rules (`load.agenda`), on simulated time.

    Timed rows at their time; rows of a closed loop when a slot is free; later turns `think_ns` after the last of their
    parents ended, and never if one of those failed.
    """

    def __init__(self, plan: Plan) -> None:
        waits = np.diff(plan.parent_offset)
        first = waits == 0
        timed = first & (plan.intended_ns != ABSENT)
        rows = np.flatnonzero(timed)
        self._timed = zip((plan.intended_ns[rows] * PS_PER_NS).tolist(), rows.tolist(), strict=True)
        self._slotted = deque(np.flatnonzero(first & ~timed).tolist())
        self._uses_slot = set(self._slotted)
        self._slots = plan.concurrency or 0
        self._waits: list[int] = waits.tolist()
        self._since: dict[int, int] = {}
        self._think_ns = plan.think_ns
        owner = np.repeat(np.arange(len(plan)), waits)
        self._children: dict[int, list[int]] = {}
        for parent, child in zip(plan.parent_row.tolist(), owner.tolist(), strict=True):
            self._children.setdefault(parent, []).append(child)

    def timed(self) -> Iterator[tuple[int, int]]:
        """(t_ps, row) of the rows whose time is known, in order."""
        return self._timed

    def first(self) -> Iterator[tuple[int, int]]:
        """(t_ps, row) of what fills the slots of a closed loop at the beginning."""
        for slot in range(min(self._slots, len(self._slotted))):
            yield slot * SLOT_PS, self._slotted.popleft()

    def ended(self, row: int, t_ps: int, *, ok: bool) -> Iterator[tuple[int, int]]:
        """(t_ps, row) of what a row's end releases."""
        if row in self._uses_slot and self._slotted:
            yield t_ps, self._slotted.popleft()
        for child in self._children.get(row, ()):
            self._since[child] = max(t_ps, self._since.get(child, 0))
            self._waits[child] -= 1 if ok else len(self._waits) + 1  # below 0: never
            if self._waits[child] == 0:
                yield self._since.pop(child) + int(self._think_ns[child]) * PS_PER_NS, child


@dataclass(slots=True)
class Outcome:
    """What came of each row of a plan, by row: times in ps, -1 where it did not happen."""

    intended: list[int]
    scheduled: list[int]
    ended: list[int]
    replica: list[int]
    stamps: list[bytes]
    reason: dict[int, str] = field(default_factory=dict)  # of those that were dropped


class Cluster:
    """One play of one plan."""

    def __init__(self, replicas: Sequence[Replica], route: Router, door: Door, plan: Plan) -> None:
        rows = len(plan)
        self._replicas, self._route, self._door = replicas, route, door
        self._prompt: list[int] = plan.prompt_tokens.tolist()
        self._output: list[int] = plan.output_tokens.tolist()
        self._releases = Releases(plan)
        self._timed = self._releases.timed()
        self._kernel = Kernel()
        self.outcome = Outcome([-1] * rows, [-1] * rows, [-1] * rows, [-1] * rows, [b""] * rows)

    def play(self) -> Outcome:
        """Run until nothing is left to happen."""
        for _ in self.parts(len(self._prompt) + 1):
            pass
        return self.outcome

    def parts(self, rows: int) -> Iterator[range]:
        """The same, and what is finished while it runs: the plan's rows in order, `rows` of them at a time.

        The rest comes last. Whoever takes a part may forget its stamps before asking for the next.
        """
        kernel, ended, taken, done, last = self._kernel, self.outcome.ended, 0, 0, len(self._prompt)
        self._next_timed()
        for t_ps, row in self._releases.first():
            kernel.push(t_ps, ARRIVAL, row)
        while kernel:
            t_ps, rank, _, what = kernel.pop()
            if rank == ARRIVAL:
                self._arrive(what, t_ps)
            elif rank == WAKE:
                self._wake(what, t_ps)
            elif self._replicas[what].peek() == t_ps:
                self._end(what, t_ps)
            while done < last and ended[done] >= 0:
                done += 1
            if done - taken >= rows:
                yield range(taken, done)
                taken = done
        for replica in self._replicas:
            replica.check()
        yield range(taken, len(self._prompt))

    def _next_timed(self) -> None:
        timed = next(self._timed, None)
        if timed is not None:
            self._kernel.push(timed[0], ARRIVAL, (timed[1],))

    def _arrive(self, what: int | tuple[int], t_ps: int) -> None:
        if isinstance(what, tuple):  # a timed row: the next one takes its place in the heap
            row = what[0]
            self._next_timed()
        else:
            row = what
        self.outcome.intended[row] = t_ps
        why = self._door(self._prompt[row], self._output[row])
        if why is not None:
            self._drop(row, t_ps, why)
            return
        index = self._route(self._replicas) if len(self._replicas) > 1 else 0
        self.outcome.replica[row] = index
        seq = Seq(row, t_ps, self._prompt[row], self._output[row])
        replica = self._replicas[index]
        if not replica.arrive(seq, t_ps):
            return
        if replica.idle:
            self._kernel.push(t_ps, WAKE, index)
        else:  # its stretch was cut: it ends earlier than it was going to
            self._kernel.push(replica.peek() or t_ps, END, index)

    def _end(self, index: int, t_ps: int) -> None:
        """End the replica's iteration and start the next one, and so on while nothing else happens in between."""
        replica = self._replicas[index]
        end: int | None = t_ps
        while end is not None:
            for seq in replica.advance():
                self._finish(seq, end)
            self._launch(index, end)
            end = replica.peek()
            if end is not None and not self._kernel.alone_until(end):
                self._kernel.push(end, END, index)
                return

    def _wake(self, index: int, t_ps: int) -> None:
        self._launch(index, t_ps)
        end = self._replicas[index].peek()
        if end is not None:
            self._kernel.push(end, END, index)

    def _launch(self, index: int, t_ps: int) -> None:
        replica = self._replicas[index]
        replica.launch(t_ps, self._kernel.peek() if len(self._replicas) == 1 else None)
        for seq in replica.take_refused():
            self._drop(seq.row, t_ps, "its prompt needs more KV blocks than the replica has", seq)

    def _finish(self, seq: Seq, t_ps: int) -> None:
        self._keep(seq, t_ps)
        for at, row in self._releases.ended(seq.row, t_ps, ok=True):
            self._kernel.push(at, ARRIVAL, row)

    def _keep(self, seq: Seq, t_ps: int) -> None:
        outcome, row = self.outcome, seq.row
        outcome.ended[row] = t_ps
        outcome.stamps[row] = seq.stamps()
        outcome.scheduled[row] = -1 if seq.scheduled_ps is None else seq.scheduled_ps

    def _drop(self, row: int, t_ps: int, why: str, seq: Seq | None = None) -> None:
        self.outcome.reason[row] = why
        self.outcome.ended[row] = t_ps
        if seq is not None:
            self._keep(seq, t_ps)
        for at, later in self._releases.ended(row, t_ps, ok=False):
            self._kernel.push(at, ARRIVAL, later)
