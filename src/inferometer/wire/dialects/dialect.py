"""What a dialect is: three pure functions and a name, in a frozen record; and what it is asked.

    encode(ask)              the JSON body of the request
    headers(api_key)         the headers beside it, authorization included
    read(data, transcript)   one event of the reply (one JSON text), translated

`read` may raise msgspec.DecodeError for what is not what the protocol says; its caller makes that the reply's fault.
Everything else that arrives is read in good faith: unknown fields and unknown kinds of events are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from inferometer.wire.transcript import Transcript

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, whatever the protocol. What is None or False is not sent; what is asked is sent, known or not.

    `messages`: (role, content) pairs, and `prompt`: one text. Each protocol sends what it knows; where only one of the
    two is given, it is made of the other. `usage`: "continuous" asks for a running count in every
    event, "final" for one at the end. `extra` is merged into the JSON body, mappings within mappings included.
    """

    model: str
    prompt: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    output_tokens: int = 16
    ignore_eos: bool = False
    stream: bool = True
    temperature: float | None = None
    seed: int | None = None
    usage: Literal["continuous", "final", "none"] = "continuous"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chat(self) -> list[dict[str, str]]:
        """The conversation; a prompt is what its user says."""
        pairs = self.messages or (("user", self.prompt),)
        return [{"role": role, "content": content} for role, content in pairs]

    @property
    def text(self) -> str:
        """The prompt as one text, for protocols that know no messages."""
        return self.prompt or "\n\n".join(content for _, content in self.messages)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol. `path`: its usual request target. `streams_as`: how it frames a stream that does not say.

    `end_suffices`: the end marker alone completes a reply, because it says as much as a finish reason.
    """

    name: str
    path: str
    encode: Callable[[Ask], bytes]
    read: Callable[[bytes, Transcript], None]
    headers: Callable[[str | None], Headers]
    streams_as: str = "text/event-stream"
    end_suffices: bool = False


def bearer(api_key: str | None) -> Headers:
    """The usual headers, with the key as a bearer token."""
    return [*PLAIN, *([("authorization", f"Bearer {api_key}")] if api_key else [])]


PLAIN: tuple[tuple[str, str], ...] = (
    ("content-type", "application/json"),
    ("accept", "text/event-stream, application/x-ndjson, application/json"),
    ("accept-encoding", "identity"),  # a compressor holds tokens back
)


def body_of(ask: Ask, body: dict[str, Any]) -> bytes:
    """`body` without what is None, with the ask's `extra` merged in, as JSON."""
    said = {name: value for name, value in body.items() if value is not None}
    return msgspec.json.encode(_merged(said, ask.extra))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, value in over.items():
        old = out.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[name] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return out
