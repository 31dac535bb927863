"""One reply, from its stamped bytes to its facts.

`Reply` is fed what arrived and when, in order; it reads HTTP, then the framing of the stream, then the dialect, and
keeps of each event a delta and the stamp of the read that completed it (events of one read share its stamp: nothing
finer was seen). `facts` then says what the reply was. No sockets, no clock, no state beside the one reply.

How a reply ended (`ReplyFacts.status`, of timeline.STATUSES), the first that applies:
    http_error       the status is 300 or more; a redirect is one, and is never followed
    protocol_error   not HTTP, or a limit was broken: `broken`, and nothing is read any more; or the content type is not
                     one that a reply has; or the stream brought an error object, something that is not the protocol's
                     JSON, or a finish reason that means failure
    truncated        the connection ended inside of the message; or the message ended before the reply did: without a
                     finish reason, or, where the protocol's end marker says as much, without that
    ok               otherwise, a reply without a single token included
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from inferometer.timeline import CHANNELS
from inferometer.wire.dialects import Dialect
from inferometer.wire.http import ResponseReader
from inferometer.wire.limits import KIB, Limits
from inferometer.wire.ndjson import JsonDocument, JsonLines
from inferometer.wire.sse import Event, EventStream, Framing
from inferometer.wire.tokens import Counted, CountTokens, count
from inferometer.wire.transcript import Counts, Transcript, body_message, one_line

FRAMINGS: dict[str, Callable[[Limits], Framing]] = {
    "text/event-stream": EventStream,
    "application/x-ndjson": JsonLines,
    "application/ndjson": JsonLines,
    "application/jsonl": JsonLines,
    "application/json": JsonDocument,
}
UNTYPED = ("", "text/plain", "application/octet-stream")  # then the dialect knows how it streams

FAILED_REASONS = ("error", "abort")  # finish reasons of vLLM and SGLang that are none

RECOUNTED = "the server and the tokenizer count differently"
UNSTREAMED = "not streamed: one document"
SURPLUS = "bytes came after the end of the response"

_ERROR_BODY = 16 * KIB

# What a dialect's `read` meets in hostile bytes: not JSON, not of the right shape, not UTF-8, nested without end.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Beginning(Framing):
    """A framing for bodies that are no replies: keeps what a message to a person may stand in, and no event."""

    __slots__ = ("text",)

    def __init__(self, _limits: Limits) -> None:
        super().__init__()
        self.text = bytearray()

    def feed(self, body: bytes) -> list[Event]:
        self.text += body[: max(0, _ERROR_BODY - len(self.text))]
        return []

    def close(self) -> list[Event]:
        return []


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """What one reply was. The chunk lists are equally long: one entry per event (and channel) of the stream.

    `error`: one line, None where all is well. Stamps are those that were fed; None: no byte came.
    `notes`: what a reader of the numbers should know. `text`: per channel of timeline.CHANNELS, if asked for.
    `tokenizer_tokens`: what the tokenizer counts in the whole text, if asked for.
    """

    status: str
    error: str | None
    http_status: int | None
    first_byte_ns: int | None
    last_byte_ns: int | None
    chunk_ns: list[int]
    chunk_tokens: list[int]
    chunk_channel: list[int]
    prompt_tokens: int | None
    output_tokens: int
    cached_tokens: int | None
    reasoning_tokens: int | None
    token_source: str
    finish_reason: str | None
    notes: tuple[str, ...] = ()
    text: tuple[str, ...] | None = None
    tokenizer_tokens: int | None = None


class Reply:
    """One reply being read. Mutable. `expect`: how many tokens were asked for, which bounds how many events may come."""

    __slots__ = (
        "_dialect",
        "_events_left",
        "_framing",
        "_http",
        "_keep_text",
        "_limits",
        "_most",
        "_refused",
        "_stamps",
        "_trouble",
        "first_byte_ns",
        "transcript",
    )

    def __init__(
        self, dialect: Dialect, limits: Limits, expect: int, *, keep_text: bool = False
    ) -> None:
        self._dialect, self._limits, self._keep_text = dialect, limits, keep_text
        self._http = ResponseReader(limits)
        self._framing: Framing | None = None  # known when the head is
        self._most = self._events_left = limits.events(expect)
        self._stamps: list[int] = []  # one per delta
        self._refused: str | None = None  # why the body is not read as a reply
        self._trouble: str | None = None  # a limit that the stream broke
        self.transcript = Transcript()
        self.first_byte_ns: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the HTTP message has ended and is whole."""
        return self._http.complete

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self._http.keep_alive and not self.broken

    @property
    def broken(self) -> bool:
        """Whether reading was given up: what is fed from now on is dropped."""
        return self._trouble is not None or self._http.error is not None

    def feed(self, t_ns: int, data: bytes) -> None:
        """Take the bytes of one read, and its stamp."""
        self.read((t_ns,), (data,))

    def read(self, stamps_ns: Sequence[int], reads: Sequence[bytes]) -> None:
        """Take many reads at once: the same as `feed` for each, at less cost.

        (It works layer by layer instead of read by read, so that one layer's code and data stay in the CPU's caches.)
        """
        http = self._http
        if self.first_byte_ns is None and reads:
            self.first_byte_ns = stamps_ns[0]
        was_complete = http.complete
        times, bodies = http.read(stamps_ns, reads)
        framing = self._chosen()
        if framing is not None:
            self._translate(*framing.read(times, bodies))
            self._trouble = self._trouble or framing.broken
        if http.complete and not was_complete and http.last_ns is not None:
            self._close(http.last_ns)

    def eof(self, t_ns: int, *, reset: bool = False) -> None:
        """Say that the connection ended at `t_ns`, cleanly or (`reset`) not."""
        was_complete = self._http.complete
        self._http.eof(reset=reset)
        if self._http.complete and not was_complete:
            self._close(t_ns)

    def facts(self, count_tokens: CountTokens, *, compare: bool = False) -> ReplyFacts:
        """What the reply was, if nothing more comes.

        `count_tokens` is asked only where the server does not say enough, and where `compare` wants its count of the
        whole text beside the server's.
        """
        said = self.transcript
        status, error = self._verdict()
        counted = count(said, count_tokens, most=self._most)
        texts = self._texts() if self._keep_text or compare else ()
        recount = sum(count_tokens([text for text in texts if text])) if compare else None
        usage = said.usage or Counts()
        return ReplyFacts(
            status=status,
            error=error,
            http_status=self._http.status,
            first_byte_ns=self.first_byte_ns,
            last_byte_ns=self._http.last_ns,
            chunk_ns=self._stamps,
            chunk_tokens=counted.tokens,
            chunk_channel=[delta.channel for delta in said.deltas],
            prompt_tokens=usage.prompt,
            output_tokens=sum(counted.tokens),
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            token_source=counted.source,
            finish_reason=said.finish_reason,
            notes=self._notes(counted, recount),
            text=texts if self._keep_text else None,
            tokenizer_tokens=recount,
        )

    def _chosen(self) -> Framing | None:
        """How to read the body; None until the head is there."""
        if self._framing is None and self._http.head_complete:
            status = self._http.status or 0
            kind = self._http.headers.get("content-type", "").split(";")[0].strip().lower()
            framing = FRAMINGS.get(self._dialect.streams_as if kind in UNTYPED else kind)
            if status >= 300:
                self._refused, framing = self._http_refusal(status), _Beginning
            elif framing is None:
                self._refused = f"the content type is {kind[:80]!r}, which no reply has"
            self._framing = (framing or _Beginning)(self._limits)
        return self._framing

    def _close(self, t_ns: int) -> None:
        """Say what the end of the message completes."""
        framing = self._chosen()
        if framing is not None:
            events = framing.close()
            self._translate([t_ns] * len(events), events)

    def _translate(self, times: list[int], events: list[Event]) -> None:
        """Let the dialect read the events, and stamp the deltas that each of them adds."""
        if len(events) > self._events_left:
            events, times = events[: self._events_left], times[: self._events_left]
            self._trouble = self._trouble or f"the stream has more than {self._most} events"
        self._events_left -= len(events)
        read, transcript, stamps = self._dialect.read, self.transcript, self._stamps
        deltas = transcript.deltas
        for t_ns, (name, data) in zip(times, events, strict=True):
            try:
                read(data, transcript)
            except _UNREADABLE as error:
                self._unreadable(name, data, error)
            if name and name == b"error":
                transcript.fail(f"the server reported: {body_message(data)}")
            while len(stamps) < len(deltas):
                stamps.append(t_ns)

    def _unreadable(self, name: bytes, data: bytes, error: Exception) -> None:
        if name != b"error" and data and not data.isspace():
            self.transcript.fail(f"an event is not what the protocol says: {error}")

    def _verdict(self) -> tuple[str, str | None]:
        """Status and error: the table at the head of this file, row by row."""
        http, said = self._http, self.transcript
        if self._refused and (http.status or 0) >= 300:
            return "http_error", self._refusal()
        if self._trouble or (http.error and not http.cut):
            return "protocol_error", one_line(self._trouble or str(http.error))
        if self._refused:
            return "protocol_error", self._refusal()
        if said.fault:
            return "protocol_error", said.fault
        if said.finish_reason in FAILED_REASONS:
            return "protocol_error", f"the server gave up: finish reason {said.finish_reason!r}"
        if not http.complete:
            return "truncated", http.error or "the response was not read to its end"
        if said.finish_reason is None and not (said.ended and self._dialect.end_suffices):
            return (
                "truncated",
                f"the reply ended after {_many(len(said.deltas))}, not finished",
            )
        return "ok", None

    def _http_refusal(self, status: int) -> str:
        headers = self._http.headers
        parts = [f"HTTP {status}"]
        if "location" in headers:
            parts.append(f"a redirect to {headers['location']} that is not followed")
        if "retry-after" in headers:
            parts.append(f"retry after {headers['retry-after']}")
        return ", ".join(parts)

    def _refusal(self) -> str:
        beginning = self._framing.text if isinstance(self._framing, _Beginning) else b""
        message = body_message(bytes(beginning))
        return one_line(f"{self._refused}: {message}" if message else str(self._refused))

    def _texts(self) -> tuple[str, ...]:
        deltas = self.transcript.deltas
        return tuple(
            "".join(delta.text for delta in deltas if delta.channel == channel)
            for channel in range(len(CHANNELS))
        )

    def _notes(self, counted: Counted, recount: int | None) -> tuple[str, ...]:
        differs = recount is not None and counted.source == "server"
        own = (
            (RECOUNTED, differs and recount != sum(counted.tokens)),
            (UNSTREAMED, isinstance(self._framing, JsonDocument)),
            (SURPLUS, self._http.surplus),
        )
        return (*counted.notes, *(note for note, holds in own if holds))


def _many(events: int) -> str:
    return "1 event" if events == 1 else f"{events} events"
