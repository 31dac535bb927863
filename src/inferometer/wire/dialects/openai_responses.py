"""OpenAI responses (POST /v1/responses): typed events, of which few carry text.

The reply ends with response.completed, .incomplete or .failed, each with the whole response in it: the end marker
and the finish reason in one. The finish reason is the status, or what made the response incomplete. Usage comes then.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.dialects.openai_chat import DONE
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

_CHANNELS = {
    "response.output_text.delta": CONTENT,
    "response.refusal.delta": CONTENT,
    "response.reasoning_text.delta": REASONING,
    "response.reasoning_summary_text.delta": REASONING,
    "response.function_call_arguments.delta": TOOL,
}


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    status: str | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class _Event(_Response, gc=False):
    """An event, or (without a type) the response itself."""

    type: str = ""
    delta: Any = None
    response: _Response | None = None
    message: Any = None


_decode = msgspec.json.Decoder(_Event).decode


def encode(ask: Ask) -> bytes:
    """The request's body. The protocol knows no usage options."""
    fields = {
        "model": ask.model,
        "input": ask.chat if ask.messages else ask.prompt,
        "max_output_tokens": ask.output_tokens,
        "stream": ask.stream,
        "temperature": ask.temperature,
        "seed": ask.seed,
        "ignore_eos": ask.ignore_eos or None,
    }
    return body_of(ask, fields)


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event, or the one document of a reply that is not streamed."""
    if data == DONE:  # not of this protocol, but some servers end all their streams alike
        return
    event = _decode(data)
    channel = _CHANNELS.get(event.type)
    if channel is not None:
        if not isinstance(event.delta, str):
            raise msgspec.ValidationError(f"the delta of a {event.type} is not a string")
        transcript.deltas.append(Delta(channel, event.delta))
    elif event.type == "response.created":
        transcript.deltas.append(Delta(CONTENT, ""))
    elif event.type == "error" or (not event.type and event.error):
        transcript.fail(reported(event.error or event.message))
    elif event.response is not None:
        _read_end(event.response, transcript)
    elif not event.type:
        transcript.say(_spoken(event))
        _read_state(event, transcript)


def _read_end(response: _Response, transcript: Transcript) -> None:
    if response.status in ("completed", "incomplete", "failed", "cancelled"):
        transcript.deltas.append(Delta(CONTENT, ""))
        _read_state(response, transcript)


def _read_state(response: _Response, transcript: Transcript) -> None:
    if response.usage is not None:
        transcript.usage = _counts(response.usage)
    if response.status in ("failed", "cancelled"):
        transcript.fail(reported(response.error or response.status))
    elif response.status in ("completed", "incomplete"):
        details = response.incomplete_details
        transcript.finish((details and details.reason) or response.status)
        transcript.ended = True


def _counts(usage: _Usage) -> Counts:
    before, after = usage.input_tokens_details, usage.output_tokens_details
    cached = None if before is None else before.cached_tokens
    reasoning = None if after is None else after.reasoning_tokens
    return Counts(usage.input_tokens, usage.output_tokens, cached, reasoning)


def _spoken(response: _Response) -> list[tuple[int, str]]:
    out = {REASONING: "", CONTENT: "", TOOL: ""}
    for item in response.output or ():
        channel = REASONING if item.type == "reasoning" else CONTENT
        for part in [*(item.content or ()), *(item.summary or ())]:
            out[channel] += part.text or part.refusal or ""
        out[TOOL] += (item.name or "") + (item.arguments or "")
    return list(out.items())


DIALECT = Dialect("openai-responses", "/v1/responses", encode, read, bearer, end_suffices=True)
