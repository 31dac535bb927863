"""The simulator beside queueing theory: mean waits where a closed form exists, at several loads.

    python -m benchmarks.fidelity.queueing [--requests 200000]

One token per request, so that a request is one iteration. M/D/1: constant service; M/G/1: service by prompt length
(uniform, and lognormal with CV 1.3); bulk: all that wait are served at once, in constant time. Errors are shown in
standard errors of the simulated mean (batch means); exits with 1 if one is beyond 4.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inferometer.plan import build_plan
from inferometer.sim.cluster import Cluster
from inferometer.sim.cost import Affine
from inferometer.sim.engine import Replica
from inferometer.sim.kernel import PS_PER_S
from inferometer.sim.memory import BlockPool
from inferometer.sim.policies.static import Static
from inferometer.sim.routers import router

FAR = 4.0
BATCHES = 40
UNIT_S = 1e-3  # per prompt token


class Case(NamedTuple):
    name: str
    load: float
    prompts: np.ndarray
    fixed_s: float
    per_token_s: float
    max_batch: int
    rate_per_s: float
    expected_s: float


def cases(requests: int) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    ones = np.ones(requests, int)
    uniform = rng.integers(1, 200, requests)
    skewed = np.maximum(rng.lognormal(4.0, 1.0, requests), 1).astype(int)
    for load in (0.3, 0.6, 0.8, 0.9):
        yield Case("M/D/1", load, ones, 0.1, 0, 1, load / 0.1, load * 0.1 / (2 * (1 - load)))
        for name, prompts in (("M/G/1 uniform", uniform), ("M/G/1 lognormal", skewed)):
            service = prompts * UNIT_S
            rate = load / service.mean()
            wait = rate * (service**2).mean() / (2 * (1 - load))
            yield Case(name, load, prompts, 0.0, UNIT_S, 1, rate, wait)
    for rate in (2.0, 10.0, 30.0):
        busy = 0.1 / (0.1 + math.exp(-rate * 0.1) / rate)
        yield Case("bulk service", busy, ones, 0.1, 0, requests, rate, busy * 0.05)


def waits_s(case: Case) -> np.ndarray:
    rng = np.random.default_rng(2)
    at_s = np.cumsum(rng.exponential(1 / case.rate_per_s, len(case.prompts)))
    plan = build_plan(
        len(at_s),
        intended_ns=np.rint(at_s * 1e9).astype(np.int64),
        prompt_tokens=case.prompts,
        output_tokens=1,
    )
    policy = Static(max_batch=case.max_batch, reserve=16)
    cost = Affine(round(case.fixed_s * PS_PER_S), round(case.per_token_s * PS_PER_S))
    replica = Replica(policy, cost, BlockPool(len(at_s) + 1, 16))
    outcome = Cluster([replica], router("round-robin", 0), lambda *_: None, plan).play()
    return (np.array(outcome.scheduled) - np.array(outcome.intended)) / PS_PER_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    asked = parser.parse_args()
    print(f"{'':18}{'load':>6}{'theory ms':>12}{'simulated':>12}{'error':>9}{'std errors':>12}")
    worst = 0.0
    for case in cases(asked.requests):
        found = waits_s(case)
        means = found[: len(found) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)
        standard = float(means.std(ddof=1)) / math.sqrt(BATCHES)
        off = (float(found.mean()) - case.expected_s) / standard
        worst = max(worst, abs(off))
        error = found.mean() / case.expected_s - 1
        print(
            f"{case.name:18}{case.load:6.2f}{case.expected_s * 1e3:12.2f}{found.mean() * 1e3:12.2f}"
            f"{error:+9.1%}{off:+12.1f}"
        )
    return int(worst > FAR)


if __name__ == "__main__":
    sys.exit(main())
