"""A protocol of its own: POST /talk, newline-delimited JSON out. In the package it would be wire/dialects/talk.py.

    {"say": "Hello"}          some text, one token
    {"over": "enough"}        why the reply ended
    {"sorry": "too busy"}     what went wrong

A dialect is three pure functions in a frozen record: no sockets, no clock. Its line in `wire/dialects/__init__.py` is all
that `measure --dialect talk` needs.
"""

from __future__ import annotations

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.transcript import CONTENT, Delta, Transcript


class _Event(msgspec.Struct):
    say: str | None = None
    over: str | None = None
    sorry: str | None = None


_decode = msgspec.json.Decoder(_Event).decode


def encode(ask: Ask) -> bytes:
    """The request's body."""
    return body_of(ask, {"model": ask.model, "hear": ask.text, "words": ask.output_tokens})


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event of the reply."""
    event = _decode(data)
    if event.say is not None:
        transcript.deltas.append(Delta(CONTENT, event.say, tokens=1))
    if event.over is not None:
        transcript.finish(event.over)
    if event.sorry is not None:
        transcript.fail(event.sorry)


DIALECT = Dialect("talk", "/talk", encode, read, bearer, streams_as="application/x-ndjson")
