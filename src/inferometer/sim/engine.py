"""The engine: one replica that runs iterations. A policy decides, the engine applies, checks and keeps the times.

The parts: a `Seq` is a request inside a replica, a `Cohort` is sequences that decode together (`seqs`); a `Step` is a
policy's decision (`step`); a `Flight` is an iteration, or a stretch of identical ones, that is running.

Fast-forward. A step that is nothing but "everybody decodes" is repeated by the policy until something happens: an
arrival that could be admitted, an end, or memory too tight for it (rule 3 of `policies`). So k iterations become one
flight, whose end times are one cumulative sum of integers; an arrival cuts it short, at the first end not before it.
The result is bit-identical to stepping (`stretch=False`), which a property test shows.

The engine is driven from outside and has no clock: `arrive`, `cancel`, `launch`, `peek`, `advance`. So a kernel can run
it as fast as it goes, and an emulator in real time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from inferometer.sim.cost import Cost
from inferometer.sim.iterations import IterationLog, Note
from inferometer.sim.memory import BlockPool, Host
from inferometer.sim.prefix import PrefixPool, Text
from inferometer.sim.seqs import Cohort, Seq, Times
from inferometer.sim.step import Chunk, Policy, Step
from inferometer.timeline import Ints

LONGEST_STRETCH = 1024
VECTOR_FROM = 12  # iterations from which a cumulative sum beats a loop
CHECK_EVERY = 4096  # flights between full checks of the conservation laws


class Flight:
    """A step that runs: `ends` are the end times of its iterations (more than one only in a stretch)."""

    __slots__ = ("cohort", "ends", "note", "prefill")

    def __init__(
        self, prefill: Sequence[Chunk], cohort: Cohort | None, ends: Times, note: Note | None
    ) -> None:
        self.prefill, self.cohort, self.ends, self.note = prefill, cohort, ends, note


class Replica:
    """One replica of a model: its queue, its memory, its pipeline. `stretch` turns fast-forwarding on.

    `host`: where preempted sequences may be swapped to. `log` gets every iteration, as of replica `index`.
    """

    def __init__(
        self,
        policy: Policy,
        cost: Cost,
        pool: BlockPool,
        *,
        stages: int = 1,
        stretch: bool = True,
        host: Host | None = None,
        log: IterationLog | None = None,
        index: int = 0,
    ) -> None:
        self.policy, self.cost, self.pool, self.stages = policy, cost, pool, stages
        self._cache = pool if isinstance(pool, PrefixPool) else None
        self._host = host or Host()
        self._log, self._index = log, index
        self.host_free = self._host.blocks
        self.swapped: list[Seq] = []
        self.prefilled = False
        self.waiting: deque[Seq] = deque()
        self.prefilling: list[Seq] = []
        self._block = pool.block if policy.paged else 0
        self.decoders = Cohort(self._block)
        self.resident = 0
        self.iterations = 0
        self.preemptions = 0
        self.swaps = 0
        self._noted = 0  # preemptions that are in the log already
        self.refused: list[Seq] = []  # could not be admitted even with the replica to itself
        self._leaving: list[Seq] = []  # cancelled while in flight
        self._stretch = stretch and stages == 1
        self._flights: deque[Flight] = deque()
        self._stage_free = [0] * stages
        self._moving_ps = 0  # for which the host's link is busy before the next iteration
        self._durations: Sequence[int] = ()  # of the last iteration that began, on each stage
        self._until_check = CHECK_EVERY

    @property
    def outstanding(self) -> int:
        """Requests that are here and not finished."""
        return len(self.waiting) + self.resident + len(self.swapped)

    @property
    def queued(self) -> int:
        """Requests that are here and not resident."""
        return len(self.waiting) + len(self.swapped)

    @property
    def idle(self) -> bool:
        """Whether a slot is free for another step."""
        return len(self._flights) < self.stages

    def take_refused(self) -> list[Seq]:
        """What is `refused`, each handed out once."""
        refused, self.refused = self.refused, []
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
                self.refused.append(self.waiting.popleft())
            else:
                self._begin(step, now_ps, horizon_ps)

    def advance(self) -> list[Seq]:
        """End the flight that ends next; the sequences that are finished with it."""
        flight = self._flights.popleft()
        over: list[Seq] = []
        self.iterations += len(flight.ends)
        if len(flight.ends) > 1 and flight.cohort is not None:
            self._took(flight, flight.cohort)
        elif flight.note is not None and self._log is not None:
            self._log.one(self._index, flight.note, self.pool.total)
        if flight.cohort is not None:
            over = self._decoded(flight.cohort, flight.ends)
        if flight.prefill:
            over += self._prefilled(flight.prefill, flight.ends[-1])
        if self._leaving:
            over = self._swept(over)
        self._until_check -= 1
        if not self._until_check:
            self._until_check = CHECK_EVERY
            self._check_residents()
        return over

    def check(self) -> None:
        """The conservation laws, in full; raises AssertionError."""
        self._check_residents()
        self.pool.check()

    def _check_residents(self) -> None:
        """Blocks, residents, contexts (O(residents))."""
        flying = [
            flight.cohort for flight in self._flights if flight.cohort not in (None, self.decoders)
        ]
        cohorts = [self.decoders, *(cohort for cohort in flying if cohort is not None)]
        chunks = [chunk.seq for flight in self._flights for chunk in flight.prefill]
        own = self.pool.own
        held = sum(own(seq, seq.blocks) for seq in (*self.prefilling, *chunks)) + self.pool.pinned
        held += sum(own(seq, cohort.held(seq)) for cohort in cohorts for seq in cohort)
        if not self._flights and held != self.pool.used:
            raise AssertionError(f"{held} blocks are held, {self.pool.used} are in use")
        if sum(seq.blocks for seq in self.swapped) != self._host.blocks - self.host_free:
            raise AssertionError("the host holds other blocks than were swapped out")
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
            self._decoded_out(seq, seq.cohort)
        elif seq in self.prefilling:
            self.prefilling.remove(seq)
            self._free(seq)
        elif seq in self.swapped:
            self.swapped.remove(seq)
            self.host_free += seq.blocks
        else:
            self.waiting.remove(seq)

    # --- a step begins ------------------------------------------------------------------------------------------------

    def _stuck(self) -> bool:
        """Whether the queue's head has the replica to itself and still cannot be admitted."""
        return bool(self.waiting) and not (self.resident or self.swapped or self._flights)

    def _begin(self, step: Step, now_ps: int, horizon_ps: int | None) -> None:
        """Apply a step: some leave, decoders take their blocks, and then one prompt after the other."""
        if step.preempt or step.swap_out or step.swap_in:
            self._make_room(step)
        cohort = self._picked(step.part) if step.decode else None
        if cohort is not None:
            self.pool.take(cohort.needs())
        if step.prefill or self.prefilling:
            self._admit(step.prefill, now_ps)
        self.prefilled = bool(step.prefill)
        if cohort is None and not step.prefill:
            return  # nothing but preemptions: the policy is asked again
        note = self._note(step.prefill, cohort) if self._log is not None else None
        if cohort is not None and self._stretch and step.steady and not self._moving_ps:
            ends: Times = self._run_of(cohort, now_ps, horizon_ps)
        else:
            ends = [self._through(step.prefill, cohort, now_ps)]
        if note is not None:
            note = note._replace(spans=self._spans(now_ps, ends))
        self._flights.append(Flight(step.prefill, cohort, ends, note))

    def _make_room(self, step: Step) -> None:
        """Preempt and swap."""
        for seq in step.preempt:
            self._preempt(seq)
        moved = sum(map(self._swap_out, step.swap_out)) + sum(map(self._swap_in, step.swap_in))
        self._moving_ps += moved * self._host.block_ps

    def _picked(self, part: Sequence[Seq]) -> Cohort | None:
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

    def _admit(self, chunks: Sequence[Chunk], now_ps: int) -> None:
        for seq in self.prefilling:
            seq.skipped = True
        for chunk in chunks:
            seq = chunk.seq
            if seq.done:
                self.prefilling.remove(seq)
            else:
                self._welcome(chunk, now_ps)
            self.pool.take(chunk.blocks - seq.blocks)
            seq.blocks, seq.skipped = chunk.blocks, False
            if seq.text is not None and self._cache is not None:
                self._cache.learn(seq, seq.done + chunk.tokens)

    def _welcome(self, chunk: Chunk, now_ps: int) -> None:
        """The queue's head becomes resident, with what the cache has of its prompt."""
        seq = chunk.seq
        if self.waiting.popleft() is not seq:
            raise AssertionError("a policy admitted a request that is not at the queue's head")
        self.resident += 1
        if chunk.cached and self._cache is not None:
            seq.blocks = self._cache.pin(seq)
            seq.done = seq.blocks * self.pool.block
        if seq.blocks != chunk.cached:
            raise AssertionError(f"{seq.blocks} blocks are cached, {chunk.cached} were planned")
        if seq.scheduled_ps is None:
            seq.scheduled_ps = now_ps
            seq.cached = seq.done if self._cache is not None else -1

    def _preempt(self, seq: Seq) -> None:
        """Recompute: give up all memory, go to the queue's head, and prefill what is known by then."""
        cohort, computed = seq.cohort, seq.done
        if cohort is None:
            self.prefilling.remove(seq)
            if not self.policy.keeps_prompt:
                seq.left += seq.prompt - seq.done
                seq.prompt = seq.done
        else:
            computed = self._left(seq, cohort)
        if self._cache is not None:
            seq.text = seq.text or Text(seq.row)
            self._cache.learn(seq, computed, own=True)
        self.pool.release(seq)
        seq.blocks = seq.done = 0
        seq.skipped = False
        seq.restarts += 1
        self.preemptions += 1
        self.resident -= 1
        self.waiting.appendleft(seq)

    def _left(self, seq: Seq, cohort: Cohort) -> int:
        """A decoder leaves its cohort, to come back later; the tokens of it whose KV is computed."""
        if self._block:
            seq.blocks = cohort.held(seq)
        seq.prompt, seq.left = cohort.leave(seq)
        return seq.prompt - 1

    def _swap_out(self, seq: Seq) -> int:
        """Move a decoder's blocks to the host; how many."""
        if seq.cohort is None:
            raise AssertionError("only what decodes can be swapped out")
        self._left(seq, seq.cohort)
        self.pool.release(seq)
        self.host_free -= seq.blocks
        if self.host_free < 0:
            raise AssertionError(f"the host has no room for {seq.blocks} blocks")
        self.swapped.append(seq)
        self.resident -= 1
        self.preemptions += 1
        self.swaps += 1
        return seq.blocks

    def _swap_in(self, seq: Seq) -> int:
        """Move them back; how many."""
        self.swapped.remove(seq)
        self.pool.take(seq.blocks)
        self.host_free += seq.blocks
        self.resident += 1
        self.decoders.join(seq, seq.prompt, seq.left)
        return seq.blocks

    def _through(self, prefill: Sequence[Chunk], cohort: Cohort | None, now_ps: int) -> int:
        """When one iteration leaves the pipeline, each stage of which works first come, first served.

        What is swapped moves before the first stage begins.
        """
        chunks = [(chunk.tokens, chunk.seq.done) for chunk in prefill]
        if cohort is None:
            stages = self.cost.step(chunks, 0, 0)
        else:
            stages = self.cost.step(chunks, len(cohort.members), cohort.context)
        at, free, more = now_ps, self._stage_free, self._moving_ps
        self._moving_ps = 0
        for stage, duration in enumerate(stages):
            at = free[stage] = max(at, free[stage]) + duration + more
            more = 0
        self._durations = stages
        return at

    def _run_of(self, cohort: Cohort, now_ps: int, horizon_ps: int | None) -> Times:
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
        ends = np.cumsum(self.cost.decode_run(size, context, count))
        ends += now_ps
        return array("q", ends.tobytes())

    # --- a step ends --------------------------------------------------------------------------------------------------

    def _decoded(self, cohort: Cohort, ends: Times) -> list[Seq]:
        over = cohort.advance(ends)
        for seq in over:
            self._decoded_out(seq, cohort)
        if cohort is not self.decoders and cohort.members:
            if self.decoders.members:
                self.decoders.absorb(cohort)
            else:
                self.decoders = cohort
        return over

    def _decoded_out(self, seq: Seq, cohort: Cohort) -> None:
        """A decoder leaves for good; the next turn of its session may ask for what is known of it."""
        if self._block:
            seq.blocks = cohort.held(seq)
        context, _ = cohort.leave(seq)
        if seq.text is not None and self._cache is not None:
            self._cache.learn(seq, context - 1)
        self._free(seq)

    def _prefilled(self, prefill: Sequence[Chunk], t_ps: int) -> list[Seq]:
        over = []
        for chunk in prefill:
            seq = chunk.seq
            seq.done += chunk.tokens
            if seq.done < seq.prompt:
                self.prefilling.append(seq)
                continue
            seq.pieces.append(t_ps)
            seq.left -= 1
            if seq.left:
                self.decoders.join(seq, seq.prompt + 1, seq.left)
            else:
                self._free(seq)
                over.append(seq)
        return over

    def _free(self, seq: Seq) -> None:
        self.pool.release(seq)
        seq.blocks = 0
        self.resident -= 1

    # --- what is told of iterations -----------------------------------------------------------------------------------

    def _note(self, prefill: Sequence[Chunk], cohort: Cohort | None) -> Note:
        """Who is in an iteration, and memory while it runs."""
        preempted, self._noted = self.preemptions - self._noted, self.preemptions
        return Note(
            spans=(),
            prefill_tokens=sum(chunk.tokens for chunk in prefill),
            prefills=len(prefill),
            decoders=len(cohort.members) if cohort is not None else 0,
            used=self.pool.used,
            cached=self.pool.cached,
            preemptions=preempted,
        )

    def _spans(self, now_ps: int, ends: Times) -> Sequence[tuple[int, int]]:
        """When each stage works on the iteration that just began."""
        if self.stages == 1:
            return ((now_ps, ends[0]),)
        times = zip(self._stage_free, self._durations, strict=True)
        return [(end - duration, end) for end, duration in times]

    def _took(self, flight: Flight, cohort: Cohort) -> None:
        """Take the blocks of a stretch's iterations beyond the first, whose own were taken when it began."""
        count = len(flight.ends)
        if flight.note is None or self._log is None:
            self.pool.take(cohort.demand(count) - cohort.needs())
            return
        kv = self._each(flight.note, cohort.demands(count)[1:])
        self._log.run(self._index, flight.note, self.pool.total, flight.ends, kv)

    def _each(self, note: Note, needs: Ints) -> Ints:
        """Used and cached blocks of a stretch's iterations [2, k], while the blocks of all but the first are taken."""
        kv = np.empty((2, len(needs) + 1), dtype=np.int64)
        kv[0] = note.used + np.cumsum(np.append(0, needs))
        kv[1] = note.cached
        if not self.pool.cached:
            self.pool.take(int(needs.sum()))
            return kv
        for place, need in enumerate(needs.tolist(), 1):
            self.pool.take(need)
            kv[1, place] = self.pool.cached
        return kv


def _completes(chunk: Chunk) -> bool:
    """Whether a prompt's last token is in this chunk."""
    return chunk.seq.done + chunk.tokens == chunk.seq.prompt
