"""A batch policy of one's own: like Orca, but one prompt at most joins each iteration. In the package: sim/policies/gentle.py.

A policy is a frozen record with a pure `plan`: it sees who waits, who decodes and which blocks are free; it returns who
runs next, and changes nothing. It knows no time and no output length, so it cannot cheat: durations are the cost model's
business, ends are the engine's. Its line in `SYSTEMS` (sim/systems.py) is all that `simulate --system gentle` needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferometer.sim.policies import ceil_div, decode_room, step_of
from inferometer.sim.step import Chunk, Step, View


@dataclass(frozen=True, slots=True)
class Gentle:
    """Decodes, and beside them the first prompt that waits, where its longest form fits."""

    max_batch: int = 16
    reserve: int = 4096
    name: str = "gentle"
    fifo: bool = True
    paged: bool = False
    spare: int = 0
    keeps_prompt: bool = True
    caching: bool = False
    longest_prompt: int | None = None

    def plan(self, view: View) -> Step | None:
        """Everybody, and one more."""
        room = decode_room(view, self.max_batch, 0, by_arrival=True)
        blocks = ceil_div(self.reserve, view.pool.block)
        fits = room.decoding < self.max_batch and view.pool.free >= blocks
        if not (view.waiting and fits):
            return step_of(room)
        first = view.waiting[0]
        return Step([Chunk(first, first.prompt, blocks)], bool(room.decoding), room.part)
