"""What the emulated server does, declared: a frozen, seeded `Schedule`, and the pure functions that read it.

Time comes as an offset from the instant at which a request gets a slot; nothing here reads a clock.
Every choice about a request (its gaps, its length, its fault) is a function of the schedule, of what the request asked
for, and of (seed, request id), so that the same requests get the same treatment in whatever order they arrive.

A *step* is one iteration of the engine: `tokens_per_step` tokens, `gap_s` after the step before. How a step looks
on the wire (one event, several events) is the business of `Wire`, and never moves a due time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from math import exp
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, field

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.spec import Spec

FOREVER = 1 << 62  # more tokens than any client will wait for

Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]

# What can be made to go wrong; `faults.py` says how each looks on the wire. Besides these: http-NNN and http-NNN-empty.
FAULTS = (
    "reset-accept",  # reset as soon as it is accepted (by rate only, and of the connections: nothing is read yet)
    "reset-body",  # reset while the request is being sent
    "early-answer",  # a whole 413 before the request is complete; the rest of the request is read and ignored
    "early-close",  # the same, and the connection is closed at once
    "reset-request",  # reset once the request is read
    "close-request",  # closed without a byte once the request is read
    "silent",  # the request is read and never answered
    "reset-headers",  # reset after the response's headers
    "stall-headers",  # headers, then nothing, for ever
    "redirect",  # 307 to `Schedule.redirect_to`
    "html",  # 200 with text/html
    "gzip-bomb",  # 1 kB per MiB that it unpacks to, `Schedule.bomb_mebibytes` of them
    "reset-mid",  # the others come after `Schedule.fault_after` tokens: reset
    "close-mid",  # closed without the chunk that ends the body
    "half-chunk",  # closed in the middle of a chunk
    "truncate",  # a clean end of the body, without a finish reason and without [DONE]
    "stall",  # nothing more, for ever
    "bad-chunk",  # a chunk whose size is no number, then closed
    "bad-json",  # one event that is not JSON, then the stream goes on
    "error-event",  # an error object in the stream, then [DONE]
    "long-line",  # one line of `Schedule.long_line_bytes`, then the stream goes on
    "close-after",  # a whole answer, then an unannounced close of a connection that promised to stay
    "endless",  # tokens without end
)
_HTTP_FAULT = re.compile(r"http-([45]\d\d)(-empty)?")


class Wire(Spec, frozen=True):
    """How the tokens look on the wire. The defaults are vLLM's; `LIKE` has the habits of other engines."""

    headers: Literal["at-once", "with-first"] = "at-once"
    role: Literal["own", "merged", "before"] = "own"
    """The role event of a chat: on its own with the first token, inside its event, or before the prefill."""
    burst: Literal["merged", "split", "packed"] = "merged"
    """A step of k tokens is one event, k events in k writes, or k events in one write."""
    finish: Literal["with-last", "own"] = "with-last"
    usage: Literal["asked", "always", "never"] = "asked"
    usage_in: Literal["own", "finish"] = "own"
    continuous_usage: bool = True  # granted to `stream_options.continuous_usage_stats`
    done: bool = True
    reasoning_share: Share = 0.0
    reasoning_field: Literal["reasoning", "reasoning_content"] = "reasoning"
    framing: Literal["chunked", "close"] = "chunked"
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    dribble: bool = False  # the second half of each event comes with the next write
    keep_alive: bool = True
    refused_fields: tuple[str, ...] = ()  # 422 for a request that has one of them


class Schedule(Spec, frozen=True):
    """The whole declaration: timing, capacity, lengths, the wire, and what goes wrong."""

    seed: int = 0
    ttft_s: Seconds = 0.2
    ttft_per_prompt_token_s: Seconds = 0.0
    ttft_sigma: Seconds = 0.0  # of a lognormal factor with mean 1
    gap_s: Seconds = 0.02
    gap_sigma: Seconds = 0.0  # of a lognormal factor with mean 1, drawn per step
    tokens_per_step: Positive = 1
    stall_s: Seconds = 0.0
    stall_probability: Share = 0.0  # per step
    stall_every: Count = 0  # steps; 0: none but by probability
    slots: Count = 0  # requests served at once, the others wait in order of arrival; 0: no limit
    output_tokens: Count = 0  # 0: as many as are asked for
    default_output_tokens: Positive = 128  # where a request asks for no number
    early_stop: Share = 0.0  # of the requests (without ignore_eos) stop at a uniformly drawn length
    kv_tokens: Count = 0  # the capacity behind /metrics' kv_cache_usage_perc; 0: reported as 0
    models: tuple[str, ...] = ()  # the names that are served; none: every name
    api_key: str | None = None  # what `Authorization: Bearer` must say
    wire: Wire = Wire()
    faults: dict[str, Share] = field(default_factory=dict)  # fault -> share of the requests
    fault_after: Count = 5  # tokens before a fault in mid-stream
    long_line_bytes: Positive = 10 << 20
    bomb_mebibytes: Positive = 512
    redirect_to: str = "http://elsewhere.invalid"

    def __post_init__(self) -> None:
        for name in self.faults:
            check_fault(name, "$.faults")
        if sum(self.faults.values()) > 1 + 1e-9:
            raise UserError("the shares of the faults add up to more than 1", where="$.faults")


LIKE = {
    "vllm": Wire(),
    "llama-server": Wire(burst="split", finish="own"),
    "transformers": Wire(
        role="before",
        finish="own",
        usage="always",
        usage_in="finish",
        done=False,
        refused_fields=("ignore_eos",),
    ),
}


class Asked(NamedTuple):
    """What one request asks for."""

    model: str = "emulated"
    prompt_tokens: int = 1
    max_tokens: int = 0  # 0: no number was asked for
    stream: bool = True
    include_usage: bool = False
    continuous_usage: bool = False
    ignore_eos: bool = False
    request_id: str = ""
    session_id: str | None = None
    prompt: Any = None  # as it came: text, messages, token ids


def check_fault(name: str, where: str) -> str:
    """`name`, or a UserError where there is no such fault."""
    if name not in FAULTS and not _HTTP_FAULT.fullmatch(name):
        known = ", ".join(FAULTS)
        raise UserError(
            f"no fault {name!r}", where=where, remedy=f"one of http-NNN[-empty], {known}"
        )
    return name


def http_fault(name: str) -> tuple[int, bool] | None:
    """(status, with a body) of an http-NNN fault; None for every other one."""
    match = _HTTP_FAULT.fullmatch(name)
    return (int(match[1]), match[2] is None) if match else None


def fault_of(schedule: Schedule, request_id: str) -> str | None:
    """The fault that the rates give to a request, or None; the same for the same (seed, id)."""
    left = _uniform(f"{schedule.seed}:fault:{request_id}") if schedule.faults else 1.0
    for name, share in schedule.faults.items():
        left -= share
        if left < 0:
            return name
    return None


def steps(schedule: Schedule, asked: Asked) -> Iterator[tuple[int, int]]:
    """The steps of one request: (ns since it got its slot, tokens), in order of time; never empty."""
    rng = _rng(schedule, asked)
    left = _drawn_length(schedule, asked, rng)
    at_s = (schedule.ttft_s + schedule.ttft_per_prompt_token_s * asked.prompt_tokens) * _factor(
        schedule.ttft_sigma, rng
    )
    size = schedule.tokens_per_step
    split = schedule.wire.burst == "split" and size > 1
    for step in range(1, FOREVER):
        due_ns, tokens = round(at_s * SECOND), min(size, left)
        left -= tokens
        if split:
            yield from ((due_ns, 1) for _ in range(tokens))
        else:
            yield due_ns, tokens
        if not left:
            return
        at_s += _gap_s(schedule, step, rng)


def _gap_s(schedule: Schedule, step: int, rng: Random) -> float:
    gap_s = schedule.gap_s * _factor(schedule.gap_sigma, rng)
    every, share = schedule.stall_every, schedule.stall_probability
    stalls = (every and step % every == 0) or (share and rng.random() < share)
    return gap_s + schedule.stall_s if stalls else gap_s


def asked_length(schedule: Schedule, asked: Asked) -> int:
    """The tokens that a request may get: what it asks for, or the default."""
    return asked.max_tokens or schedule.default_output_tokens


def output_length(schedule: Schedule, asked: Asked) -> int:
    """The tokens that it will get, the same for the same (seed, id)."""
    return _drawn_length(schedule, asked, _rng(schedule, asked))


def _rng(schedule: Schedule, asked: Asked) -> Random:
    return Random(f"{schedule.seed}:{asked.request_id}")  # noqa: S311  not for secrets


def _drawn_length(schedule: Schedule, asked: Asked, rng: Random) -> int:
    full = asked_length(schedule, asked)
    if schedule.output_tokens and full < FOREVER:
        full = min(schedule.output_tokens, full)
    may_stop = schedule.early_stop and not asked.ignore_eos
    if may_stop and rng.random() < schedule.early_stop:
        return rng.randint(1, full)
    return full


def _factor(sigma: float, rng: Random) -> float:
    return exp(rng.gauss(-0.5 * sigma * sigma, sigma)) if sigma else 1.0


def _uniform(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2.0**64
