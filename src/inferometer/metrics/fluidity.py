"""Fluidity-index: the share of a user's token deadlines that were kept (Etalon, Agrawal et al. 2024, arXiv 2407.07000).

The definition walks from token to token with a slack that grows while tokens are early (see `tests/metrics`, where it
is written out). This file computes the same integers without the walk, by the absolute reading:

    Token i of a request is due at  origin + i·D_d  on an undisturbed grid (origin = intended + D_p, i from 0).
    A token is late exactly when it is later against that grid than any token before it (and later than not at all).
    By how much it beats that record is how far the grid must be moved (the re-anchoring of the definition), and
    floor(that / D_d) + 1 is how many deadlines passed without a token.

Slack is the distance to the record, so "slack = 0 after a miss" is "the record is where this token stands".
A running maximum over all requests at once does the walk; each request is lifted above those before it, so that no
record crosses a boundary. k tokens of one chunk have gap 0 after the first and can set no record: only chunks count.

Monotone: token c is late by min over earlier b of (t_c - t_b)/D - (i_c - i_b), in units of D. Each term falls as D
grows, so misses and late tokens never rise with D, and the index never falls; and who is on time at one D sets no
record at a later one, so a curve over D gets cheaper as it goes. Hence "the smallest D_d for which
index >= x" is one integer of nanoseconds, which halving an interval of integers finds exactly: no tolerance, and no
sentinel either, since D = max_i ceil((t_i - t_0)/i) is kept by every decode token and bounds the search.

All times are integer nanoseconds. A request that failed, or that brought no token, has index 0 over the deadlines that
it promised, never 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.metrics import tokens
from inferometer.metrics.tokens import Bools, Floats
from inferometer.timeline import ABSENT, Array, Ints, Timeline, offsets

# Etalon's own defaults where it knows no prefill curve (`--ttft-deadline`, `--tbt-deadline` of its run_benchmark), so
# that the number means what theirs means.
FIRST_DEADLINE_NS = 100 * MILLISECOND
TOKEN_DEADLINE_NS = 50 * MILLISECOND
MISS_RATE = Fraction(
    1, 10
)  # Etalon: a request is fluid when at most a tenth of its deadlines is missed
SHARE = Fraction(99, 100)  # ... and a rate counts when 99 % of the requests are
BLOCK_CHUNKS = 1 << 16  # chunks at a time: what fits a core's cache


class Fluidity(NamedTuple):
    """Deadlines missed, of how many, 1 - missed/total, and the fraction of the tokens that were on time."""

    missed: int
    total: int
    index: float  # type: ignore[assignment]  # hides tuple.index, which nobody asks of four numbers
    on_time_fraction: float


@dataclass(frozen=True, slots=True, eq=False)
class FluidityColumns:
    """The same per request [R]; `first_miss_s` is the time from intended to the first missed deadline, NaN for none."""

    missed: Ints
    total: Ints
    index: Floats
    on_time_fraction: Floats
    first_miss_s: Floats


class Curve(NamedTuple):
    """Fluidity over the token deadline [K]: deadlines kept of all, the mean index, the share with index >= 0.9."""

    token_deadline_ns: Ints
    pooled_index: Floats
    mean_index: Floats
    share: Floats


def fluidity_index(
    gaps_ns: npt.ArrayLike,
    *,
    first_deadline_ns: int,
    token_deadline_ns: int,
    ignore_first: bool = False,
) -> Fluidity:
    """The fluidity of one request; `gaps_ns[0]` is its TTFT, the rest are its gaps, all integer nanoseconds.

    `ignore_first` leaves the first token out and starts the slack at 0 after it (decode tokens only).
    No gaps at all: the first token was promised and did not come, so 1 of 1 missed. Nothing left once the first is
    ignored: no deadlines, so index NaN.
    """
    gaps = _integer_gaps(gaps_ns)
    _positive(token_deadline_ns)
    if ignore_first:
        gaps, first_deadline_ns = gaps[1:], token_deadline_ns
        if not len(gaps):
            return Fluidity(0, 0, np.nan, np.nan)
    if not len(gaps):
        return Fluidity(1, 1, 0.0, 0.0)
    stream = _Stream(np.cumsum(gaps), None, np.array([0, len(gaps)]))
    late = _late(stream, np.array([first_deadline_ns]), token_deadline_ns)
    missed, on_time = int(late.missed[0]), len(gaps) - int(late.tokens[0])
    total = on_time + missed
    return Fluidity(missed, total, 1 - missed / total, on_time / len(gaps))


def fluidity(
    timeline: Timeline,
    *,
    first_deadline_ns: int | Ints = FIRST_DEADLINE_NS,
    token_deadline_ns: int = TOKEN_DEADLINE_NS,
    ignore_first: bool = False,
    promised: Ints | None = None,
) -> FluidityColumns:
    """The fluidity of every request; `first_deadline_ns` may be one per request (a prefill curve plus slack).

    `promised` [R] are the planned output tokens: what a failed request is held to (at least 1, and at least what it
    brought). With `ignore_first` a good request of one token has no deadlines: index NaN. So has one whose tokens'
    times are not known.
    """
    _positive(token_deadline_ns)
    timeline = tokens.token_chunks(timeline)
    grid = _grid(timeline, first_deadline_ns, promised, ignore_first=ignore_first)
    late = _late(_stream(timeline), grid.origin_ns, token_deadline_ns)
    return _columns(timeline, grid, late, token_deadline_ns)


def fluidity_curve(
    timeline: Timeline,
    token_deadlines_ns: npt.ArrayLike,
    *,
    first_deadline_ns: int | Ints = FIRST_DEADLINE_NS,
    ignore_first: bool = False,
    promised: Ints | None = None,
) -> Curve:
    """Fluidity of a run at each of some token deadlines, in ascending order: where the cliff is, and how far it is."""
    timeline = tokens.token_chunks(timeline)
    grid = _grid(timeline, first_deadline_ns, promised, ignore_first=ignore_first)
    stream = _stream(timeline)
    deadlines = np.unique(np.asarray(token_deadlines_ns, dtype=np.int64))
    out = np.empty((3, len(deadlines)))
    for k, deadline in enumerate(deadlines.tolist()):
        _positive(deadline)
        late = _late(stream, grid.origin_ns, deadline)
        stream = stream.keep(late.chunks)  # who is on time here is on time at every later deadline
        one = _columns(timeline, grid, late, deadline)
        some = one.total > 0
        fluid = _fluid(one.missed, one.total, MISS_RATE)
        out[0, k] = 1 - _ratio(one.missed.sum(), one.total.sum())
        out[1:, k] = _mean(one.index[some]), _mean(fluid[some])
    return Curve(deadlines, *out)


def min_token_deadline_ns(timeline: Timeline, miss_rate: Fraction = MISS_RATE) -> Ints:
    """The smallest D_d at which a request misses at most `miss_rate` of its decode deadlines [R], exactly.

    ABSENT for a request that failed, has no decode token, or whose tokens' times are not known. See the head of this
    file for why it is exact.
    """
    timeline = tokens.token_chunks(timeline)
    rows = timeline.ok & (timeline.output_tokens >= 2) & timeline.knows("tokens")
    search = _Search(_decode(timeline, rows), timeline.output_tokens[rows] - 1, miss_rate)
    while len(open_rows := np.flatnonzero(search.passing - search.failing > 1)):
        search.try_at((search.failing + search.passing)[open_rows] // 2, open_rows)
    out = np.full(len(timeline), ABSENT, dtype=np.int64)
    out[rows] = search.passing
    return out


def fluid_token_deadline_ns(
    timeline: Timeline, miss_rate: Fraction = MISS_RATE, share: Fraction = SHARE
) -> int | None:
    """The smallest D_d at which `share` of the requests are fluid, decode tokens only; None where none is.

    Counted are all requests but good ones of a single token, which have no decode deadline; a failed or tokenless
    request is never fluid, and where a good one's times are not known, it cannot be said. Exact: one integer is halved for the whole run, and each step looks only at the requests
    whose own smallest D_d is still on both sides of it.
    """
    timeline = tokens.token_chunks(timeline)
    rows = timeline.ok & (timeline.output_tokens >= 2)
    counted = len(timeline) - int(np.sum(timeline.ok & (timeline.output_tokens == 1)))
    needed = -(-counted * share.numerator // share.denominator)
    if not 0 < needed <= np.sum(rows) or not timeline.knows("tokens")[rows].all():
        return None
    search = _Search(_decode(timeline, rows), timeline.output_tokens[rows] - 1, miss_rate)
    lo = int(np.partition(search.failing, needed - 1)[needed - 1])
    hi = int(np.partition(search.passing, needed - 1)[needed - 1])
    while hi - lo > 1:
        middle = (lo + hi) // 2
        search.try_at(middle, np.flatnonzero((search.failing < middle) & (middle < search.passing)))
        if np.sum(search.passing <= middle) >= needed:
            hi = middle
        else:
            lo = middle
    return hi


def fluid_token_rate(timeline: Timeline) -> float:
    """The largest 1/D_d [tokens/s] at which 99 % of the requests have index >= 0.9, decode tokens only; NaN for none.

    Etalon's "fluid token generation rate". `fluid_token_deadline_ns` finds D_d exactly, to the nanosecond of the clock.
    """
    deadline_ns = fluid_token_deadline_ns(timeline)
    return np.nan if deadline_ns is None else SECOND / deadline_ns


class _Grid(NamedTuple):
    """What the requests are held to [R]: the due time of token 0, and the deadlines of one that failed."""

    origin_ns: Ints
    owed: Ints
    ignore_first: bool


class _Stream(NamedTuple):
    """Chunks with tokens: stamps [C], which token each begins with [C] (None: the next one), whose they are [R+1]."""

    ns: Ints
    token: Ints | None
    offset: Ints

    def take(self, rows: Ints) -> _Stream:
        """The chunks of some rows."""
        counts = np.diff(self.offset)[rows]
        offset = offsets(counts)
        source = np.repeat(self.offset[rows] - offset[:-1], counts)
        source += np.arange(offset[-1])
        token = None if self.token is None else self.token[source]
        return _Stream(self.ns[source], token, offset)

    def keep(self, chunks: Ints) -> _Stream:
        """Some chunks of all rows, by their ascending indices [K]."""
        return _Stream(
            self.ns[chunks], self.indices()[chunks], np.searchsorted(chunks, self.offset)
        )

    def indices(self) -> Ints:
        """Which token of its request each chunk begins with [C]."""
        if self.token is not None:
            return self.token
        return np.arange(len(self.ns)) - np.repeat(self.offset[:-1], np.diff(self.offset))


class _Late(NamedTuple):
    """Per request [R]: missed deadlines, late tokens, and the first late one (-1: none); and the late chunks."""

    missed: Ints
    tokens: Ints
    first: Ints
    chunks: Ints

    def only(self, rows: Bools) -> _Late:
        """The same, with nothing late in other rows [R]."""
        first = np.where(rows, self.first, -1)
        return _Late(
            np.where(rows, self.missed, 0), np.where(rows, self.tokens, 0), first, self.chunks
        )


def _stream(timeline: Timeline) -> _Stream:
    if tokens.one_token_each(timeline):
        return _Stream(timeline.chunk_ns, None, timeline.chunk_offset)
    before = np.cumsum(timeline.chunk_tokens, dtype=np.int64) - timeline.chunk_tokens
    before -= np.repeat(offsets(timeline.output_tokens)[:-1], np.diff(timeline.chunk_offset))
    return _Stream(timeline.chunk_ns, before, timeline.chunk_offset)


def _decode(timeline: Timeline, rows: Bools) -> _Stream:
    """The streams of some rows, on a clock that starts at each one's first token."""
    stream = _stream(timeline)
    if not rows.all():
        stream = stream.take(np.flatnonzero(rows))
    begins = stream.ns[stream.offset[:-1]]
    return stream._replace(ns=stream.ns - np.repeat(begins, np.diff(stream.offset)))


def _grid(
    timeline: Timeline, first_deadline_ns: int | Ints, promised: Ints | None, *, ignore_first: bool
) -> _Grid:
    origin_ns = timeline.intended_ns + np.asarray(first_deadline_ns, np.int64)
    if ignore_first:  # the first token is due when it comes
        arrived = timeline.output_tokens > 0
        origin_ns = np.where(arrived, tokens.first_token_ns(timeline), origin_ns)
    owed = np.maximum(timeline.output_tokens, 1 if promised is None else np.maximum(promised, 1))
    return _Grid(origin_ns, np.maximum(owed - ignore_first, 1), ignore_first)


def _columns(
    timeline: Timeline, grid: _Grid, late: _Late, token_deadline_ns: int
) -> FluidityColumns:
    good = timeline.ok & (timeline.output_tokens > 0)
    judged = timeline.output_tokens.astype(np.int64) - grid.ignore_first
    if not (known := timeline.knows("tokens")).all():  # nothing is said of the others
        judged, late = np.where(known, judged, 0), late.only(known)
    kept = judged - late.tokens
    missed = np.where(good, late.missed, grid.owed)
    total = np.where(good, kept + late.missed, grid.owed)
    # What comes no more is missed at its own deadline, if nothing was before.
    never = np.where(good, -1, timeline.output_tokens)
    first_late = np.where(late.tokens > 0, late.first, never)
    due_ns = grid.origin_ns + first_late * token_deadline_ns - timeline.intended_ns
    return FluidityColumns(
        missed=missed,
        total=total,
        index=1 - _ratio(missed, total),
        on_time_fraction=_ratio(np.where(good, kept, 0), np.where(good, judged, grid.owed)),
        first_miss_s=np.where(first_late >= 0, due_ns / SECOND, np.nan),
    )


def _late(stream: _Stream, origin_ns: Ints, token_deadline_ns: int | Ints) -> _Late:
    """What was late against origin_ns [R] + i·token_deadline_ns (one, or one per request)."""
    zeros = np.zeros(len(origin_ns), np.int64)
    columns = (zeros, zeros.copy(), zeros - 1)
    deadline = np.broadcast_to(np.asarray(token_deadline_ns, np.int64), len(origin_ns))
    filled = np.flatnonzero(tokens.nonempty(stream.offset))
    edges = np.append(stream.offset[filled], stream.offset[-1])
    chunks = [zeros[:0]]
    for a, b in _blocks(edges):
        part, rows = slice(edges[a], edges[b]), filled[a:b]
        token = None if stream.token is None else stream.token[part]
        block = _Stream(stream.ns[part], token, edges[a : b + 1] - edges[a])
        *found, late = _late_in_block(block, origin_ns[rows], deadline[rows])
        chunks.append(late + edges[a])
        for column, value in zip(columns, found, strict=True):
            column[rows] = value
    return _Late(*columns, np.concatenate(chunks))


def _blocks(edges: Ints) -> list[tuple[int, int]]:
    """Runs of whole requests, of about BLOCK_CHUNKS chunks each (a longer request is a run of its own)."""
    cuts = np.searchsorted(edges, np.arange(0, edges[-1], BLOCK_CHUNKS), side="right") - 1
    cuts = np.unique(np.append(cuts, len(edges) - 1))
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _late_in_block(stream: _Stream, origin_ns: Ints, deadline_ns: Ints) -> _Late:
    """`_late` of requests that all have chunks. Hot: about ten passes over a block in the cache."""
    first, counts = stream.offset[:-1], np.diff(stream.offset)
    same = bool((deadline_ns == deadline_ns[0]).all())
    per_chunk = deadline_ns[0] if same else np.repeat(deadline_ns, counts)
    # Lift each request above the highest lateness that those before it can reach (their last stamp past their origin).
    reach = np.maximum(stream.ns[stream.offset[1:] - 1] - origin_ns, 0) + 1
    floor = np.cumsum(reach) - reach
    lift = floor - origin_ns
    if (
        stream.token is None
    ):  # counting through the block is one pass fewer than counting in each request
        token = np.arange(len(stream.ns))
        lift += first * deadline_ns
    else:
        token = stream.token
    record = stream.ns - token * per_chunk
    record += np.repeat(lift, counts)
    record[first] = np.maximum(record[first], floor)
    np.maximum.accumulate(record, out=record)
    beaten = np.empty_like(record)
    np.subtract(record[1:], record[:-1], out=beaten[1:])
    beaten[first] = record[first] - floor
    late = np.flatnonzero(beaten)
    each = deadline_ns[0] if same else per_chunk[late]
    bounds = np.searchsorted(late, stream.offset)
    some = np.diff(bounds) > 0
    earliest = np.full(len(first), -1)
    earliest[some] = token[late[bounds[:-1][some]]]
    if stream.token is None:
        earliest[some] -= first[some]
    return _Late(tokens.sums(beaten[late] // each + 1, bounds), np.diff(bounds), earliest, late)


class _Search:
    """Brackets of each request's smallest D_d: it fails at `failing` and passes at `passing`, both int64 ns [R]."""

    def __init__(self, decode: _Stream, gaps: Array, miss_rate: Fraction) -> None:
        """`decode`: streams on a clock that starts at the first token; `gaps` [R]: 1 or more tokens after it."""
        self.decode, self.miss_rate = decode, miss_rate
        self.gaps = gaps
        # missed > lateness/D at the last token, and 9/10 of them may be at most 1/10 of the others: D must exceed
        # 0.9 of the mean gap. At 0 no deadline exists, so 0 fails.
        mean = decode.ns[decode.offset[1:] - 1] * (miss_rate.denominator - miss_rate.numerator)
        self.failing = mean // (gaps * miss_rate.denominator)
        self.passing = _patience_ns(decode)

    def try_at(self, deadline_ns: int | Ints, rows: Ints) -> None:
        """Narrow the brackets of `rows` at one deadline (or one for each of them)."""
        if not len(rows):
            return
        stream = self.decode.take(rows)
        late = _late(stream, np.zeros(len(rows), np.int64), deadline_ns)
        total = self.gaps[rows] - late.tokens + late.missed
        passes = _fluid(late.missed, total, self.miss_rate)
        tried = np.broadcast_to(deadline_ns, len(rows))
        self.passing[rows] = np.where(passes, tried, self.passing[rows])
        self.failing[rows] = np.where(passes, self.failing[rows], tried)


def _patience_ns(decode: _Stream) -> Ints:
    """The smallest D_d that no token misses: max over i of ceil(t_i / i), for each request."""
    index = decode.indices().copy()
    index[decode.offset[:-1]] = 1  # the first token is at 0 and has no deadline
    if not len(index):
        return index
    return np.maximum(np.maximum.reduceat(-(-decode.ns // index), decode.offset[:-1]), 1)


def _fluid(missed: Ints, total: Ints, miss_rate: Fraction) -> Bools:
    return np.asarray(missed * miss_rate.denominator <= total * miss_rate.numerator)


def _integer_gaps(gaps_ns: npt.ArrayLike) -> Ints:
    gaps = np.asarray(gaps_ns)
    if len(gaps) and (gaps.dtype.kind not in "iu" or gaps.min() < 0):
        raise UserError("gaps are whole nanoseconds, 0 or more", where="gaps_ns")
    return gaps.astype(np.int64)


def _positive(token_deadline_ns: int) -> None:
    if token_deadline_ns < 1:
        raise UserError("a token deadline is at least 1 ns", where="token_deadline_ns")


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    whole = np.asarray(whole, dtype=float)
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else np.nan
