"""Ollama, native (POST /api/chat; replies of /api/generate are read too): one JSON object per line.

A line usually carries one token, but does not say so: the server holds back what may become a stop word or half a
character. `eval_count` counts them, in the last line, which has `done` true, no text, and the reason.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.transcript import (
    CONTENT,
    REASONING,
    TOOL,
    Count,
    Counts,
    Delta,
    Transcript,
    reported,
)


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: Any = None


class _Line(msgspec.Struct, gc=False):
    message: _Message | None = None  # of /api/chat
    response: str | None = None  # of /api/generate
    thinking: str | None = None  # of /api/generate
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: Count | None = None
    eval_count: Count | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


def encode(ask: Ask) -> bytes:
    """The request's body. The server knows no way to ignore the end token, and skips options that it does not know."""
    options = {
        "num_predict": ask.output_tokens,
        **({} if ask.temperature is None else {"temperature": ask.temperature}),
        **({} if ask.seed is None else {"seed": ask.seed}),
    }
    fields = {
        "model": ask.model,
        "messages": ask.chat,
        "stream": ask.stream,
        "options": options,
    }
    return body_of(ask, fields)


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one line."""
    line = _decode(data)
    if line.error:
        transcript.fail(reported(line.error))
        return
    if line.message is not None:
        calls = line.message.tool_calls
        tool = msgspec.json.encode(calls).decode() if calls else ""
        spoken = ((REASONING, line.message.thinking), (CONTENT, line.message.content), (TOOL, tool))
        transcript.say(spoken)
    elif line.thinking:
        transcript.say(((REASONING, line.thinking), (CONTENT, line.response)))
    elif line.response is not None or line.done:
        transcript.deltas.append(Delta(CONTENT, line.response or ""))
    if line.done:
        transcript.usage = Counts(line.prompt_eval_count, line.eval_count)
        transcript.ended = True
        if line.done_reason:
            transcript.finish(line.done_reason)


DIALECT = Dialect(
    "ollama",
    "/api/chat",
    encode,
    read,
    bearer,
    streams_as="application/x-ndjson",
    end_suffices=True,
)
