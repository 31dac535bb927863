"""From spool to timeline: where bytes become tokens, after the clock has stopped.

The reply says what happened (`wire.Reply`); the driver's own verdict (a timeout, a reset, a cancellation) is laid over
it. Stamps that fall before the sending of their request (the wall clock was stepped while it ran) are moved to it and
counted. Nothing that started is left out: a request without a single byte is a row too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from inferometer.load import spool as ends
from inferometer.load.options import Target
from inferometer.load.spool import Record
from inferometer.plan import Plan
from inferometer.timeline import (
    ABSENT,
    CHANNELS,
    ROW_COLUMNS,
    Ints,
    Timeline,
    absent,
    build,
    offsets,
)
from inferometer.wire import DIALECTS, CountTokens, Dialect, Limits, Reply, ReplyFacts

COMPARED = 200
UNTOLD = "the server reports no prompt tokens: they are those that were planned"


PART_CHUNKS = 500_000  # a part of a timeline is handed over when it has this many


@dataclass(slots=True)
class Remarks:
    """What the making of a timeline met. `notes`: how many replies each remark was made about."""

    notes: Counter[str] = field(default_factory=Counter)
    clamped: int = 0
    replies: int = 0


class Stripe(NamedTuple):
    """What a digest must know of the rows that a spool speaks of: `rows[place]` is the place's row in `plan`."""

    plan: Plan
    rows: Ints
    prompt_tokens: (
        Any  # int32[n], what the tokenizer counted; the planned count where it was never asked
    )
    epoch_ns: int
    warmup_ns: int


def digest(
    records: Iterable[Record],
    stripe: Stripe,
    target: Target,
    count_tokens: CountTokens,
    remarks: Remarks,
    *,
    keep: Callable[[str, dict[str, str]], None] | None = None,
    exact: bool = False,
) -> Iterator[Timeline]:
    """The timeline of `records` in parts, in the order of their ends; at least one part, and none held on to.

    `keep` is given each request's id and its text. `exact`: `count_tokens` counts as the server should, so the first
    `COMPARED` replies are counted by both, and a disagreement is noted.
    """
    part = _Part()
    for record in records:
        compare = exact and remarks.replies < COMPARED
        facts = _facts(
            record, stripe, target, count_tokens, keep_text=keep is not None, compare=compare
        )
        part.add(record, facts, stripe, remarks)
        _remark(facts, remarks)
        if keep is not None:
            keep(
                part.columns["request_id"][-1], dict(zip(CHANNELS, facts.text or (), strict=False))
            )
        if part.chunks > PART_CHUNKS:
            yield part.timeline()
            part = _Part()
    yield part.timeline()


class _Part:
    """The columns of some requests, being filled."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in ROW_COLUMNS}
        self._ragged: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        self._sizes: list[int] = []
        self.chunks = 0

    def add(self, record: Record, facts: ReplyFacts, stripe: Stripe, remarks: Remarks) -> None:
        """Add one request."""
        stamps = np.array(facts.chunk_ns, dtype=np.int64)
        chunk_ns, moved = _after_sending(stamps, record.ending.sent_ns)
        remarks.clamped += moved
        for name, value in _row(record, facts, stripe, chunk_ns).items():
            self.columns[name].append(value)
        ns, tokens, channel = self._ragged
        ns.append(chunk_ns - stripe.epoch_ns)
        tokens.append(np.array(facts.chunk_tokens, dtype=np.int32))
        channel.append(np.array(facts.chunk_channel, dtype=np.int8))
        self._sizes.append(len(chunk_ns))
        self.chunks += len(chunk_ns)

    def timeline(self) -> Timeline:
        """What was added, frozen and checked."""
        flat = [np.concatenate(parts) if parts else () for parts in self._ragged]
        return build(
            len(self._sizes),
            **self.columns,
            chunk_offset=offsets(np.array(self._sizes, dtype=np.int64)),
            chunk_ns=flat[0],
            chunk_tokens=flat[1],
            chunk_channel=flat[2],
        )


def _remark(facts: ReplyFacts, remarks: Remarks) -> None:
    remarks.replies += 1
    remarks.notes.update(facts.notes)
    if facts.status == "ok" and facts.prompt_tokens is None:
        remarks.notes.update([UNTOLD])


def _facts(
    record: Record,
    stripe: Stripe,
    target: Target,
    count_tokens: CountTokens,
    *,
    keep_text: bool,
    compare: bool,
) -> ReplyFacts:
    expected = int(stripe.plan.output_tokens[stripe.rows[record.ending.row]])
    reply = Reply(DIALECTS[target.dialect], Limits(), expected, keep_text=keep_text)
    reply.read(record.stamps_ns.tolist(), record.reads)
    if record.ending.cause in (ends.CLOSED, ends.RESET):
        reply.eof(record.ending.ended_ns, reset=record.ending.cause == ends.RESET)
    return reply.facts(count_tokens, compare=compare)


def _row(record: Record, facts: ReplyFacts, stripe: Stripe, chunk_ns: Ints) -> dict[str, Any]:
    plan, ending = stripe.plan, record.ending
    row = int(stripe.rows[ending.row])
    status, error = verdict(record, facts)
    since = stripe.epoch_ns
    intended_ns = ending.intended_ns - since
    last_ns = int(chunk_ns[-1]) if len(chunk_ns) else ending.ended_ns
    prompt = facts.prompt_tokens
    return {
        "request_id": plan.request_id[row],
        "session_id": plan.session_id[row],
        "turn": plan.turn[row],
        "app": plan.app[row],
        "intended_ns": intended_ns,
        "sent_ns": _since(ending.sent_ns, since),
        "first_byte_ns": max(int(record.stamps_ns[0]), ending.sent_ns) - since
        if record.reads
        else ABSENT,
        "ended_ns": max(ending.ended_ns, last_ns) - since,
        "status": status,
        "error": error,
        "http_status": facts.http_status or absent(np.int16),
        "prompt_tokens": int(stripe.prompt_tokens[ending.row]) if prompt is None else prompt,
        "output_tokens": facts.output_tokens,
        "token_source": facts.token_source,
        "cached_tokens": absent(np.int32) if facts.cached_tokens is None else facts.cached_tokens,
        "finish_reason": facts.finish_reason,
        "scheduled_ns": ABSENT,
        "phase": "warmup" if intended_ns < stripe.warmup_ns else "measure",
        "connect_ns": ending.connect_ns,
        "attempts": max(ending.attempts, 1),
        "stamped": "tokens",
    }


def has_token(dialect: Dialect, reads: list[bytes]) -> bool:
    """Whether the beginning of a reply holds a token, and not only a head and a role event."""
    reply = Reply(dialect, Limits(), 1)
    reply.read([0] * len(reads), reads)
    return any(delta.text for delta in reply.transcript.deltas)


def verdict(record: Record, facts: ReplyFacts) -> tuple[str, str | None]:
    """(status, error) of a request: the reply's own word if it is whole, else what the driver saw."""
    cause, told = record.ending.cause, record.ending.error or None
    if cause == ends.DROPPED:
        return "dropped", told
    if facts.status == "ok" and cause != ends.CANCELLED:
        return "ok", None
    if not record.reads and cause in (ends.NO_CONNECTION, ends.RESET, ends.CLOSED):
        return "connect_error", told or "the server closed the connection without a reply"
    overruled = {ends.TIMEOUT: "timeout", ends.LIMIT: "protocol_error", ends.CANCELLED: "cancelled"}
    if cause in overruled and facts.status not in ("http_error", "protocol_error"):
        return overruled[cause], told
    return facts.status, _both(facts.error, told)


def _both(reply: str | None, driver: str | None) -> str | None:
    return f"{reply} ({driver})" if reply and driver else reply or driver


def _after_sending(chunk_ns: Ints, sent_ns: int) -> tuple[Ints, int]:
    if not len(chunk_ns):
        return chunk_ns, 0
    straight = np.maximum(np.maximum.accumulate(chunk_ns), sent_ns)
    return straight, int(np.count_nonzero(straight != chunk_ns))


def _since(t_ns: int, epoch_ns: int) -> int:
    return t_ns if t_ns == ABSENT else t_ns - epoch_ns
