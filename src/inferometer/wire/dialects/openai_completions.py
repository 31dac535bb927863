"""OpenAI completions (POST /v1/completions): text in, text out, no messages and no roles.

Its streams have the quirks of chat completions (`openai_chat`), but for the role event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.dialects.openai_chat import DONE, UsageField, common
from inferometer.wire.transcript import CONTENT, Delta, Transcript, reported


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: UsageField | None = None
    error: Any = None
    message: Any = None  # of an error that is the whole object


_decode = msgspec.json.Decoder(_Chunk).decode


def encode(ask: Ask) -> bytes:
    """The request's body."""
    return body_of(ask, {"prompt": ask.text, **common(ask)})


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event, or the one document of a reply that is not streamed."""
    if data == DONE:
        transcript.ended = True
        return
    chunk = _decode(data)
    total = None
    if chunk.usage is not None:
        transcript.usage = chunk.usage
        total = chunk.usage.completion
    if chunk.error or chunk.message:
        transcript.fail(reported(chunk.error or chunk.message))
    for choice in chunk.choices or ():
        tokens = None if choice.token_ids is None else len(choice.token_ids)
        transcript.deltas.append(Delta(CONTENT, choice.text or "", tokens, total))
        if choice.finish_reason:
            transcript.finish(choice.finish_reason)


DIALECT = Dialect("openai-completions", "/v1/completions", encode, read, bearer)
