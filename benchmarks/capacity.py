"""Is the capacity that a search finds right, and its interval? On systems whose capacity is known, or found by brute force.

    python -m benchmarks.capacity                       every system, 100 searches each: about half an hour
    python -m benchmarks.capacity --searches 30 --only M/D/1
    python -m benchmarks.capacity --no-bisection        a third of that

The first three systems are those that the search was tuned on; its constants saw none of the others. Truth is Erlang's
formula (M/M/c), or `brute`: some hundred long runs beside the capacity, with other seeds than any search.

bias      mean of estimate / truth - 1 over the searches that were resolved, ± its standard error       target: within 2 %
rms       root mean square of the same
covers    how many 90 % intervals hold the truth                                                        target: >= 85 %
verdict   how many ended as they should: resolved, or a cliff where the system has one                  target: >= 95 %
cost      mean request-seconds (time in flight, summed over requests and probes) of one search
bisection that of the cheapest plain bisection with the same rms error: double until the SLO is not met, then halve until
          the bracket is within ±5 %, one probe per rate, nothing pooled; probes of a length, and the whole repeated and
          averaged as often, as together cost least. It has no interval unless it is repeated: `3+` is at least three times
ratio     bisection / ours                                                                              target: > 1
Starts are drawn between 1/9 and 1/4 of the truth, for both. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from inferometer.search.capacity import Ask, Capacity, Search, World, capacity, judge
from inferometer.search.queueing import Batch, Queue, erlang_capacity
from inferometer.slo import parse

LENGTHS = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)
ROUNDS = (0.12, 0.03)  # how far from the estimate brute force looks, first and then
BRUTE_SEED = 10_000_000


def lognormal(cv: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Service times of mean 1 s with a coefficient of variation."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return lambda rng, n: rng.lognormal(-(sigma**2) / 2, sigma, n)


def pareto(shape: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Service times of mean 1 s with a tail of that power."""
    return lambda rng, n: (1 + rng.pareto(shape, n)) * (shape - 1) / shape


def constant(_: np.random.Generator, n: int) -> np.ndarray:
    """Service times of 1 s."""
    return np.ones(n)


def gamma_gaps(cv: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Gaps between arrivals of mean 1 with a coefficient of variation."""
    return lambda rng, n: rng.gamma(1 / cv**2, cv**2, n)


def simulated(target: str, prompt: str, output: str) -> World:
    """A simulated serving system under Poisson arrivals."""
    from inferometer.search.simulated import Simulated
    from inferometer.sim.target import read_target
    from inferometer.workload import WorkloadSpec
    from inferometer.workload.arrivals import Poisson

    workload = WorkloadSpec(arrivals=Poisson(rate=1), prompt_tokens=prompt, output_tokens=output)
    return Simulated(read_target(target), workload)


class System(NamedTuple):
    """A world, an SLO, and what is known: its capacity (None: by brute force, from `about`)."""

    name: str
    world: Callable[[], World]
    slo: str
    about: float
    known: float | None = None
    runs: tuple[int, int] = (16, 20_000)  # of each brute force round and load: how many, how long


def erlang(servers: int, within_s: float, level: float) -> System:
    truth = erlang_capacity(servers, within_s, level)
    slo = f"each: ttft <= {within_s}s; attainment >= {level}"
    return System(f"M/M/{servers} (tuned)", lambda: Queue(servers), slo, truth, truth)


SYSTEMS = (
    erlang(8, 1.0, 0.9),
    erlang(32, 0.5, 0.95),
    erlang(1, 3.0, 0.9),
    System("M/D/1", lambda: Queue(1, constant), "each: ttft <= 2s; attainment >= 0.9", 0.67),
    System("M/D/1 p99", lambda: Queue(1, constant), "ttft.p99 <= 3s", 0.55),
    System("M/G/1 cv 3", lambda: Queue(1, lognormal(3.0)), "each: ttft <= 6s; attainment >= 0.9", 0.42),
    System("M/G/1 Pareto 2.5", lambda: Queue(1, pareto(2.5)), "ttft.p90 <= 4s", 0.55),
    System("M/M/4 mean", lambda: Queue(4), "ttft.mean <= 0.5s", 3.0),
    System("G/G/4 cv 2 p95", lambda: Queue(4, lognormal(1.0), gamma_gaps(2.0)), "ttft.p95 <= 3s", 2.5),
    System("G/G/16 p99 ttlt", lambda: Queue(16, lognormal(1.0), gamma_gaps(1.5)), "ttlt.p99 <= 8s", 13.0),
    System("batch of 32", lambda: Batch(32, 0.2, 0.02), "ttft.p99 <= 1s", 25.0),
    System("M/M/8 two bounds", lambda: Queue(8), "ttft.p50 <= 0.1s and ttft.p99 <= 2.2s", 6.5),
    System(
        "vllm-v1",
        lambda: simulated("sim:vllm-v1?model=llama-3-8b&device=a100", "lognormal:median=512,sigma=0.7", "lognormal:median=128,sigma=0.7"),
        "ttft.p90 <= 0.5s and tbt.p99 <= 60ms", 5.0, runs=(10, 5_000),
    ),
    System(
        "sarathi-serve",
        lambda: simulated("sim:sarathi-serve?model=llama-3-8b&device=a100&chunk=512", "lognormal:median=512,sigma=0.7", "lognormal:median=128,sigma=0.7"),
        "each: ttft <= 1s and max_gap <= 0.1s; attainment >= 0.9", 8.0, runs=(10, 5_000),
    ),
)  # fmt: skip


def with_truth(system: System) -> System:
    """The system with its capacity, good to a fraction of a per cent."""
    return system if system.known else system._replace(known=found_by_force(system))


def found_by_force(system: System) -> float:
    near = system.about
    found = capacity(system.world(), system.slo, Search(start=near / 4, hysteresis=False, longest_s=1e6, seed=BRUTE_SEED - 1))  # fmt: skip
    near = found.load if math.isfinite(found.load) else near
    for apart in ROUNDS:
        near = brute(system, near, apart)
    return near


def brute(system: System, near: float, apart: float) -> float:
    """Where the mean shares of long runs cross their levels: a straight line of logits, the least over the criteria."""
    runs, requests = system.runs
    loads = near * np.exp(np.linspace(-apart, apart, 4))
    world, slo = system.world(), parse(system.slo)
    shares: list[np.ndarray] = []
    for k, load in enumerate(loads):
        seen = []
        for r in range(runs):
            ask = Ask(load=float(load), seed=BRUTE_SEED + 1_000 * k + r, requests=requests, warmup=requests // 5)  # fmt: skip
            seen.append([c.share for c in judge(world(ask), ask, slo).criteria if c.n])
        shares.append(np.mean(seen, axis=0))
    levels = [c.level for c in judge(world(ask), ask, slo).criteria if c.n]
    roots = [_root(loads, np.array([s[k] for s in shares]), level) for k, level in enumerate(levels)]  # fmt: skip
    return min(roots)


def _root(loads: np.ndarray, shares: np.ndarray, level: float) -> float:
    logits = np.log(np.clip(shares, 1e-9, 1 - 1e-9) / np.clip(1 - shares, 1e-9, 1))
    if shares.min() > 1 - (1 - level) / 10:  # another criterion binds here
        return math.inf
    slope, at = np.polyfit(np.log(loads), logits - math.log(level / (1 - level)), 1)
    return math.exp(-at / slope) if slope < 0 else math.inf


class Errors(NamedTuple):
    """Of estimates against the truth: mean, its standard error, root mean square; and the mean cost."""

    bias: float
    error: float
    rms: float
    cost: float


def errors(found: list[float], costs: list[float], true: float) -> Errors:
    off = np.array(found) / true - 1
    return Errors(
        float(off.mean()),
        float(off.std() / math.sqrt(off.size)),
        float(np.sqrt((off**2).mean())),
        float(np.mean(costs)),
    )


def start(true: float, seed: int) -> float:
    """Where a search begins: at 1/9 to 1/4 of the truth."""
    return true / float(np.random.default_rng(seed).uniform(4, 9))


def settings(true: float, seed: int) -> Search:
    return Search(start=start(true, seed), seed=seed, longest_s=1e5, hysteresis=False)


def ours(system: System, searches: int) -> list[Capacity]:
    world, true = system.world(), system.known
    return [capacity(world, system.slo, settings(true, 1_000 * k)) for k in range(searches)]


def bisection(system: System, seed: int, requests: int) -> tuple[float, float]:
    """(estimate, request-seconds): double until not met, then halve until the bracket is within ±5 %."""
    slo, world, spent = parse(system.slo), system.world(), 0.0

    def met(rate: float, step: int) -> bool:
        nonlocal spent
        ask = Ask(load=rate, seed=seed + step, requests=requests, warmup=requests // 5)
        probe = judge(world(ask), ask, slo)
        spent += probe.request_seconds
        return all(c.met for c in probe.criteria if c.n)

    lo, hi, step = 0.0, start(system.known, seed), 0
    while met(hi, step):
        lo, hi, step = hi, 2 * hi, step + 1
    while hi - lo > 2 * Search().precision * (lo + hi) / 2:
        step += 1
        lo, hi = ((lo + hi) / 2, hi) if met((lo + hi) / 2, step) else (lo, (lo + hi) / 2)
    return (lo + hi) / 2, spent


class Plain(NamedTuple):
    """A bisection with probes of `requests`, `repeats` of it averaged, and what that costs."""

    requests: int
    repeats: float
    cost: float


def same_error(seen: dict[int, Errors], rms: float, least: int) -> Plain | None:
    """The cheapest plain bisection whose rms error is `rms`, repeated at least `least` times; None where there is none."""
    options = []
    for requests, one in seen.items():
        spread = max(one.rms**2 - one.bias**2, 0.0)
        room = rms**2 - max(abs(one.bias) - one.error, 0.0) ** 2  # a bias that is not shown is none
        if room > 0:
            repeats = max(spread / room, float(least))
            options.append(Plain(requests, repeats, repeats * one.cost))
    return min(options, key=lambda o: o.cost, default=None)


def bisections(system: System, searches: int) -> dict[int, Errors]:
    out = {}
    for requests in LENGTHS:
        runs = [bisection(system, 1_000 * k, requests) for k in range(searches)]
        out[requests] = errors([r for r, _ in runs], [c for _, c in runs], system.known)
    return out


def row(system: System, searches: int, *, compare: bool) -> bool:
    """Print the line of a system; whether it reaches the targets."""
    begun = time.perf_counter()
    system = with_truth(system)
    found, true = ours(system, searches), system.known
    known = [c for c in found if c.verdict in ("resolved", "cliff")]
    seen = errors([c.load for c in known], [c.request_seconds for c in found], true)
    covers = float(np.mean([c.interval.lo <= true <= c.interval.hi for c in found]))
    probes = np.mean([len(c.probes) for c in found])
    plain = bisections(system, max(searches // 3, 10)) if compare else {}
    once, thrice = (same_error(plain, seen.rms, least) for least in (1, 3))
    told = [f"{o.cost / seen.cost:.2f}" if o else ">" if compare else "-" for o in (once, thrice)]
    how = f"{once.repeats:.1f} x {once.requests}" if once else ""
    fine = abs(seen.bias) <= 0.02 and covers >= 0.85 and len(known) >= 0.95 * len(found)
    fine &= once is None or once.cost > seen.cost
    print(
        f"{system.name:18}{true:8.3f}{len(known):6d}/{len(found):<4d}{seen.bias:+7.2%} ±{seen.error:5.2%}{seen.rms:7.1%}"
        f"{covers:7.0%}{probes:7.1f}{seen.cost:12,.0f}{how:>13}{told[0]:>7}{told[1]:>7}"
        f"  {'' if fine else '*'} {time.perf_counter() - begun:.0f} s",
        flush=True,
    )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--only", default="", help="systems whose names hold this")
    parser.add_argument("--no-bisection", action="store_true")
    args = parser.parse_args()
    print(f"{'system':18}{'truth':>8}{'verdict':>11}{'bias':>14}{'rms':>7}{'covers':>7}{'probes':>7}{'cost':>12}{'bisection':>13}{'ratio':>7}{'3+':>7}")  # fmt: skip
    chosen = [system for system in SYSTEMS if args.only in system.name]
    fine = [row(system, args.searches, compare=not args.no_bisection) for system in chosen]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
