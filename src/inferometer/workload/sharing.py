"""Prompts that begin alike: block ids, what a cache could save at best, and how a trace shares.

A prompt is described by ids of its leading blocks of `block_tokens` tokens. Equal ids are equal text, the last block of a
row may be cut short by the prompt's end, and a cut block is a prefix of the whole one: so a conversation that grows keeps
one chain of ids, and shares exactly what it shares, to the token, however coarse the blocks are.

*Ideal* sharing is that of an infinite cache that keeps every prompt before it in row order (not the replies: whether a
reply is ever part of a later prompt is the client's choice) and serves a request's longest known prefix.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.plan import Plan
from inferometer.spec import Spec
from inferometer.timeline import Ints, offsets
from inferometer.workload.draws import Stream
from inferometer.workload.joint import quantile_table, read_table


class Blocks(NamedTuple):
    """Leading blocks of R prompts: offset [R+1], id [B], tokens in a block."""

    offset: Ints
    id: Ints
    tokens: int


class Shared(NamedTuple):
    """Where each row's longest known prefix ends, and who had it: blocks [R], tokens [R], row (-1: nobody) [R]."""

    blocks: Ints
    tokens: Ints
    source: Ints


def no_blocks(rows: int) -> Blocks:
    """Nothing shared by anyone."""
    return Blocks(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), 0)


def plan_blocks(plan: Plan) -> Blocks:
    """The blocks of a plan."""
    return Blocks(plan.block_offset, plan.block_id, plan.block_tokens)


def cached_tokens(plan: Plan) -> Ints:
    """Prompt tokens of each row [R] that an infinite prefix cache would hold when it arrives, in row order."""
    return shared(plan_blocks(plan), plan.prompt_tokens).tokens


def cached_share(plan: Plan) -> float:
    """The share of all prompt tokens that could have been cached: 0 where nothing is shared."""
    total = int(plan.prompt_tokens.sum(dtype=np.int64))
    return float(cached_tokens(plan).sum() / total) if total else 0.0


def goes_on_from(plan: Plan, before: Ints | None = None) -> Ints:
    """The turn whose prompt and reply each row's prompt begins with [R]; -1 where it begins anew.

    It is the turn before the row (`before` [R], -1: none; if not given the first turn that the row waits for), if all of
    that one's blocks are the row's first, and it asks for more.
    """
    blocks = plan_blocks(plan)
    counts = np.diff(blocks.offset)
    out = np.full(len(plan), -1, dtype=np.int64)
    before = awaited(plan) if before is None else before
    rows = np.flatnonzero(before >= 0)
    parents = before[rows]
    said = plan.prompt_tokens.astype(np.int64) + plan.output_tokens
    able = (counts[parents] > 0) & (counts[rows] >= counts[parents])
    able &= said[parents] < plan.prompt_tokens[rows]
    rows, parents = rows[able], parents[able]
    parts = np.cumsum(counts[parents]) // _COMPARED
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(parts)) + 1):
        same = _begin_alike(blocks, rows[part], parents[part])
        out[rows[part][same]] = parents[part][same]
    return out


_COMPARED = 1 << 22  # block ids that are compared at once


def _begin_alike(blocks: Blocks, rows: Ints, parents: Ints) -> NDArray[np.bool_]:
    """Whether each of `rows` begins with all blocks of its parent."""
    theirs = take(blocks, parents)
    begins = np.repeat(blocks.offset[rows] - theirs.offset[:-1], np.diff(theirs.offset))
    differs = blocks.id[begins + np.arange(len(theirs.id))] != theirs.id
    before = np.concatenate([[0], np.cumsum(differs)])
    return np.asarray(np.diff(before[theirs.offset]) == 0)


def awaited(plan: Plan) -> Ints:
    """The first turn that each row waits for [R]; -1: none."""
    out = np.full(len(plan), -1, dtype=np.int64)
    rows = np.flatnonzero(np.diff(plan.parent_offset) > 0)
    out[rows] = plan.parent_row[plan.parent_offset[rows]]
    return out


def shared(blocks: Blocks, prompt_tokens: NDArray[np.int32]) -> Shared:
    """Each row's longest prefix that an earlier row has."""
    rows = len(blocks.offset) - 1
    if not len(blocks.id):
        nothing = np.zeros(rows, dtype=np.int64)
        return Shared(nothing, nothing, np.full(rows, -1, dtype=np.int64))
    blocks = chained(blocks)
    counts = np.diff(blocks.offset)
    row = np.repeat(np.arange(rows), counts)
    place = np.arange(len(blocks.id)) - np.repeat(blocks.offset[:-1], counts)
    covered = np.clip(prompt_tokens[row] - place * blocks.tokens, 0, blocks.tokens)
    before, source = _before(blocks.id, row, covered)
    known = np.minimum(before, covered)
    run = _leading(known > 0, blocks.offset)
    last = np.maximum(blocks.offset[:-1] + run - 1, 0)
    tokens = np.where(
        run > 0, (run - 1) * blocks.tokens + known[np.minimum(last, len(known) - 1)], 0
    )
    whose = np.where(run > 0, source[np.minimum(last, len(known) - 1)], -1)
    return Shared(run, tokens, whose)


def _before(ids: Ints, row: Ints, covered: Ints) -> tuple[Ints, Ints]:
    """For each entry: the most of its block that an earlier row covers, and the last row before that has it (or -1)."""
    order = np.argsort(ids, kind="stable")  # rows ascend already
    group = np.cumsum(np.diff(ids[order], prepend=ids[order[:1]]) != 0)
    scale = int(covered.max()) + 1
    # Group by group upwards, so that a running maximum over everything is one within each group.
    running = np.maximum.accumulate(group * scale + covered[order]) - group * scale
    first = np.diff(group, prepend=-1) != 0
    before = np.where(first, 0, np.roll(running, 1))
    source = np.where(first, -1, np.roll(row[order], 1))
    out_before, out_source = np.empty_like(before), np.empty_like(source)
    out_before[order], out_source[order] = before, source
    return out_before, out_source


def _leading(good: NDArray[np.bool_], offset: Ints) -> Ints:
    """How many entries at the front of each row are good [R]."""
    bad = np.flatnonzero(~good)
    end = np.append(bad, len(good))[np.searchsorted(bad, offset[:-1])]
    return np.asarray(np.minimum(end, offset[1:]) - offset[:-1])


def chained(blocks: Blocks) -> Blocks:
    """The same blocks, with ids that are equal only if everything before them is equal, too.

    Most formats chain their ids; some hash each block's content alone, and then an id in another context is no hit.
    """
    counts = np.diff(blocks.offset)
    starts = np.repeat(blocks.offset[:-1], counts)
    place = np.arange(len(blocks.id)) - starts
    previous = np.where(place > 0, np.roll(blocks.id, 1), -1)
    if _is_function(blocks.id, previous) and _is_function(blocks.id, place):
        return blocks
    out = np.zeros_like(blocks.id)
    used = 0
    live = np.flatnonzero(counts > 0)
    for depth in range(int(counts.max(initial=0))):
        live = live[counts[live] > depth]
        at = blocks.offset[live] + depth
        above = out[at - 1] if depth else np.full(len(live), -1, dtype=np.int64)
        pair = np.stack([above, blocks.id[at]])
        _, number = np.unique(pair, axis=1, return_inverse=True)
        out[at] = used + number.reshape(-1)
        used += int(number.max()) + 1
    return Blocks(blocks.offset, out, blocks.tokens)


def _is_function(keys: Ints, values: Ints) -> bool:
    """Whether equal keys have equal values."""
    if len(keys) and 0 <= keys.min() and keys.max() < 8 * len(keys):
        one = np.empty(int(keys.max()) + 1, dtype=values.dtype)
        one[keys] = values  # some value of each key: then all must be that one
        return bool(np.all(one[keys] == values))
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    return not np.any(same & (np.diff(values[order]) != 0))


def split(blocks: Blocks, tokens: int) -> Blocks:
    """The same sharing in blocks of `tokens`, which must divide the present size."""
    if blocks.tokens in (0, tokens):
        return Blocks(blocks.offset, blocks.id, tokens)
    parts = blocks.tokens // tokens
    ids = (blocks.id[:, None] * parts + np.arange(parts)).reshape(-1)
    return Blocks(blocks.offset * parts, ids, tokens)


def cut(blocks: Blocks, prompt_tokens: NDArray[np.int32]) -> Blocks:
    """The same blocks without those that begin behind a prompt's end."""
    counts = np.diff(blocks.offset)
    most = -(-prompt_tokens.astype(np.int64) // max(blocks.tokens, 1))
    if not np.any(counts > most):
        return blocks
    place = np.arange(len(blocks.id)) - np.repeat(blocks.offset[:-1], counts)
    keep = place < np.repeat(most, counts)
    return Blocks(offsets(np.minimum(counts, most)), blocks.id[keep], blocks.tokens)


def take(blocks: Blocks, rows: Ints) -> Blocks:
    """The blocks of some rows, in that order."""
    counts = np.diff(blocks.offset)[rows]
    offset = offsets(counts)
    source = np.repeat(blocks.offset[rows] - offset[:-1], counts) + np.arange(offset[-1])
    return Blocks(offset, blocks.id[source], blocks.tokens)


def grown(session: Ints, prompt: NDArray[np.int32], kept: NDArray[np.int32], tokens: int) -> Blocks:
    """Blocks of prompts that each begin with `kept` tokens [R] of the row before in their session.

    Where all of the earlier prompt is kept, its chain goes on, cut block included: sharing is exact to the token.
    Elsewhere it is exact to a block.
    """
    follows = np.zeros(len(session), dtype=bool)
    follows[1:] = session[1:] == session[:-1]
    before = np.roll(prompt, 1).astype(np.int64)
    whole = np.minimum(kept, prompt) >= before
    have = np.where(whole, -(-before // tokens), np.minimum(kept, before) // tokens)
    total = -(-prompt.astype(np.int64) // tokens)
    have = np.where(follows, np.minimum(have, total), 0)
    return Blocks(offsets(total), inherited(np.arange(len(session)) - 1, have, total), tokens)


# --- sharing that is learned from a trace without sessions -------------------------------------------------------------

_LEVELS = np.linspace(0.0, 1.0, 21)
_DECILES = 10
_SCALE = 10_000

Row21 = Annotated[tuple[int, ...], msgspec.Meta(min_length=21, max_length=21)]


class Sharing(Spec, frozen=True):
    """How much of a prompt is an earlier one's beginning, and how long ago that one came.

    `share[d]` are 21 quantiles of the shared part (in 1/10,000) among prompts in the d-th tenth by length;
    `lag` are 21 quantiles of how many requests ago the last owner of that prefix came.
    """

    block_tokens: Annotated[int, msgspec.Meta(ge=1)]
    share: Annotated[tuple[Row21, ...], msgspec.Meta(min_length=_DECILES, max_length=_DECILES)]
    lag: Row21

    def draw(self, stream: Stream, prompt_tokens: NDArray[np.int32]) -> Blocks:
        """Blocks for prompts of these lengths [R], in order of arrival."""
        rows = len(prompt_tokens)
        total = -(-prompt_tokens.astype(np.int64) // self.block_tokens)
        part = self._part(stream, prompt_tokens)
        want = np.rint(part * prompt_tokens / self.block_tokens).astype(np.int64)
        lag = np.maximum(np.rint(read_table(self.lag, stream.uniform(rows), _LEVELS)), 1)
        whole = prompt_tokens.astype(np.int64) // self.block_tokens
        parent, have = _parents(np.minimum(want, total), whole, lag.astype(np.int64))
        return Blocks(offsets(total), inherited(parent, have, total), self.block_tokens)

    def _part(self, stream: Stream, prompt_tokens: NDArray[np.int32]) -> NDArray[np.float64]:
        """The shared part of each prompt, drawn for its tenth by length."""
        rows = len(prompt_tokens)
        decile = np.empty(rows, dtype=np.int64)
        decile[np.argsort(prompt_tokens, kind="stable")] = (
            np.arange(rows) * _DECILES // max(rows, 1)
        )
        draw, part = stream.uniform(rows), np.zeros(rows)
        for tenth in range(_DECILES):
            mine = decile == tenth
            part[mine] = read_table(self.share[tenth], draw[mine], _LEVELS) / _SCALE
        return part


def fit_sharing(blocks: Blocks, prompt_tokens: NDArray[np.int32]) -> Sharing | None:
    """How a trace shares; None where it has no blocks or next to nothing is shared."""
    if not len(blocks.id):
        return None
    found = shared(blocks, prompt_tokens)
    if found.tokens.sum() < 0.001 * prompt_tokens.sum(dtype=np.int64):
        return None
    rows = len(prompt_tokens)
    part = found.tokens / np.maximum(prompt_tokens, 1) * _SCALE
    tenths = np.array_split(np.argsort(prompt_tokens, kind="stable"), _DECILES)
    lag = np.arange(rows) - found.source
    return Sharing(
        block_tokens=blocks.tokens,
        share=tuple(quantile_table(part[tenth], _LEVELS) for tenth in tenths),
        lag=quantile_table(lag[found.source >= 0], _LEVELS),
    )


def _parents(want: Ints, whole: Ints, lag: Ints) -> tuple[Ints, Ints]:
    """For each row an earlier one, about `lag` rows ago, with at least `want` whole blocks; and the blocks that it gives.

    Rows are looked for by size classes, each a sixth wider than the one before, so that a class is one vectorised search.
    """
    rows = len(want)
    parent, have = np.full(rows, -1, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    below = 0
    while below < int(want.max(initial=0)):
        size = below + 1 + below // 6
        mine = np.flatnonzero((want > below) & (want <= size))
        able = np.flatnonzero(whole >= size)
        place = np.searchsorted(able, mine)  # able[:place] came earlier
        mine, place = mine[place > 0], place[place > 0]
        parent[mine] = able[np.maximum(place - lag[mine], 0)]
        have[mine] = want[mine]
        below = size
    return parent, have


def inherited(parent: Ints, have: Ints, total: Ints) -> Ints:
    """Block ids of all rows: an earlier row's for the first `have` of `total` blocks [R], and new ones for the rest."""
    offset = offsets(total)
    own = offsets(total - have)[:-1]
    ids = np.repeat(own - have - offset[:-1], total) + np.arange(offset[-1])
    start = offset.tolist()
    heirs = np.flatnonzero(have > 0)
    for row, source, count in zip(
        heirs.tolist(), parent[heirs].tolist(), have[heirs].tolist(), strict=True
    ):  # in order, for a parent may be an heir itself
        ids[start[row] : start[row] + count] = ids[start[source] : start[source] + count]
    return ids
