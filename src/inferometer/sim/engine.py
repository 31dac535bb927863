"""The engine: one replica that runs iterations. A policy decides, the engine applies, checks and keeps the times.

The parts: a `Seq` is a request inside a replica; a `Cohort` is sequences that decode together, one token each per
iteration; a `Step` is a policy's decision; a `Flight` is an iteration (or a stretch of identical ones) that is running.

Nothing here is done per token. Sequences of one cohort share one log of iteration end times, and a sequence's tokens
are the slice of it between joining and leaving. What an iteration needs to know of all its sequences (how many, the sum
of their contexts, who needs a new block, who ends next) is kept as running aggregates, O(1) per iteration:
    a sequence's context is `base + cohort.step`, so all contexts grow when `step` does
    it needs a block whenever its context is 1 modulo the block size: counts per residue class say how many do
    it ends when `step` reaches a number that is known (to the engine, not to the policy) when it joins: a heap

Fast-forward. A step that is nothing but "everybody decodes" is repeated by the policy until something happens: an
arrival that could be admitted, an end, or memory too tight for it (rule 3 of `policies`). So k iterations become one
flight, whose end times are one cumulative sum of integers; an arrival cuts it short, at the first end not before it.
The result is bit-identical to stepping (`stretch=False`), which a property test shows.

The engine is driven from outside and has no clock: `arrive`, `launch`, `peek`, `advance`. So a kernel can run it as fast
as it goes, and an emulator in real time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np

from inferometer.sim.cost import Cost
from inferometer.sim.memory import BlockPool

LONGEST_STRETCH = 1024
VECTOR_FROM = 12  # iterations from which a cumulative sum beats a loop
LOG_LENGTH = 1 << 16
CHECK_EVERY = 4096  # flights between full checks of the conservation laws


class Seq:
    """A request inside a replica. What it has left to emit is the truth, which no policy sees."""

    __slots__ = (
        "_ends_at",
        "_left",
        "arrived_ps",
        "base",
        "blocks",
        "cohort",
        "done",
        "mark",
        "pieces",
        "prompt",
        "restarts",
        "row",
        "scheduled_ps",
        "skipped",
    )

    def __init__(self, row: int, arrived_ps: int, prompt: int, output: int) -> None:
        self.row = row  # of the plan
        self.arrived_ps = arrived_ps
        self.prompt = (
            prompt  # tokens to prefill; after a preemption, what was generated before counts, too
        )
        self.done = 0  # of those
        self.blocks = (
            0  # held while waiting or prefilling (a decoding sequence's follow from its context)
        )
        self.skipped = False  # resident, its prefill unfinished, and left out of the last step
        self.restarts = 0
        self.scheduled_ps: int | None = None  # when it was first in a batch
        self.pieces: list[
            int | tuple[array[int], int, int]
        ] = []  # token times: stamps, and slices of logs
        self.cohort: Cohort | None = None
        self.base = self.mark = self._ends_at = 0
        self._left = output

    @property
    def known(self) -> int:
        """Tokens whose KV must be computed before the next can be made: the prompt, and what was generated."""
        return self.prompt if self.cohort is None else self.base + self.cohort.step

    @property
    def emitted(self) -> int:
        """Tokens that it has made."""
        made = sum(1 if isinstance(piece, int) else piece[2] - piece[1] for piece in self.pieces)
        return made + (self.cohort.step - self.mark if self.cohort else 0)

    def stamps(self) -> bytes:
        """The times of its tokens [ps], as int64."""
        return b"".join(
            piece.to_bytes(8, "little")
            if isinstance(piece, int)
            else piece[0][piece[1] : piece[2]].tobytes()
            for piece in self.pieces
        )


class Cohort:
    """Sequences that decode together. Law: `context` is the sum of the members' contexts."""

    __slots__ = (
        "_due",
        "_ends",
        "_joined",
        "_log_from",
        "block",
        "context",
        "log",
        "members",
        "step",
    )

    def __init__(self, block: int) -> None:
        self.block = block  # 0: nobody ever needs a block (all are reserved)
        self.members: dict[Seq, None] = {}
        self.step = 0
        self.context = 0
        self.log: array[int] = array("q")  # end times of its iterations, from step `_log_from` on
        self._log_from = 0
        self._due = [0] * max(block, 1)
        self._joined = 0
        self._ends: list[tuple[int, int, Seq]] = []

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Seq]:
        return iter(self.members)

    def needs(self) -> int:
        """Blocks that its next iteration needs."""
        return self._due[self.step % self.block] if self.block else 0

    def needs_block(self, seq: Seq) -> bool:
        """Whether this member is one of those that need one."""
        return bool(self.block) and (seq.base + self.step) % self.block == 1 % self.block

    def held(self, seq: Seq) -> int:
        """Blocks that this member holds, between iterations."""
        return -(-(seq.base + self.step - 1) // self.block) if self.block else seq.blocks

    def next_end(self) -> int:
        """The `step` at which the next member ends (one that has left may still be named: an early look is no error)."""
        return self._ends[0][0]

    def join(self, seq: Seq, context: int, left: int) -> None:
        """Add a sequence of `context` tokens that will make `left` more."""
        seq.cohort, seq.base, seq.mark = self, context - self.step, self.step
        seq._ends_at = self.step + left  # noqa: SLF001
        self.members[seq] = None
        self.context += context
        if self.block:
            self._due[(1 - seq.base) % self.block] += 1
        self._joined += 1
        heappush(self._ends, (seq._ends_at, self._joined, seq))  # noqa: SLF001

    def leave(self, seq: Seq) -> tuple[int, int]:
        """Take a member out; its context, and how many tokens it has still to make."""
        del self.members[seq]
        context = seq.base + self.step
        self.context -= context
        if self.block:
            self._due[(1 - seq.base) % self.block] -= 1
        self._close(seq)
        seq.cohort = None
        return context, seq._ends_at - self.step  # noqa: SLF001

    def demand(self, count: int) -> int:
        """Blocks that the next `count` iterations need together."""
        if not self.block:
            return 0
        rounds, rest = divmod(count, self.block)
        step, due, block = self.step, self._due, self.block
        return rounds * len(self.members) + sum(due[(step + j) % block] for j in range(rest))

    def room(self, blocks: int, count: int) -> int:
        """How many of the next `count` iterations are sure to need no more than `blocks` together (at least 1)."""
        if not self.block:
            return count
        rounds = blocks // len(self.members)
        if rounds:
            return min(count, rounds * self.block)
        for j in range(min(count, self.block)):
            blocks -= self._due[(self.step + j) % self.block]
            if blocks < 0:
                return max(j, 1)
        return min(count, self.block)

    def advance(self, ends: list[int]) -> list[Seq]:
        """Decode one token each at every one of `ends`; the members that ended, already out."""
        if len(self.log) >= LOG_LENGTH:
            self._renew()
        self.log.extend(ends)
        self.step += len(ends)
        self.context += len(ends) * len(self.members)
        over = []
        while self._ends and self._ends[0][0] <= self.step:
            at, _, seq = heappop(self._ends)
            if seq.cohort is self and seq._ends_at == at:  # noqa: SLF001
                seq._ends_at = -1  # noqa: SLF001  (it may be named twice: left, and back for the same end)
                over.append(seq)
        return over

    def check(self) -> None:
        """The law of the aggregates; raises AssertionError."""
        total = sum(seq.base + self.step for seq in self.members)
        if total != self.context or self._log_from + len(self.log) != self.step:
            raise AssertionError(f"contexts add up to {total}, not {self.context}")

    def _close(self, seq: Seq) -> None:
        """Give a member the slice of the log that is its own so far."""
        if self.step > seq.mark:
            first = self._log_from
            seq.pieces.append((self.log, seq.mark - first, self.step - first))
            seq.mark = self.step

    def _renew(self) -> None:
        """Begin a new log: the old one lives for as long as a sequence has a slice of it, so memory stays bounded."""
        for seq in self.members:
            self._close(seq)
        self.log, self._log_from = array("q"), self.step

    def absorb(self, other: Cohort) -> None:
        """Take over all members of another cohort, behind one's own."""
        for seq in list(other.members):
            self.join(seq, *other.leave(seq))


class Chunk(NamedTuple):
    """`tokens` of a sequence's prompt, for which it is to hold `blocks` blocks in all."""

    seq: Seq
    tokens: int
    blocks: int


class Step(NamedTuple):
    """What one iteration is to do. Sequences in `prefill` that wait must be the queue's head, in order."""

    prefill: tuple[Chunk, ...] | list[Chunk] = ()
    decode: bool = False  # whether the decoders decode ...
    part: tuple[Seq, ...] | list[Seq] = ()  # ... or only these of them
    preempt: (
        tuple[Seq, ...] | list[Seq]
    ) = ()  # these first, in this order: each goes to the queue's head


DECODE = Step(decode=True)


class View(Protocol):
    """What a policy may see. It may change none of it."""

    @property
    def waiting(self) -> deque[Seq]:
        """Not resident, in order: FIFO, preempted ones at the head."""

    @property
    def prefilling(self) -> list[Seq]:
        """Resident, prefill unfinished, not in flight."""

    @property
    def decoders(self) -> Cohort:
        """Resident and decoding, not in flight."""

    @property
    def resident(self) -> int:
        """All that hold memory, those in flight included."""

    @property
    def stages(self) -> int:
        """Pipeline stages: so many iterations may be in flight."""

    @property
    def pool(self) -> BlockPool:
        """The KV cache."""


class Policy(Protocol):
    """Who runs next. `plan` is pure; its rules are in `policies/__init__.py`."""

    @property
    def name(self) -> str:
        """As in `systems.py`."""

    @property
    def fifo(self) -> bool:
        """Whether nothing that arrives can overtake a queue that is not empty."""

    @property
    def paged(self) -> bool:
        """Whether memory is taken block by block, as contexts grow (else all of it at admission)."""

    @property
    def spare(self) -> int:
        """Blocks beyond the needed ones without which it may preempt."""

    @property
    def keeps_prompt(self) -> bool:
        """Whether a sequence that is preempted amid its prefill keeps its prompt (Vidur cuts it: docs/fidelity.md)."""

    @property
    def longest_prompt(self) -> int | None:
        """Tokens beyond which a prompt is refused at the door; None: only memory and the model bound it."""

    def plan(self, view: View) -> Step | None:
        """The next iteration; None: there is nothing to run."""
        ...


class Flight:
    """A step that runs: `ends` are the end times of its iterations (more than one only in a stretch)."""

    __slots__ = ("cohort", "ends", "prefill")

    def __init__(
        self, prefill: tuple[Chunk, ...] | list[Chunk], cohort: Cohort | None, ends: list[int]
    ) -> None:
        self.prefill, self.cohort, self.ends = prefill, cohort, ends


class Replica:
    """One replica of a model: its queue, its memory, its pipeline. `stretch` turns fast-forwarding on."""

    def __init__(
        self, policy: Policy, cost: Cost, pool: BlockPool, *, stages: int = 1, stretch: bool = True
    ) -> None:
        self.policy, self.cost, self.pool, self.stages = policy, cost, pool, stages
        self.waiting: deque[Seq] = deque()
        self.prefilling: list[Seq] = []
        self._block = pool.block if policy.paged else 0
        self.decoders = Cohort(self._block)
        self.resident = 0
        self.iterations = 0
        self.preemptions = 0
        self._refused: list[Seq] = []
        self._leaving: list[Seq] = []  # cancelled while in flight
        self._stretch = stretch and stages == 1
        self._flights: deque[Flight] = deque()
        self._stage_free = [0] * stages
        self._until_check = CHECK_EVERY

    @property
    def outstanding(self) -> int:
        """Requests that are here and not finished."""
        return len(self.waiting) + self.resident

    @property
    def queued(self) -> int:
        """Requests that are here and not resident."""
        return len(self.waiting)

    @property
    def idle(self) -> bool:
        """Whether a slot is free for another step."""
        return len(self._flights) < self.stages

    def take_refused(self) -> list[Seq]:
        """What could not be admitted even with the replica to itself, each handed out once."""
        refused, self._refused = self._refused, []
        return refused

    def peek(self) -> int | None:
        """When the next flight ends; None while nothing runs."""
        return self._flights[0].ends[-1] if self._flights else None

    def arrive(self, seq: Seq, t_ps: int) -> bool:
        """Queue a request; True where `peek` or a free slot must be looked at again.

        An arrival that could be admitted cuts a stretch at its first iteration that does not end before `t_ps`.
        """
        blocked = bool(self.waiting) and self.policy.fifo
        self.waiting.append(seq)
        if len(self._flights) < self.stages:
            return True
        return False if blocked else self._cut(t_ps)

    def cancel(self, seq: Seq, t_ps: int) -> bool:
        """Forget a request that is here and not finished; True where `peek` or a free slot must be looked at again.

        One that is in flight leaves when its flight ends (a stretch is cut as by an arrival); any other leaves now.
        """
        if self._flying(seq):
            self._leaving.append(seq)
            return self._cut(t_ps)
        self._forget(seq)
        return True if len(self._flights) < self.stages else self._cut(t_ps)

    def emitting(self) -> list[Seq]:
        """Who gets a token when the flight that ends next has ended (one at each of its iterations, if it decodes)."""
        if not self._flights:
            return []
        flight = self._flights[0]
        whole = [chunk.seq for chunk in flight.prefill if _completes(chunk)]
        return [seq for seq in (*(flight.cohort or ()), *whole) if seq not in self._leaving]

    def launch(self, now_ps: int, horizon_ps: int | None = None) -> None:
        """Start as many steps as there are free slots. `horizon_ps`: when an arrival is expected to cut a stretch."""
        while len(self._flights) < self.stages:
            step = self.policy.plan(self)
            if step is None:
                if not self._stuck():
                    return
                self._refused.append(self.waiting.popleft())
            else:
                self._begin(step, now_ps, horizon_ps)

    def advance(self) -> list[Seq]:
        """End the flight that ends next; the sequences that are finished with it."""
        flight = self._flights.popleft()
        over: list[Seq] = []
        self.iterations += len(flight.ends)
        if flight.cohort is not None:
            if len(flight.ends) > 1:  # the first iteration's blocks were taken when it began
                more = flight.cohort.demand(len(flight.ends)) - flight.cohort.needs()
                self.pool.take(more)
            over = self._decoded(flight.cohort, flight.ends)
        if flight.prefill:
            over += self._prefilled(flight.prefill, flight.ends[-1])
        if self._leaving:
            over = self._swept(over)
        self._until_check -= 1
        if not self._until_check:
            self._until_check = CHECK_EVERY
            self.check()
        return over

    def check(self) -> None:
        """The conservation laws, in full: blocks, residents, contexts (O(residents)); raises AssertionError."""
        flying = [
            flight.cohort for flight in self._flights if flight.cohort not in (None, self.decoders)
        ]
        cohorts = [self.decoders, *(cohort for cohort in flying if cohort is not None)]
        chunks = [chunk.seq for flight in self._flights for chunk in flight.prefill]
        held = sum(seq.blocks for seq in (*self.prefilling, *chunks))
        held += sum(cohort.held(seq) for cohort in cohorts for seq in cohort)
        if not self._flights and held != self.pool.used:
            raise AssertionError(f"{held} blocks are held, {self.pool.used} are in use")
        count = len(self.prefilling) + len(chunks) + sum(map(len, cohorts))
        if count != self.resident:
            raise AssertionError(f"{count} sequences are resident, {self.resident} are counted")
        for cohort in cohorts:
            cohort.check()

    # --- somebody leaves ----------------------------------------------------------------------------------------------

    def _cut(self, t_ps: int) -> bool:
        """End a stretch at its first iteration that does not end before `t_ps`; whether there was one to cut."""
        flight = self._flights[0]
        if len(flight.ends) == 1:
            return False
        del flight.ends[bisect_left(flight.ends, t_ps) + 1 :]
        return True

    def _flying(self, seq: Seq) -> bool:
        return any(
            (seq.cohort is not None and flight.cohort is seq.cohort)
            or any(chunk.seq is seq for chunk in flight.prefill)
            for flight in self._flights
        )

    def _swept(self, over: list[Seq]) -> list[Seq]:
        """`over` without those that were cancelled meanwhile; the rest of these leaves, unless it flies again."""
        leaving, self._leaving = self._leaving, []
        for seq in leaving:
            if seq in over:
                continue
            if self._flying(seq):
                self._leaving.append(seq)
            else:
                self._forget(seq)
        return [seq for seq in over if seq not in leaving]

    def _forget(self, seq: Seq) -> None:
        """Take out a request that is not in flight."""
        if seq.cohort is not None:
            if self._block:
                seq.blocks = seq.cohort.held(seq)
            seq.cohort.leave(seq)
            self._free(seq)
        elif seq in self.prefilling:
            self.prefilling.remove(seq)
            self._free(seq)
        else:
            self.waiting.remove(seq)

    # --- a step begins ------------------------------------------------------------------------------------------------

    def _stuck(self) -> bool:
        """Whether the queue's head has the replica to itself and still cannot be admitted."""
        return bool(self.waiting) and not self.resident and not self._flights

    def _begin(self, step: Step, now_ps: int, horizon_ps: int | None) -> None:
        for seq in step.preempt:
            self._preempt(seq)
        cohort = self._picked(step.part) if step.decode else None
        if cohort is not None:
            self.pool.take(cohort.needs())
        if step.prefill or self.prefilling:
            self._admit(step.prefill, now_ps)
        if cohort is None and not step.prefill:
            return  # nothing but preemptions: the policy is asked again
        if cohort is not None and self._stretch and not step.prefill and not step.preempt:
            ends = self._run_of(cohort, now_ps, horizon_ps)
        else:
            ends = [self._through(step.prefill, cohort, now_ps)]
        self._flights.append(Flight(step.prefill, cohort, ends))

    def _picked(self, part: tuple[Seq, ...] | list[Seq]) -> Cohort | None:
        """The cohort that decodes; in a pipeline it is out of the pool of decoders while it is in flight."""
        cohort = self.decoders
        if part:
            picked = Cohort(self._block)
            for seq in part:
                picked.join(seq, *cohort.leave(seq))
            return picked
        if self.stages > 1:
            self.decoders = Cohort(self._block)
        return cohort if cohort.members else None

    def _admit(self, chunks: tuple[Chunk, ...] | list[Chunk], now_ps: int) -> None:
        for seq in self.prefilling:
            seq.skipped = True
        for seq, _, blocks in chunks:
            if seq.done:
                self.prefilling.remove(seq)
            else:
                if self.waiting.popleft() is not seq:
                    raise AssertionError(
                        "a policy admitted a request that is not at the queue's head"
                    )
                self.resident += 1
                if seq.scheduled_ps is None:
                    seq.scheduled_ps = now_ps
            self.pool.take(blocks - seq.blocks)
            seq.blocks, seq.skipped = blocks, False

    def _preempt(self, seq: Seq) -> None:
        """Recompute: give up all memory, go to the queue's head, and prefill what is known by then."""
        cohort = seq.cohort
        if cohort is None:
            self.prefilling.remove(seq)
            if not self.policy.keeps_prompt:
                seq._left += seq.prompt - seq.done  # noqa: SLF001
                seq.prompt = seq.done
        else:
            if self._block:
                seq.blocks = cohort.held(seq)
            seq.prompt, seq._left = cohort.leave(seq)  # noqa: SLF001
        self.pool.give(seq.blocks)
        seq.blocks = seq.done = 0
        seq.skipped = False
        seq.restarts += 1
        self.preemptions += 1
        self.resident -= 1
        self.waiting.appendleft(seq)

    def _through(
        self, prefill: tuple[Chunk, ...] | list[Chunk], cohort: Cohort | None, now_ps: int
    ) -> int:
        """When one iteration leaves the pipeline, each stage of which works first come, first served."""
        chunks = [(chunk.tokens, chunk.seq.done) for chunk in prefill]
        if cohort is None:
            stages = self.cost.step(chunks, 0, 0)
        else:
            stages = self.cost.step(chunks, len(cohort.members), cohort.context)
        at, free = now_ps, self._stage_free
        for stage, duration in enumerate(stages):
            at = free[stage] = max(at, free[stage]) + duration
        return at

    def _run_of(self, cohort: Cohort, now_ps: int, horizon_ps: int | None) -> list[int]:
        """The end times of the identical decode iterations that follow one another from `now_ps`."""
        count = min(cohort.next_end() - cohort.step, LONGEST_STRETCH)
        size, context = len(cohort.members), cohort.context
        first = self.cost.decode(size, context)
        if horizon_ps is not None and count > 1:
            count = min(count, max((horizon_ps - now_ps) // first + 1, 1))
        if count > 1:  # the first iteration's blocks are taken already
            count = cohort.room(self.pool.free + cohort.needs() - self.policy.spare, count)
        if count <= 1:
            return [now_ps + first]
        if count < VECTOR_FROM:
            decode = self.cost.decode
            more = [decode(size, context + size * j) for j in range(1, count)]
            return list(accumulate(more, initial=now_ps + first))
        ends: list[int] = (now_ps + np.cumsum(self.cost.decode_run(size, context, count))).tolist()
        return ends

    # --- a step ends --------------------------------------------------------------------------------------------------

    def _decoded(self, cohort: Cohort, ends: list[int]) -> list[Seq]:
        over = cohort.advance(ends)
        for seq in over:
            if self._block:
                seq.blocks = cohort.held(seq)
            cohort.leave(seq)
            self._free(seq)
        if cohort is not self.decoders and cohort.members:
            if self.decoders.members:
                self.decoders.absorb(cohort)
            else:
                self.decoders = cohort
        return over

    def _prefilled(self, prefill: tuple[Chunk, ...] | list[Chunk], t_ps: int) -> list[Seq]:
        over = []
        for seq, tokens, _ in prefill:
            seq.done += tokens
            if seq.done < seq.prompt:
                self.prefilling.append(seq)
                continue
            seq.pieces.append(t_ps)
            seq._left -= 1  # noqa: SLF001
            if seq._left:  # noqa: SLF001
                self.decoders.join(seq, seq.prompt + 1, seq._left)  # noqa: SLF001
            else:
                self._free(seq)
                over.append(seq)
        return over

    def _free(self, seq: Seq) -> None:
        self.pool.give(seq.blocks)
        seq.blocks = 0
        self.resident -= 1


def _completes(chunk: Chunk) -> bool:
    """Whether a prompt's last token is in this chunk."""
    return chunk.seq.done + chunk.tokens == chunk.seq.prompt
