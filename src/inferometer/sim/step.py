"""The seam between deciding and doing: what a policy sees (`View`) and what it answers (`Step`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from inferometer.sim.memory import BlockPool
from inferometer.sim.seqs import Cohort, Seq


class Chunk(NamedTuple):
    """`tokens` of a sequence's prompt, for which it is to hold `blocks` blocks in all.

    `cached`: how many of those the prefix cache has when it is admitted (the tokens come behind them).
    """

    seq: Seq
    tokens: int
    blocks: int
    cached: int = 0


class Step(NamedTuple):
    """What one iteration is to do. Sequences in `prefill` that wait must be the queue's head, in order."""

    prefill: Sequence[Chunk] = ()
    decode: bool = False  # whether the decoders decode ...
    part: Sequence[Seq] = ()  # ... or only these of them
    preempt: Sequence[Seq] = ()  # these first, in this order: each goes to the queue's head
    swap_out: Sequence[Seq] = ()  # decoders that make room by moving to the host's memory
    swap_in: Sequence[Seq] = ()  # and those that come back from there, to decode at once
    once: bool = False  # "everybody decodes", but something else may follow

    @property
    def steady(self) -> bool:
        """Whether it is nothing but "everybody decodes", and so will be the next (rule 3 of `policies`)."""
        return self is DECODE or (self.decode and not (self.prefill or any(self[2:])))


DECODE = Step(decode=True)


class View(Protocol):
    """What a policy may see. It may change none of it."""

    @property
    def waiting(self) -> deque[Seq]:
        """Not resident, in order: FIFO, preempted ones at the head."""

    @property
    def prefilling(self) -> list[Seq]:
        """Resident, prefill unfinished, not in flight."""

    @property
    def swapped(self) -> list[Seq]:
        """Swapped out to the host, in the order in which they went."""

    @property
    def host_free(self) -> int:
        """Blocks that the host's memory still has room for."""

    @property
    def prefilled(self) -> bool:
        """Whether the last step had any prefill."""

    @property
    def decoders(self) -> Cohort:
        """Resident and decoding, not in flight."""

    @property
    def resident(self) -> int:
        """All that hold memory, those in flight included."""

    @property
    def stages(self) -> int:
        """Pipeline stages: so many iterations may be in flight."""

    @property
    def pool(self) -> BlockPool:
        """The KV cache."""


class Policy(Protocol):
    """Who runs next. `plan` is pure; its rules are in `policies/__init__.py`."""

    @property
    def name(self) -> str:
        """As in `systems.py`."""

    @property
    def fifo(self) -> bool:
        """Whether nothing that arrives can overtake a queue that is not empty."""

    @property
    def paged(self) -> bool:
        """Whether memory is taken block by block, as contexts grow (else all of it at admission)."""

    @property
    def spare(self) -> int:
        """Blocks beyond the needed ones without which it may preempt."""

    @property
    def keeps_prompt(self) -> bool:
        """Whether a sequence that is preempted amid its prefill keeps its prompt (Vidur cuts it: docs/fidelity.md)."""

    @property
    def caching(self) -> bool:
        """Whether it uses a prefix cache."""

    @property
    def longest_prompt(self) -> int | None:
        """Tokens beyond which a prompt is refused at the door; None: only memory and the model bound it."""

    def plan(self, view: View) -> Step | None:
        """The next iteration; None: there is nothing to run."""
        ...
