"""The rows of a plan: what each unit of each part consists of, and all of them together.

A *part* is one kind of request, a *unit* what starts together (a request, or a session). Given when a part's units start,
this file draws their rows as a `Draft`: a plan's columns, without the names that only a whole plan can give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferometer.errors import UserError
from inferometer.timeline import ABSENT, Array, Ints, offsets
from inferometer.workload.arrivals import Drawn
from inferometer.workload.contents import (
    DEFAULT_OUTPUT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    Adapters,
    Content,
    Weights,
)
from inferometer.workload.draws import Stream, power
from inferometer.workload.joint import Joint, read_table
from inferometer.workload.lengths import lengths, whole
from inferometer.workload.profiles import Client
from inferometer.workload.replay import Replay, Units
from inferometer.workload.sessions import Rows
from inferometer.workload.sharing import Blocks, cut, no_blocks, split, take
from inferometer.workload.traces import Trace


@dataclass(frozen=True, slots=True)
class Part:
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
        """How its trace is played."""
        given = self.content.trace
        return Replay(file=given) if isinstance(given, str) else given or Replay(file="")

    @property
    def learned(self) -> bool:
        """Whether its units are sessions learned from a trace."""
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


@dataclass(frozen=True, slots=True)
class Draft:
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


def drafted(part: Part, starts: Ints, order: Array) -> tuple[Draft, Array]:
    """The rows of units that start at `starts` [U], and the key that orders its units among others'."""
    if part.trace is not None and part.units is not None:
        number = len(part.units.offset) - 1
        at = np.arange(len(starts))
        return trace_draft(part, at % number, at // number, starts), order
    rows, blocks = _shapes(part, len(starts))
    n = len(rows.turn)
    prompt, blocks, notes = _prefixed(part, rows, blocks)
    intended = np.full(n, ABSENT, dtype=np.int64)
    intended[offsets(rows.unit_rows)[:-1]] = starts
    is_session = part.content.sessions is not None or part.learned
    unit = np.repeat(np.arange(len(starts)), rows.unit_rows)
    draft = Draft(
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


def _shapes(part: Part, count: int) -> tuple[Rows, Blocks | None]:
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


def _lengths(part: Part, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
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
    part: Part, rows: Rows, blocks: Blocks | None
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


def trace_draft(part: Part, unit: Ints, copy: Ints, starts: Ints) -> Draft:
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
    draft = Draft(
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
    part: Part, trace: Trace, row: Ints
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


def _limited(part: Part, draft: Draft) -> Draft:
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


def _labels(part: Part, unit: Ints, session: Ints) -> dict[str, Array]:
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


def merged(drafts: list[tuple[Draft, Array]]) -> Draft:
    """One draft of all units, in order of their keys."""
    if len(drafts) == 1:
        return drafts[0][0]
    whole_ = _concatenated([draft for draft, _ in drafts])
    order = np.argsort(np.concatenate([key for _, key in drafts]), kind="stable")
    of_unit = take(Blocks(offsets(whole_.unit_rows), np.arange(len(whole_.turn)), 0), order)
    return _reordered(replace(whole_, unit_rows=whole_.unit_rows[order]), of_unit.id)


def _concatenated(drafts: list[Draft]) -> Draft:
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
    return Draft(
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


def _reordered(draft: Draft, rows: Ints) -> Draft:
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


def first_rows(draft: Draft, rows: int) -> Draft:
    """The first rows, which never need a later one."""
    return draft if rows >= len(draft.turn) else _reordered(draft, np.arange(rows))
