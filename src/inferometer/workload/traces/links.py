"""Who waited for whom: the links of sessions, from what a format tells about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np

from inferometer.clock import MICROSECOND
from inferometer.timeline import Ints, offsets
from inferometer.workload.traces.trace import Links


def number(names: Iterable[object]) -> Ints:
    """Names as numbers from 0, in order of first use."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def from_parents(parents: Sequence[Sequence[int]], think_ns: Ints) -> Links:
    """Links from a list of parents for each row."""
    counts = np.array([len(each) for each in parents], dtype=np.int64)
    flat = np.array([row for each in parents for row in each], dtype=np.int64)
    return Links(offsets(counts), flat, np.where(counts > 0, np.maximum(think_ns, 0), 0))


def in_turn(session: Ints, think_ns: Ints) -> Links:
    """Each row waits for the row before it in its session; `session` [R] is in blocks of one session each."""
    follows = np.zeros(len(session), dtype=bool)
    follows[1:] = session[1:] == session[:-1]
    parent = np.flatnonzero(follows) - 1
    return Links(offsets(follows), parent, np.where(follows, np.maximum(think_ns, 0), 0))


def by_intervals(start_ns: Sequence[int], end_ns: Sequence[int]) -> list[list[int]]:
    """The parents of each of a session's calls, inferred from who had ended when it started.

    A call waits for every call that ended before it began, unless another of these began after that end (and so waited
    for it already). Calls are in order of start.
    """
    out: list[list[int]] = []
    for call, begin in enumerate(start_ns):
        done = [k for k in range(call) if end_ns[k] <= begin]
        latest = max((start_ns[k] for k in done), default=0)
        out.append([k for k in done if end_ns[k] > latest])
    return out


def iso_ns(text: str) -> int:
    """An ISO 8601 time as ns since 1970, to the microsecond; without a zone it is taken as UTC."""
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    whole = time.replace(microsecond=0)
    return round(whole.timestamp()) * 1_000_000_000 + time.microsecond * MICROSECOND
