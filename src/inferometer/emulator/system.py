"""The player that is a simulated system: arrivals enter its cluster when they come, tokens are due when iterations end.

Simulated time is real time since the first request, so a token's due time is known at the instant at which it is due;
what is later than that (`Ledger`) is how far the real clock ran ahead of the simulation, and of the writing.
Lengths are the schedule's business, as they are for every player: as many tokens as were asked for, unless it has
`output_tokens` or `early_stop`. The door judges by what was asked for, since a server cannot know either.
Where the system has a prefix cache, prompts are compared block by block, in words as the emulator counts them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from inferometer.emulator.dialects import words_of
from inferometer.emulator.player import FAILED, Due
from inferometer.emulator.schedule import Asked, Schedule, asked_length, output_length
from inferometer.sim.kernel import PS_PER_NS
from inferometer.sim.live import Live


class SystemPlayer:
    """Plays a live cluster in real time."""

    late_ns = (
        1 << 22
    )  # 4 ms: a third of a brisk iteration. All its tokens are due at once, and written one by one.

    def __init__(self, schedule: Schedule, live: Live) -> None:
        self._schedule, self._live = schedule, live
        self._epoch_ns: int | None = None
        self._ready: deque[Due] = deque()  # of iterations that are stepped

    @property
    def running(self) -> int:
        """Requests that hold memory."""
        return self._live.running

    @property
    def waiting(self) -> int:
        """Requests that wait for it."""
        return self._live.waiting

    @property
    def kv_usage(self) -> float:
        """The share of the KV blocks that is taken."""
        return self._live.kv_usage

    @property
    def preemptions(self) -> int:
        """How often a request had to give up its memory."""
        return self._live.preemptions

    def refuses(self, asked: Asked) -> str | None:
        """What the system's own validation says against a request."""
        return self._live.door(_prompt(asked), asked_length(self._schedule, asked))

    def arrive(self, key: int, asked: Asked, now_ns: int) -> None:
        """The request takes its place in simulated time."""
        if self._epoch_ns is None:
            self._epoch_ns = now_ns
        output, block = output_length(self._schedule, asked), self._live.block
        self._live.arrive(
            key,
            _prompt(asked),
            output,
            self._ps(now_ns),
            session=asked.session_id,
            blocks=_blocks(words_of(asked.prompt), block) if block else (),
        )

    def leave(self, key: int, now_ns: int) -> None:
        """The sequence is cancelled: it gives up its memory when its iteration ends."""
        if self._epoch_ns is not None:
            self._live.cancel(key, self._ps(now_ns))

    def next_due_ns(self) -> int | None:
        """When the next iteration ends, or what has come in is looked at (at once)."""
        if self._ready:
            return self._ready[0][0]
        at_ps = self._live.peek()
        return None if at_ps is None else self._ns(at_ps)

    def due(self, now_ns: int) -> Iterator[Due]:
        """The tokens of the iterations that ended by `now_ns`, which are stepped meanwhile, one at a time."""
        ready, live = self._ready, self._live
        while True:
            while ready:
                yield ready.popleft()
            at_ps = live.peek()
            if at_ps is None or self._ns(at_ps) > now_ns:
                return
            self._step()

    def _step(self) -> None:
        t_ps, emitted, over, refused = self._live.step()
        due_ns = self._ns(t_ps)
        self._ready.extend((due_ns, key, 1, key in over) for key in emitted)
        self._ready.extend((due_ns, key, FAILED, True) for key in refused)

    def _ps(self, t_ns: int) -> int:
        return (t_ns - (self._epoch_ns or 0)) * PS_PER_NS

    def _ns(self, t_ps: int) -> int:
        """Not before it: what is due at a whole ns has happened by then."""
        return (self._epoch_ns or 0) - (-t_ps // PS_PER_NS)


def _blocks(words: list[Any], size: int) -> list[int]:
    """A number for each whole block of `size` tokens, equal where the tokens are."""
    whole = len(words) - len(words) % size
    return [hash(tuple(words[at : at + size])) for at in range(0, whole, size)]


def _prompt(asked: Asked) -> int:
    return max(1, asked.prompt_tokens)
