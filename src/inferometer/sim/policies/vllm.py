"""vLLM as published (Kwon et al., SOSP'23, section 4.5; v0.1-0.2): prefill first, paged memory, recompute or swap.

Whole prompts from the queue's head, alone in their iteration, as long as they fit; residents wait meanwhile (the
"generation stall"). Else everybody decodes; where blocks run out, the latest arrival is preempted: it gives up its
memory and recomputes, or (`swap`) its blocks move to the host while there is room. Who is swapped out comes back first
come, first served, in the first iteration that preempts nobody and has room for its blocks and one more; until all are
back nobody is admitted. Recompute is the default, as it is vLLM's for requests of one sequence. Limits: `max_tokens` of a batch padded to its longest prompt, `max_batch` residents, and a
watermark of 1 % of the blocks that admission leaves free.
Deviations: a prompt that alone exceeds `max_tokens` (only after a preemption can one: longer requests are refused at the
door) runs alone; where the host is full, a victim recomputes (vLLM stops). Oracle information: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferometer.sim.policies import Room, ceil_div, decode_room, step_of
from inferometer.sim.seqs import Seq
from inferometer.sim.step import Chunk, Step, View


@dataclass(frozen=True, slots=True)
class Vllm:
    """Prefill first."""

    max_batch: int = 256
    max_tokens: int = 4096
    watermark: float = 0.01
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = False
    swap: bool = False
    name: str = "vllm"
    fifo: bool = True
    paged: bool = True

    @property
    def longest_prompt(self) -> int:
        """What a batch holds: prompts are not chunked."""
        return self.max_tokens

    def plan(self, view: View) -> Step | None:
        """Prompts, if any can be admitted; else the decoders."""
        if view.waiting and not view.swapped:
            chunks = self._admit(view)
            if chunks:
                return Step(chunks)
        if not (view.decoders.members or view.swapped):
            return None
        limit = self.max_batch // view.stages
        room = decode_room(view, limit, self.spare, by_arrival=True)
        return self._swapping(view, room, limit) if self.swap else step_of(room)

    def _swapping(self, view: View, room: Room, limit: int) -> Step | None:
        """The same step, with victims who swap and others who come back."""
        host = view.host_free
        out: list[Seq] = []
        recompute: list[Seq] = []
        for seq in room.preempt:
            blocks = view.decoders.held(seq)
            swaps = blocks <= host
            (out if swaps else recompute).append(seq)
            host -= blocks if swaps else 0
        back = [] if room.preempt or room.part else self._back(view, room, limit)
        if not (back or out):
            return step_of(room)
        decode = bool(room.decoding or back)
        return Step((), decode, room.part, recompute, swap_out=out, swap_in=back)

    def _back(self, view: View, room: Room, limit: int) -> list[Seq]:
        """Who is swapped in: first come, first served, with one block more each than it had."""
        back: list[Seq] = []
        free, block = room.free - self._reserve(view), view.pool.block
        for seq in sorted(view.swapped, key=lambda seq: seq.arrived_ps):
            alone = not (view.resident or back)
            need = seq.blocks + (seq.prompt % block == 1 % block if alone else 1)
            if need > free or room.decoding + len(back) == limit:
                break
            back.append(seq)
            free -= need
        return back

    def _reserve(self, view: View) -> int:
        """Blocks that admission leaves free: none for a request that is alone."""
        return int(self.watermark * view.pool.total) if view.resident else 0

    def _admit(self, view: View) -> list[Chunk]:
        chunks: list[Chunk] = []
        free = view.pool.free - self._reserve(view)
        longest = 0
        most = min(self.max_batch // view.stages, self.max_batch - view.resident)
        for seq in view.waiting:
            blocks = ceil_div(seq.prompt, view.pool.block)
            longest = max(longest, seq.prompt)
            padded = (len(chunks) + 1) * longest
            if blocks > free or len(chunks) == most or (padded > self.max_tokens and chunks):
                break
            chunks.append(Chunk(seq, seq.prompt, blocks))
            free -= blocks
        return chunks
