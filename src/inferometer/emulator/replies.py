"""What is written for one request, as bytes: a streamed reply, a whole one, or an answer given at once.

A `Reply` is asked for bytes twice: `opening()` when the request arrives and `say(tokens, last)` when tokens are due.
Once `then` is set the reply is over, and it says what becomes of the connection. `written` counts the tokens in all
the bytes given out so far. No sockets, no clock.

Subtlety ahead: a token must cost one concatenation. So all that stands before and after the text of an ordinary
token, with the size of its HTTP chunk, is built once per request; every word of the vocabulary is five bytes, so
that the size never changes. Everything else (first and last tokens, several tokens in a step, running usage,
reasoning) takes the slow way, which encodes JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec

from inferometer.emulator.dialects import NDJSON, Dialect, Event, Facts, Piece, counts_usage
from inferometer.emulator.schedule import FOREVER, Wire

# 64 words of five bytes, the space included: the text of n tokens is a slice of 5n bytes, and a word is a token.
_WORDS = (
    " able also area away back base best body book both call case city come data days deal does done door down each"
    " east even ever face fact feel find five food form four free full game girl give goes good half hand hard have"
    " head hear help here high home hour idea into just keep kind know land last late lead left life like"
)
_BYTES, _VOCABULARY = 5, 64
_WORD = tuple(_WORDS[at : at + _BYTES].encode() for at in range(0, len(_WORDS), _BYTES))
JSON = b"application/json"


def text_of(start: int, tokens: int) -> str:
    """The text of the `tokens` tokens that follow `start` others; one word each."""
    start %= _VOCABULARY
    laps = (start + tokens) // _VOCABULARY + 1
    return (_WORDS * laps)[start * _BYTES : (start + tokens) * _BYTES]


class Then(Enum):
    """What becomes of the connection after a reply."""

    KEEP = "keep"  # it waits for the next request
    CLOSE = "close"  # it is closed once all is written
    RESET = "reset"
    HANG = "hang"  # it stays as it is until the client goes


class Answer(NamedTuple):
    """All that is said to a request at once."""

    data: bytes
    then: Then


class Reply(Protocol):
    """What the server plays."""

    @property
    def then(self) -> Then | None:
        """None while the reply goes on."""
        ...

    @property
    def written(self) -> int:
        """Tokens given out so far."""
        ...

    def opening(self) -> bytes:
        """The bytes for the moment of arrival."""
        ...

    def say(self, tokens: int, last: bool) -> bytes:
        """The bytes for `tokens` more tokens (0: for the news that there will be none); sets `then` where they end it."""
        ...


def phrase(status: int) -> str:
    """The usual words for a status."""
    return HTTPStatus(status).phrase if status in _KNOWN else "Unknown"


_KNOWN = frozenset(HTTPStatus)


def head(status: int, *headers: bytes, keep_alive: bool = True) -> bytes:
    """The status line and headers of a response, the empty line included."""
    line = f"HTTP/1.1 {status} {phrase(status)}".encode()
    last = () if keep_alive else (b"Connection: close",)
    return b"\r\n".join((line, b"Server: inferometer", *headers, *last, b"", b""))


def response(
    status: int, body: bytes, *headers: bytes, media: bytes = JSON, keep_alive: bool = True
) -> bytes:
    """A whole response with a body of known length; without a Content-Type where the body is empty."""
    length = b"Content-Length: %d" % len(body)
    about = (b"Content-Type: " + media, length) if body else (length,)
    return head(status, *about, *headers, keep_alive=keep_alive) + body


def encode(value: Any) -> bytes:
    """JSON bytes."""
    return msgspec.json.encode(value)


def line_of(dialect: Dialect, event: Event, line_end: str = "\n") -> bytes:
    """An event as SSE, or as a line of NDJSON."""
    name, data = event
    if dialect.media == NDJSON:
        return encode(data) + b"\n"
    named = b"event: " + name.encode() + b"\n" if name else b""
    return ended(named + b"data: " + encode(data) + b"\n\n", line_end)


def ended(lines: bytes, line_end: str) -> bytes:
    """`lines` with another line end (JSON holds no raw line feed)."""
    return lines if line_end == "\n" else lines.replace(b"\n", line_end.encode())


def chunk(data: bytes, wire: Wire) -> bytes:
    """`data` as the body's framing wants it: one HTTP chunk, or as it is where the body ends with the connection."""
    return b"%x\r\n%b\r\n" % (len(data), data) if wire.framing == "chunked" else data


def finish_reason(facts: Facts, said: int) -> str:
    """ "length" where the reply is as long as was asked, else "stop"."""
    return "length" if 0 < facts.asked.max_tokens <= said else "stop"


class Stream:
    """A reply as a stream of events."""

    __slots__ = ("_after", "_before", "_begun", "_dialect", "_facts", "_headed", "_keep", "_plain", "then", "written")  # fmt: skip

    def __init__(self, dialect: Dialect, facts: Facts, *, keep_alive: bool = True) -> None:
        self._dialect, self._facts = dialect, facts
        self._keep = keep_alive and facts.wire.framing == "chunked"
        self._headed = self._begun = False
        self.written = 0
        self.then: Then | None = None
        ordinary = self._frame(dialect.token(facts, Piece(_WORDS[:_BYTES], 0)))
        self._before, _, self._after = ordinary.rpartition(_WORD[0])
        counts = dialect.counts or counts_usage(facts)
        self._plain = FOREVER if counts else max(1, facts.reasoning + 1)

    def opening(self) -> bytes:
        """Headers, and the role event, where the wire wants them before the first token."""
        wire = self._facts.wire
        if wire.role == "before":
            return self._begin()
        return self._head() if wire.headers == "at-once" else b""

    def say(self, tokens: int, last: bool) -> bytes:
        """The bytes of the next tokens, and of all that ends the stream after the last."""
        said = self.written
        self.written = said + tokens
        if tokens == 1 and said >= self._plain and not last:
            return self._before + _WORD[said & 63] + self._after
        if not tokens:
            return self._failed()
        return (
            self._begin() + self._spell(said, said + tokens, last) + (self._end() if last else b"")
        )

    def broken_off(self) -> bytes:
        """What must have been written before a stream breaks off: its headers."""
        return self._head()

    def _failed(self) -> bytes:
        """An error in the place of the rest, as a server says it whose headers are already out."""
        self.then = Then.KEEP if self._keep else Then.CLOSE
        return self._head() + failure(self._dialect, self._facts.wire)

    def _spell(self, said: int, end: int, last: bool) -> bytes:
        f, parts = self._facts, []
        finish = finish_reason(f, end) if last else None
        for start, stop in self._pieces(said, end):
            if start and start == f.reasoning:
                parts += self._dialect.turn(f)
            text, thinks = text_of(start, stop - start), start < f.reasoning
            piece = Piece(text, stop, thinks, not start, finish if stop == end else None)
            parts.append(self._dialect.token(f, piece))
        return b"".join(map(self._frame, parts))

    def _pieces(self, said: int, end: int) -> Iterator[tuple[int, int]]:
        """The token ranges that become one event each; none crosses from reasoning to the answer."""
        one_by_one = self._dialect.one_by_one or self._facts.wire.burst == "packed"
        while said < end:
            stop = said + 1 if one_by_one else end
            if said < self._facts.reasoning:
                stop = min(stop, self._facts.reasoning)
            yield said, stop
            said = stop

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._head() + b"".join(map(self._frame, self._dialect.opening(self._facts)))

    def _head(self) -> bytes:
        if self._headed:
            return b""
        self._headed = True
        media = b"Content-Type: " + self._dialect.media
        chunked = self._facts.wire.framing == "chunked"
        framing = (b"Transfer-Encoding: chunked",) if chunked else ()
        return head(200, media, b"Cache-Control: no-store", *framing, keep_alive=self._keep)

    def _end(self) -> bytes:
        """What follows the last token: its own finish event, usage, [DONE], the last HTTP chunk."""
        f, said = self._facts, self.written
        self.then = Then.KEEP if self._keep else Then.CLOSE
        events = self._dialect.ending(f, said, finish_reason(f, said))
        done = self._dialect.done if f.wire.done else b""
        mark = chunk(ended(done, f.wire.line_end), f.wire) if done else b""
        return b"".join(map(self._frame, events)) + mark + last_chunk(f.wire)

    def _frame(self, event: Event) -> bytes:
        return chunk(line_of(self._dialect, event, self._facts.wire.line_end), self._facts.wire)


def failure(dialect: Dialect, wire: Wire) -> bytes:
    """What ends a stream with an error: an event that says so, the end mark, the last chunk."""
    lines = line_of(dialect, dialect.error, wire.line_end) + ended(dialect.done, wire.line_end)
    return chunk(lines, wire) + last_chunk(wire)


def last_chunk(wire: Wire) -> bytes:
    """What ends a body that was chunked."""
    return b"0\r\n\r\n" if wire.framing == "chunked" else b""


class Whole:
    """A reply that is not streamed: nothing until the last token is due, then all of it."""

    def __init__(self, dialect: Dialect, facts: Facts, *, keep_alive: bool = True) -> None:
        self._dialect, self._facts, self._keep = dialect, facts, keep_alive
        self._said = 0
        self.written = 0
        self.then: Then | None = None

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def say(self, tokens: int, last: bool) -> bytes:
        """Nothing, or the whole response."""
        self._said += tokens
        if not tokens:
            self.then = Then.KEEP if self._keep else Then.CLOSE
            return response(500, encode(self._dialect.error[1]), keep_alive=self._keep)
        return self._all() if last else b""

    def broken_off(self) -> bytes:
        """What has been written when the reply breaks off: its first half."""
        data = self._all()
        self.written = 0
        return data[: len(data) // 2]

    def _all(self) -> bytes:
        said, f = self._said, self._facts
        thoughts = min(said, f.reasoning)
        texts = text_of(0, thoughts), text_of(thoughts, said - thoughts)
        body = encode(self._dialect.whole(f, *texts, said, finish_reason(f, said)))
        self.written = said
        self.then = Then.KEEP if self._keep else Then.CLOSE
        return response(200, body, keep_alive=self._keep)


class Dribble:
    """Another reply, whose every write keeps its second half back until the next: one event over several reads."""

    def __init__(self, reply: Stream | Whole) -> None:
        self._reply = reply
        self._held, self._held_tokens = b"", 0

    @property
    def then(self) -> Then | None:
        """As the reply has it."""
        return self._reply.then

    @property
    def written(self) -> int:
        """Tokens whose last byte was given out."""
        return self._reply.written - self._held_tokens

    def opening(self) -> bytes:
        """As the reply has it, whole."""
        return self._reply.opening()

    def say(self, tokens: int, last: bool) -> bytes:
        """The half that was held back, and the first half of what is new; all of it at the end."""
        data = self._reply.say(tokens, last)
        keep = len(data) if self._reply.then else len(data) // 2
        out, self._held = self._held + data[:keep], data[keep:]
        self._held_tokens = tokens if self._held else 0
        return out
