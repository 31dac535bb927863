"""Request-level batching, as in FasterTransformer (the baseline of Orca, vLLM and others).

A batch is admitted when the engine is empty, prefilled in one iteration, and decoded until its longest request ends;
nobody joins meanwhile. Memory is reserved for the longest request. A request's tokens are stamped when they are made;
its slot stays idle until the batch is over, though the work of an iteration is that of the sequences still going
(FasterTransformer pads; that would only slow it further). Oracle information: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from inferometer.sim.policies import ceil_div
from inferometer.sim.step import DECODE, Chunk, Step, View


@dataclass(frozen=True, slots=True)
class Static:
    """One batch after the other."""

    max_batch: int = 16
    reserve: int = 4096
    name: str = "static"
    fifo: bool = True
    paged: bool = False
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = False
    longest_prompt: int | None = None

    def plan(self, view: View) -> Step | None:
        """The batch that is running; else, where nothing is, the next one."""
        if view.decoders:
            return DECODE
        blocks = ceil_div(self.reserve, view.pool.block)
        fit = min(self.max_batch // view.stages, view.pool.free // blocks)
        if view.stages == 1 and view.resident:
            return None
        chunks = [Chunk(seq, seq.prompt, blocks) for seq in islice(view.waiting, fit)]
        return Step(chunks) if chunks else None
