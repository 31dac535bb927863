"""A trace: what was seen in production, as columns, whatever format it came in.

All times are int64 ns since the trace's first request. Every optional column is None where the format does not have
it: lengths alone are a trace, too. A row that could not be read is in `problems`, with its line; it is never silently
dropped, and never repaired. Lengths of 0 stay 0: a request without output is a fact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.timeline import ABSENT, Ints
from inferometer.workload.sharing import Blocks, take

SHOWN_PROBLEMS = 20


class Problems(NamedTuple):
    """Rows that could not be read: how many, and the first of them as "file:line: what"."""

    rows: int = 0
    first: tuple[str, ...] = ()

    def and_then(self, more: Problems) -> Problems:
        """These and those that came after them."""
        return Problems(self.rows + more.rows, (self.first + more.first)[:SHOWN_PROBLEMS])


NO_PROBLEMS = Problems()
_ROW_COLUMNS = ("prompt_tokens", "output_tokens", "arrival_ns", "session", "cached_tokens")


class Links(NamedTuple):
    """What each row waits for: offset [R+1], rows that must have ended [L], and the pause after the last of them [R]."""

    offset: Ints
    row: Ints
    think_ns: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The columns of a trace. Shapes: row columns [R]; rows are in order of arrival, parents before children.

    `arrival_ns` may be ABSENT in rows that have links: then only their pause is known. `session` numbers sessions from
    0 (-1: a request on its own). `app` is what the source is about, `cached_tokens` what its server had cached.
    """

    format: str
    source: str
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    arrival_ns: Ints | None = None
    session: Ints | None = None
    links: Links | None = None
    blocks: Blocks | None = None
    cached_tokens: NDArray[np.int32] | None = None
    app: str = "chat"
    problems: Problems = NO_PROBLEMS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """R, the number of requests."""
        return len(self.prompt_tokens)

    @property
    def known_ns(self) -> Ints:
        """The arrival times that the trace knows, in order; empty where it knows none."""
        if self.arrival_ns is None:
            return np.zeros(0, dtype=np.int64)
        known = self.arrival_ns[self.arrival_ns != ABSENT]
        return known if not np.any(np.diff(known) < 0) else np.sort(known)

    def in_order(self) -> Trace:
        """The same rows by arrival, ties in their present order; links and blocks follow their rows."""
        assert self.arrival_ns is not None
        order = np.argsort(self.arrival_ns, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        links, blocks = self.links, self.blocks
        if links is not None:
            linked = take(Blocks(links.offset, place[links.row], 0), order)
            links = Links(linked.offset, linked.id, links.think_ns[order])
        columns: dict[str, Any] = {
            name: None if column is None else column[order]
            for name, column in ((name, getattr(self, name)) for name in _ROW_COLUMNS)
        }
        blocks = None if blocks is None else take(blocks, order)
        return replace(self, links=links, blocks=blocks, **columns)

    @property
    def tick_ns(self) -> int | None:
        """The step in which the stamps were taken, where it is coarse enough to matter (see `tick_of`)."""
        return tick_of(self.known_ns)


def tick_of(times: Ints) -> int | None:
    """The tick [ns] of stamps that are multiples of one coarse step, else None.

    Stamps are ticked when fewer than two in three are distinct and the gaps between distinct ones are, but for a few,
    whole multiples (within 2 %) of the commonest. Replayed as they are, ticks send many requests at one instant.
    """
    ordered = np.sort(times)
    distinct = ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]
    if len(distinct) < 8 or 3 * len(distinct) > 2 * len(times):
        return None
    gaps = np.diff(distinct)
    values, counts = np.unique(gaps, return_counts=True)
    commonest = values[counts.argmax()]
    near = gaps[np.abs(gaps - commonest) <= 0.02 * commonest]
    tick = float(np.median(near))
    share = np.mean(np.abs(gaps / tick - np.rint(gaps / tick)) <= 0.02 * np.rint(gaps / tick))
    return round(tick) if share >= 0.9 else None
