"""Lanes: replicas that have nothing to do with one another, each played by itself, in the memory of one at a time.

Where every request's time is in the plan, and the router never looks at loads (`routers.BLIND`), who serves whom is known
before t = 0. Then nothing that happens on one replica matters to another, and no heap is needed to put their events in
order: each lane has its arrivals, and the end of its iteration. The result is bit-identical to a `Cluster`'s, which a
property test shows; lanes are only faster, the more so the more there are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from inferometer.agenda import NEVER
from inferometer.plan import Plan
from inferometer.sim.cluster import NO_ROOM, Door, Outcome, Requests
from inferometer.sim.engine import Replica
from inferometer.sim.kernel import PS_PER_NS
from inferometer.sim.prefix import Texts
from inferometer.sim.routers import Ask, Router
from inferometer.timeline import ABSENT, Ints


def independent(plan: Plan) -> bool:
    """Whether every request's time is known before the run."""
    return not (len(plan.parent_row) or np.any(plan.intended_ns == ABSENT))


class Lane:
    """One replica, and the rows that it will get [n] with their times [n] [ps], in order."""

    __slots__ = ("_arrived", "_over", "_replica", "_requests", "_rows", "_times", "outcome")

    def __init__(
        self, replica: Replica, requests: Requests, outcome: Outcome, rows: Ints, times: Ints
    ) -> None:
        self._replica, self._requests, self.outcome = replica, requests, outcome
        self._rows, self._times = array("q", rows.tobytes()), array("q", times.tobytes())
        self._arrived = self._over = 0

    def play(self, upto: int) -> None:
        """Go on until all rows below `upto` are over."""
        rows, ended, count = self._rows, self.outcome.ended, len(self._rows)
        while self._over < count and rows[self._over] < upto:
            if ended[rows[self._over]] >= 0:
                self._over += 1
                continue
            end, at = self._replica.peek(), self._next()
            if end is None or at <= end:
                self._arrive(at)
            else:
                self._end(end)

    def _next(self) -> int:
        return self._times[self._arrived] if self._arrived < len(self._times) else NEVER

    def _arrive(self, t_ps: int) -> None:
        """All that arrive at one instant, and then, where the replica is idle, the first look at them."""
        if t_ps == NEVER:
            raise AssertionError("a request is neither over nor to come, and nothing is running")
        while self._next() == t_ps:
            row = self._rows[self._arrived]
            self._replica.arrive(self._requests.seq(row, t_ps), t_ps)
            self._arrived += 1
        if self._replica.idle:
            self._launch(t_ps)

    def _end(self, t_ps: int) -> None:
        for seq in self._replica.advance():
            self.outcome.keep(seq, t_ps)
        self._launch(t_ps)

    def _launch(self, t_ps: int) -> None:
        replica = self._replica
        at = self._next()
        replica.launch(t_ps, at if at < NEVER else None)
        if replica.refused:
            for seq in replica.take_refused():
                self.outcome.keep(seq, t_ps)
                self.outcome.reason[seq.row] = NO_ROOM


class Lanes:
    """One play of one plan: what a `Cluster` is, for `independent` plans and blind routers."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        route: Router,
        door: Door,
        plan: Plan,
        *,
        until_ps: int = NEVER,
        texts: Texts | None = None,
        front_ps: int = 0,
    ) -> None:
        """`until_ps`: no row is started at or after it. `texts`: what prompts share, where replicas care.

        `front_ps`: what a request spends on its way in, where it occupies nothing.
        """
        self._rows, self._replicas = len(plan), replicas
        self._requests = Requests(plan, texts)
        self.outcome = Outcome.of(len(plan))
        times = plan.intended_ns * PS_PER_NS
        rows, homes = self._homes(route, door, plan, np.flatnonzero(times < until_ps), times)
        self._lanes = [
            Lane(replica, self._requests, self.outcome, mine, times[mine] + front_ps)
            for index, replica in enumerate(replicas)
            for mine in (rows[homes == index],)
        ]

    @property
    def exhausted(self) -> bool:
        """Never: there is no closed loop."""
        return False

    def play(self) -> Outcome:
        """Run until nothing is left to happen."""
        for _ in self.parts(self._rows + 1):
            pass
        return self.outcome

    def parts(self, rows: int) -> Iterator[range]:
        """The same, and what is finished while it runs: the plan's rows in order, `rows` of them at a time."""
        for first in range(0, max(self._rows, 1), rows):
            last = min(first + rows, self._rows)
            for lane in self._lanes:
                lane.play(last)
            if last == self._rows:
                for replica in self._replicas:
                    replica.check()
            yield range(first, last)

    def _homes(
        self, route: Router, door: Door, plan: Plan, started: Ints, times: Ints
    ) -> tuple[Ints, Ints]:
        """The rows that get in, in order, and the replica of each; the others are dropped."""
        outcome, requests, sole = self.outcome, self._requests, len(self._replicas) == 1
        rows, homes = array("q"), array("q")
        for row, at in zip(started.tolist(), times[started].tolist(), strict=True):
            outcome.intended[row] = at
            prompt = requests.prompt[row]
            why = door(prompt, requests.output[row])
            if why is not None:
                outcome.ended[row] = at
                outcome.reason[row] = why
                continue
            home = (
                0 if sole else route(self._replicas, Ask(row, plan.session_id[row], prompt, None))
            )
            outcome.replica[row] = home
            rows.append(row)
            homes.append(home)
        return np.array(rows, dtype=np.int64), np.array(homes, dtype=np.int64)
