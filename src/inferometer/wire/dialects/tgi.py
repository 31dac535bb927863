"""Hugging Face text-generation-inference, native (POST /generate_stream): one event is one token, by definition.

The last event repeats the whole text in `generated_text` and says in `details` why it ended; it may itself be a
token, special ones (the end token) included, whose text is not part of the reply. There is no end marker.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.transcript import CONTENT, Count, Counts, Delta, Transcript, reported


class _Token(msgspec.Struct, gc=False):
    text: str | None = None
    special: bool = False


class _Details(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    generated_tokens: Count | None = None
    input_length: Count | None = None


class _Event(msgspec.Struct, gc=False):
    token: _Token | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event | list[_Event]).decode


def encode(ask: Ask) -> bytes:
    """The request's body. A temperature of 0 is greedy decoding, which the server knows by another name."""
    sampled = {"do_sample": True, "temperature": ask.temperature} if ask.temperature else {}
    parameters = {
        "max_new_tokens": ask.output_tokens,
        "details": True,
        **({"do_sample": False} if ask.temperature == 0 else sampled),
        **({} if ask.seed is None else {"seed": ask.seed}),
        **({"ignore_eos_token": True} if ask.ignore_eos else {}),
    }
    return body_of(ask, {"inputs": ask.text, "parameters": parameters, "stream": ask.stream})


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event, or the one document (or a list of one) of a reply that is not streamed."""
    decoded = _decode(data)
    for event in decoded if isinstance(decoded, list) else (decoded,):
        if event.error:
            transcript.fail(reported(event.error))
        elif event.token is not None:
            text = "" if event.token.special else event.token.text or ""
            transcript.deltas.append(Delta(CONTENT, text, tokens=1))
        elif event.generated_text is not None:
            transcript.deltas.append(Delta(CONTENT, event.generated_text))
        if event.details is not None:
            transcript.usage = Counts(event.details.input_length, event.details.generated_tokens)
            if event.details.finish_reason:
                transcript.finish(event.details.finish_reason)


DIALECT = Dialect("tgi", "/generate_stream", encode, read, bearer)
