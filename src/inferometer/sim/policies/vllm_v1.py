"""vLLM's V1 scheduler (vllm-project/vllm, v0.8 and later): one token budget for everything, chunked prefills.

Every iteration may compute `max_tokens` tokens of at most `max_batch` sequences: first one for each decoder, then
unfinished prefills, then the queue's head, each as much of its prompt as the budget holds. Unlike Sarathi-Serve, blocks
are taken chunk by chunk, and there is no watermark. Where blocks run out, the last resident recomputes, and nothing new
is admitted in that iteration. What the prefix cache has of a new prompt is neither computed nor counted in the budget;
`caching` is on by default, as in V1. Oracle information: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferometer.sim.policies import Room, ceil_div, decode_room, step_of
from inferometer.sim.seqs import Seq
from inferometer.sim.step import Chunk, Step, View


@dataclass(frozen=True, slots=True)
class VllmV1:
    """A token budget."""

    max_batch: int = 256
    max_tokens: int = 2048
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = True
    longest_prompt: int | None = None
    name: str = "vllm-v1"
    fifo: bool = True
    paged: bool = True

    def plan(self, view: View) -> Step | None:
        """Decoders, unfinished prefills, new requests."""
        room = Room(0, [], [], view.pool.free)
        if view.decoders.members:
            limit = min(self.max_tokens, self.max_batch)
            room = decode_room(view, limit, self.spare, by_arrival=False)
        if room.preempt or not (view.waiting or view.prefilling):
            return step_of(room)
        budget = self.max_tokens - room.decoding
        chunks = self._resume(view, room.free, budget)
        if view.waiting and len(chunks) == len(view.prefilling):
            chunks += self._admit(view, room.free, budget, chunks)
        if chunks or room.decoding:
            return Step(chunks, bool(room.decoding), room.part)
        return self._unlock(view)

    def _resume(self, view: View, free: int, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for seq in view.prefilling:
            chunk = _chunk(view, seq, free, budget)
            if chunk is None:
                break
            free -= chunk.blocks - seq.blocks
            budget -= chunk.tokens
            chunks.append(chunk)
        return chunks

    def _admit(self, view: View, free: int, budget: int, resumed: list[Chunk]) -> list[Chunk]:
        chunks: list[Chunk] = []
        look, block = view.pool.look(), view.pool.block
        look.take(view.pool.free - free)
        for seq, tokens, blocks, _ in resumed:
            free -= blocks - seq.blocks
            budget -= tokens
            look.add(seq, 0, blocks - seq.blocks, seq.done + tokens)
        for seq in view.waiting:
            cached, idle = look.hit(seq)
            tokens = min(seq.prompt - cached * block, budget)
            blocks = ceil_div(cached * block + tokens, block)
            taken = blocks - cached + idle
            full = view.resident + len(chunks) >= self.max_batch
            if full or tokens <= 0 or taken > free:
                break
            chunks.append(Chunk(seq, tokens, blocks, cached))
            look.add(seq, cached, blocks - cached, cached * block + tokens)
            free -= taken
            budget -= tokens
        return chunks

    def _unlock(self, view: View) -> Step | None:
        """Prefills that block one another, and nobody decodes: the last of them makes room."""
        return Step(preempt=[view.prefilling[-1]]) if len(view.prefilling) > 1 else None


def _chunk(view: View, seq: Seq, free: int, budget: int) -> Chunk | None:
    """As much of a prompt as the budget holds, if there are blocks for it."""
    tokens = min(seq.prompt - seq.done, budget)
    blocks = ceil_div(seq.done + tokens, view.pool.block)
    return Chunk(seq, tokens, blocks) if tokens > 0 and blocks - seq.blocks <= free else None
