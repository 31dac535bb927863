"""From chunks to tokens: the ragged arithmetic under every metric.

A chunk is what arrived; k tokens in it are one gap and k - 1 zero gaps. Everything here is a few passes over whole
columns: no per-token Python, and no per-token array where one per chunk will do.

The danger in this file is the request without tokens. "Take the differences of all stamps, then drop those at
`offset[1:-1] - 1`" is wrong as soon as one exists: its boundary is its neighbour's, or lies outside of the array.
So boundaries are always taken from the requests that have something (`starts`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.timeline import ABSENT, Array, Ints, Timeline, offsets

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Ragged(NamedTuple):
    """Values of all requests, one after the other: those of request r are `values[offset[r]:offset[r + 1]]`."""

    values: Ints
    offset: Ints

    @property
    def owner(self) -> Ints:
        """The request of each value [N]."""
        return np.repeat(np.arange(len(self.offset) - 1), np.diff(self.offset))


def measured_rows(timeline: Timeline) -> Ints:
    """The rows of phase `measure`, in order of their intended time."""
    rows = np.flatnonzero(timeline.phase == "measure")
    return rows[np.argsort(timeline.intended_ns[rows], kind="stable")]


def take(timeline: Timeline, rows: Ints) -> Timeline:
    """`timeline.take(rows)`, without copying 20 M tokens where that is all of them as they stand."""
    if np.array_equal(rows, np.arange(len(timeline))):
        return timeline
    return timeline.take(rows)


def token_chunks(timeline: Timeline) -> Timeline:
    """The same requests with only the chunks that bear tokens; the timeline itself where all do."""
    bears = timeline.chunk_tokens > 0
    if bears.all():
        return timeline
    dropped = np.flatnonzero(~bears)
    return timeline.with_columns(
        chunk_offset=timeline.chunk_offset - np.searchsorted(dropped, timeline.chunk_offset),
        chunk_ns=timeline.chunk_ns[bears],
        chunk_tokens=timeline.chunk_tokens[bears],
        chunk_channel=timeline.chunk_channel[bears],
    )


def token_ns(timeline: Timeline) -> Ragged:
    """When each token arrived [N tokens], int64 ns."""
    timeline = token_chunks(timeline)
    return Ragged(_spread(timeline), offsets(timeline.output_tokens))


def gaps_ns(timeline: Timeline, rows: Bools | None = None) -> Ragged:
    """Every gap between consecutive tokens of a request, int64 ns: n - 1 of them for n tokens, none for n < 2.

    `rows` [R] leaves out the gaps of other requests (they keep an empty place); so does not knowing every chunk's time.
    """
    timeline = token_chunks(timeline)
    known = timeline.knows("chunks")
    if not known.all():
        rows = known if rows is None else rows & known
    n = timeline.output_tokens.astype(np.int64)
    at_ns = _spread(timeline)
    inside = np.ones(max(len(at_ns) - 1, 0), dtype=bool)
    first = starts(offsets(n))
    inside[first[first > 0] - 1] = False
    if rows is not None and not rows.all():
        inside &= np.repeat(rows, n)[1:]
        n = np.where(rows, n, 0)
    return Ragged(np.diff(at_ns)[inside], offsets(np.maximum(n - 1, 0)))


def chunk_gaps_ns(timeline: Timeline) -> Ints:
    """The time since the chunk before, int64 ns [C]; 0 for a request's first. Needs `token_chunks`."""
    gaps = np.diff(timeline.chunk_ns, prepend=0)
    gaps[starts(timeline.chunk_offset)] = 0
    return gaps


def first_token_ns(timeline: Timeline) -> Ints:
    """When the first token arrived [R]; ABSENT where none did, or where that is not known."""
    timeline = token_chunks(timeline)
    came = nonempty(timeline.chunk_offset) & timeline.knows("first")
    return at(timeline, timeline.chunk_offset[:-1], came)


def last_token_ns(timeline: Timeline) -> Ints:
    """When the last token arrived [R]; ABSENT where none did, or where that is not known."""
    timeline = token_chunks(timeline)
    came = nonempty(timeline.chunk_offset) & timeline.knows("ends")
    return at(timeline, timeline.chunk_offset[1:] - 1, came)


def at(timeline: Timeline, chunk: Ints, where: Bools) -> Ints:
    """The stamp of one chunk per request [R], ABSENT outside of `where`."""
    out = np.full(len(timeline), ABSENT, dtype=np.int64)
    out[where] = timeline.chunk_ns[chunk[where]]
    return out


def nonempty(offset: Ints) -> Bools:
    """Which requests have values [R]."""
    return np.diff(offset) > 0


def starts(offset: Ints) -> Ints:
    """Where the values of each request that has some begin."""
    return offset[:-1][nonempty(offset)]


def sums(values: Array, offset: Ints) -> Array:
    """The sum of each request's values [R], 0 for none; exact for integers."""
    running = np.zeros(len(values) + 1, dtype=np.result_type(values.dtype, np.int64))
    np.cumsum(values, out=running[1:])
    return np.asarray(running[offset[1:]] - running[offset[:-1]])


def one_token_each(timeline: Timeline) -> bool:
    """Whether no chunk holds more than one token. Needs `token_chunks`."""
    return bool(timeline.output_tokens.sum(dtype=np.int64) == timeline.chunks)


def _spread(timeline: Timeline) -> Ints:
    if one_token_each(timeline):
        return timeline.chunk_ns
    return np.repeat(timeline.chunk_ns, timeline.chunk_tokens)
