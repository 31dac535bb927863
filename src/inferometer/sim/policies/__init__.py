"""Batch policies: who runs next. One mechanism per file, each pure: `plan(view) -> Step | None`.

Rules, which the engine and a property test hold them to:
1. A policy changes nothing; the engine applies what it returns. (So it counts free blocks on a copy of its own.)
2. It knows no time, and no output length: neither of them is in a `View`.
3. It is steady: having answered "everybody decodes", it answers the same after any number of such iterations, until a
   request arrives or ends, or free blocks fall below what the decoders need next (plus its `spare`). Fast-forwarding
   rests on this. Where it would not be so, the step says `once`.
4. Every sequence that it names is resident and not in flight, or among the first that wait, in their order.

What several share is here: `decode_room`, the decoders' turn, with preemption where blocks run out.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from inferometer.sim.seqs import Seq
from inferometer.sim.step import DECODE, Step, View


class Room(NamedTuple):
    """How many decode, which (none named: everybody), who had to make room, and how many blocks are free after that."""

    decoding: int
    part: list[Seq]
    preempt: list[Seq]
    free: int


def decode_room(view: View, limit: int, spare: int, *, by_arrival: bool) -> Room:
    """The decoders' turn: one block for each that needs one; the last resident makes room where there is none.

    `limit`: at most so many decode. `spare`: blocks that must be free for a decoder to go at all, also where it needs
    none (Vidur wants 1). A sequence with nobody behind it makes room by leaving itself. `by_arrival`: first come, first
    served, and the latest arrival is the victim; else in the order in which they were batched.
    """
    decoders, free = view.decoders, view.pool.free
    needs, size = decoders.needs(), len(decoders.members)
    if size <= limit and free >= needs + spare:
        return Room(size, [], [], free - needs)
    order = [seq for seq in view.prefilling if seq.skipped] + list(decoders)
    order += [seq for seq in view.prefilling if not seq.skipped]
    queue = deque(sorted(order, key=_arrival) if by_arrival else order)
    return _squeezed(view, queue, limit, spare)


def _squeezed(view: View, queue: deque[Seq], limit: int, spare: int) -> Room:
    decoders, free, look = view.decoders, view.pool.free, view.pool.look()
    kept: list[Seq] = []
    victims: list[Seq] = []
    while queue and len(kept) < limit:
        seq = queue.popleft()
        if seq.cohort is None:
            continue  # its prefill is not finished: it has its blocks
        need = int(decoders.needs_block(seq))
        while free < max(need, spare):
            victim = queue.pop() if queue else seq
            victims.append(victim)
            free += look.lose(victim, decoders.held(victim) if victim.cohort else victim.blocks)
            if victim is seq:
                break
        else:
            free -= need
            kept.append(seq)
    left = len(decoders) - sum(seq.cohort is not None for seq in victims)
    return Room(len(kept), kept if len(kept) < left else [], victims, free)


def _arrival(seq: Seq) -> int:
    return seq.arrived_ps


def step_of(room: Room) -> Step | None:
    """The step of a decode turn alone."""
    if room.decoding and not room.preempt and not room.part:
        return DECODE
    if room.decoding or room.preempt:
        return Step((), bool(room.decoding), room.part, room.preempt)
    return None


def ceil_div(tokens: int, block: int) -> int:
    """Blocks that `tokens` fill."""
    return -(-tokens // block)
