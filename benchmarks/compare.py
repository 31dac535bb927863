"""Do the intervals of `compare` cover, and do its gates err as seldom as they say? On queues whose difference is known.

    python -m benchmarks.compare                  200 comparisons per line: about ten minutes
    python -m benchmarks.compare --replicates 50

A is M/M/8 with services of 0.2 s and an exponential 0.8 s; B is the same with services 3 % longer. Truth is the mean
over long runs. `apart`: each side has arrivals of its own. `paired`: both play one plan, and services differ by noise of
their own, too. One run a side, or five.

covers    how many 95 % intervals of b - a hold the true difference                             target: >= 92 %
width     median width over that of `apart` with one run a side
wrong     gate at exactly the true change: how many say "regression", and "equivalent"          target: <= 5 % each
false     the same gate where nothing changed: how many say "regression"                        target: <= 5 %
power     the same gate where B is 10 % slower instead of 3 %: how many say "regression"; and how many say "equivalent"
          where nothing changed. No target: it is what a run of that length can show.
Exit code 1 where a target is missed by more than the error of this simulation.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from inferometer.metrics import score
from inferometer.run import Run
from inferometer.search.capacity import Ask
from inferometer.search.compare import Comparison, compare
from inferometer.search.queueing import Queue

STATISTICS = ("ttlt.mean", "ttlt.p50", "ttlt.p90", "ttlt.p99", "ttft.mean", "tbt.mean", "tbt.p90")
SLOWER, MUCH_SLOWER = 1.03, 1.10
NOISE = 0.05  # of each service, by itself


class Design(NamedTuple):
    name: str
    paired: bool
    repeats: int
    requests: int


DESIGNS = (
    Design("apart, 1 run", False, 1, 4_000),
    Design("paired, 1 run", True, 1, 4_000),
    Design("apart, 5 runs", False, 5, 1_000),
    Design("paired, 5 runs", True, 5, 1_000),
)


def run_of(load: float, seed: int, noise_seed: int, *, slower: float, requests: int) -> Run:
    """One run; `noise_seed` is of what differs between two servers that get the same requests."""
    own = np.random.default_rng(noise_seed)

    def service(rng: np.random.Generator, n: int) -> np.ndarray:
        drawn = 0.2 + 0.8 * rng.exponential(1.0, n)
        return slower * drawn * own.lognormal(-(NOISE**2) / 2, NOISE, n)

    run = Queue(8, service)(Ask(load=load, seed=seed, requests=requests, warmup=1_000))
    facts = {"workload": {"fingerprint": f"plan {seed}"}, "complete": True}
    return replace(run, manifest=msgspec.structs.replace(run.manifest, **facts))


def truths(load: float, slower: float) -> dict[str, float]:
    """Each statistic, over 60 runs of 30,000 requests."""
    cards = [
        score(run_of(load, 10**7 + k, 10**8 + k, slower=slower, requests=30_000), intervals=False)
        for k in range(60)
    ]
    return {name: float(np.mean([_value(card, name) for card in cards])) for name in STATISTICS}


def _value(card, name: str) -> float:
    metric, _, statistic = name.partition(".")
    row = card.row(metric)
    return row.mean if statistic == "mean" else row.quantiles[statistic]


def compared(design: Design, load: float, k: int, slower: float, gates: list[str]) -> Comparison:
    """The k-th comparison of A with a B that is so much slower."""
    seeds = range(1_000 * k, 1_000 * k + design.repeats)
    a = [run_of(load, s, 10**6 + s, slower=1.0, requests=design.requests) for s in seeds]
    shift = 0 if design.paired else 500
    b = [
        run_of(load, s + shift, 2 * 10**6 + s, slower=slower, requests=design.requests)
        for s in seeds
    ]
    return compare(a, b, gates=gates, anyway=True)


class Line(NamedTuple):
    covers: float
    width: float
    wrong: tuple[float, float]
    false: float
    power: tuple[float, float]


def lines(design: Design, load: float, replicates: int, known: list[dict[str, float]]) -> dict[str, Line]:  # fmt: skip
    change = {name: known[1][name] / known[0][name] - 1 for name in STATISTICS}
    gates = [f"{name} +{100 * change[name]:.6f}%" for name in STATISTICS]
    runs = {
        slower: [compared(design, load, k, slower, gates) for k in range(replicates)]
        for slower in (1.0, SLOWER, MUCH_SLOWER)
    }
    out = {}
    for place, name in enumerate(STATISTICS):
        true = known[1][name] - known[0][name]
        effects = [next(e for e in c.effects if e.name == name) for c in runs[SLOWER]]
        given = [e.interval for e in effects if not math.isnan(e.interval.lo)]
        said = {slower: [c.gates[place].verdict for c in found] for slower, found in runs.items()}
        out[name] = Line(
            float(np.mean([i.lo <= true <= i.hi for i in given])) if given else math.nan,
            float(np.median([i.hi - i.lo for i in given])) if given else math.nan,
            (_share(said[SLOWER], "regression"), _share(said[SLOWER], "equivalent")),
            _share(said[1.0], "regression"),
            (_share(said[MUCH_SLOWER], "regression"), _share(said[1.0], "equivalent")),
        )
    return out


def _share(said: list[str], verdict: str) -> float:
    return said.count(verdict) / len(said)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=200)
    args = parser.parse_args()
    slack = 2 * math.sqrt(0.05 * 0.95 / args.replicates)
    fine = True
    for load in (4.8, 6.4):
        known = [truths(load, slower) for slower in (1.0, SLOWER)]
        base: dict[str, float] = {}
        for design in DESIGNS:
            begun = time.perf_counter()
            found = lines(design, load, args.replicates, known)
            print(f"\nutilization {load / 8:.0%}, {design.name} of {design.requests:,} requests ({time.perf_counter() - begun:.0f} s)")  # fmt: skip
            print(f"{'':10}{'change':>8}{'covers':>8}{'width':>7}{'wrong: regression':>19}{'equivalent':>12}{'false':>7}{'power: regression':>19}{'equivalent':>12}")  # fmt: skip
            for name, line in found.items():
                base.setdefault(name, line.width)
                bad = line.covers < 0.92 - slack or max(*line.wrong, line.false) > 0.05 + slack
                fine &= not bad
                print(
                    f"{name:10}{known[1][name] / known[0][name] - 1:+8.1%}{line.covers:8.1%}{line.width / base[name]:7.2f}"
                    f"{line.wrong[0]:19.1%}{line.wrong[1]:12.1%}{line.false:7.1%}{line.power[0]:19.1%}{line.power[1]:12.1%}"
                    f"{' *' if bad else ''}",
                    flush=True,
                )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
