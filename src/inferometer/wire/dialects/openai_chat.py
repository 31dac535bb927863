"""OpenAI chat completions (POST /v1/chat/completions), as vLLM, SGLang, llama-server, transformers and others speak it.

Quirks that are normal here: the first event may carry only a role (transformers sends it before prefill); several
tokens in one event (vLLM); the finish reason on the last text or in an empty event of its own; usage in every event,
with the finish, or in a last event without choices; no [DONE]; an error object in a stream that began with 200.
Reasoning comes as `reasoning` or `reasoning_content`; who sends both (vLLM, for a while) means the same text.
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
    Delta,
    Transcript,
    reported,
)

DONE = b"[DONE]"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Said | None = None
    message: _Said | None = None  # instead of `delta`, in a reply that is not streamed
    finish_reason: str | None = None
    token_ids: list[int] | None = None  # vLLM, with return_token_ids


class PromptDetails(msgspec.Struct, gc=False):
    """A part of `UsageField`."""

    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """A part of `UsageField`."""

    reasoning_tokens: Count | None = None


class UsageField(msgspec.Struct, gc=False):
    """The `usage` of chat completions and of completions; it is a `transcript.Usage`."""

    prompt: Count | None = msgspec.field(default=None, name="prompt_tokens")
    completion: Count | None = msgspec.field(default=None, name="completion_tokens")
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    @property
    def cached(self) -> int | None:
        """Prompt tokens found in a prefix cache."""
        details = self.prompt_tokens_details
        return None if details is None else details.cached_tokens

    @property
    def reasoning(self) -> int | None:
        """Tokens spent on reasoning, shown or not."""
        details = self.completion_tokens_details
        return None if details is None else details.reasoning_tokens


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: UsageField | None = None
    error: Any = None
    message: Any = None  # of an error that is the whole object


_NOTHING = _Said()
_decode = msgspec.json.Decoder(_Chunk).decode


def encode(ask: Ask) -> bytes:
    """The request's body."""
    return body_of(ask, {"messages": ask.chat, **common(ask)})


def common(ask: Ask) -> dict[str, Any]:
    """The fields that chat completions and completions share."""
    return {
        "model": ask.model,
        "max_tokens": ask.output_tokens,
        "stream": ask.stream,
        "stream_options": stream_options(ask),
        "temperature": ask.temperature,
        "seed": ask.seed,
        "ignore_eos": ask.ignore_eos or None,
    }


def stream_options(ask: Ask) -> dict[str, bool] | None:
    """What to ask of usage; OpenAI itself refuses `continuous_usage_stats`."""
    if not ask.stream or ask.usage == "none":
        return None
    continuous = {"continuous_usage_stats": True} if ask.usage == "continuous" else {}
    return {"include_usage": True, **continuous}


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
        said = choice.delta or choice.message or _NOTHING
        tokens = None if choice.token_ids is None else len(choice.token_ids)
        thought = said.reasoning or said.reasoning_content
        if thought or said.tool_calls:
            spoken = ((REASONING, thought), (CONTENT, said.content), (TOOL, _calls(said)))
            transcript.say(spoken, tokens=tokens, total=total)
        else:  # the common case, without a call
            transcript.deltas.append(Delta(CONTENT, said.content or "", tokens, total))
        if choice.finish_reason:
            transcript.finish(choice.finish_reason)


def _calls(said: _Said) -> str:
    functions = [call.function for call in said.tool_calls or () if call.function]
    return "".join((function.name or "") + (function.arguments or "") for function in functions)


DIALECT = Dialect("openai-chat", "/v1/chat/completions", encode, read, bearer)
