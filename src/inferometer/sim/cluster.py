"""The cluster: replicas, a router, and a plan that is played to them, on one kernel.

Collects what came of each row; who is released when is the agenda's business, and a single replica the engine's.
Order at one instant: arrivals (by plan row), then idle replicas look for work, then iterations end (`kernel`). A
replica's end event may be stale, because an arrival cut its stretch: an event counts only if it is the replica's
`peek`, so a stale one is no more than a look that finds nothing. So it is with arrivals: one event stands for the next
time on the agenda, and counts only if it is the one expected.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from inferometer.agenda import NEVER, Agenda
from inferometer.plan import Plan
from inferometer.sim.engine import Replica
from inferometer.sim.kernel import ARRIVAL, END, ENTER, PS_PER_NS, WAKE, Kernel
from inferometer.sim.prefix import Text, Texts
from inferometer.sim.routers import Ask, Router
from inferometer.sim.seqs import Seq

Door = Callable[[int, int], str | None]
"""Why a request of (prompt, output) tokens can never be served; None if it can."""


NO_ROOM = "its prompt needs more KV blocks than the replica has"


@dataclass(slots=True)
class Outcome:
    """What came of each row of a plan, by row: times in ps, -1 where it did not happen.

    `cached`: prompt tokens found in the prefix cache, -1 where there is none. `reason`: of those that were dropped.
    """

    intended: array[int]
    scheduled: array[int]
    ended: array[int]
    replica: array[int]
    cached: array[int]
    stamps: list[bytes]
    reason: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: int) -> Outcome:
        """Of a plan of which nothing has happened yet."""
        one, two, three, four, five = (array("q", (-1,)) * rows for _ in range(5))
        return cls(one, two, three, four, five, [b""] * rows)

    def keep(self, seq: Seq, t_ps: int) -> None:
        """A request that got in is over."""
        row = seq.row
        self.ended[row] = t_ps
        self.stamps[row] = seq.stamps()
        self.cached[row] = seq.cached
        self.scheduled[row] = -1 if seq.scheduled_ps is None else seq.scheduled_ps


class Requests:
    """The rows of a plan as requests: `prompt` and `output` tokens [R], in little memory."""

    __slots__ = ("_texts", "output", "prompt")

    def __init__(self, plan: Plan, texts: Texts | None) -> None:
        self.prompt = array("i", plan.prompt_tokens.tobytes())
        self.output = array("i", plan.output_tokens.tobytes())
        self._texts = texts

    def text(self, row: int) -> Text | None:
        """What it shares with others."""
        return self._texts.of(row) if self._texts is not None else None

    def seq(self, row: int, t_ps: int) -> Seq:
        """The request as it enters a replica."""
        return Seq(row, t_ps, self.prompt[row], self.output[row], self.text(row))


class Cluster:
    """One play of one plan."""

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
        """`until_ps`: no row is started at or after it. `texts`: what prompts share, where replicas or router care.

        `front_ps`: what a request spends on its way in, where it occupies nothing.
        """
        self._requests, self._session = Requests(plan, texts), plan.session_id
        self._replicas, self._route, self._door, self._front_ps = replicas, route, door, front_ps
        self._agenda = Agenda(plan, until=until_ps, per_ns=PS_PER_NS)
        self._expected = NEVER  # when the next rows are released
        self._kernel = Kernel()
        self.outcome = Outcome.of(len(plan))

    @property
    def exhausted(self) -> bool:
        """Whether a closed loop had a free slot and no row left to fill it."""
        return self._agenda.exhausted()

    def play(self) -> Outcome:
        """Run until nothing is left to happen."""
        for _ in self.parts(len(self.outcome.ended) + 1):
            pass
        return self.outcome

    def parts(self, rows: int) -> Iterator[range]:
        """The same, and what is finished while it runs: the plan's rows in order, `rows` of them at a time.

        The rest comes last. Whoever takes a part may forget its stamps before asking for the next.
        """
        kernel, ended, taken, done = self._kernel, self.outcome.ended, 0, 0
        last = len(ended)
        self._expect()
        while kernel:
            t_ps, rank, _, what = kernel.pop()
            if rank == ARRIVAL:
                self._release(t_ps)
            elif rank == ENTER:
                self._enter(what, t_ps)
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
        yield range(taken, last)

    def _expect(self) -> None:
        """Have the agenda looked at when it has something next."""
        at = self._agenda.next_time()
        if at is not None and at < self._expected:
            self._expected = at
            self._kernel.push(at, ARRIVAL, None)

    def _release(self, t_ps: int) -> None:
        if t_ps != self._expected:
            return
        self._expected = NEVER
        for row, _ in self._agenda.due(t_ps):
            self._arrive(row, t_ps)
        self._expect()

    def _arrive(self, row: int, t_ps: int) -> None:
        self.outcome.intended[row] = t_ps
        why = self._door(self._requests.prompt[row], self._requests.output[row])
        if why is not None:
            self._drop(row, t_ps, why)
        elif self._front_ps:
            self._kernel.push(t_ps + self._front_ps, ENTER, row)
        else:
            self._enter(row, t_ps)

    def _enter(self, row: int, t_ps: int) -> None:
        """A request reaches the router, and the queue of a replica."""
        seq = self._requests.seq(row, t_ps)
        index = 0
        if len(self._replicas) > 1:
            index = self._route(self._replicas, Ask(row, self._session[row], seq.prompt, seq.text))
        self.outcome.replica[row] = index
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
        if not replica.refused:
            return
        for seq in replica.take_refused():
            self.outcome.keep(seq, t_ps)
            self._drop(seq.row, t_ps, NO_ROOM)

    def _finish(self, seq: Seq, t_ps: int) -> None:
        self.outcome.keep(seq, t_ps)
        if self._agenda.ended(seq.row, t_ps, ok=True):
            self._expect()

    def _drop(self, row: int, t_ps: int, why: str) -> None:
        self.outcome.reason[row] = why
        self.outcome.ended[row] = t_ps
        self._agenda.ended(row, t_ps, ok=False)
        for start, reason in self._agenda.take_dropped():
            self.outcome.reason[start.row] = reason
            self.outcome.intended[start.row] = self.outcome.ended[start.row] = t_ps
        self._expect()
