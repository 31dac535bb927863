"""The token timeline: what happened when, as columns.

One row per request, and a ragged pair of arrays (compressed sparse rows) for the chunks of all requests.
A *chunk* is the physical fact: some bytes became readable at one instant. A *token* is an interpretation of it:
k tokens in one chunk are one gap and k-1 zero gaps. Never an object per token.

Every time is int64 nanoseconds since the run's epoch, on one monotonic clock. What did not happen is `ABSENT`
(the smallest value of the column's integer type; null in Parquet), never 0 and never a guess.
Strings are object arrays of `str` (or None where the column may be null); `chunk_channel` holds indices into CHANNELS.

This module knows no I/O and no protocol. The invariants are in `check`; whoever makes a timeline calls it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferometer.errors import BrokenRun

Ints = NDArray[np.int64]
Array = NDArray[Any]

CHANNELS = ("content", "reasoning", "tool")
STATUSES = (
    "ok",
    "http_error",
    "connect_error",
    "timeout",
    "protocol_error",
    "truncated",
    "dropped",
    "cancelled",
)
TOKEN_SOURCES = ("server", "tokenizer", "simulated", "planned", "unknown")
PHASES = ("warmup", "measure", "drain")
# What is known of when a request's tokens came, from least to most. Whatever we measure or simulate is "tokens"; what
# another tool recorded may be less. The tokens themselves stand in the chunks all the same: see `Timeline.knows`.
STAMPED = ("nothing", "first", "ends", "chunks", "tokens")

ABSENT = int(np.iinfo(np.int64).min)


def absent(dtype: Any) -> int:
    """The value that stands for null in an integer column of `dtype`."""
    return int(np.iinfo(dtype).min)


def is_absent(column: Array) -> NDArray[np.bool_]:
    """Where an integer column is null, or an object column is None."""
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.asarray(column == absent(column.dtype))


# name -> (numpy type, may be null); the order is the order on disk.
ROW_COLUMNS: dict[str, tuple[Any, bool]] = {
    "request_id": (object, False),
    "session_id": (object, True),
    "turn": (np.int32, False),
    "app": (object, False),
    "intended_ns": (np.int64, False),
    "sent_ns": (np.int64, True),  # null: the request was never sent
    "first_byte_ns": (np.int64, True),
    "ended_ns": (np.int64, False),
    "status": (object, False),
    "error": (object, True),
    "http_status": (np.int16, True),
    "prompt_tokens": (np.int32, False),
    "output_tokens": (np.int32, False),
    "token_source": (object, False),
    "cached_tokens": (np.int32, True),
    "finish_reason": (object, True),
    "scheduled_ns": (np.int64, True),
    "phase": (object, False),
    "connect_ns": (
        np.int64,
        True,
    ),  # how long this request waited for a connection to open; null: none was opened for it
    "attempts": (np.int16, False),  # 1 unless retries are on
    "stamped": (object, False),  # of STAMPED
}
CHUNK_COLUMNS: dict[str, Any] = {
    "chunk_ns": np.int64,
    "chunk_tokens": np.int32,
    "chunk_channel": np.int8,
}


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The columns of a run. Shapes: every row column [R]; `chunk_offset` [R+1]; the chunk columns [C].

    The chunks of request r are the slice `chunk_offset[r]:chunk_offset[r+1]` of the chunk columns, in order of arrival.
    """

    request_id: Array
    session_id: Array
    turn: NDArray[np.int32]
    app: Array
    intended_ns: Ints
    sent_ns: Ints
    first_byte_ns: Ints
    ended_ns: Ints
    status: Array
    error: Array
    http_status: NDArray[np.int16]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    token_source: Array
    cached_tokens: NDArray[np.int32]
    finish_reason: Array
    scheduled_ns: Ints
    phase: Array
    connect_ns: Ints
    attempts: NDArray[np.int16]
    stamped: Array
    chunk_offset: Ints
    chunk_ns: Ints
    chunk_tokens: NDArray[np.int32]
    chunk_channel: NDArray[np.int8]

    def __len__(self) -> int:
        """R, the number of requests."""
        return len(self.request_id)

    @property
    def chunks(self) -> int:
        """C, the number of chunks."""
        return len(self.chunk_ns)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests completed [R]."""
        return np.asarray(self.status == "ok", dtype=bool)

    def knows(self, least: str) -> NDArray[np.bool_]:
        """In which requests so much is known of when tokens came [R]; `least` of STAMPED.

        nothing  the tokens stand in one chunk, at the request's end
        first    the first token's time; all others stand at the end
        ends     the first token's time and the last one's; all but the first stand there
        chunks   every chunk's time; a chunk holds one token at least, and the last one those whose chunk is not known
        tokens   every token's time
        """
        if bool(np.all(self.stamped == "tokens")):
            return np.ones(len(self), dtype=bool)
        enough = frozenset(STAMPED[STAMPED.index(least) :])
        return np.array([kind in enough for kind in self.stamped.tolist()], dtype=bool)

    def take(self, rows: Array) -> Timeline:
        """The timeline of some rows, given as indices or as a mask [R], in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.chunk_offset)[rows]
        offset = offsets(counts)
        source = np.repeat(self.chunk_offset[rows] - offset[:-1], counts) + np.arange(offset[-1])
        columns = {name: getattr(self, name)[rows] for name in ROW_COLUMNS}
        chunks = {name: getattr(self, name)[source] for name in CHUNK_COLUMNS}
        return Timeline(**columns, chunk_offset=offset, **chunks)

    def with_columns(self, **columns: Array) -> Timeline:
        """The same timeline with some columns replaced."""
        return replace(self, **columns)

    def check(self) -> Timeline:
        """Return self, or raise BrokenRun naming the first invariant that does not hold, and its row."""
        _check_shapes(self)
        _check_vocabulary(self)
        _check_order(self)
        _check_tokens(self)
        return self


def offsets(counts: Array) -> Ints:
    """CSR offsets [R+1] of `counts` [R]."""
    out = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def build(rows: int, **columns: Any) -> Timeline:
    """A timeline of `rows` requests from the columns that are known; the others are null or their neutral value.

    Needs `request_id`, `intended_ns`, `ended_ns` and `status`; scalars are broadcast; without chunk columns there are
    no chunks. Checked before it is returned.
    """
    neutral: dict[str, Any] = {
        "turn": 0,
        "app": "chat",
        "token_source": "planned",
        "phase": "measure",
        "attempts": 1,
        "stamped": "tokens",
    }
    neutral |= {"prompt_tokens": 0, "output_tokens": 0}
    table: dict[str, Array] = {}
    for name, (dtype, nullable) in ROW_COLUMNS.items():
        if name in columns:
            value = columns.pop(name)
        elif nullable:
            value = None if dtype is object else absent(dtype)
        elif name in neutral:
            value = neutral[name]
        else:
            raise BrokenRun(f"a timeline needs the column {name!r}")
        table[name] = _column(value, dtype, rows)
    offset = np.asarray(columns.pop("chunk_offset", np.zeros(rows + 1)), dtype=np.int64)
    chunks = {
        name: _column(columns.pop(name, ()), dtype, int(offset[-1]))
        for name, dtype in CHUNK_COLUMNS.items()
    }
    if columns:
        raise BrokenRun(f"a timeline has no column {sorted(columns)[0]!r}")
    return Timeline(**table, chunk_offset=offset, **chunks).check()


def concat(parts: list[Timeline]) -> Timeline:
    """All rows of `parts`, in that order."""
    if not parts:
        return build(0, request_id=(), intended_ns=(), ended_ns=(), status=())
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (*ROW_COLUMNS, *CHUNK_COLUMNS)
    }
    counts = np.concatenate([np.diff(part.chunk_offset) for part in parts])
    return Timeline(**columns, chunk_offset=offsets(counts))


def in_order(timeline: Timeline) -> Timeline:
    """The same rows by intended time, then by request id."""
    order = np.lexsort((timeline.request_id.astype(str), timeline.intended_ns))
    ordered = np.array_equal(order, np.arange(len(order)))
    return timeline if ordered else timeline.take(order)


def _column(value: Any, dtype: Any, rows: int) -> Array:
    if dtype is object and (value is None or isinstance(value, str)):
        column = np.empty(rows, dtype=object)
        column[:] = value
        return column
    column = np.asarray(value, dtype=dtype)
    return np.full(rows, column, dtype=dtype) if column.ndim == 0 else column


def _check_shapes(t: Timeline) -> None:
    for name, (dtype, _) in ROW_COLUMNS.items():
        column = getattr(t, name)
        if column.shape != (len(t),) or column.dtype != np.dtype(dtype):
            raise BrokenRun(
                f"column {name!r} is {column.dtype}{list(column.shape)}, not {np.dtype(dtype)}[{len(t)}]"
            )
    if (
        t.chunk_offset.shape != (len(t) + 1,)
        or t.chunk_offset[0] != 0
        or np.any(np.diff(t.chunk_offset) < 0)
    ):
        raise BrokenRun(
            "chunk_offset must start at 0, never fall, and have one entry more than there are requests"
        )
    for name, dtype in CHUNK_COLUMNS.items():
        column = getattr(t, name)
        if column.shape != (t.chunk_offset[-1],) or column.dtype != np.dtype(dtype):
            raise BrokenRun(
                f"column {name!r} is {column.dtype}{list(column.shape)}, not {np.dtype(dtype)}[{t.chunk_offset[-1]}]"
            )
    if len(set(t.request_id.tolist())) != len(t):
        raise BrokenRun("request ids must be unique")


def _check_vocabulary(t: Timeline) -> None:
    vocabulary = {"status": STATUSES, "token_source": TOKEN_SOURCES}
    for name, allowed in (vocabulary | {"phase": PHASES, "stamped": STAMPED}).items():
        strange = set(getattr(t, name).tolist()) - set(allowed)
        if strange:
            raise BrokenRun(
                f"column {name!r} holds {sorted(map(str, strange))[0]!r}, not one of {', '.join(allowed)}"
            )
    if t.chunks and not (0 <= t.chunk_channel.min() and t.chunk_channel.max() < len(CHANNELS)):
        raise BrokenRun("chunk_channel holds an index outside of CHANNELS")


def _check_order(t: Timeline) -> None:
    """intended <= sent <= first chunk <= ... <= last chunk <= ended, wherever each happened."""
    sent = t.sent_ns != ABSENT
    _no_row(sent & (t.sent_ns < t.intended_ns), t, "was sent before its intended time")
    _no_row(t.ended_ns < np.where(sent, t.sent_ns, t.intended_ns), t, "ended before it was sent")
    full = np.flatnonzero(np.diff(t.chunk_offset) > 0)
    first, last = t.chunk_offset[full], t.chunk_offset[full + 1] - 1
    unsent = np.zeros(len(t), dtype=bool)
    unsent[full] = t.chunk_ns[first] < t.sent_ns[full]
    _no_row(
        unsent | (~sent & (np.diff(t.chunk_offset) > 0)), t, "has a chunk from before it was sent"
    )
    late = np.zeros(len(t), dtype=bool)
    late[full] = t.chunk_ns[last] > t.ended_ns[full]
    _no_row(late, t, "has a chunk from after it ended")
    back = np.flatnonzero(np.diff(t.chunk_ns) < 0) + 1
    back = back[~np.isin(back, t.chunk_offset)]
    if len(back):
        row = int(np.searchsorted(t.chunk_offset, back[0], side="right")) - 1
        raise BrokenRun(f"request {t.request_id[row]!r} has chunk stamps that run backwards")


def _check_tokens(t: Timeline) -> None:
    if t.chunks and t.chunk_tokens.min() < 0:
        raise BrokenRun("chunk_tokens holds a negative count")
    total = np.concatenate([[0], np.cumsum(t.chunk_tokens, dtype=np.int64)])
    in_chunks = total[t.chunk_offset[1:]] - total[t.chunk_offset[:-1]]
    _no_row(
        in_chunks != t.output_tokens,
        t,
        "has output_tokens that are not the sum of its chunk_tokens",
    )


def _no_row(bad: NDArray[np.bool_], t: Timeline, what: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise BrokenRun(f"request {t.request_id[rows[0]]!r} {what} ({len(rows)} such)")
