"""Does a capacity search find the capacity of a real server over sockets? Emulated ones that are queues of known capacity.

    python -m benchmarks.capacity_live                    both servers, one search each: about ten minutes, idle machine
    python -m benchmarks.capacity_live --searches 5
    python -m benchmarks.capacity_live --precision 0.1    a third of that

The emulator has `slots` of fixed service, and requests wait in order of arrival: M/D/c, whose capacity the same search
cannot know and `benchmarks.capacity.found_by_force` finds without sockets. Target: every search resolved, mean error
within 2 %, the interval holds the truth (of several searches: 85 %). `invalid` counts probes that the instrument would not
vouch for and that were made again; on a busy machine there are some, and the answer must be the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.capacity import System, constant, found_by_force
from inferometer.cli.capacity import progress
from inferometer.emulator import Schedule, serve_child
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.search.capacity import Search, capacity
from inferometer.search.measured import Measured
from inferometer.search.queueing import Queue
from inferometer.workload import WorkloadSpec
from inferometer.workload.arrivals import Poisson

WORKLOAD = WorkloadSpec(arrivals=Poisson(rate=1), prompt_tokens=16, output_tokens=1)


class Live(NamedTuple):
    """`slots` requests are served at once, `service_s` each; nine in ten may wait `patience` services at most."""

    slots: int
    service_s: float
    patience: float

    @property
    def slo(self) -> str:
        return f"each: ttft <= {1e3 * self.service_s * (1 + self.patience):g}ms; attainment >= 0.9"

    def truth(self) -> float:
        """Requests per second, from the queue in units of its service."""
        slo = f"each: ttft <= {self.patience}s; attainment >= 0.9"
        queue = System("M/D/c", lambda: Queue(self.slots, constant), slo, 0.7 * self.slots)
        return found_by_force(queue) / self.service_s


SERVERS = (Live(1, 0.02, 2.0), Live(8, 0.2, 0.5))


def searched(live: Live, search: Search) -> tuple:
    schedule = Schedule(models=("m",), ttft_s=live.service_s, slots=live.slots)
    with serve_child(schedule) as url, tempfile.TemporaryDirectory() as folder:
        world = Measured(find([url]), WORKLOAD, Drive(), Path(folder), telemetry=False)
        began = time.perf_counter()
        found = capacity(world, live.slo, search, watch=told)
        return found, time.perf_counter() - began


def told(probes, now) -> None:
    last = probes[-1]
    print(
        f"    {progress(probes, now)}{' ' + last.invalid[0] if last.invalid else ''}",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=1)
    parser.add_argument("--precision", type=float, default=0.05)
    parser.add_argument("--slots", type=int, help="only the server with so many")
    args = parser.parse_args()
    fine = True
    for live in SERVERS:
        if args.slots not in (None, live.slots):
            continue
        truth, errors, held = live.truth(), [], []
        for k in range(args.searches):
            search = Search(start=truth / 6, precision=args.precision, seed=1_000 * k, hysteresis=False)  # fmt: skip
            found, took_s = searched(live, search)
            errors.append(found.load / truth - 1)
            held.append(found.interval.lo <= truth <= found.interval.hi)
            print(
                f"{live.slots} slots of {1e3 * live.service_s:g} ms: truth {truth:.2f}, found {found.load:.2f} ({errors[-1]:+.1%}) "
                f"[{found.interval.lo:.2f}, {found.interval.hi:.2f}] {found.verdict} {found.reason}; {len(found.probes)} probes, "
                f"{sum(bool(p.invalid) for p in found.probes)} invalid, {sum(p.requests for p in found.probes):,} requests, {took_s:.0f} s",
                flush=True,
            )
        known = not np.isnan(errors).any()
        fine &= known and bool(abs(np.mean(errors)) <= 0.02 + args.precision / len(errors) ** 0.5 and np.mean(held) >= 0.85)  # fmt: skip
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
