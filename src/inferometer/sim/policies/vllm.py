"""vLLM as published (Kwon et al., SOSP'23, section 4.5; v0.1-0.2): prefill first, paged memory, recompute.

Whole prompts from the queue's head, alone in their iteration, as long as they fit; residents wait meanwhile (the
"generation stall"). Else everybody decodes; where blocks run out, the latest arrival is preempted: it gives up its
memory and recomputes. Limits: `max_tokens` of a batch padded to its longest prompt, `max_batch` residents, and a
watermark of 1 % of the blocks that admission leaves free.
Deviations: no swapping (recompute is the paper's default for single sequences). A prompt that alone exceeds `max_tokens`
(only after a preemption can one: longer requests are refused at the door) runs alone. Oracle information: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferometer.sim.engine import Chunk, Step, View
from inferometer.sim.policies import ceil_div, decode_room, step_of


@dataclass(frozen=True, slots=True)
class Vllm:
    """Prefill first."""

    max_batch: int = 256
    max_tokens: int = 4096
    watermark: float = 0.01
    spare: int = 0
    keeps_prompt: bool = True
    name: str = "vllm"
    fifo: bool = True
    paged: bool = True

    @property
    def longest_prompt(self) -> int:
        """What a batch holds: prompts are not chunked."""
        return self.max_tokens

    def plan(self, view: View) -> Step | None:
        """Prompts, if any can be admitted; else the decoders."""
        if view.waiting:
            chunks = self._admit(view)
            if chunks:
                return Step(chunks)
        if not view.decoders.members:
            return None
        limit = self.max_batch // view.stages
        return step_of(decode_room(view, limit, self.spare, by_arrival=True))

    def _admit(self, view: View) -> list[Chunk]:
        chunks: list[Chunk] = []
        free = view.pool.free - (int(self.watermark * view.pool.total) if view.resident else 0)
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
