"""llama.cpp's server, native (POST /completion): every event carries token ids and a running count.

The running count (`tokens_predicted`) is right even where text is held back; the last event has `stop` true, no text,
the end token in its count, and the reason in `stop_type` (older servers: one of three flags).
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.wire.dialects.dialect import Ask, Dialect, bearer, body_of
from inferometer.wire.transcript import CONTENT, Count, Counts, Delta, Transcript, reported


class _Timings(msgspec.Struct, gc=False):
    cache_n: Count | None = None


class _Event(msgspec.Struct, gc=False):
    content: str | None = None
    tokens: list[int] | None = None
    stop: bool = False
    stop_type: str | None = None
    stopped_eos: bool = False
    stopped_limit: bool = False
    stopped_word: bool = False
    tokens_predicted: Count | None = None
    tokens_evaluated: Count | None = None
    timings: _Timings | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


def encode(ask: Ask) -> bytes:
    """The request's body; one server serves one model, so that `model` is only a courtesy."""
    fields = {
        "model": ask.model,
        "prompt": ask.text,
        "n_predict": ask.output_tokens,
        "stream": ask.stream,
        "return_tokens": True,
        "temperature": ask.temperature,
        "seed": ask.seed,
        "ignore_eos": ask.ignore_eos or None,
    }
    return body_of(ask, fields)


def read(data: bytes, transcript: Transcript) -> None:
    """Translate one event, or the one document of a reply that is not streamed."""
    event = _decode(data)
    if event.error:
        transcript.fail(reported(event.error))
        return
    if event.content is None and not event.stop:
        return
    tokens = len(event.tokens) if event.tokens else None  # [] may mean: not told
    delta = Delta(CONTENT, event.content or "", tokens, event.tokens_predicted)
    transcript.deltas.append(delta)
    if event.stop:
        cached = None if event.timings is None else event.timings.cache_n
        transcript.usage = Counts(event.tokens_evaluated, event.tokens_predicted, cached)
        transcript.ended = True
        transcript.finish(_reason(event))


def _reason(event: _Event) -> str:
    flags = {"eos": event.stopped_eos, "limit": event.stopped_limit, "word": event.stopped_word}
    return event.stop_type or next((name for name, is_set in flags.items() if is_set), "stop")


DIALECT = Dialect("llamacpp", "/completion", encode, read, bearer, end_suffices=True)
