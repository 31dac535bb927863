"""How long an iteration takes: the only place in the simulator where durations come from.

A cost model sees what one iteration computes, never who asked for it: the prefill chunks (tokens, tokens before them),
how many sequences decode, and the sum of their contexts. It answers in whole picoseconds, one duration per pipeline
stage. A policy never supplies a time (implementation fairness).

The law that fast-forwarding rests on: `decode_run(n, context, k)[j] == decode(n, context + n * j)`, to the bit. So both
must do the same floating-point operations in the same order, and the rounding to picoseconds comes last.

Here: what every model answers, and the simplest one, `Affine`, for tests and closed forms. The others have a file each:
    roofline.py  an additive roofline with the constants of `devices.py` (the default)
    profiled.py  what `inferometer profile` measured, of kernels or of a running engine
    vidur.py     operator times in Vidur's format under Vidur's folding rules, for checking mechanics to the digit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inferometer.timeline import Ints

Chunks = Sequence[tuple[int, int]]
"""(tokens, tokens of the same sequence that are already in the cache) of each prefill in an iteration."""

HOST_S = 0.5e-3
"""What the host adds to an iteration: launches, and what scheduling does not hide behind the device (vLLM 0.19 schedules
asynchronously; engines of 2023 took 6-20 ms: `--host-time`)."""


class Cost(Protocol):
    """What the engine asks."""

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """The duration [ps] of one iteration on each pipeline stage; `context` sums the decoders' cached tokens."""
        ...

    def decode(self, decoders: int, context: int) -> int:
        """The duration [ps] of a pure decode iteration on a pipeline of one stage."""
        ...

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The durations [ps] of `count` of those in a row [count]: every context grows by one token each time."""
        ...

    def described(self) -> dict[str, Any]:
        """Plain data for the manifest: which model with what constants."""
        ...


@dataclass(frozen=True, slots=True)
class Affine:
    """fixed + per_token·(prefill tokens) + per_sequence·(decoders) + per_context·(their contexts) [ps]."""

    fixed: int
    per_token: int = 0
    per_sequence: int = 0
    per_context: int = 0
    stages: int = 1

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """The same on every stage."""
        prefill = self.per_token * sum(tokens for tokens, _ in chunks)
        return (prefill + self.decode(decoders, context),) * self.stages

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration."""
        return self.fixed + self.per_sequence * decoders + self.per_context * context

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """`count` of them."""
        first = self.decode(decoders, context)
        return first + self.per_context * decoders * np.arange(count, dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The constants."""
        return {"kind": "affine", **{name: getattr(self, name) for name in self.__slots__}}


@dataclass(frozen=True, slots=True)
class Scaled:
    """Another model's times, every one of them `factor` times as long."""

    cost: Cost
    factor: float

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """Every stage."""
        return tuple(
            round(time * self.factor) for time in self.cost.step(chunks, decoders, context)
        )

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration."""
        return round(self.cost.decode(decoders, context) * self.factor)

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """`count` of them, rounded as one is."""
        times = self.cost.decode_run(decoders, context, count) * self.factor
        return np.asarray(np.rint(times), dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The other model, and the factor."""
        return {**self.cost.described(), "slowdown": self.factor}
