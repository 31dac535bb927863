"""From what a tool recorded of a request to a row of a timeline: the one place where the importers' arithmetic is.

A reader makes one `Row` per request, in ns, and says with `Stream` what is known of its tokens; `Rows` gathers them,
counts and names those that cannot be read, and makes the timeline. Rules:

1. What was not recorded is null, or named as missing. No stamp is made up: no even spacing, no guessed first token.
2. A chunk that bears text holds at least one token. A count that says otherwise (a client's tokenizer that merges what
   the server sent apart) leaves the times of the first and the last one.
3. A record that contradicts itself (a token before the send, a negative gap) is a problem with its place, never a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.run import redact_text
from inferometer.timeline import (
    ABSENT,
    ROW_COLUMNS,
    Ints,
    Timeline,
    absent,
    build,
    in_order,
    offsets,
)
from inferometer.workload.traces import Problems
from inferometer.workload.traces.trace import SHOWN_PROBLEMS

R = TypeVar("R")
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
MOST_S = 2.2e9  # wall-clock times are 1.8e9 s today; sums of a few such still fit into int64 ns
MOST_NS = round(MOST_S) * SECOND
ERROR_LENGTH = 200


class Unreadable(ValueError):
    """Why a record is none: a word about what is wrong with it."""


class Stream(NamedTuple):
    """A request's tokens: when chunks came since the send [ns], how many tokens each holds, and what is known of it."""

    after_ns: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    stamped: str = "tokens"
    channel: tuple[int, ...] = ()  # indices into CHANNELS; empty: all content


class Row(NamedTuple):
    """What a tool recorded of one request; times are ns since any zero that the file's requests share.

    `sent_ns` None: not recorded. `ended_ns` counts from the send, like the stream; None: it ends with its last token.
    """

    stream: Stream
    sent_ns: int | None = None
    intended_ns: int | None = None
    ended_ns: int | None = None
    scheduled_ns: int | None = None
    prompt_tokens: int | None = None
    counted_by: str = "unknown"  # of TOKEN_SOURCES
    status: str = "ok"
    error: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    session_id: str | None = None
    turn: int = 0
    app: str = "chat"
    cached_tokens: int | None = None
    finish_reason: str | None = None
    phase: str = "measure"
    first_byte_ns: int | None = None  # since the send


# --- times ------------------------------------------------------------------------------------------------------------


def ns(seconds: float | None) -> int:
    """Seconds as ns; Unreadable where they are no time."""
    if seconds is None or not math.isfinite(seconds) or abs(seconds) >= MOST_S:
        raise Unreadable(f"{seconds} is not a time in seconds")
    return round(seconds * SECOND)


def since(seconds: float | None, start: float | None) -> int:
    """The ns from `start` to `seconds`; the difference is taken first, so that wall-clock times lose nothing."""
    ns(seconds)
    ns(start)
    assert seconds is not None
    assert start is not None
    return ns(seconds - start)


def running(first: float, gaps: Sequence[float]) -> tuple[int, ...]:
    """The ns of a first stamp [s] and of those that follow it after `gaps` [s]."""
    steps = np.array([first, *gaps], dtype=float)
    if not np.all(np.isfinite(steps) & (steps >= 0)) or steps.sum() >= MOST_S:
        raise Unreadable("a latency is negative or not a number")
    return tuple(np.rint(np.cumsum(steps) * SECOND).astype(np.int64).tolist())


# --- tokens -----------------------------------------------------------------------------------------------------------


def chunks(after_ns: Sequence[int], tokens: int) -> Stream:
    """Every chunk's time is known, and how many tokens there are in all: which chunk holds how many is, if one each."""
    n = len(after_ns)
    if not n or not tokens:  # stamps of a reply whose tokens nobody counted are kept, and hold none
        return whole(None, tokens) if tokens else Stream(tuple(after_ns), (0,) * n)
    if tokens < n:
        return ends(after_ns[0], after_ns[-1], tokens)
    known = "tokens" if n in {tokens, 1} else "chunks"
    return Stream(tuple(after_ns), (*[1] * (n - 1), tokens - n + 1), known)


def each(after_ns: Sequence[int], tokens: Sequence[int]) -> Stream:
    """Every chunk's time and count are known."""
    return Stream(tuple(after_ns), tuple(tokens))


def ends(first_ns: int, last_ns: int, tokens: int) -> Stream:
    """Only the first token's time and the last one's are known."""
    if tokens <= 1:
        return Stream((first_ns,), (1,)) if tokens else Stream()
    known = "tokens" if tokens == 2 else "ends"
    return Stream((first_ns, last_ns), (1, tokens - 1), known)


def first(first_ns: int, ended_ns: int, tokens: int) -> Stream:
    """Only the first token's time is known; the others stand at the end."""
    return ends(first_ns, ended_ns, tokens)._replace(stamped="first" if tokens > 1 else "tokens")


def whole(ended_ns: int | None, tokens: int, *, streamed: bool = True) -> Stream:
    """No token's time is known (None: not even the end), or (`streamed=False`) all came in one piece at the end."""
    if not tokens:
        return Stream()
    return Stream((ended_ns or 0,), (tokens,), "nothing" if streamed else "tokens")


# --- failures ---------------------------------------------------------------------------------------------------------


def status_of(error: str, *, code: int | None = None, began: bool = False) -> str:
    """What a failed request's status is, from a tool's words; `began`: some of the reply had come."""
    words = error.lower()
    if code is not None and code >= 300:
        return "http_error"
    for word, status in _WORDS.items():
        if word in words:
            return status
    return "truncated" if began else "protocol_error"


_WORDS = {
    "timeout": "timeout",
    "timed out": "timeout",
    "cancel": "cancelled",
    "internal server error": "http_error",
    "httpstatuserror": "http_error",
    "payload is not completed": "truncated",
    "incomplete": "truncated",
    "readerror": "truncated",
    "disconnected": "connect_error",
    "connecterror": "connect_error",
    "cannot connect": "connect_error",
    "connection refused": "connect_error",
}


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong, short and without secrets."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return redact_text(lines[-1].strip()[:ERROR_LENGTH]) if lines else "failed, without a reason"


# --- rows -------------------------------------------------------------------------------------------------------------


class Rows:
    """The requests of one benchmark while they are read; `bad` and `first` count and name those that cannot be."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.rows: list[Row] = []
        self.bad = 0
        self.first: list[str] = []
        self._ids: set[str] = set()

    def read(self, place: str, record: Any, kind: type[R], make: Callable[[R], Row]) -> None:
        """Add what `make` makes of a record (plain data) of a `kind`; where it is none, a problem at `place`.

        A place is what stands after the file's name and a colon: the number of a line, or "[3]" for a record.
        """
        try:
            self._add(make(msgspec.convert(record, kind, strict=False)))
        except (msgspec.ValidationError, Unreadable) as error:
            self.refuse(place, str(error))

    def refuse(self, place: str, what: str) -> None:
        """Count one unreadable record."""
        self.bad += 1
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(f"{self.file}:{place}: {' '.join(what.split())}")

    @property
    def problems(self) -> Problems:
        """What was wrong so far."""
        return Problems(self.bad, tuple(self.first))

    @property
    def recorded(self) -> frozenset[str]:
        """Which of intended and starts all requests have, and prompt_tokens all that completed."""
        facts = {
            "intended": all(row.intended_ns is not None for row in self.rows),
            "starts": all(row.sent_ns is not None for row in self.rows),
            "prompt_tokens": all(
                row.prompt_tokens is not None for row in self.rows if row.status == "ok"
            ),
        }
        return frozenset(fact for fact, known in facts.items() if known)

    def timeline(self) -> Timeline:
        """All rows, in order of their intended time; t = 0 is the first of these.

        Without starts each request is on a clock of its own, whose zero is its send.
        """
        sent = (
            [row.sent_ns or 0 for row in self.rows]
            if "starts" in self.recorded
            else [0] * len(self.rows)
        )
        due = sent
        if {"starts", "intended"} <= self.recorded:
            due = [min(row.intended_ns or 0, at) for row, at in zip(self.rows, sent, strict=True)]
        zero = min(due, default=0)
        columns = [
            _columns(place, row, sent[place] - zero, due[place] - zero)
            for place, row in enumerate(self.rows)
        ]
        return in_order(_build(columns, [row.stream for row in self.rows]))

    @property
    def early(self) -> int:
        """How many were sent before they were due: clocks that were read apart. They are due when they were sent."""
        return sum(
            row.intended_ns is not None
            and row.sent_ns is not None
            and row.intended_ns > row.sent_ns
            for row in self.rows
        )

    def _add(self, row: Row) -> None:
        _check(row)
        if row.request_id is not None:
            if row.request_id in self._ids:
                raise Unreadable(f"a second request is called {row.request_id!r}")
            self._ids.add(row.request_id)
        self.rows.append(row)


def _check(row: Row) -> None:
    stamps = [0, *([] if row.first_byte_ns is None else [row.first_byte_ns]), *row.stream.after_ns]
    if any(later < earlier for earlier, later in pairwise(stamps)):
        raise Unreadable("its stamps run backwards, or begin before the send")
    if row.ended_ns is not None and row.ended_ns < 0:
        raise Unreadable("it ended before it was sent")
    times = (row.sent_ns, row.intended_ns, row.ended_ns, row.scheduled_ns, stamps[-1])
    if any(abs(at or 0) >= MOST_NS for at in times):
        raise Unreadable("a time is out of range")
    counts = (*row.stream.tokens, row.prompt_tokens or 0, row.turn, sum(row.stream.tokens))
    if min(counts) < 0 or max(counts) >= 2**31:
        raise Unreadable("a count of tokens is out of range")


def _columns(place: int, row: Row, sent_ns: int, intended_ns: int) -> dict[str, Any]:
    byte = row.first_byte_ns
    ended = max(row.ended_ns or 0, byte or 0, *row.stream.after_ns)
    return {
        "request_id": f"r{place:08d}" if row.request_id is None else row.request_id,
        "session_id": row.session_id,
        "turn": row.turn,
        "app": row.app,
        "intended_ns": intended_ns,
        "sent_ns": ABSENT if row.status == "dropped" else sent_ns,
        "first_byte_ns": ABSENT if byte is None else sent_ns + byte,
        "ended_ns": sent_ns + ended,
        "status": row.status,
        "error": row.error,
        "http_status": absent(np.int16) if row.http_status is None else row.http_status,
        "prompt_tokens": row.prompt_tokens or 0,
        "output_tokens": sum(row.stream.tokens),
        "token_source": row.counted_by,
        "cached_tokens": absent(np.int32) if row.cached_tokens is None else row.cached_tokens,
        "finish_reason": row.finish_reason,
        "scheduled_ns": ABSENT if row.scheduled_ns is None else intended_ns + row.scheduled_ns,
        "phase": row.phase,
        "connect_ns": ABSENT,
        "attempts": 1,
        "stamped": row.stream.stamped,
        "_chunk_ns": [sent_ns + at for at in row.stream.after_ns],
    }


def _build(columns: list[dict[str, Any]], streams: list[Stream]) -> Timeline:
    table: dict[str, Any] = {name: [row[name] for row in columns] for name in ROW_COLUMNS}
    sizes: Ints = np.array([len(stream.after_ns) for stream in streams], dtype=np.int64)
    return build(
        len(columns),
        **table,
        chunk_offset=offsets(sizes),
        chunk_ns=[at for row in columns for at in row["_chunk_ns"]],
        chunk_tokens=[n for stream in streams for n in stream.tokens],
        chunk_channel=[
            channel
            for stream in streams
            for channel in (stream.channel or (0,) * len(stream.after_ns))
        ],
    )
