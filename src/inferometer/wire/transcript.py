"""What one reply has said so far: the form that every dialect translates into.

A dialect reads one event at a time and writes here; it knows neither time nor HTTP. One `Delta` is one event (one
per channel, where an event speaks on several) that carries text or marks a step of the reply: an opening event
without text, an empty one, the one that says why the reply ended. What carries only usage, or nothing (a ping), is none.

Nothing is counted here: `tokens` and `total` are what the server itself says, None where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import msgspec

from inferometer.run import redact_text

CONTENT, REASONING, TOOL = range(3)  # indices into timeline.CHANNELS

# A count that a server may claim: never negative, and it fits the timeline's columns.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

MESSAGE_LENGTH = 300


class Delta(msgspec.Struct, gc=False):
    """`tokens`: how many this event carries; `total`: how many the reply has so far, this event included.

    `more`: the event goes on in the next delta, on another channel, and its counts stand there.
    """

    channel: int
    text: str
    tokens: int | None = None
    total: int | None = None
    more: bool = False


class Usage(Protocol):
    """The server's own count. `prompt` includes what was `cached`, `completion` includes `reasoning`."""

    @property
    def prompt(self) -> int | None: ...  # noqa: D102

    @property
    def completion(self) -> int | None: ...  # noqa: D102

    @property
    def cached(self) -> int | None: ...  # noqa: D102

    @property
    def reasoning(self) -> int | None: ...  # noqa: D102


class Counts(msgspec.Struct, gc=False):
    """A `Usage` as plain data."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None


class Transcript:
    """The deltas in order, and the last word on the rest. Mutable, written by one dialect's `read`."""

    __slots__ = ("deltas", "ended", "fault", "finish_reason", "finished_by", "usage")

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.finished_by: int | None = None  # index of the last delta of the event that said so
        self.ended = False  # the protocol's end marker came
        self.fault: str | None = (
            None  # what the server, or the stream, says went wrong: the first such
        )

    def say(
        self,
        spoken: Sequence[tuple[int, str | None]],
        *,
        tokens: int | None = None,
        total: int | None = None,
    ) -> None:
        """Add one event that says these (channel, text) pairs, or nothing: then it is an empty delta."""
        parts = [Delta(channel, text) for channel, text in spoken if text] or [Delta(CONTENT, "")]
        for part in parts[:-1]:
            part.more = True
        parts[-1].tokens, parts[-1].total = tokens, total
        self.deltas += parts

    def finish(self, reason: str) -> None:
        """Note why the reply ended; call it after the delta of the same event."""
        self.finish_reason = one_line(reason)
        self.finished_by = len(self.deltas) - 1 if self.deltas else None

    def fail(self, why: str) -> None:
        """Note the first fault."""
        self.fault = self.fault or one_line(why)


def reported(error: Any) -> str:
    """The fault that an error object inside of a reply stands for."""
    return f"the server reported: {message_of(error)}"


def message_of(value: Any) -> str:
    """What the error object of any of these APIs says to a person: `value` is decoded JSON of whatever shape."""
    for _ in range(4):  # {"error": {"message": ...}}, {"detail": [{"msg": ...}]}
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict):
            for key in ("error", "message", "detail", "msg", "errors", "title"):
                if value.get(key):
                    value = value[key]
                    break
            else:
                break
        else:
            break
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return one_line(text)


_MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def body_message(body: bytes) -> str:
    """What the body of an error response says: its JSON message, or its text without markup; "" if it is empty."""
    try:
        return message_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return one_line(_MARKUP.sub(" ", body.decode("utf-8", "replace")))


def one_line(text: str) -> str:
    """`text` fit for a table: one line, printable, without credentials, at most MESSAGE_LENGTH characters."""
    words = " ".join(text[: 8 * MESSAGE_LENGTH].split())
    line = redact_text(
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    )
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"
