"""Requests inside a replica: one of them (`Seq`), and those that decode together (`Cohort`).

Nothing here is done per token. Sequences of one cohort share one log of iteration end times, and a sequence's tokens
are the slice of it between joining and leaving. What an iteration needs to know of all its sequences (how many, the sum
of their contexts, who needs a new block, who ends next) is kept as running aggregates, O(1) per iteration:
    a sequence's context is `base + cohort.step`, so all contexts grow when `step` does
    it needs a block whenever its context is 1 modulo the block size: counts per residue class say how many do
    it ends when `step` reaches a number that is known (to the engine, not to the policy) when it joins: a heap
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, MutableSequence
from heapq import heappop, heappush

import numpy as np

from inferometer.sim.prefix import Node, Text
from inferometer.timeline import Ints

LOG_LENGTH = 1 << 16

Times = MutableSequence[int]
"""End times of iterations that follow one another [ps]: a list for a few, an array for many."""


class Seq:
    """A request inside a replica. What it has left to emit is the truth, which no policy sees.

    `prompt` is what it has to prefill: after a preemption, what was generated before counts, too; `done` of that is
    computed. `blocks` are held while it waits, prefills or is swapped out (a decoding one's follow from its context).
    """

    __slots__ = (
        "arrived_ps",
        "base",
        "blocks",
        "cached",
        "cohort",
        "done",
        "ends_at",
        "leaf",
        "left",
        "mark",
        "pieces",
        "prompt",
        "restarts",
        "row",
        "scheduled_ps",
        "skipped",
        "text",
    )

    def __init__(
        self, row: int, arrived_ps: int, prompt: int, output: int, text: Text | None = None
    ) -> None:
        self.row = row  # of the plan
        self.arrived_ps = arrived_ps
        self.prompt = prompt
        self.left = output
        self.text = text  # what its prompt is, if others may have the same
        self.leaf: Node | None = None  # up to which the prefix cache knows its blocks
        self.cached = (
            -1
        )  # tokens that it found there when it was first scheduled; -1: nobody looked
        self.done = self.blocks = 0
        self.skipped = False  # resident, its prefill unfinished, and left out of the last step
        self.restarts = 0
        self.scheduled_ps: int | None = None  # when it was first in a batch
        # Its token times: stamps, and slices of logs.
        self.pieces: list[int | tuple[array[int], int, int]] = []
        self.cohort: Cohort | None = None
        self.base = self.mark = self.ends_at = 0

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
        out = b""
        for piece in self.pieces:  # mostly two: the first token's, and a slice
            if isinstance(piece, int):
                out += piece.to_bytes(8, "little")
            else:
                log, first, last = piece
                out += log[first:last].tobytes()
        return out


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
        seq.ends_at = self.step + left
        self.members[seq] = None
        self.context += context
        if self.block:
            self._due[(1 - seq.base) % self.block] += 1
        self._joined += 1
        heappush(self._ends, (seq.ends_at, self._joined, seq))

    def leave(self, seq: Seq) -> tuple[int, int]:
        """Take a member out; its context, and how many tokens it has still to make."""
        del self.members[seq]
        context = seq.base + self.step
        self.context -= context
        if self.block:
            self._due[(1 - seq.base) % self.block] -= 1
        self._close(seq)
        seq.cohort = None
        return context, seq.ends_at - self.step

    def demand(self, count: int) -> int:
        """Blocks that the next `count` iterations need together."""
        if not self.block:
            return 0
        rounds, rest = divmod(count, self.block)
        first = self.step % self.block
        last = first + rest
        some = sum(self._due[first:last])
        if last > self.block:  # around the end of the ring
            some += sum(self._due[: last - self.block])
        return rounds * len(self.members) + some

    def demands(self, count: int) -> Ints:
        """Blocks that each of the next `count` iterations needs [count]."""
        if not self.block:
            return np.zeros(count, dtype=np.int64)
        due = np.array(self._due, dtype=np.int64)
        return due[(self.step + np.arange(count)) % self.block]

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

    def advance(self, ends: Times) -> list[Seq]:
        """Decode one token each at every one of `ends`; the members that ended, already out."""
        if len(self.log) >= LOG_LENGTH:
            self._renew()
        self.log.extend(ends)
        self.step += len(ends)
        self.context += len(ends) * len(self.members)
        over = []
        while self._ends and self._ends[0][0] <= self.step:
            at, _, seq = heappop(self._ends)
            if seq.cohort is self and seq.ends_at == at:
                seq.ends_at = -1  # (it may be named twice: left, and back for the same end)
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
