"""Worlds whose capacity is known, or soon found: queues, from arrivals to a Run, without a clock.

The yardstick of the capacity search (benchmarks/capacity.py), and its world in tests. In `Queue` (G/G/c) a request waits
for one of `servers`, in order of arrival; its first token comes as it begins service, its second as it ends. So TTFT is
the wait, whose distribution in M/M/c is Erlang's: P(wait > t) = C(c, a) exp(-(c mu - lambda) t).
In `Batch` one server takes all who wait, up to a limit, and serves them together.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.clock import SECOND
from inferometer.run import Manifest, Run
from inferometer.search.capacity import Ask
from inferometer.timeline import build, offsets

Floats = npt.NDArray[np.float64]
Service = Callable[[np.random.Generator, int], Floats]


Gaps = Callable[[np.random.Generator, int], Floats]


def exponential(rng: np.random.Generator, n: int) -> Floats:
    """n times of mean 1, exponential."""
    return rng.exponential(1.0, n)


@dataclass(frozen=True, slots=True)
class Queue:
    """G/G/c with service times `service` [s] and gaps of mean 1; called with an Ask it answers as a world does."""

    servers: int = 8
    service: Service = exponential
    gaps: Gaps = exponential

    def __call__(self, ask: Ask) -> Run:
        """The run of one probe. The same seed gives the same arrivals, scaled in time, and the same service times."""
        rng = np.random.default_rng(ask.seed)
        n = ask.requests + ask.warmup
        arrival = np.cumsum(self.gaps(rng, n)) / ask.load
        begin, end = _served(arrival, self.service(rng, n), self.servers)
        return _run(ask, _Times(arrival, begin, end))


@dataclass(frozen=True, slots=True)
class Batch:
    """One server of batches of at most `most`: k requests take `base_s` + k `each_s`, and end together (M/G^[0,b]/1)."""

    most: int
    base_s: float
    each_s: float

    def __call__(self, ask: Ask) -> Run:
        """The run of one probe, as `Queue` does."""
        rng = np.random.default_rng(ask.seed)
        n = ask.requests + ask.warmup
        arrival = np.cumsum(exponential(rng, n)) / ask.load
        begin, end = np.empty(n), np.empty(n)
        first, free = 0, 0.0
        while first < n:
            at = max(free, arrival[first])
            last = min(int(np.searchsorted(arrival, at, side="right")), first + self.most)
            free = at + self.base_s + (last - first) * self.each_s
            begin[first:last], end[first:last] = at, free
            first = last
        return _run(ask, _Times(arrival, begin, end))


class _Times(NamedTuple):
    arrival: Floats
    begin: Floats
    end: Floats


def _served(arrival: Floats, service: Floats, servers: int) -> tuple[Floats, Floats]:
    """When each request begins and ends service, first come first served (Kiefer & Wolfowitz 1955)."""
    free = [0.0] * servers
    begin = np.empty(arrival.size)
    for i, (at, takes) in enumerate(zip(arrival.tolist(), service.tolist(), strict=True)):
        begin[i] = max(at, free[0])
        heapq.heapreplace(free, begin[i] + takes)
    return begin, begin + service


def _run(ask: Ask, times: _Times) -> Run:
    arrival, begin, end = (np.rint(x * SECOND).astype(np.int64) for x in times)
    in_flight = np.arange(arrival.size) - np.searchsorted(np.sort(end), arrival, side="right")
    crowd = math.inf if ask.most_in_flight is None else ask.most_in_flight
    crowded = np.flatnonzero(in_flight > crowd)
    rows = int(crowded[0]) + 1 if crowded.size else arrival.size
    stop = arrival[rows - 1] if crowded.size else np.iinfo(np.int64).max
    arrival, begin, end = arrival[:rows], begin[:rows], end[:rows]
    stamps = np.column_stack([begin, end])
    came = stamps <= stop
    counts = came.sum(axis=1)
    timeline = build(
        rows,
        request_id=[f"r{i}" for i in range(rows)],
        intended_ns=arrival,
        sent_ns=arrival,
        ended_ns=np.minimum(end, stop),
        status=np.where(end <= stop, "ok", "cancelled").astype(object),
        phase=np.where(np.arange(rows) < ask.warmup, "warmup", "measure").astype(object),
        output_tokens=counts,
        prompt_tokens=1,
        chunk_offset=offsets(counts),
        chunk_ns=stamps[came],
        chunk_tokens=1,
        chunk_channel=0,
    )
    return Run(timeline, Manifest(world="simulated", complete=True))


def erlang_c(servers: int, load: float) -> float:
    """The chance to wait in M/M/c at an offered load of `load` < servers erlangs (Erlang 1917)."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def erlang_capacity(servers: int, within_s: float, level: float) -> float:
    """The rate at which the share `level` of an M/M/c queue (mean service 1 s) waits at most `within_s`; by bisection."""
    lo, hi = 1e-6, servers - 1e-9
    while hi - lo > 1e-9 * hi:
        rate = (lo + hi) / 2
        waits_longer = erlang_c(servers, rate) * math.exp(-(servers - rate) * within_s)
        lo, hi = (rate, hi) if waits_longer <= 1 - level else (lo, rate)
    return lo
