"""A workload, as it is asked for, becomes a plan.

`WorkloadSpec` says what; `make_plan` decides every row of it before t = 0, in three steps: *parts* (what kinds of
requests there are, and how often each), *units* (requests or sessions, each of a part, each with a start), *rows*. The
same spec and seed give the same fingerprint on every machine (see `draws.py`), and each aspect has its own random
stream, so that changing the output lengths leaves the arrivals where they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.plan import Plan, build_plan
from inferometer.spec import Spec
from inferometer.timeline import ABSENT, Array, Ints, offsets
from inferometer.workload.arrivals import (
    Arrivals,
    Closed,
    Drawn,
    Natural,
    Poisson,
    arrivals,
)
from inferometer.workload.draws import Stream, power
from inferometer.workload.joint import Joint, read_table
from inferometer.workload.lengths import Lengths, lengths, whole
from inferometer.workload.profiles import Client, Profile, load_profile
from inferometer.workload.replay import Replay, Units, play, units
from inferometer.workload.sessions import Rows, Sessions
from inferometer.workload.sharing import Blocks, cut, no_blocks, split, take
from inferometer.workload.traces import Trace

GENERATOR = "workload/2"  # raise the number whenever the same spec and seed would give another plan

DEFAULT_ARRIVALS = Poisson(rate=1)
DEFAULT_PROMPT_TOKENS = 512
DEFAULT_OUTPUT_TOKENS = 128

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Weights = dict[str, NotNegative]


class SharedPrefix(Spec, frozen=True):
    """A system prompt of `tokens` before every prompt, in addition to it: one of `groups`, popular by a Zipf law."""

    tokens: Count
    groups: Count = 1
    zipf: NotNegative = 0.0


class Adapters(Spec, frozen=True):
    """LoRA adapters: `count` of them, popular by a Zipf law, and a share of requests that use none.

    Names are `prefix` and a number from 0, the most popular first.
    """

    count: Count
    zipf: NotNegative = 1.0
    none_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    prefix: str = "adapter-"


class Content(Spec, frozen=True):
    """What requests are like. A profile or a trace says all of it; what is given beside them takes their place.

    `prompt_tokens` and `output_tokens` take a spec, a mapping or a short form; with `sessions` they are what each turn
    brings and gets. `max_context` cuts prompt + output to a served context. `cache_bust` makes every prompt unique from
    its first token, whatever was shared. `model`, `tenant` and `priority` are one value or weights.
    """

    profile: str | Profile | None = None
    trace: str | Replay | None = None
    arrivals: str | Arrivals | None = None
    prompt_tokens: int | str | Lengths | None = None
    output_tokens: int | str | Lengths | None = None
    sessions: Sessions | None = None
    shared_prefix: SharedPrefix | None = None
    cache_bust: bool = False
    max_context: Annotated[int, msgspec.Meta(ge=2)] | None = None
    app: str | None = None
    model: str | Weights | None = None
    adapter: str | Adapters | None = None
    tenant: str | Weights | None = None
    priority: int | Weights = 0


class Mixed(Content, frozen=True):
    """One client of a mixture. `weight` counts where the arrivals are the mixture's, not the client's own."""

    weight: Positive = 1.0


class WorkloadSpec(Content, frozen=True):
    """What is asked for. `requests` and `duration_s` both limit; the first to be reached ends the plan.

    With `clients` it is a mixture: each with arrivals of its own, or all with those that are given here.
    A trace needs no limit.
    """

    clients: tuple[Mixed, ...] = ()
    requests: Count | None = None
    duration_s: Positive | None = None
    seed: int = 0


def make_plan(spec: WorkloadSpec, seed: int | None = None) -> Plan:
    """The plan of a workload; `seed` overrides the spec's own."""
    seed = spec.seed if seed is None else seed
    limit = _Limit(
        spec.requests, None if spec.duration_s is None else round(spec.duration_s * SECOND)
    )
    parts = _parts(spec, seed)
    common = _common_arrivals(spec, parts)
    drafts = _by_common(parts, common, limit) if common is not None else _by_own(parts, limit)
    merged = _merged(drafts)
    if limit.requests is not None:
        merged = _first(merged, limit.requests)
    notes = (*merged.notes, *_limit_notes(spec, common, len(merged.turn)))
    return build_plan(
        len(merged.turn),
        **merged.columns(),
        concurrency=common.concurrency if isinstance(common, Closed) else None,
        seed=seed,
        generator=GENERATOR,
        notes=tuple(dict.fromkeys(notes)),
    )


# --- parts: what kinds of requests there are --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Limit:
    requests: int | None
    horizon_ns: int | None


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of request: from a client of a profile, from a trace, or from nothing but the content."""

    content: Content
    weight: float
    streams: Callable[..., Stream]
    process: Drawn | Replay | None  # its own arrivals
    app: str
    notes: tuple[str, ...] = ()
    client: Client | None = None
    trace: Trace | None = None
    units: Units | None = None

    @property
    def replay(self) -> Replay:
        given = self.content.trace
        return Replay(file=given) if isinstance(given, str) else given or Replay(file="")

    @property
    def learned(self) -> bool:
        return self.client is not None and self.client.sessions is not None

    @property
    def mean_rows(self) -> float:
        """About how many rows a unit has."""
        if self.content.sessions is not None:
            return self.content.sessions.mean_rows(self.streams("estimate"))
        if self.client is not None and self.client.sessions is not None:
            return self.client.sessions.mean_rows
        if self.units is not None:
            return len(self.units.row) / (len(self.units.offset) - 1)
        return 1.0


def _parts(spec: WorkloadSpec, seed: int) -> list[_Part]:
    contents: Sequence[Content] = spec.clients or (spec,)
    parts: list[_Part] = []
    for place, content in enumerate(contents):
        prefix: tuple[Any, ...] = (seed, f"client {place}") if spec.clients else (seed,)
        weight = content.weight if isinstance(content, Mixed) else 1.0
        parts += _parts_of(content, weight, prefix)
    return parts


def _parts_of(content: Content, weight: float, prefix: tuple[Any, ...]) -> list[_Part]:
    if content.profile is not None and content.trace is not None:
        raise UserError("a profile or a trace, not both", where="$")
    if content.profile is not None:
        named = content.profile
        profile = named if isinstance(named, Profile) else load_profile(named)
        return _profile_parts(content, profile, weight, prefix)
    streams = _streams(prefix)
    asked = None if content.arrivals is None else arrivals(content.arrivals)
    if content.trace is None:
        if isinstance(asked, Natural):
            raise UserError(
                "natural arrivals are those of a profile or a trace", where="$.arrivals"
            )
        app = content.app or "chat"
        return [_Part(content, weight, streams, asked or DEFAULT_ARRIVALS, app)]
    part = _Part(content, weight, streams, None, content.app or "chat")
    return [_with_trace(part, asked)]


def _with_trace(part: _Part, asked: Arrivals | None) -> _Part:
    replay = part.replay
    trace = replay.read()
    whole = units(trace, closed=replay.sessions == "closed" or not _natural(asked))
    part = replace(part, trace=trace, units=whole, app=part.content.app or trace.app)
    part = replace(part, notes=_trace_notes(trace))
    if not _natural(asked):
        assert not isinstance(asked, Natural)
        return replace(part, process=asked)
    if isinstance(asked, Natural) and asked.rate is not None:
        starts = play(trace, whole, replay, part.streams("rate_scale")).start_ns
        own = len(starts) * SECOND / max(int(starts[-1]), 1)
        scaled = msgspec.structs.replace(replay, rate_scale=replay.rate_scale * asked.rate / own)
        content = msgspec.structs.replace(part.content, trace=scaled)
        return replace(part, content=content)
    return part


def _natural(asked: Arrivals | None) -> bool:
    return asked is None or isinstance(asked, Natural)


def _trace_notes(trace: Trace) -> tuple[str, ...]:
    told = (f"from {trace.source} ({trace.format}, {len(trace):,} rows)", *trace.notes)
    if trace.problems.rows:
        told += (
            f"{trace.problems.rows:,} rows could not be read; first: {trace.problems.first[0]}",
        )
    return told


def _profile_parts(
    content: Content, profile: Profile, weight: float, prefix: tuple[Any, ...]
) -> list[_Part]:
    asked = None if content.arrivals is None else arrivals(content.arrivals)
    total = math.fsum(client.weight for client in profile.clients)
    rates = [c.arrivals.mean_rate if c.arrivals is not None else 0.0 for c in profile.clients]
    notes = (f"profile {profile.name}: {profile.source}", *profile.notes)
    parts = []
    for client in profile.clients:
        streams = _streams((*prefix, client.name) if len(profile.clients) > 1 else prefix)
        process: Drawn | Replay = DEFAULT_ARRIVALS
        told = notes
        if asked is not None and not isinstance(asked, Natural):
            process = asked
        elif client.arrivals is not None:
            process = client.arrivals
            if isinstance(asked, Natural) and asked.rate is not None:
                share = asked.rate / math.fsum(rates)
                process = msgspec.structs.replace(process, rate=process.mean_rate * share)
        else:
            told = (*notes, f"profile {profile.name} has no arrival times: Poisson, 1 per second")
        parts.append(
            _Part(
                content,
                weight * client.weight / total,
                streams,
                process,
                content.app or client.app or profile.app,
                told,
                client,
            )
        )
    return parts


def _streams(prefix: tuple[Any, ...]) -> Callable[..., Stream]:
    seed, *purpose = prefix
    return lambda *more: Stream(seed, *purpose, *more)


# --- units: what starts when ------------------------------------------------------------------------------------------


def _common_arrivals(spec: WorkloadSpec, parts: list[_Part]) -> Drawn | Replay | None:
    """The one process behind all units; None where every part has its own."""
    asked = None if spec.arrivals is None else arrivals(spec.arrivals)
    if asked is not None and not isinstance(asked, Natural):
        if spec.clients and any(client.arrivals is not None for client in spec.clients):
            raise UserError(
                "arrivals of the mixture, or of its clients, not both", where="$.arrivals"
            )
        return asked
    if len(parts) == 1 and parts[0].process is not None:
        return parts[0].process
    if any(isinstance(part.process, Closed) for part in parts):
        raise UserError(
            "a mixture has one closed loop: give it in place of its clients'", where="$.arrivals"
        )
    return None


def _by_common(
    parts: list[_Part], process: Drawn | Replay, limit: _Limit
) -> list[tuple[_Draft, Array]]:
    """Drafts of all parts and the order of their units, which start by one process."""
    first = parts[0]
    per_unit = sum(p.weight * p.mean_rows for p in parts) / sum(p.weight for p in parts)
    count = None  # of units; doubled until there are rows enough
    if limit.requests is not None:
        count = limit.requests if per_unit == 1.0 else int(1.05 * limit.requests / per_unit) + 4
    elif limit.horizon_ns is None:
        count = _available(parts)
    while True:
        starts = process.draw(first.streams("arrivals"), count, limit.horizon_ns)
        if isinstance(process, Closed) and count is None:
            starts = starts[: max(process.concurrency, math.ceil(len(starts) / per_unit))]
        whose = np.zeros(len(starts), dtype=np.int64)
        if len(parts) > 1:
            whose = first.streams("mixture").pick([part.weight for part in parts], len(starts))
        mine = [np.flatnonzero(whose == place) for place in range(len(parts))]
        drafts = [_draft(part, starts[at], at) for part, at in zip(parts, mine, strict=True)]
        rows = sum(len(draft.turn) for draft, _ in drafts)
        if count is None or limit.requests is None or rows >= limit.requests or len(starts) < count:
            return drafts
        count *= 2


def _available(parts: list[_Part]) -> int:
    """Without a limit: as many units as the traces have."""
    if any(part.units is None for part in parts):
        raise UserError("how much load?", where="$", remedy="give requests, duration_s or both")
    return sum(len(part.units.offset) - 1 for part in parts if part.units is not None)


def _by_own(parts: list[_Part], limit: _Limit) -> list[tuple[_Draft, Array]]:
    """Drafts of all parts, each with its own arrivals, up to the limit."""
    if limit.requests is None and limit.horizon_ns is None:
        _available(parts)
    horizon = limit.horizon_ns
    if horizon is None and limit.requests is not None and any(p.process is not None for p in parts):
        horizon = 10 * SECOND  # doubled until there is enough
    while True:
        drafts = [_own_draft(part, horizon) for part in parts]
        rows = sum(len(draft.turn) for draft, _ in drafts)
        if limit.horizon_ns is not None or limit.requests is None or horizon is None:
            return drafts
        if rows >= limit.requests or horizon > 10**17:
            return drafts
        horizon *= 2


def _own_draft(part: _Part, horizon: int | None) -> tuple[_Draft, Array]:
    if part.process is None:
        assert part.trace is not None
        assert part.units is not None
        played = play(part.trace, part.units, part.replay, part.streams("rate_scale"))
        end = len(played.unit)
        if horizon is not None:
            end = int(np.searchsorted(played.start_ns, horizon))
        draft = _trace_draft(part, played.unit[:end], played.copy[:end], played.start_ns[:end])
        draft = replace(draft, notes=(*draft.notes, *played.notes))
        return draft, played.start_ns[:end]
    starts = part.process.draw(part.streams("arrivals"), None, horizon)
    return _draft(part, starts, starts)


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """The rows [R] of one part's units [U], unit by unit; names as in a plan."""

    unit_rows: Ints
    intended_ns: Ints
    turn: Ints
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    think_ns: Ints
    parent_offset: Ints
    parent_row: Ints
    blocks: Blocks
    labels: dict[str, Array]  # session, app, model, adapter, tenant, priority
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """The columns of the plan."""
        labels = dict(self.labels)
        session = labels.pop("session")
        return {
            **labels,
            "session_id": _named(session, "s"),
            "intended_ns": self.intended_ns,
            "turn": self.turn,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "think_ns": self.think_ns,
            "parent_offset": self.parent_offset,
            "parent_row": self.parent_row,
            "block_offset": self.blocks.offset,
            "block_id": self.blocks.id,
            "block_tokens": self.blocks.tokens,
        }


def _named(session: Ints, prefix: str) -> Array:
    out = np.empty(len(session), dtype=object)
    known = session >= 0
    if known.any():
        names, index = np.unique(session[known], return_inverse=True)
        out[known] = np.array([f"{prefix}{name:07d}" for name in names], dtype=object)[index]
    return out


def _draft(part: _Part, starts: Ints, order: Array) -> tuple[_Draft, Array]:
    """The rows of units that start at `starts` [U], and the key that orders its units among others'."""
    if part.trace is not None and part.units is not None:
        number = len(part.units.offset) - 1
        at = np.arange(len(starts))
        return _trace_draft(part, at % number, at // number, starts), order
    rows, blocks = _shapes(part, len(starts))
    n = len(rows.turn)
    prompt, blocks, notes = _prefixed(part, rows, blocks)
    intended = np.full(n, ABSENT, dtype=np.int64)
    intended[offsets(rows.unit_rows)[:-1]] = starts
    is_session = part.content.sessions is not None or part.learned
    unit = np.repeat(np.arange(len(starts)), rows.unit_rows)
    draft = _Draft(
        unit_rows=rows.unit_rows,
        intended_ns=intended,
        turn=rows.turn,
        prompt_tokens=prompt,
        output_tokens=rows.output_tokens.astype(np.int32),
        think_ns=rows.think_ns,
        parent_offset=rows.offset,
        parent_row=rows.parent,
        blocks=blocks,
        labels=_labels(part, unit, unit if is_session else np.full(n, -1)),
        notes=(*part.notes, *notes),
    )
    return _limited(part, draft), order


def _shapes(part: _Part, count: int) -> tuple[Rows, Blocks | None]:
    """Rows of `count` units, and the blocks that a profile's learned sharing gives them."""
    content, client = part.content, part.client
    joint = client.lengths if client is not None else None
    if content.sessions is not None:
        new = _law(content.prompt_tokens, joint, "prompt_tokens", DEFAULT_PROMPT_TOKENS)
        output = _law(content.output_tokens, joint, "output_tokens", DEFAULT_OUTPUT_TOKENS)
        return content.sessions.draw(part.streams, count, new, output), None
    if client is not None and client.sessions is not None:
        return client.sessions.draw(part.streams, count, client.lengths), None
    prompt, output_tokens = _lengths(part, count)
    rows = Rows(
        unit_rows=np.ones(count, dtype=np.int64),
        turn=np.zeros(count, dtype=np.int64),
        prompt_tokens=prompt.astype(np.int64),
        output_tokens=output_tokens.astype(np.int64),
        think_ns=np.zeros(count, dtype=np.int64),
        chain=np.arange(count),
        offset=np.zeros(count + 1, dtype=np.int64),
        parent=np.zeros(0, dtype=np.int64),
    )
    if client is None or client.sharing is None or content.cache_bust:
        return rows, None
    return rows, client.sharing.draw(part.streams("sharing"), prompt)


@dataclass(frozen=True, slots=True)
class _Marginal:
    """One length of a joint distribution, drawn by itself."""

    table: tuple[int, ...]

    def draw(self, stream: Stream, n: int) -> NDArray[np.int32]:
        return whole(read_table(self.table, stream.uniform(n)))


def _law(asked: Any, joint: Joint | None, name: str, default: int) -> Any:
    """Where one length comes from: what is asked, else the profile, else the default."""
    if asked is not None:
        return lengths(asked, where=f"$.{name}")
    if joint is not None:
        return _Marginal(joint.prompt if name == "prompt_tokens" else joint.output)
    return lengths(default)


def _lengths(part: _Part, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompt and output lengths of n single requests."""
    content, client = part.content, part.client
    if client is not None and content.prompt_tokens is None and content.output_tokens is None:
        return client.lengths.draw(part.streams("lengths"), n)
    joint = client.lengths if client is not None else None
    prompt = _law(content.prompt_tokens, joint, "prompt_tokens", DEFAULT_PROMPT_TOKENS)
    output = _law(content.output_tokens, joint, "output_tokens", DEFAULT_OUTPUT_TOKENS)
    return (
        prompt.draw(part.streams("prompt_tokens"), n),
        output.draw(part.streams("output_tokens"), n),
    )


_CHAIN_BLOCK = 4096  # coarse: a growing chain shares to the token, whatever its block size


def _prefixed(
    part: _Part, rows: Rows, blocks: Blocks | None
) -> tuple[NDArray[np.int32], Blocks, tuple[str, ...]]:
    """Prompt lengths with the shared prefix, and all blocks that prompts begin with."""
    content = part.content
    prefix = content.shared_prefix
    before = prefix.tokens if prefix is not None else 0
    prompt = (rows.prompt_tokens + before).astype(np.int32)
    if content.cache_bust:
        note = "cache-bust: every prompt is unique from its first token"
        return prompt, no_blocks(len(prompt)), (note,)
    if blocks is None and (content.sessions is not None or part.learned):
        size = _divisor(before) if before else _CHAIN_BLOCK
        blocks = _chains(rows.chain, rows.prompt_tokens, size)
    if prefix is None:
        return prompt, blocks or no_blocks(len(prompt)), ()
    popularity = power(np.arange(1.0, prefix.groups + 1.0), -prefix.zipf)
    group = part.streams("prefix").pick(popularity, len(rows.unit_rows))
    group = np.repeat(group, rows.unit_rows)
    head = Blocks(np.arange(len(prompt) + 1), group, prefix.tokens)
    return prompt, head if blocks is None else _stacked(head, blocks, prefix.groups), ()


def _divisor(tokens: int) -> int:
    """The largest divisor of `tokens` up to 4096, so that blocks of that size end where the prefix ends."""
    return next(size for size in range(min(tokens, _CHAIN_BLOCK), 0, -1) if tokens % size == 0)


def _chains(chain: Array, prompt: Ints, size: int) -> Blocks:
    """Blocks of prompts that are beginnings of their chain's text."""
    count = -(-prompt // size)
    _, dense = np.unique(chain, return_inverse=True)
    dense = dense.reshape(-1)
    longest = np.zeros(int(dense.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(longest, dense, count)
    offset = offsets(count)
    ids = np.repeat(offsets(longest)[:-1][dense] - offset[:-1], count) + np.arange(offset[-1])
    return Blocks(offset, ids, size)


def _stacked(head: Blocks, tail: Blocks, groups: int) -> Blocks:
    """`head` and then `tail` in every row, in blocks that fit both."""
    size = math.gcd(head.tokens, tail.tokens)
    parts = head.tokens // size
    head, tail = split(head, size), split(tail, size)
    counts = np.diff(head.offset) + np.diff(tail.offset)
    offset = offsets(counts)
    ids = np.empty(int(offset[-1]), dtype=np.int64)
    first = np.repeat(offset[:-1], parts) + np.tile(np.arange(parts), len(counts))
    ids[first] = head.id
    rest = np.ones(len(ids), dtype=bool)
    rest[first] = False
    ids[rest] = tail.id + groups * parts
    return Blocks(offset, ids, size)


def _trace_draft(part: _Part, unit: Ints, copy: Ints, starts: Ints) -> _Draft:
    """The rows of units of a trace; each copy of the trace is a generation that shares with itself alone."""
    trace, parts = part.trace, part.units
    assert trace is not None
    assert parts is not None
    mine = take(Blocks(parts.offset, parts.row, 0), unit)
    row, count = mine.id, np.diff(mine.offset)
    generation = np.repeat(copy, count)
    start_row = mine.offset[:-1]
    intended = np.full(len(row), ABSENT, dtype=np.int64)
    intended[start_row] = starts
    prompt, output, notes = _trace_lengths(part, trace, row)
    offset, parent, think = _trace_links(trace, parts, row, np.repeat(start_row, count))
    blocks = no_blocks(len(row))
    if trace.blocks is not None and not part.content.cache_bust:
        taken = take(trace.blocks, row)
        step = int(trace.blocks.id.max(initial=0)) + 1
        ids = taken.id + np.repeat(generation, np.diff(taken.offset)) * step
        blocks = cut(Blocks(taken.offset, ids, taken.tokens), prompt)
    session = np.full(len(row), -1, dtype=np.int64)
    if trace.session is not None:
        step = int(trace.session.max(initial=0)) + 1
        known = trace.session[row]
        session = np.where(known >= 0, known + generation * step, -1)
    draft = _Draft(
        unit_rows=count,
        intended_ns=intended,
        turn=_turns(session),
        prompt_tokens=prompt,
        output_tokens=output,
        think_ns=think,
        parent_offset=offset,
        parent_row=parent,
        blocks=blocks,
        labels=_labels(part, np.repeat(np.arange(len(unit)), count), session),
        notes=(*part.notes, *notes),
    )
    return _limited(part, draft)


def _trace_lengths(
    part: _Part, trace: Trace, row: Ints
) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[str, ...]]:
    out, notes = [], []
    for name in ("prompt_tokens", "output_tokens"):
        asked = getattr(part.content, name)
        if asked is not None:
            out.append(lengths(asked, where=f"$.{name}").draw(part.streams(name), len(row)))
            continue
        tokens = getattr(trace, name)[row]
        empty = int(np.count_nonzero(tokens < 1))
        if empty:
            notes.append(f"{empty:,} rows with {name} of 0 were given 1")
        out.append(np.maximum(tokens, 1))
    return out[0], out[1], tuple(notes)


def _trace_links(trace: Trace, parts: Units, row: Ints, start_row: Ints) -> tuple[Ints, Ints, Ints]:
    """Parents within the plan [offset, rows] and pauses; none where requests are their own units."""
    links = trace.links
    if not parts.linked or links is None:
        nothing = np.zeros(len(row), dtype=np.int64)
        return np.zeros(len(row) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), nothing
    inside = np.empty(len(trace), dtype=np.int64)  # the place of each row within its unit
    counts = np.diff(parts.offset)
    inside[parts.row] = np.arange(len(trace)) - np.repeat(parts.offset[:-1], counts)
    mine = take(Blocks(links.offset, links.row, 0), row)
    parent = inside[mine.id] + np.repeat(start_row, np.diff(mine.offset))
    return mine.offset, parent, links.think_ns[row]


def _turns(session: Ints) -> Ints:
    """The how-manieth of its session each row is, from 0."""
    order = np.argsort(session, kind="stable")
    first = np.flatnonzero(np.diff(session[order], prepend=-2) != 0)
    turn = np.empty(len(session), dtype=np.int64)
    turn[order] = np.arange(len(session)) - np.repeat(first, np.diff(first, append=len(session)))
    return np.where(session >= 0, turn, 0)


def _limited(part: _Part, draft: _Draft) -> _Draft:
    """Prompts and outputs cut to the served context, and blocks to their prompts."""
    most = part.content.max_context
    if most is None:
        return draft
    output = np.minimum(draft.output_tokens, most - 1)
    prompt = np.minimum(draft.prompt_tokens, most - output)
    shorter = int(np.count_nonzero((prompt < draft.prompt_tokens) | (output < draft.output_tokens)))
    note = (f"{shorter:,} requests were cut to a context of {most:,} tokens",) if shorter else ()
    return replace(
        draft,
        prompt_tokens=prompt.astype(np.int32),
        output_tokens=output.astype(np.int32),
        blocks=cut(draft.blocks, prompt),
        notes=(*draft.notes, *note),
    )


def _labels(part: _Part, unit: Ints, session: Ints) -> dict[str, Array]:
    """What is said of each row: drawn once per unit, so that a session stays with its tenant and its model."""
    content = part.content
    count = int(unit.max(initial=-1)) + 1
    drawn = {
        "model": _chosen(content.model, part.streams("model"), count),
        "tenant": _chosen(content.tenant, part.streams("tenant"), count),
        "priority": _chosen(content.priority, part.streams("priority"), count),
        "adapter": _adapters(content.adapter, part.streams("adapter"), count),
        "app": _chosen(part.app, part.streams("app"), count),
    }
    labels = {name: values[unit] for name, values in drawn.items()}
    labels["priority"] = labels["priority"].astype(np.int32)
    return {**labels, "session": session}


def _chosen(given: str | int | Weights | None, stream: Stream, n: int) -> Array:
    out = np.empty(n, dtype=object)
    if not isinstance(given, dict):
        out[:] = given
        return out
    if not math.fsum(given.values()) > 0:
        raise UserError("weights must not all be 0", where="$")
    names = np.array(list(given), dtype=object)
    return np.asarray(names[stream.pick(list(given.values()), n)])


def _adapters(given: str | Adapters | None, stream: Stream, n: int) -> Array:
    if not isinstance(given, Adapters):
        return _chosen(given, stream, n)
    popularity = power(np.arange(1.0, given.count + 1.0), -given.zipf)
    names = np.array([f"{given.prefix}{k}" for k in range(given.count)], dtype=object)
    out = names[stream.pick(popularity, n)]
    out[stream.uniform(n) < given.none_share] = None
    return out


# --- all parts together -----------------------------------------------------------------------------------------------


def _merged(drafts: list[tuple[_Draft, Array]]) -> _Draft:
    """One draft of all units, in order of their keys."""
    if len(drafts) == 1:
        return drafts[0][0]
    whole_ = _concatenated([draft for draft, _ in drafts])
    order = np.argsort(np.concatenate([key for _, key in drafts]), kind="stable")
    of_unit = take(Blocks(offsets(whole_.unit_rows), np.arange(len(whole_.turn)), 0), order)
    return _reordered(replace(whole_, unit_rows=whole_.unit_rows[order]), of_unit.id)


def _concatenated(drafts: list[_Draft]) -> _Draft:
    size = math.gcd(*(draft.blocks.tokens for draft in drafts))
    entries = sum(len(d.blocks.id) * (d.blocks.tokens // size) for d in drafts if size)
    if entries > _MOST_IDS:
        sizes = sorted({draft.blocks.tokens for draft in drafts} - {0})
        raise UserError(
            f"clients share prefixes in blocks of {sizes} tokens, which fit together only in blocks of {size}",
            where="$.clients",
            remedy="choose shared_prefix tokens that are multiples of a power of two",
        )
    rows = offsets(np.array([len(draft.turn) for draft in drafts]))[:-1]
    blocks, parents, sessions = [], [], []
    next_id = next_session = 0
    for draft in drafts:
        fitted = cut(split(draft.blocks, size), draft.prompt_tokens)
        blocks.append(Blocks(fitted.offset, fitted.id + next_id, size))
        next_id += int(fitted.id.max(initial=-1)) + 1
        session = draft.labels["session"]
        sessions.append(np.where(session >= 0, session + next_session, -1))
        next_session += int(session.max(initial=-1)) + 1
    parents = [draft.parent_row + start for draft, start in zip(drafts, rows, strict=True)]
    labels = {
        name: np.concatenate([draft.labels[name] for draft in drafts]) for name in drafts[0].labels
    }
    columns = {
        name: np.concatenate([getattr(draft, name) for draft in drafts])
        for name in ("unit_rows", *_ROW_COLUMNS)
    }
    return _Draft(
        **columns,
        parent_offset=_joined([draft.parent_offset for draft in drafts]),
        parent_row=np.concatenate(parents),
        blocks=Blocks(
            _joined([each.offset for each in blocks]),
            np.concatenate([each.id for each in blocks]),
            size,
        ),
        labels={**labels, "session": np.concatenate(sessions)},
        notes=tuple(note for draft in drafts for note in draft.notes),
    )


_MOST_IDS = 100_000_000  # of shared blocks, 8 bytes each
_ROW_COLUMNS = ("intended_ns", "turn", "prompt_tokens", "output_tokens", "think_ns")


def _joined(parts: list[Ints]) -> Ints:
    return offsets(np.concatenate([np.diff(offset) for offset in parts]))


def _reordered(draft: _Draft, rows: Ints) -> _Draft:
    """The draft of some of its rows in that order; a row's parents must be among them."""
    place = np.full(len(draft.turn), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    linked = take(Blocks(draft.parent_offset, draft.parent_row, 0), rows)
    columns = {name: getattr(draft, name)[rows] for name in _ROW_COLUMNS}
    return replace(
        draft,
        **columns,
        parent_offset=linked.offset,
        parent_row=place[linked.id],
        blocks=take(draft.blocks, rows),
        labels={name: column[rows] for name, column in draft.labels.items()},
    )


def _first(draft: _Draft, rows: int) -> _Draft:
    """The first rows, which never need a later one."""
    return draft if rows >= len(draft.turn) else _reordered(draft, np.arange(rows))


def _limit_notes(spec: WorkloadSpec, common: Drawn | Replay | None, rows: int) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if isinstance(common, Closed) and spec.requests is None and spec.duration_s is not None:
        notes += (
            f"closed loop for {spec.duration_s:g} s: the {rows:,} rows are an upper bound, not a promise",
        )
    if spec.requests is not None and rows < spec.requests:
        notes += (f"the plan has {rows:,} requests, not the {spec.requests:,} asked for",)
    return notes
