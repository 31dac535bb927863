"""A run in the Trace Event Format (Chrome's JSON traces), which Perfetto, chrome://tracing and others open.

Source: "Trace Event Format", Nduca and Sinclair, 2016. One process per application, one thread per lane; a lane takes
the next request when the one before it has ended, so that lanes are as many as were ever in flight. A request is a slice
with slices for waiting, prefill and decode inside of it; a stall is a slice of its own, a token an instant; requests in
flight are a counter. Times are microseconds since the run's first intended request.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer.metrics import latency, rates, tokens
from inferometer.timeline import ABSENT, Timeline

Event = dict[str, Any]


def write_trace(timeline: Timeline, path: Path, *, each_token: bool = True) -> int:
    """Write the trace of a run; how many events it has. One event a line, so that a large one is never held whole."""
    count = 0
    with path.open("wb") as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        for count, event in enumerate(events(timeline, each_token=each_token), 1):
            file.write((b",\n" if count > 1 else b"") + msgspec.json.encode(event))
        file.write(b"\n]}\n")
    return count


def events(timeline: Timeline, *, each_token: bool = True) -> Iterator[Event]:
    """The events of a run, by process and lane."""
    if not len(timeline):
        return
    timeline = tokens.token_chunks(timeline)
    origin = int(timeline.intended_ns.min())
    apps = sorted(set(timeline.app.tolist()))
    for pid, app in enumerate(apps, 1):
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": app or "requests"}}
        rows = np.flatnonzero(timeline.app == app)
        for row, lane in _lanes(timeline, rows):
            yield from _request(timeline, row, pid, lane, origin, each_token=each_token)
    yield from _in_flight(timeline, origin)


def _lanes(timeline: Timeline, rows: Any) -> Iterator[tuple[int, int]]:
    """(row, lane) by intended time; the lowest lane that is free."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for row in rows[np.argsort(timeline.intended_ns[rows], kind="stable")].tolist():
        while busy and busy[0][0] <= timeline.intended_ns[row]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy) + 1
        heapq.heappush(busy, (int(timeline.ended_ns[row]), lane))
        yield row, lane


def _request(
    timeline: Timeline, row: int, pid: int, lane: int, origin: int, *, each_token: bool
) -> Iterator[Event]:
    at = {"pid": pid, "tid": lane}

    def span(name: str, start: int, end: int, **args: Any) -> Event:
        found = {"ph": "X", "name": name, "ts": (start - origin) / 1e3, "dur": (end - start) / 1e3}
        return found | at | ({"args": args} if args else {})

    chunks = timeline.chunk_ns[timeline.chunk_offset[row] : timeline.chunk_offset[row + 1]]
    due, ended = int(timeline.intended_ns[row]), int(timeline.ended_ns[row])
    yield span("request", due, ended, **_facts(timeline, row))
    first = int(chunks[0]) if len(chunks) else ended
    began = int(timeline.scheduled_ns[row])
    waited = first if began == ABSENT else min(began, first)
    yield span("waiting" if began != ABSENT else "waiting and prefill", due, waited)
    if began != ABSENT:
        yield span("prefill", waited, first)
    if not len(chunks):
        return
    yield span("decode", first, int(chunks[-1]))
    if timeline.stamped[row] not in {"chunks", "tokens"}:
        return
    for k in np.flatnonzero(np.diff(chunks) > latency.STALL_NS).tolist():
        yield span("stall", int(chunks[k]), int(chunks[k + 1]))
    if each_token:
        for moment in chunks.tolist():
            yield {"ph": "i", "s": "t", "name": "token", "ts": (moment - origin) / 1e3} | at


def _facts(timeline: Timeline, row: int) -> dict[str, Any]:
    return {
        "request_id": timeline.request_id[row],
        "status": timeline.status[row],
        "prompt_tokens": int(timeline.prompt_tokens[row]),
        "output_tokens": int(timeline.output_tokens[row]),
    }


def _in_flight(timeline: Timeline, origin: int) -> Iterator[Event]:
    steps = rates.in_flight(timeline)
    for t, level in zip(steps.t_ns.tolist(), steps.level.tolist(), strict=True):
        yield {
            "ph": "C",
            "name": "in flight",
            "pid": 0,
            "ts": (t - origin) / 1e3,
            "args": {"requests": level},
        }
