"""Anthropic messages (POST /v1/messages), as Anthropic, vLLM and others speak it.

message_start brings the prompt's usage (cached tokens counted apart from the others), content_block_delta the text,
message_delta the stop reason and the output tokens, message_stop the end; ping may come at any time, error too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import PLAIN, Ask, Dialect, Headers, body_of
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

VERSION = "2023-06-01"


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class _Block(msgspec.Struct, gc=False):
    """A content block, or the delta of one."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    name: str | None = None  # of a tool
    input: Any = None  # of a tool, whole
    stop_reason: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Event(_Message, gc=False):
    """An event, or (of the type "message") the message itself."""

    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Block | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


def encode(ask: Ask) -> bytes:
    """The request's body; what a system role says becomes `system`."""
    system = [message["content"] for message in ask.chat if message["role"] == "system"]
    fields = {
        "model": ask.model,
        "messages": [message for message in ask.chat if message["role"] != "system"],
        "system": "\n\n".join(system) or None,
        "max_tokens": ask.output_tokens,
        "stream": ask.stream,
        "temperature": ask.temperature,
        "seed": ask.seed,
        "ignore_eos": ask.ignore_eos or None,
    }
    return body_of(ask, fields)


def headers(api_key: str | None) -> Headers:
    """The usual headers, the protocol's version, and the key under its own name."""
    key = [("x-api-key", api_key)] if api_key else []
    return [*PLAIN, ("anthropic-version", VERSION), *key]


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event, or the one document of a reply that is not streamed."""
    event = _decode(data)
    kind = event.type
    if kind == "content_block_delta" and event.delta is not None:
        block = event.delta
        if block.type != "signature_delta":  # a checksum of the thinking, not tokens
            transcript.say(_spoken(block))
    elif kind == "content_block_start" and event.content_block is not None:
        if event.content_block.name:
            transcript.deltas.append(Delta(TOOL, event.content_block.name))
    elif kind == "message_start" and event.message is not None:
        transcript.deltas.append(Delta(CONTENT, ""))
        _count(event.message.usage, transcript)
    elif kind == "message_delta":
        transcript.deltas.append(Delta(CONTENT, ""))
        _count(event.usage, transcript)
        if event.delta is not None and event.delta.stop_reason:
            transcript.finish(event.delta.stop_reason)
    elif kind == "message_stop":
        transcript.ended = True
    elif kind == "error" or event.error:
        transcript.fail(reported(event.error))
    elif kind == "message":
        _read_message(event, transcript)


def _read_message(message: _Message, transcript: Transcript) -> None:
    pairs = [pair for block in message.content or () for pair in _spoken(block)]
    texts = dict.fromkeys((REASONING, CONTENT, TOOL), "")
    for channel, text in pairs:
        texts[channel] += text or ""
    transcript.say(list(texts.items()))
    _count(message.usage, transcript)
    if message.stop_reason:
        transcript.finish(message.stop_reason)


def _spoken(block: _Block) -> list[tuple[int, str | None]]:
    tool = block.partial_json or (block.name or "")
    if block.input:
        tool += msgspec.json.encode(block.input).decode()
    return [(REASONING, block.thinking), (CONTENT, block.text), (TOOL, tool)]


def _count(usage: _Usage | None, transcript: Transcript) -> None:
    """Lay `usage` over what an earlier event said; the last word on the output is message_delta's."""
    if usage is None:
        return
    known = transcript.usage or Counts()
    prompt, cached = known.prompt, known.cached
    if usage.cache_read_input_tokens is not None:
        cached = usage.cache_read_input_tokens
    if usage.input_tokens is not None:
        prompt = usage.input_tokens + (cached or 0) + (usage.cache_creation_input_tokens or 0)
    output = known.completion if usage.output_tokens is None else usage.output_tokens
    transcript.usage = Counts(prompt, output, cached)


DIALECT = Dialect("anthropic-messages", "/v1/messages", encode, read, headers, end_suffices=True)
