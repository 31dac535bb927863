"""A trace becomes units of a plan: which part of it, how fast, how much of it.

A unit is a request, or a whole session where its turns wait for each other. The steps, in this order: coarse stamps
are spread inside their tick; a time window is cut out and moved to 0; the load is thinned or multiplied (`rate_scale`,
at the trace's own pace); time is compressed or stretched (`speed`). Lengths and shared blocks stay with their row.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.spec import Spec
from inferometer.timeline import ABSENT, Ints, offsets
from inferometer.workload.draws import Stream
from inferometer.workload.traces import Trace, read_trace

Positive = Annotated[float, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Replay(Spec, frozen=True, tag="trace", tag_field="kind"):
    """How a trace file is played back.

    `start_s` and `end_s` cut a window out of the trace's own time. `rate_scale` below 1 keeps that share at random; above
    1 it adds copies, each placed at random in the gap behind its original, sharing prefixes only with copies of its own
    generation. `speed` 2 plays everything in half the time. `sessions`: "open" sends every request at its recorded time,
    "closed" starts sessions at theirs, and every later turn a pause after the turns that it waits for.
    `usable`: the least share of rows that must be readable and have lengths above 0 (the others are counted and noted).
    """

    file: str
    format: str | None = None
    start_s: Seconds = 0.0
    end_s: Positive | None = None
    rate_scale: Positive = 1.0
    speed: Positive = 1.0
    detick: bool = True
    sessions: Literal["open", "closed"] = "open"
    strict: bool = False
    usable: Share = 0.0

    def read(self) -> Trace:
        """The trace in the file."""
        return read_trace(self.file, self.format, strict=self.strict)

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """The trace's times alone [ns], for other contents."""
        trace = self.read()
        times = play(trace, units(trace, closed=self.sessions == "closed"), self, stream).start_ns
        end = len(times) if horizon_ns is None else int(np.searchsorted(times, horizon_ns))
        return times[: end if requests is None else min(end, requests)]


class Units(NamedTuple):
    """What starts together: unit u is the rows `row[offset[u]:offset[u+1]]` of the trace, parents before children."""

    offset: Ints
    row: Ints
    linked: bool  # whether later rows of a unit wait for earlier ones


class Played(NamedTuple):
    """Units to start [U], which copy of theirs each is (0: the original), when [ns], and what a reader must know."""

    unit: Ints
    copy: Ints
    start_ns: Ints
    notes: tuple[str, ...]


def units(trace: Trace, *, closed: bool) -> Units:
    """Requests one by one; or sessions, where that is asked for or the trace knows nothing else."""
    unknown = trace.arrival_ns is None or bool(np.any(trace.arrival_ns == ABSENT))
    if trace.links is None or trace.session is None or not (closed or unknown):
        return Units(np.arange(len(trace) + 1), np.arange(len(trace)), linked=False)
    alone = trace.session < 0
    number = np.where(alone, np.cumsum(alone) + trace.session.max(initial=0), trace.session)
    _, first, dense = np.unique(number, return_index=True, return_inverse=True)
    place = np.empty_like(first)
    place[np.argsort(first)] = np.arange(len(first))  # units in order of their first row
    unit = place[dense.reshape(-1)]
    return Units(offsets(np.bincount(unit)), np.argsort(unit, kind="stable"), linked=True)


def play(trace: Trace, parts: Units, replay: Replay, stream: Stream) -> Played:
    """Which units of `trace` start when, by its own clock."""
    if trace.arrival_ns is None:
        raise UserError(
            "this trace has no arrival times",
            where=replay.file,
            remedy="give arrivals, e.g. poisson:rate=2 or closed:concurrency=8",
        )
    times, notes = spread(trace, detick=replay.detick, seed=0)
    unit, start = _window(times[parts.row[parts.offset[:-1]]], replay)
    copy = np.zeros(len(unit), dtype=np.int64)
    if replay.rate_scale != 1.0:
        unit, copy, start = _scale(unit, start, replay.rate_scale, stream)
        notes += (f"the trace's rate was scaled by {replay.rate_scale:g}",)
    if replay.speed != 1.0:
        start = np.rint(start / replay.speed).astype(np.int64)
        notes += (f"the trace is played {replay.speed:g} times as fast",)
    return Played(unit, copy, start, notes)


def spread(trace: Trace, *, detick: bool, seed: int) -> tuple[Ints, tuple[str, ...]]:
    """The trace's times [R] with ticks spread evenly at random, in row order within each tick; and a note."""
    times, tick = trace.arrival_ns, trace.tick_ns
    assert times is not None
    if tick is None:
        return times, ()
    step = f"{tick / SECOND:.3g} s"
    if not detick:
        return times, (
            f"the stamps are {step} ticks, replayed as they are: requests come in volleys",
        )
    inside = np.floor(Stream(seed, "detick").uniform(len(times)) * tick).astype(np.int64)
    known = times != ABSENT
    out = times.copy()
    # Sorting what is known keeps every row in its tick, for ticks do not overlap.
    out[known] = np.sort(times[known] + inside[known])
    return out, (f"the stamps were {step} ticks; each was spread evenly at random inside its tick",)


def _window(times: Ints, replay: Replay) -> tuple[Ints, Ints]:
    start = round(replay.start_s * SECOND)
    end = round(replay.end_s * SECOND) if replay.end_s is not None else np.iinfo(np.int64).max
    unit = np.flatnonzero((times >= start) & (times < end))
    if not len(unit):
        raise UserError(
            f"no request between start_s and end_s; the trace ends at {times[-1] / SECOND:.0f} s",
            where=replay.file,
        )
    return unit, times[unit] - start


def _scale(unit: Ints, times: Ints, factor: float, stream: Stream) -> tuple[Ints, Ints, Ints]:
    """Each unit as many times as a random rounding of `factor`; copies stand in the gap behind their original."""
    whole = int(factor)
    count = whole + (stream.uniform(len(unit)) < factor - whole).astype(np.int64)
    source = np.repeat(np.arange(len(unit)), count)
    copy = np.arange(len(source)) - np.repeat(offsets(count)[:-1], count)
    gap = np.diff(times, append=times[-1:])
    shift = np.floor(stream.uniform(len(source)) * gap[source]).astype(np.int64)
    moved = times[source] + np.where(copy > 0, shift, 0)
    order = np.argsort(moved, kind="stable")
    return unit[source[order]], copy[order], moved[order]
