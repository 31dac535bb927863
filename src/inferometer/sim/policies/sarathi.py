"""Sarathi-Serve (Agrawal et al., OSDI'24, algorithm 3): chunked prefills, stall-free batches.

Every iteration has a budget of `chunk` tokens. First everybody decodes, one token each; what is left of the budget goes
to unfinished prefills, then to the queue's head, chunk by chunk. So a decode is never stalled by a prompt, and the time
of an iteration is bounded by the budget. A prompt's blocks are all reserved when its first chunk is admitted; where
blocks run out, the last resident recomputes. As decodes come first, `chunk` or more of them starve the prefills.
Defaults: chunk 512 (the paper's strict SLO), 128 sequences, watermark 1 %. Oracle information: none.

Its ablations (the paper's table 4; the turns of chunked-only are those of its artifact's simple chunking scheduler):
    hybrid only    `chunked=False`: whole prompts join the decodes, without a budget (Orca's batches on paged memory)
    chunked only   `hybrid=False`: chunks and decodes take turns; a turn of chunks goes on with what is unfinished, or
                   else begins anew
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain

from inferometer.sim.policies import Room, ceil_div, decode_room, step_of
from inferometer.sim.seqs import Seq
from inferometer.sim.step import Chunk, Step, View


@dataclass(frozen=True, slots=True)
class Sarathi:
    """Stall-free hybrid batches under a token budget."""

    max_batch: int = 128
    chunk: int = 512
    watermark: float = 0.01
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = False
    chunked: bool = True
    hybrid: bool = True
    longest_prompt: int | None = None
    name: str = "sarathi-serve"
    fifo: bool = True
    paged: bool = True

    def plan(self, view: View) -> Step | None:
        """Decoders, then unfinished prefills, then new requests."""
        if not self.hybrid:
            return self._turn(view)
        most = self.max_batch // view.stages
        room = Room(0, [], [], view.pool.free)
        if view.decoders.members:
            room = decode_room(view, most, self.spare, by_arrival=False)
        if not (view.waiting or view.prefilling or room.preempt):
            return step_of(room)
        budget = self._budget - room.decoding
        most -= room.decoding
        chunks: list[Chunk] = []
        if view.prefilling:
            chunks = self._resume(view, room.preempt, most, budget)
            budget -= sum(chunk.tokens for chunk in chunks)
        if budget > 0 and (view.waiting or room.preempt):
            chunks += self._admit(view, room, most - len(chunks), budget)
        if not (chunks or room.decoding or room.preempt):
            return None
        return Step(chunks, bool(room.decoding), room.part, room.preempt)

    @property
    def _budget(self) -> int:
        """Tokens of an iteration."""
        return self.chunk if self.chunked else sys.maxsize

    def _turn(self, view: View) -> Step | None:
        """Prefills after decodes, decodes after prefills; who has nothing to do passes."""
        decoders, most = view.decoders.members, self.max_batch // view.stages
        if not (decoders and view.prefilled):
            chunks = self._resume(view, [], most, self._budget)
            if not chunks:
                idle = Room(0, [], [], view.pool.free)
                chunks = self._admit(view, idle, most, self._budget)
            if chunks:
                return Step(chunks)
        if not decoders:
            return None
        step = step_of(decode_room(view, most, self.spare, by_arrival=False))
        return step._replace(once=view.prefilled) if step else None

    def _resume(self, view: View, preempted: list[Seq], most: int, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for seq in view.prefilling:
            tokens = min(seq.prompt - seq.done, budget)
            if tokens <= 0 or len(chunks) == most:
                break
            if seq not in preempted:
                chunks.append(Chunk(seq, tokens, seq.blocks))
                budget -= tokens
        return chunks

    def _admit(self, view: View, room: Room, most: int, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        resident = view.resident - len(room.preempt)
        free = room.free - (int(self.watermark * view.pool.total) if resident else 0)
        for seq in chain(reversed(room.preempt), view.waiting):
            prompt = self._prompt(seq)
            blocks = ceil_div(prompt, view.pool.block)
            full = resident + len(chunks) == self.max_batch or len(chunks) == most
            if full or blocks > free or budget <= 0:
                break
            chunks.append(Chunk(seq, min(prompt, budget), blocks))
            free -= blocks
            budget -= chunks[-1].tokens
        return chunks

    def _prompt(self, seq: Seq) -> int:
        """What is to be prefilled; of one that is just being preempted, what will be."""
        if seq.cohort is None and seq.done and not self.keeps_prompt:
            return seq.done
        return seq.known
