"""A cluster whose requests come from outside, one at a time, while it runs: what a server's front end would talk to.

The engine, the routers and the door are those of `simulate`; what is missing is the plan. Nothing here knows a clock:
`arrive` and `cancel` say when, `peek` says when something happens next, `step` makes it happen and says who got a token.
Rules:
1. What arrives may be handed in late: it takes its place in the order of time, behind nothing that is already stepped.
2. Iterations are stepped one by one (no fast-forwarding), because each one's tokens are wanted when it ends.
3. Nothing is kept of a request that is over, so a live cluster runs for as long as its clock does (int64 ps: 106 days).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from inferometer.sim.kernel import ARRIVAL, END, WAKE, Kernel
from inferometer.sim.prefix import Text
from inferometer.sim.routers import Ask
from inferometer.sim.seqs import Seq
from inferometer.sim.simulate import Deployment, Served, resolve, serving, shares


class Ended(NamedTuple):
    """An iteration that ended (or a look at the queue): who got a token, whose was the last, who cannot be served."""

    t_ps: int
    emitted: list[int]  # keys
    over: frozenset[int]
    refused: list[int]


class Live:
    """Replicas behind a router, on one kernel; requests are known by the keys that their owner gives them."""

    def __init__(self, served: Served, *, block: int | None = None) -> None:
        """`block`: the tokens of a KV block, where prompts that begin alike are to be told (`arrive`); None: they need not."""
        self._replicas, self._route, self.door = served
        self.block = block
        self._kernel = Kernel()
        self._home: dict[
            int, tuple[Seq, int]
        ] = {}  # of each request that is here: itself, and its replica

    @property
    def running(self) -> int:
        """Requests that hold memory."""
        return sum(replica.resident for replica in self._replicas)

    @property
    def waiting(self) -> int:
        """Requests that do not."""
        return sum(replica.queued for replica in self._replicas)

    @property
    def kv_usage(self) -> float:
        """The share of all KV blocks that is taken."""
        pools = [replica.pool for replica in self._replicas]
        return sum(pool.used for pool in pools) / sum(pool.total for pool in pools)

    @property
    def preemptions(self) -> int:
        """How often a request had to give up its memory, so far."""
        return sum(replica.preemptions for replica in self._replicas)

    def arrive(
        self,
        key: int,
        prompt: int,
        output: int,
        t_ps: int,
        *,
        session: str | None = None,
        blocks: Sequence[int] = (),
    ) -> None:
        """A request comes in at `t_ps`, to make `output` tokens.

        `blocks`: a number for each whole KV block of its prompt, equal where the tokens are.
        """
        size = self.block or 1
        text = Text(key, blocks, size, len(blocks) * size) if blocks else None
        ask = Ask(key, session, prompt, text)
        self._at(t_ps, partial(self._admit, Seq(key, t_ps, prompt, output, text), ask))

    def cancel(self, key: int, t_ps: int) -> None:
        """Its client is gone at `t_ps`: it gives up its memory when its iteration ends. An unknown key is no error."""
        self._at(t_ps, partial(self._cancel, key))

    def peek(self) -> int | None:
        """When something happens next [ps]; None: not before somebody arrives."""
        return self._kernel.peek()

    def step(self) -> Ended:
        """Make the next event happen."""
        t_ps, _, _, happen = self._kernel.pop()
        ended: Ended = happen(t_ps)
        return ended

    def _at(self, t_ps: int, happen: Callable[[int], Ended]) -> None:
        self._kernel.push(max(t_ps, self._kernel.now_ps), ARRIVAL, happen)

    def _admit(self, seq: Seq, ask: Ask, t_ps: int) -> Ended:
        index = self._route(self._replicas, ask) if len(self._replicas) > 1 else 0
        self._home[seq.row] = seq, index
        if self._replicas[index].arrive(seq, t_ps):
            self._kernel.push(t_ps, WAKE, partial(self._wake, index))
        return _nothing(t_ps)

    def _cancel(self, key: int, t_ps: int) -> Ended:
        if key in self._home:
            seq, index = self._home.pop(key)
            if self._replicas[index].cancel(seq, t_ps):
                self._kernel.push(t_ps, WAKE, partial(self._wake, index))
        return _nothing(t_ps)

    def _wake(self, index: int, t_ps: int) -> Ended:
        """Look for work; where there was some already, the event that it ends with is pending."""
        refused = self._launch(index, t_ps) if self._replicas[index].idle else []
        return Ended(t_ps, [], frozenset(), refused)

    def _end(self, index: int, t_ps: int) -> Ended:
        replica = self._replicas[index]
        if replica.peek() != t_ps:
            return _nothing(t_ps)
        emitted = [seq.row for seq in replica.emitting()]
        over = frozenset(seq.row for seq in replica.advance())
        for key in over:
            del self._home[key]
        return Ended(t_ps, emitted, over, self._launch(index, t_ps))

    def _launch(self, index: int, t_ps: int) -> list[int]:
        """Start what can be started; the keys of those that never can be."""
        replica = self._replicas[index]
        replica.launch(t_ps)
        end = replica.peek()
        if end is not None:
            self._kernel.push(end, END, partial(self._end, index))
        refused = [seq.row for seq in replica.take_refused()]
        for key in refused:
            del self._home[key]
        return refused


def live(deployment: Deployment) -> Live:
    """A deployment, ready for requests; UserError where it cannot be. Its longest request is `--max-len`, or 4096 tokens."""
    built = resolve(deployment, longest=1)
    block = deployment.limits.block_size if shares(deployment, built) else None
    return Live(serving(deployment, built, stretch=False), block=block)


def _nothing(t_ps: int) -> Ended:
    return Ended(t_ps, [], frozenset(), [])
