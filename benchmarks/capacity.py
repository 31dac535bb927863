"""Is the capacity that a search finds right, and its interval? On queues whose capacity Erlang's formula gives.

    python benchmarks/capacity.py                  three M/M/c systems, 100 searches each: about three minutes
    python benchmarks/capacity.py --searches 30

bias      mean of estimate / truth - 1 over the searches that were resolved, ± its standard error       target: within 2 %
rms       root mean square of the same
covers    how many 90 % intervals hold the truth                                                        target: >= 85 %
cost      mean request-seconds (time in flight, summed over requests and probes) of one search
bisection the cost of plain bisection with one probe per rate and no pooling, at the probe length where its rms error is
          the same (interpolated between the lengths tried; a lower bound where none was long enough); no interval
ratio     bisection / ours
A quarter as many bisections as searches are made, with the same seeds. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import NamedTuple

import numpy as np

from inferometer.search.capacity import Ask, Capacity, Search, capacity, judge
from inferometer.search.queueing import Queue, erlang_capacity
from inferometer.slo import parse

LENGTHS = (500, 1_000, 2_000, 4_000, 8_000, 16_000)


class System(NamedTuple):
    servers: int
    within_s: float
    level: float

    @property
    def slo(self) -> str:
        return f"each: ttft <= {self.within_s}s; attainment >= {self.level}"

    @property
    def truth(self) -> float:
        return erlang_capacity(self.servers, self.within_s, self.level)


SYSTEMS = (System(8, 1.0, 0.9), System(32, 0.5, 0.95), System(1, 3.0, 0.9))


class Errors(NamedTuple):
    bias: float
    error: float
    rms: float
    cost: float


def errors(found: list[float], costs: list[float], truth: float) -> Errors:
    off = np.array(found) / truth - 1
    return Errors(
        float(off.mean()),
        float(off.std() / math.sqrt(off.size)),
        float(np.sqrt((off**2).mean())),
        float(np.mean(costs)),
    )


def settings(system: System, seed: int) -> Search:
    return Search(start=system.truth / 6.3, seed=seed, longest_s=1e5, hysteresis=False)


def ours(system: System, searches: int) -> list[Capacity]:
    return [
        capacity(Queue(system.servers), system.slo, settings(system, 1_000 * k))
        for k in range(searches)
    ]


def bisection(system: System, seed: int, requests: int, precision: float) -> tuple[float, float]:
    """(estimate, request-seconds): double until not met, then halve until the bracket is within ± precision."""
    slo, world, spent = parse(system.slo), Queue(system.servers), 0.0

    def met(rate: float, step: int) -> bool:
        nonlocal spent
        ask = Ask(load=rate, seed=seed + step, requests=requests, warmup=requests // 5)
        probe = judge(world(ask), ask, slo)
        spent += probe.request_seconds
        return probe.criteria[0].met

    lo, hi, step = 0.0, system.truth / 6.3, 0
    while met(hi, step):
        lo, hi, step = hi, 2 * hi, step + 1
    while hi - lo > 2 * precision * (lo + hi) / 2:
        step += 1
        lo, hi = ((lo + hi) / 2, hi) if met((lo + hi) / 2, step) else (lo, (lo + hi) / 2)
    return (lo + hi) / 2, spent


def same_precision(system: System, searches: int, rms: float) -> tuple[float, list[Errors]]:
    """The cost of bisection at which its rms error is `rms`, on a log-log line through the two nearest lengths."""
    seen: list[Errors] = []
    for requests in LENGTHS:
        runs = [bisection(system, 1_000 * k, requests, Search().precision) for k in range(searches)]
        seen.append(errors([r for r, _ in runs], [c for _, c in runs], system.truth))
        if seen[-1].rms <= rms:
            break
    if seen[-1].rms > rms:
        return seen[-1].cost, seen  # a lower bound
    order = sorted(seen, key=lambda e: e.rms)
    logs = np.log([[e.rms, e.cost] for e in order])
    return float(np.exp(np.interp(math.log(rms), logs[:, 0], logs[:, 1]))), seen


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--only", type=int, help="the system with so many servers")
    parser.add_argument("--no-bisection", action="store_true")
    args = parser.parse_args()
    print(f"{'M/M/c, SLO':34}{'truth':>8}{'resolved':>10}{'bias':>15}{'rms':>7}{'covers':>8}{'probes':>8}{'cost':>10}{'bisection':>11}{'ratio':>7}")  # fmt: skip
    fine = True
    for system in SYSTEMS:
        if args.only not in (None, system.servers):
            continue
        begun = time.perf_counter()
        found = ours(system, args.searches)
        known = [c for c in found if c.verdict in ("resolved", "cliff")]
        seen = errors([c.load for c in known], [c.request_seconds for c in found], system.truth)
        covers = np.mean([c.interval.lo <= system.truth <= c.interval.hi for c in found])
        probes = np.mean([len(c.probes) for c in found])
        cost, plain = (math.nan, []) if args.no_bisection else same_precision(
            system, max(args.searches // 4, 10), seen.rms
        )  # fmt: skip
        name = f"c={system.servers}, P(wait <= {system.within_s:g} s) >= {system.level:g}"
        print(
            f"{name:34}{system.truth:8.3f}{len(known):7d}/{len(found)}{seen.bias:+8.2%} ±{seen.error:5.2%}{seen.rms:7.1%}"
            f"{covers:8.0%}{probes:8.1f}{seen.cost:10,.0f}{cost:11,.0f}{cost / seen.cost:7.2f}"
            f"   {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        for requests, one in zip(LENGTHS, plain, strict=False):
            print(f"      bisection, {requests:,} requests a probe: bias {one.bias:+.2%}, rms {one.rms:.1%}, cost {one.cost:,.0f}")  # fmt: skip
        fine &= abs(seen.bias) <= 0.02 and bool(covers >= 0.85)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
