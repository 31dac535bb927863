"""Records what real engines send, byte by byte, for the tests to read.

    python scripts/engines/capture.py [SERVER ...]

Starts each server of SERVERS (all by default), asks it every case in CASES that it is listed for, and writes
    tests/wire/fixtures/SERVER-CASE.http    the response, exactly as read from the socket
    tests/wire/fixtures/SERVER-CASE.json    what was asked, where each read ended and when, and the facts
`facts` come from Python's own http.client and a plain split into lines: nothing of Inferometer decides what
Inferometer is tested against. Two things are not as sent: the date header and `created` are set to one instant, so
that a new capture differs only where the engine does; and /metrics is cut to some families.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from serve import missing, running

FIXTURES = Path(__file__).parents[2] / "tests/wire/fixtures"
PROMPT = "This program is free software; you can redistribute it"
SAYS = {"messages": [{"role": "user", "content": PROMPT}]}
USAGE = {"stream_options": {"include_usage": True}}
RUNNING_USAGE = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 5}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALL = {"tools": [LOOK_UP], "tool_choice": {"type": "function", "function": {"name": "look_up"}}}
END, END_OF_THINKING, HALF_A_CHARACTER = (
    "0",
    "2",
    "130",
)  # token ids of the tiny models; 130 is the byte C3
ALWAYS_ENDS = {"logit_bias": {END: 100}}
ENDS_SOON = "  and distribution as defined by Sections 1 through 9 of"
REPEATS = "of the of the of the of the of the of the of the of the of the of the"
METRICS = (
    "vllm:num_requests_",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:request_queue_time_seconds",
    "vllm:cache_config_info",
    "process_resident_memory_bytes",
    "llamacpp:",
)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
DIALECTS = {
    CHAT: "openai-chat",
    COMPLETIONS: "openai-completions",
    "/v1/responses": "openai-responses",
    "/v1/messages": "anthropic-messages",
    "/completion": "llamacpp",
}
INSTANT = 1_767_225_600  # as many digits as a real one, so that no length changes
DATE = b"Thu, 01 Jan 2026 00:00:00 GMT"


class Server(NamedTuple):
    """One way to start an engine, and the name of its model there."""

    engine: str
    model: str = "tiny"
    extra: tuple[str, ...] = ()


class Case(NamedTuple):
    """One thing to ask; a body is completed with the model, 6 tokens, temperature 0 and streaming."""

    path: str
    body: dict[str, Any] | None = None
    servers: tuple[str, ...] = ("vllm", "transformers", "llama")


SPECULATION = (
    '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":3,"prompt_lookup_min":1}'
)
SYNTHETIC = (
    '{"method":"draft_model","model":"draft","num_speculative_tokens":2,'
    '"rejection_sample_method":"synthetic","synthetic_acceptance_length":2.0}'
)
LLAMA_SPECULATION = (
    *("--spec-type", "draft-simple", "-md", "draft.gguf"),
    *("--spec-draft-n-max", "4", "--spec-synth-len", "3.0"),
)
SERVERS = {
    "vllm": Server("vllm", extra=("--enable-auto-tool-choice", "--tool-call-parser", "hermes")),
    "vllm-reasoning": Server("vllm", extra=("--reasoning-parser", "deepseek_r1")),
    "vllm-interval": Server(
        "vllm", extra=("--stream-interval", "4", "--reasoning-parser", "deepseek_r1")
    ),
    "vllm-speculation": Server("vllm", extra=("--speculative-config", SPECULATION)),
    "vllm-failure": Server("vllm", extra=("--speculative-config", SYNTHETIC)),
    "transformers": Server("transformers", "target"),
    "transformers-cb": Server("transformers-cb", "target"),
    "llama": Server("llama"),
    "llama-speculation": Server("llama", extra=LLAMA_SPECULATION),
}
VLLM = ("vllm",)
EVERY = ("vllm", "transformers", "transformers-cb", "llama")
CASES = {
    "chat": Case(CHAT, SAYS | USAGE, EVERY),
    "chat-long-prompt": Case(CHAT, {"messages": [{"role": "user", "content": "the " * 1500}]} | USAGE, EVERY),
    "chat-running-usage": Case(CHAT, SAYS | RUNNING_USAGE, VLLM),
    "chat-no-usage": Case(CHAT, SAYS),
    "chat-whole": Case(CHAT, SAYS | {"stream": False}),
    "chat-two-choices": Case(CHAT, SAYS | USAGE | {"n": 2, "max_tokens": 3, "temperature": 1, "seed": 1}, VLLM),
    "chat-tool": Case(CHAT, SAYS | USAGE | CALL | {"max_tokens": 54, "temperature": 1, "seed": 3}, VLLM),
    "completions": Case(COMPLETIONS, {"prompt": PROMPT} | USAGE, EVERY),
    "completions-ids": Case(COMPLETIONS, {"prompt": PROMPT, "return_token_ids": True} | USAGE, VLLM),
    "completions-whole": Case(COMPLETIONS, {"prompt": PROMPT, "stream": False}),
    "ignore-eos": Case(COMPLETIONS, {"prompt": PROMPT, "ignore_eos": True} | USAGE),
    "eos-first": Case(COMPLETIONS, {"prompt": PROMPT} | ALWAYS_ENDS | USAGE),
    "eos": Case(CHAT, {"messages": [{"role": "user", "content": ENDS_SOON}], "max_tokens": 24} | USAGE, EVERY),
    "half-characters": Case(COMPLETIONS, {"prompt": PROMPT, "logit_bias": {HALF_A_CHARACTER: 100}} | RUNNING_USAGE, VLLM),
    "one-token": Case(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 1} | USAGE),
    "responses": Case("/v1/responses", {"input": PROMPT, "max_output_tokens": 6}),
    "messages": Case("/v1/messages", SAYS),
    "unknown-model": Case(COMPLETIONS, {"prompt": PROMPT, "model": "nobody"}),
    "unknown-path": Case("/v1/nothing", {}),
    "bad-field": Case(COMPLETIONS, {"prompt": PROMPT, "max_tokens": "many"}),
    "too-long": Case(COMPLETIONS, {"prompt": "the " * 5000}),
    "native": Case("/completion", {"prompt": PROMPT, "n_predict": 6, "return_tokens": True}, ("llama",)),
    "models": Case("/v1/models"),
    "version": Case("/version"),
    "props": Case("/props", None, ("llama",)),
    "metrics": Case("/metrics"),
    "reasoning": Case(
        CHAT, SAYS | USAGE | {"max_tokens": 10, "temperature": 1, "seed": 1, "logit_bias": {END_OF_THINKING: 13}, "ignore_eos": True}, ("vllm-reasoning", "vllm-interval")
    ),
    "burst": Case(
        COMPLETIONS, {"prompt": REPEATS, "max_tokens": 16, "ignore_eos": True} | USAGE, ("vllm-interval", "vllm-speculation", "llama-speculation")
    ),
    "burst-running-usage": Case(
        COMPLETIONS, {"prompt": REPEATS, "max_tokens": 12, "ignore_eos": True} | RUNNING_USAGE, ("vllm-speculation",)
    ),
    "engine-dies": Case(COMPLETIONS, {"prompt": PROMPT} | USAGE, ("vllm-failure",)),
    "engine-dead": Case(COMPLETIONS, {"prompt": PROMPT} | USAGE, ("vllm-failure",)),
}  # fmt: skip


class Answer(NamedTuple):
    """A response as it came: the reads, when each came [ms after the request], and how the connection ended."""

    reads: list[bytes]
    times_ms: list[float]
    end: str


def main() -> int:
    """Capture from the servers asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("servers", nargs="*", metavar="SERVER")
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().servers or SERVERS:
        server = SERVERS[name]
        if why := missing(server.engine):
            print(why, file=sys.stderr)
            continue
        with running(server.engine, *server.extra) as up:
            version = version_of(server.engine, up.url)
            warm_up(server, up.url)
            for case in (case for case in CASES if name in CASES[case].servers):
                record(name, case, up.url, version)
    return 0


def warm_up(server: Server, url: str) -> None:
    """One reply that is not kept: the first takes `transformers serve --continuous-batching` 20 s.

    Not sent to the server that is to die of its first request.
    """
    if SYNTHETIC not in server.extra:
        ask(url, COMPLETIONS, {"model": server.model, "prompt": PROMPT, "max_tokens": 2})


def record(name: str, case: str, url: str, version: str) -> None:
    """Ask one case and write its two files."""
    server, (path, body, _) = SERVERS[name], CASES[case]
    if body is not None and path in DIALECTS:
        limit = {} if path == "/v1/responses" else {"max_tokens": 6}
        body = {"model": server.model, "stream": True, "temperature": 0} | limit | body
    answer = ask(url, path, body)
    if case == "metrics":
        answer = shortened(answer)
    dialect = DIALECTS.get(path)
    story = {
        "engine": version,
        "options": list(server.extra),
        "request": {"method": "GET" if body is None else "POST", "path": path, "body": brief(body)},
        "dialect": dialect,
        "reads": [len(read) for read in answer.reads],
        "times_ms": answer.times_ms,
        "end": answer.end,
        "facts": facts(b"".join(answer.reads), dialect),
    }
    stem = FIXTURES / f"{name}-{case}"
    stem.with_suffix(".http").write_bytes(b"".join(answer.reads))
    stem.with_suffix(".json").write_text(readable(story))
    print(stem.name, json.dumps(story["facts"])[:150], flush=True)


def readable(story: dict[str, Any]) -> str:
    """JSON with an entry per line, but a list of numbers on one."""
    text = json.dumps(story, indent=1, ensure_ascii=False)
    numbers = re.compile(r"\[[\d\s.,]+\]")
    return numbers.sub(lambda found: " ".join(found[0].split()), text) + "\n"


def ask(url: str, path: str, body: dict[str, Any] | None) -> Answer:
    """Send one request on a connection of its own and read until it closes."""
    parts = urlsplit(url)
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: close",
        "Accept-Encoding: identity",
        "X-Request-Id: r-000001",
        *(["Content-Type: application/json", f"Content-Length: {len(content)}"] if content else []),
    ]
    reads, times_ms, end = [], [], "close"
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + content)
        began = time.monotonic()
        try:
            while data := connection.recv(65536):
                times_ms.append(round((time.monotonic() - began) * 1e3, 3))
                reads.append(timeless(data))
        except ConnectionResetError:
            end = "reset"
    return Answer(reads, times_ms, end)


def timeless(data: bytes) -> bytes:
    """`data` with the same instant in every date and `created`; no length changes."""
    data = re.sub(rb"(?<=date: )\w{3}, [\w: ]{20} GMT", DATE, data, flags=re.IGNORECASE)
    return re.sub(rb'("created(?:_at)?": ?)\d{10}', rb"\g<1>%d" % INSTANT, data)


def shortened(answer: Answer) -> Answer:
    """A /metrics response cut to the families in METRICS, as one read; any other status as it is."""
    head, gap, body = b"".join(answer.reads).partition(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        return answer
    kept = [
        line
        for line in body.splitlines()
        if line.split(b" ")[2 if line.startswith(b"#") else 0].decode().startswith(METRICS)
        and not re.search(rb'le="(?!0.3"|\+Inf")', line)
    ]
    body = b"\n".join(kept) + b"\n"
    head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(body), head)
    return Answer([head + gap + body], answer.times_ms[-1:], answer.end)


def brief(body: dict[str, Any] | None) -> dict[str, Any] | None:
    """A body as it is told in a sidecar: an endless prompt is only named."""
    if body is None:
        return None
    told = re.sub(
        r"(?:the ){1000,}", lambda found: f"the ... ({len(found[0]) // 4} times)", json.dumps(body)
    )
    return dict(json.loads(told))


def version_of(engine: str, url: str) -> str:
    """The engine and its version, from itself where it tells, else from what was installed."""
    if engine == "vllm":
        reply = b"".join(ask(url, "/version", None).reads)
        return "vLLM " + json.loads(reply.partition(b"\r\n\r\n")[2])["version"] + " (CPU)"
    if engine == "llama":
        return "llama-server (llama-cpp-python 0.3.36)"
    lock = (Path(__file__).parent / "transformers.lock.txt").read_text()
    pinned = next(line for line in lock.splitlines() if line.startswith("transformers=="))
    return f"transformers serve {pinned.partition('==')[2]}"


# --- facts ------------------------------------------------------------------------------------------------------------


class Bytes:
    """As much of a socket as http.client asks for."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """The bytes as a file."""
        return io.BytesIO(self.data)


def facts(raw: bytes, dialect: str | None) -> dict[str, Any]:
    """What a right reader finds in a response."""
    response = http.client.HTTPResponse(Bytes(raw), method="GET")  # type: ignore[arg-type]
    response.begin()
    found: dict[str, Any] = {"http_status": response.status}
    body = response.read().decode()
    if dialect is None:
        return found
    if response.status != 200:
        told = message(json.loads(body)) if body.startswith("{") else body
        return found | {"status": "http_error", "error": told}
    if not response.getheader("content-type", "").startswith("text/event-stream"):
        return found | said([json.loads(body)], stream=False)
    data = [line.removeprefix("data:").strip() for line in body.splitlines() if line[:5] == "data:"]
    events = [json.loads(text) for text in data if text != "[DONE]"]
    return found | said(events, stream=True) | {"done_marker": "[DONE]" in data}


def said(events: list[dict[str, Any]], *, stream: bool) -> dict[str, Any]:
    """The facts of a reply's JSON objects, whatever its dialect."""
    pieces = [(channel, text) for event in events for channel, text in texts(event) if text]
    usages = [usage for event in events if (usage := usage_of(event))]
    usage = {key: value for one in usages for key, value in one.items()}
    reasons = [reason for event in events if (reason := reason_of(event))]
    errors = [message(event) for event in events if "error" in event]
    ended = "protocol_error" if errors else "ok" if reasons else "truncated"
    joined = {c: "".join(text for channel, text in pieces if channel == c) for c, _ in pieces}
    return {
        "status": ended,
        "error": errors[0] if errors else None,
        "finish_reason": reasons[-1] if reasons else None,
        "prompt_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "text_events": len(pieces) if stream else None,
        "text": joined,
    }


def texts(event: dict[str, Any]) -> list[tuple[str, str]]:
    """(channel, text) of everything that an event says."""
    kind, delta = event.get("type", ""), event.get("delta")
    if kind == "response.output_text.delta":
        return [("content", delta)]
    if kind == "content_block_delta":
        return [("content", delta.get("text", ""))]
    out = [("content", event.get("content") or "")]  # llama-server's own
    for choice in event.get("choices") or []:
        inner = choice.get("delta") or choice.get("message") or choice
        out += [("content", inner.get("content") or inner.get("text") or "")]
        out += [("reasoning", inner.get("reasoning") or inner.get("reasoning_content") or "")]
        for call in inner.get("tool_calls") or []:
            out += [("tool", call["function"].get("name") or "")]
            out += [("tool", call["function"].get("arguments") or "")]
    return out


def usage_of(event: dict[str, Any]) -> dict[str, Any]:
    """The usage that an event carries, at whatever depth its dialect puts it."""
    if event.get("stop"):
        names = {"prompt_tokens": "tokens_evaluated", "completion_tokens": "tokens_predicted"}
        return {ours: event[theirs] for ours, theirs in names.items()}
    inner = event.get("response") or event.get("message") or event
    return event.get("usage") or inner.get("usage") or {}


def reason_of(event: dict[str, Any]) -> str | None:
    """Why a reply ended, in the word of its dialect."""
    response, delta = event.get("response") or {}, event.get("delta")
    if event.get("type") in {"response.completed", "response.incomplete"}:
        return (response.get("incomplete_details") or {}).get("reason") or response.get("status")
    if event.get("type") == "message_delta":
        return delta.get("stop_reason")
    if event.get("stop"):
        return str(event["stop_type"])
    return next(
        (c["finish_reason"] for c in event.get("choices") or [] if c.get("finish_reason")), None
    )


def message(event: dict[str, Any]) -> str:
    """What an error object says; the object itself where it has no message."""
    inner = event.get("error") or event.get("detail") or event
    told = inner.get("message") if isinstance(inner, dict) else inner
    return told if isinstance(told, str) else json.dumps(inner)


if __name__ == "__main__":
    sys.exit(main())
