"""Before any load: is the server there, does it know the model, what does it accept, what does it say of itself?

Everything that a person can get wrong ends here, in one line: a server that is down, a wrong path, a model that is
not served, a key that is refused. What only *may* be wrong (an overloaded or a faulty server) does not: measuring that
is the point, so it becomes a note.

One small request (`X-Request-Id: preflight-...`, four tokens) finds out whether the server takes `ignore_eos` and
usage reports in the stream, and steps down until it is accepted; vLLM takes all, transformers serve answers 422.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from inferometer.errors import TargetError, UserError
from inferometer.load.options import Endpoint, Target, Trust, Usage, endpoint, login
from inferometer.load.requests import request_headers
from inferometer.load.telemetry import fetch, plain_connection
from inferometer.run import redact_text
from inferometer.wire import DIALECTS, Ask

DEFAULT_DIALECT = "openai-chat"
CONNECT_S = 5.0
PROBE_S = (
    30.0  # a cold server: transformers serve with continuous batching takes 20 s to its first reply
)
ENOUGH_S = 5.0  # of a reply that has begun
PROBE_BYTES = 1 << 20

# What to ask for, from all to nothing: (ignore_eos, usage).
_LADDER: tuple[tuple[bool, Usage], ...] = (
    (True, "continuous"),
    (True, "final"),
    (False, "continuous"),
    (False, "final"),
    (False, "none"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A target that can be measured; `facts` go to the manifest, `notes` to the reader."""

    target: Target
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


def find(
    urls: list[str],
    *,
    model: str | None = None,
    dialect: str | None = None,
    api_key: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    trust: Trust | None = None,
    extra: dict[str, Any] | None = None,
    probe: bool = True,
) -> Found:
    """The target behind `urls` (round-robin where there are several).

    `dialect` defaults to the one whose path a URL ends with, else to OpenAI chat completions.
    Raises UserError for what is spelled wrong, TargetError for a server that cannot be used.
    """
    name = dialect or _dialect_of(urls[0])
    if name not in DIALECTS:
        raise UserError(
            f"no dialect {name!r}", where="--dialect", remedy=f"one of {', '.join(DIALECTS)}"
        )
    endpoints = tuple(endpoint(url, DIALECTS[name].path) for url in urls)
    secret = [
        pair for pair in DIALECTS[name].headers(api_key) if pair not in DIALECTS[name].headers(None)
    ]
    own = (*login(urls[0]), *secret, *headers)
    target = Target(endpoints, name, model or "", own, trust or Trust(), extra=extra or {})
    for each in endpoints:
        reach(each, target.trust)
    facts = _facts(target)
    served = _served(facts)
    target = replace(target, model=_model(model, facts))
    notes = []
    if served and target.model not in served:
        notes = [f"the server does not list {target.model!r} among its models; it may be an alias"]
    if not probe:
        return Found(target, facts, tuple(notes))
    accepted, found = _probe(target, served)
    return Found(accepted, facts, (*notes, *found))


# --- is it there ------------------------------------------------------------------------------------------------------


def reach(endpoint: Endpoint, trust: Trust) -> None:
    """Connect once, and shake hands where there is TLS; raises TargetError where that fails."""
    where = endpoint.authority
    target = Target((endpoint,), DEFAULT_DIALECT, "", trust=trust)
    connection = plain_connection(endpoint, target, CONNECT_S)
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        remedy = "give the authority with --ca FILE, or --insecure"
        raise TargetError(f"TLS: {error.verify_message}", where=where, remedy=remedy) from None
    except ssl.SSLError as error:
        raise TargetError(
            f"TLS: {error.reason or error}", where=where, remedy="is it an https port?"
        ) from None
    except socket.gaierror as error:
        raise TargetError(f"no such host ({error.strerror})", where=where) from None
    except TimeoutError:
        raise TargetError(f"no connection within {CONNECT_S:g} s", where=where) from None
    except OSError as error:
        remedy = "is the server up, and the port right?"
        raise TargetError(
            f"cannot connect: {error.strerror or error}", where=where, remedy=remedy
        ) from None
    finally:
        connection.close()


# --- what it says of itself -------------------------------------------------------------------------------------------


def _facts(target: Target) -> dict[str, Any]:
    first = target.endpoints[0]
    facts: dict[str, Any] = {}
    models = _get_json(first, "/v1/models", target)
    if isinstance(models, dict) and isinstance(models.get("data"), list):
        facts["models"] = [entry for entry in models["data"] if isinstance(entry, dict)][:50]
    version = _get_json(first, "/version", target)
    if isinstance(version, dict):
        facts["version"] = version
    facts["engine"] = engine_of(facts)
    return facts


def engine_of(facts: dict[str, Any]) -> str | None:
    """The engine's name, where its model list tells (`owned_by`)."""
    owners = {str(entry.get("owned_by", "")).lower() for entry in facts.get("models", [])}
    for owner in owners:
        for known in ("vllm", "sglang", "llamacpp", "llama.cpp", "inferometer", "ollama"):
            if known in owner:
                return known
    return None


def _get_json(endpoint: Endpoint, path: str, target: Target) -> Any:
    try:
        status, body = fetch(endpoint, _beside(endpoint, path), target, timeout_s=CONNECT_S)
        return msgspec.json.decode(body) if status == 200 else None
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return None


def _beside(endpoint: Endpoint, path: str) -> str:
    own = endpoint.path.split("?")[0]
    base = own.split("/v1/")[0] if "/v1/" in own else ""
    prefix = f"http://{endpoint.authority}" if endpoint.proxy and not endpoint.tls else ""
    return f"{prefix}{base}{path}"


def _served(facts: dict[str, Any]) -> list[str]:
    return [str(entry["id"]) for entry in facts.get("models", []) if entry.get("id")]


def _model(asked: str | None, facts: dict[str, Any]) -> str:
    """The model to ask for. A name that is not listed may be an alias: the trial request decides."""
    served = _served(facts)
    if asked is not None:
        return asked
    if len(served) == 1:
        return served[0]
    what = f"it serves {', '.join(served[:8])}" if served else "the server does not list its models"
    raise UserError(f"which model? {what}", where="--model", remedy="name one with --model")


def _dialect_of(url: str) -> str:
    path = url.split("?", maxsplit=1)[0].rstrip("/")
    matching = [name for name, dialect in DIALECTS.items() if path.endswith(dialect.path)]
    return max(matching, key=lambda name: len(DIALECTS[name].path), default=DEFAULT_DIALECT)


# --- what it accepts --------------------------------------------------------------------------------------------------


def _probe(target: Target, served: list[str]) -> tuple[Target, list[str]]:
    """The target as the server accepts it, and what a reader should know."""
    refused: list[str] = []
    attempt, status, said = target, 0, ""
    for ignore_eos, usage in _LADDER:
        attempt = replace(target, ignore_eos=ignore_eos, usage=usage)
        try:
            status, said = _ask_once(attempt)
        except (OSError, http.client.HTTPException) as error:
            why = redact_text(str(error) or type(error).__name__)
            return attempt, [*refused, f"preflight: the trial request failed ({why})"]
        if status not in (400, 422):
            _refuse(status, said, target, served)
            return attempt, [*refused, *_remarks(attempt, status, said)]
        refused = [f"preflight: HTTP {status} to what was asked before: {said}"]
    _refuse(status, said, target, served)
    return attempt, [f"preflight: every form of the trial request was refused: {said}"]


def _ask_once(target: Target) -> tuple[int, str]:
    """(status, the beginning of what it said) of one small request."""
    first = target.endpoints[0]
    ask = Ask(
        model=target.model,
        prompt="Say yes.",
        output_tokens=4,
        ignore_eos=target.ignore_eos,
        stream=target.stream,
        usage=target.usage,
        extra=target.extra,
    )
    connection = plain_connection(first, target, PROBE_S)
    headers = dict(request_headers(target)) | {"X-Request-Id": f"preflight-{time.monotonic_ns():x}"}
    try:
        connection.request("POST", first.target, DIALECTS[target.dialect].encode(ask), headers)
        response = connection.getresponse()
        if connection.sock is not None:  # http.client lets go of one that is to be closed
            connection.sock.settimeout(ENOUGH_S)
        return response.status, _gist(_read_some(response))
    finally:
        connection.close()


def _read_some(response: http.client.HTTPResponse) -> bytes:
    """The beginning of a body: all of a sound reply to the trial request, and enough of any other."""
    deadline, body = time.monotonic() + ENOUGH_S, b""
    while time.monotonic() < deadline and len(body) < PROBE_BYTES:
        try:
            data = response.read1(65536)
        except OSError:  # it stalls: that is for the measurement to find
            break
        if not data:
            break
        body += data
    return body


def _refuse(status: int, said: str, target: Target, served: list[str]) -> None:
    where = redact_text(f"{target.endpoints[0].authority}{target.endpoints[0].path}")
    if status in (401, 403):
        raise TargetError(
            f"HTTP {status}: {said}", where=where, remedy="give a valid key with --api-key"
        )
    named = any(f"{quote}{target.model}{quote}" in said for quote in "'\"`")
    unknown = named or "model" in said.lower() or (served and target.model not in served)
    if status in (400, 404, 422) and unknown:
        remedy = (
            f"it serves {', '.join(served[:8])}" if served else "name a served one with --model"
        )
        raise TargetError(f"HTTP {status}: {said}", where=where, remedy=remedy)
    if status in (404, 405):
        raise TargetError(
            f"HTTP {status}: {said}", where=where, remedy="check the path, or choose a --dialect"
        )


def _remarks(target: Target, status: int, said: str) -> list[str]:
    remarks = []
    if status >= 300:
        remarks.append(f"preflight: the trial request was answered with HTTP {status}: {said}")
    elif not target.ignore_eos:
        remarks.append("the server does not take ignore_eos: replies may be shorter than planned")
    if status < 300 and target.usage == "none":
        remarks.append("the server reports no usage: tokens are counted by the tokenizer")
    return remarks


def _gist(body: bytes) -> str:
    text = body[:2000].decode("utf-8", "replace")
    message = re.search(r'"(?:message|detail|error)"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
    return redact_text(" ".join((message[1] if message else text).split())[:200]) or "(no body)"
