"""What every iteration did: the optional `iterations.parquet` of a run, as columns.

The engine notes a flight as it ends; a stretch of k fast-forwarded iterations is one note, expanded here by array
arithmetic into the k rows that stepping would have given. Of one replica, rows are in the order in which its iterations
end. They are handed on in parts while the simulation runs, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from inferometer.sim.kernel import PS_PER_NS
from inferometer.sim.seqs import Times
from inferometer.timeline import Ints

# name -> (numpy type, what it says)
COLUMNS: dict[str, tuple[Any, str]] = {
    "replica": (np.int32, "which replica"),
    "stage": (np.int16, "which of its pipeline stages"),
    "start_ns": (np.int64, "when the stage began to work on it"),
    "duration_ns": (np.int64, "for how long it did"),
    "tokens": (np.int32, "tokens computed"),
    "prefill_tokens": (np.int32, "those of prompts"),
    "decode_tokens": (np.int32, "those of decodes, one per sequence"),
    "sequences": (np.int32, "the batch: sequences with a prefill chunk or a decode"),
    "kv_used": (np.int32, "KV blocks in use while it runs"),
    "kv_cached": (np.int32, "KV blocks that nobody uses, but the prefix cache knows"),
    "kv_free": (np.int32, "all other KV blocks"),
    "preemptions": (np.int32, "sequences that had to make room for it, swapped ones included"),
}


PART_ROWS = 1 << 16


class Note(NamedTuple):
    """A flight as it began: who is in it, what memory looked like, and on which stages it runs [(start, end)] [ps]."""

    spans: Sequence[tuple[int, int]]
    prefill_tokens: int
    prefills: int
    decoders: int
    used: int
    cached: int
    preemptions: int


class IterationLog:
    """The iterations of all replicas of a run; `put` gets them as columns, some `PART_ROWS` at a time."""

    def __init__(self, put: Callable[[dict[str, Ints]], None]) -> None:
        self._put = put
        self._rows: list[tuple[int, ...]] = []
        self._parts: list[Ints] = []
        self._settled = 0

    def one(self, replica: int, note: Note, total: int) -> None:
        """An iteration, on every stage; `total` KV blocks there are."""
        batch = note.prefills + note.decoders
        tokens = note.prefill_tokens + note.decoders
        free = total - note.used - note.cached
        for stage, (start, end) in enumerate(note.spans):
            begin = _ns(start)
            self._rows.append(
                (
                    replica, stage, begin, _ns(end) - begin, tokens, note.prefill_tokens,
                    note.decoders, batch, note.used, note.cached, free, note.preemptions,
                )
            )  # fmt: skip
        if len(self._rows) >= PART_ROWS:
            self.flush()

    def run(self, replica: int, note: Note, total: int, ends: Times, kv: Ints) -> None:
        """A stretch that ended at `ends` [k] [ps]; `kv`: its (used, cached) blocks [2, k]."""
        bounds = (np.array([note.spans[0][0], *ends]) + PS_PER_NS // 2) // PS_PER_NS
        part = np.zeros((len(ends), len(COLUMNS)), dtype=np.int64)
        part[:, 0] = replica
        part[:, 2], part[:, 3] = bounds[:-1], np.diff(bounds)
        part[:, [4, 6, 7]] = note.decoders
        part[:, 8], part[:, 9] = kv
        part[:, 10] = total - kv[0] - kv[1]
        part[0, 11] = note.preemptions
        self._settle()
        self._parts.append(part)
        self._settled += len(part)
        if self._settled >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Hand on what is there, at the end also an empty table."""
        self._settle()
        table = np.concatenate([np.zeros((0, len(COLUMNS)), dtype=np.int64), *self._parts])
        self._parts, self._settled = [], 0
        self._put(_columns(table))

    def _settle(self) -> None:
        if self._rows:
            self._parts.append(np.array(self._rows, dtype=np.int64))
            self._settled += len(self._rows)
            self._rows = []


def _columns(table: Ints) -> dict[str, Ints]:
    return {
        name: table[:, place].astype(kind)
        for place, (name, (kind, _)) in enumerate(COLUMNS.items())
    }


def _ns(time_ps: int) -> int:
    return (time_ps + PS_PER_NS // 2) // PS_PER_NS
