"""Does `measure` against `emulate --system X` say what `simulate X` says? Two independent ways to one number.

    python -m benchmarks.emulated_system                   three systems, two loads of 400 requests: about five minutes
    python -m benchmarks.emulated_system --requests 60     a look; the tails of so few are not compared

The simulator's figures are exact. The measured ones went through a real-time server, sockets, and the load driver, whose
errors are on record: how late it sent (p99, manifest), how late the server wrote (p99, its own log), how far stamps are
off (p99, this host's calibration, 0 without one). Their sum is `error`. But errors are also *amplified*: a request that
arrives 1 ms later may miss an iteration, and wait for the next. So the plan is simulated 40 times more with every
arrival late by a random part of `error`; `band` is what the figure then was, at the least and at the most.

simulated, measured   the figure [ms]                                              difference [ms] = measured - simulated
agrees                measured lies in `band`, widened by `error`                                       target: everywhere
late                  how late the server wrote, p99 [ms]; above 5 ms the host was not idle, and the row says so
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.emulator import Schedule, read_writes, serve_child
from inferometer.load.calibration import latest
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.metrics import score
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.sim import Deployment, simulate
from inferometer.workload import WorkloadSpec, make_plan

SYSTEMS = ("vllm", "sarathi-serve", "vllm-v1")
RATES = (6.0, 11.0)  # requests/s: 12 and 40 in flight
PROMPTS, OUTPUTS = "lognormal:median=400,sigma=0.8,high=3000", "uniform:low=20,high=200"
METRICS, STATISTICS = ("ttft", "tbt"), ("p50", "p90", "p99")
REPLAYS = 40
LATE_S = 0.005

Figures = dict[tuple[str, str], float]


class Error(NamedTuple):
    """The instrument's, in seconds: of sending (p99), of the server's writing (p99), of stamps (p99)."""

    send: float
    write: float
    stamp: float

    @property
    def all(self) -> float:
        return self.send + self.write + self.stamp


class Measured(NamedTuple):
    run: Run
    error: Error


def figures(run: Run) -> Figures:
    """Each statistic that the sample carries, in seconds."""
    metrics = score(run).to_dict()["metrics"]
    found = {(name, which): metrics[name].get(which) for name in METRICS for which in STATISTICS}
    return {key: value for key, value in found.items() if value is not None}


def plan_of(rate: float, requests: int) -> Plan:
    arrivals: Any = {"kind": "poisson", "rate": rate}
    asked = WorkloadSpec(
        arrivals=arrivals, requests=requests, prompt_tokens=PROMPTS, output_tokens=OUTPUTS, seed=1
    )
    return make_plan(asked)


def measured(plan: Plan, deployment: Deployment) -> Measured:
    """The plan, sent to the deployment in real time."""
    system = msgspec.to_builtins(deployment)
    schedule = Schedule(models=(deployment.model,))
    with tempfile.TemporaryDirectory(prefix="inferometer-") as folder:
        log = Path(folder) / "log.parquet"
        with serve_child(schedule, system=system, log=log) as url:
            run = measure(plan, find([url]), Drive(), Path(folder) / "run", asked={})
        late_s = float(np.percentile(read_writes(log).lateness_ns(), 99)) / SECOND
    if not np.array_equal(run.timeline.prompt_tokens, plan.prompt_tokens):
        raise SystemExit("the server counted other prompt tokens than were planned")
    known = latest()
    stamp_s = (known.stamp_error_p99_s if known else None) or 0.0
    send_s = (
        run.manifest.instrument["send_lag"]["p99"] or run.manifest.instrument["send_lag"]["max"]
    )
    return Measured(run, Error(send_s, late_s, stamp_s))


def band(plan: Plan, deployment: Deployment, error_s: float) -> dict[tuple[str, str], list[float]]:
    """What each figure is when arrivals are late by as much as the instrument may have made them."""
    rng, found = np.random.default_rng(0), {}
    for _ in range(REPLAYS):
        late = (rng.random(len(plan)) * error_s * SECOND).astype(np.int64)
        shifted = replace(plan, intended_ns=np.maximum.accumulate(plan.intended_ns + late))
        for key, value in figures(simulate(shifted, deployment)).items():
            found.setdefault(key, []).append(value)
    return found


def compare(system: str, rate: float, requests: int) -> bool:
    """Print one system at one load; whether everything agrees."""
    deployment, plan = Deployment(system=system, model="llama-3-8b"), plan_of(rate, requests)
    truth, (run, error) = figures(simulate(plan, deployment)), measured(plan, deployment)
    seen, spread = figures(run), band(plan, deployment, error.all)
    idle = "" if error.write <= LATE_S else "   THE HOST WAS NOT IDLE"
    print(
        f"\n{system}, {rate:g} requests/s: {'valid' if score(run).valid else 'INVALID'}; error {1e3 * error.all:.2f} ms"
        f" = send {1e3 * error.send:.2f} + late {1e3 * error.write:.2f} + stamp {1e3 * error.stamp:.2f}{idle}"
    )
    print(f"{'':10}{'simulated':>10}{'measured':>10}{'difference':>12}{'':8}{'band':>16}  agrees")
    agree = True
    for key, value in truth.items():
        low, high = min(spread[key]), max(spread[key])
        ok = low - error.all <= seen[key] <= high + error.all
        agree &= ok
        print(
            f"{' '.join(key):10}{1e3 * value:10.2f}{1e3 * seen[key]:10.2f}{1e3 * (seen[key] - value):+12.2f}"
            f"{seen[key] / value - 1:+8.1%}{1e3 * low:8.2f}-{1e3 * high:<7.2f}  {'yes' if ok else 'NO'}"
        )
    return agree and not idle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES))
    given = parser.parse_args()
    if latest() is None:
        print("this host is not calibrated: stamps count as exact (inferometer calibrate)")
    rates = [float(rate) for rate in given.rates.split(",")]
    cells = [(system, rate) for system in given.systems.split(",") for rate in rates]
    verdicts = [compare(system, rate, given.requests) for system, rate in cells]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
