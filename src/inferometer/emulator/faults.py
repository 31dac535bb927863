"""What goes wrong, and how it looks on the wire: one table per moment at which a fault strikes.

    ON_ACCEPT   before anything is read
    ON_HEADERS  while the request is still being sent
    ON_REQUEST  instead of a reply
    MID_STREAM  in a reply, after `Schedule.fault_after` tokens (a reply that is not streamed is cut in its middle)
    AT_END      after a whole reply
Which request meets which fault is decided in `schedule.py` (by rate), or by the client: a model named "fault:NAME",
or a header "X-Fault: NAME" (the only way for faults that strike before the body is read).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import NamedTuple

from inferometer.emulator.dialects import SSE, Dialect
from inferometer.emulator.replies import (
    Answer,
    Dribble,
    Stream,
    Then,
    Whole,
    chunk,
    encode,
    ended,
    failure,
    head,
    last_chunk,
    phrase,
    response,
)
from inferometer.emulator.schedule import FOREVER, Schedule, http_fault

_SSE_HEAD = (b"Content-Type: " + SSE, b"Transfer-Encoding: chunked")


class Cut(NamedTuple):
    """What stands in a stream in the place of the next token; `then` None: the stream goes on after it."""

    data: bytes
    then: Then | None


def refusal(status: int, message: str = "", *, body: bool = True, keep_alive: bool = True) -> bytes:
    """An error response as OpenAI's servers phrase it; 429 comes with Retry-After."""
    words = phrase(status)
    error = {"message": message or words, "type": words.replace(" ", ""), "code": status}
    more = (b"Retry-After: 1",) if status == HTTPStatus.TOO_MANY_REQUESTS else ()
    content = encode({"error": error}) if body else b""
    return response(status, content, *more, keep_alive=keep_alive)


# --- before and instead of a reply ------------------------------------------------------------------------------------

_TOO_LARGE = refusal(413, keep_alive=False)

ON_ACCEPT: dict[str, Answer] = {"reset-accept": Answer(b"", Then.RESET)}
ON_HEADERS: dict[str, Answer] = {
    "reset-body": Answer(b"", Then.RESET),
    "early-answer": Answer(
        _TOO_LARGE, Then.KEEP
    ),  # closed by the server when the request is complete
    "early-close": Answer(_TOO_LARGE, Then.CLOSE),
}


def _redirect(schedule: Schedule) -> Answer:
    to = f"Location: {schedule.redirect_to}/v1/chat/completions".encode()
    return Answer(response(307, b"", to), Then.KEEP)


def _html(_: Schedule) -> Answer:
    page = (
        b"<!doctype html><title>Welcome</title><p>This is not the page that you are looking for.\n"
    )
    return Answer(response(200, page, media=b"text/html"), Then.KEEP)


@cache
def _bomb(mebibytes: int) -> bytes:
    """A gzip stream of one long SSE comment: a MiB that was deflated with a full flush can be repeated as it is."""
    mebibyte = b":" * (1 << 20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(mebibyte) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(mebibyte, checksum)
    trailer = checksum.to_bytes(4, "little") + ((mebibytes << 20) % (1 << 32)).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * mebibytes + deflate.flush() + trailer


def _gzip_bomb(schedule: Schedule) -> Answer:
    data = _bomb(schedule.bomb_mebibytes)
    headers = (b"Content-Encoding: gzip", b"Content-Type: " + SSE)
    return Answer(head(200, *headers, b"Content-Length: %d" % len(data)) + data, Then.KEEP)


ON_REQUEST: dict[str, Callable[[Schedule], Answer]] = {
    "reset-request": lambda _: Answer(b"", Then.RESET),
    "close-request": lambda _: Answer(b"", Then.CLOSE),
    "silent": lambda _: Answer(b"", Then.HANG),
    "reset-headers": lambda _: Answer(head(200, *_SSE_HEAD), Then.RESET),
    "stall-headers": lambda _: Answer(head(200, *_SSE_HEAD), Then.HANG),
    "redirect": _redirect,
    "html": _html,
    "gzip-bomb": _gzip_bomb,
}


def instead(fault: str | None, schedule: Schedule) -> Answer | None:
    """What a request gets in the place of a reply; None where its fault strikes at another moment, or not at all."""
    status = http_fault(fault or "")
    if status is not None:
        return Answer(refusal(status[0], "this fault was asked for", body=status[1]), Then.KEEP)
    make = ON_REQUEST.get(fault or "")
    return make(schedule) if make else None


# --- in a stream ------------------------------------------------------------------------------------------------------


def _error_event(schedule: Schedule, dialect: Dialect) -> Cut:
    wire = schedule.wire
    keep = Then.KEEP if wire.framing == "chunked" else Then.CLOSE
    return Cut(failure(dialect, wire), keep)


def _truncate(schedule: Schedule, _: Dialect) -> Cut:
    chunked = schedule.wire.framing == "chunked"
    return Cut(last_chunk(schedule.wire), Then.KEEP if chunked else Then.CLOSE)


def _long_line(schedule: Schedule, _: Dialect) -> Cut:
    line = b'data: {"text": "' + b"x" * schedule.long_line_bytes + b'"}\n\n'
    return Cut(chunk(line, schedule.wire), None)


def _bad_json(schedule: Schedule, _: Dialect) -> Cut:
    line = ended(b'data: {"choices": [{"index": 0, "delta": {"cont\n\n', schedule.wire.line_end)
    return Cut(chunk(line, schedule.wire), None)


MID_STREAM: dict[str, Callable[[Schedule, Dialect], Cut]] = {
    "reset-mid": lambda *_: Cut(b"", Then.RESET),
    "close-mid": lambda *_: Cut(b"", Then.CLOSE),
    "half-chunk": lambda *_: Cut(b'80\r\ndata: {"choices": [{"index"', Then.CLOSE),
    "truncate": _truncate,
    "stall": lambda *_: Cut(b"", Then.HANG),
    "bad-chunk": lambda *_: Cut(b"many\r\ndata: {}\n\n\r\n", Then.CLOSE),
    "bad-json": _bad_json,
    "error-event": _error_event,
    "long-line": _long_line,
}
AT_END: dict[str, Then] = {"close-after": Then.CLOSE}
ENDLESS = "endless"  # strikes in the length: a reply of FOREVER tokens


class Broken:
    """A reply that goes wrong after some tokens."""

    def __init__(self, reply: Stream | Whole, cut: Cut, after: int) -> None:
        self._reply, self._cut, self._after = reply, cut, after
        self._said = 0
        self.then: Then | None = None

    @property
    def written(self) -> int:
        """Tokens given out."""
        return self._reply.written

    def opening(self) -> bytes:
        """As the reply has it."""
        return self._reply.opening()

    def say(self, tokens: int, last: bool) -> bytes:
        """The reply's bytes, until the tokens after `after` are due, or the last: then the cut's in their place."""
        struck = self._said >= self._after or last
        self._said += tokens
        if not struck:
            return self._reply.say(tokens, last)
        broken = self._reply.broken_off() + self._cut.data
        if self._cut.then is not None:
            self.then = self._cut.then
            return broken
        self._after = FOREVER
        rest = self._reply.say(tokens, last)
        self.then = self._reply.then
        return broken + rest


class Abandoned:
    """A whole reply after which the connection does not do what was promised."""

    def __init__(self, reply: Stream | Whole, then: Then) -> None:
        self._reply, self._then = reply, then

    @property
    def then(self) -> Then | None:
        """`then`, once the reply is over."""
        return self._then if self._reply.then else None

    @property
    def written(self) -> int:
        """Tokens given out."""
        return self._reply.written

    def opening(self) -> bytes:
        """As the reply has it."""
        return self._reply.opening()

    def say(self, tokens: int, last: bool) -> bytes:
        """As the reply has it."""
        return self._reply.say(tokens, last)


def with_fault(
    reply: Stream | Whole, fault: str | None, schedule: Schedule, dialect: Dialect
) -> Stream | Whole | Broken | Abandoned | Dribble:
    """The reply as it will really go."""
    if fault in MID_STREAM:
        cut = MID_STREAM[fault](schedule, dialect)
        if isinstance(reply, Whole):  # nothing can follow half of a body
            cut = Cut(b"", Then.CLOSE if cut.then in {None, Then.KEEP} else cut.then)
        return Broken(reply, cut, schedule.fault_after)
    if fault in AT_END:
        return Abandoned(reply, AT_END[fault])
    return Dribble(reply) if schedule.wire.dribble else reply
