"""Orca (Yu et al., OSDI'22, algorithm 1): iteration-level scheduling with memory reserved for the longest request.

All residents advance in every iteration; new requests join with their whole prompts in the same batch (selective
batching), first come, first served, while the batch has a place and the pool a reservation of `reserve` tokens.
So nothing is ever preempted, and a long prompt stalls everybody for an iteration. Oracle information: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from inferometer.sim.policies import ceil_div, decode_room, step_of
from inferometer.sim.step import Chunk, Step, View


@dataclass(frozen=True, slots=True)
class Orca:
    """Whole prompts beside decodes."""

    max_batch: int = 16
    reserve: int = 4096
    name: str = "orca"
    fifo: bool = True
    paged: bool = False
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = False
    longest_prompt: int | None = None

    def plan(self, view: View) -> Step | None:
        """Everybody, and whoever fits beside them."""
        room = decode_room(view, self.max_batch, 0, by_arrival=True)
        blocks = ceil_div(self.reserve, view.pool.block)
        fit = min(self.max_batch - room.decoding, view.pool.free // blocks)
        if not (view.waiting and fit > 0):
            return step_of(room)
        chunks = [Chunk(seq, seq.prompt, blocks) for seq in islice(view.waiting, fit)]
        return Step(chunks, bool(room.decoding), room.part)
