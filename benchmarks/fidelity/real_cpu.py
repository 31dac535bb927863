"""A real engine on this machine beside its simulation: profiled, then the same plan measured and simulated at three loads.

    python -m benchmarks.fidelity.real_cpu [--engine vllm|llama] [--seconds 40] [--loads 0.3,0.6,0.8]

Needs scripts/engines (vLLM's CPU build, or llama-server), a tiny model, and an idle machine of two cores: one for the
engine, one for its front end and the client. About 5 minutes. The profile is made first, once; it knows nothing of the
plan. A load is a share of the rate that the simulator finds when all requests come at once. Exits with 1 if an error is above
9 % (what Vidur claims for its own), and prints what it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.fidelity.errors import Line, show
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.metrics import latency, tokens
from inferometer.run import Run
from inferometer.search import arms
from inferometer.search.engine_profile import Ladders, profile_engine
from inferometer.sim import Deployment, Limits, simulate
from inferometer.sim.profiled import write_profile
from inferometer.sim.sensitivity import sensitivity
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Poisson

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "engines"))
from serve import missing, models, running

TARGET = 0.09
STATISTICS = ("p50", "p90")
LADDERS = Ladders(lengths=(16, 64, 128, 256, 512, 1024), batches=(1, 2, 4, 8, 16, 32), repeats=5)


class Engine(NamedTuple):
    """How it is started, and the limits of its scheduler."""

    options: tuple[str, ...]
    limits: Limits


ENGINES = {
    "vllm": Engine(
        ("--no-enable-prefix-caching", "--max-num-batched-tokens", "2048"),
        Limits(max_batch=64, max_batched_tokens=2048, max_len=2048, num_blocks=32768),
    ),
    "llama": Engine((), Limits(max_batch=8, max_batched_tokens=2048, num_blocks=1024)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=tuple(ENGINES), default="vllm")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each load")
    parser.add_argument("--loads", default="0.3,0.6,0.8")
    parser.add_argument("--repeats", type=int, default=LADDERS.repeats)
    parser.add_argument("--keep", type=Path, help="a folder for the runs")
    asked = parser.parse_args()
    if why := missing(asked.engine):
        print(why, file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as passing:
        return compare(asked, asked.keep or Path(passing))


def compare(asked: argparse.Namespace, folder: Path) -> int:
    engine = ENGINES[asked.engine]
    with running(asked.engine, *engine.options) as up:
        found = find([f"{up.url}/v1/completions"])
        arm = arms.measured(found, Drive(tokenizer=str(models() / "target")), telemetry=False)
        print("profiling the engine", flush=True)
        ladders = LADDERS._replace(repeats=asked.repeats)
        profile = profile_engine(arm, folder / "profile", ladders, model="target")
        path = write_profile(profile, folder / "profile.json")
        deployment = deployed(path, engine.limits)
        most = capacity(deployment, asked.seconds)
        print(f"profiled: {most:.1f} requests/s when all come at once", flush=True)
        worst = 0.0
        for share in map(float, asked.loads.split(",")):
            plan = make_plan(workload(share * most, asked.seconds))
            title = f"{share:.0%} of it: {len(plan)} requests at {share * most:.1f}/s"
            run = arm(plan, 0, folder / f"load-{share:g}")
            lines = lines_of(simulate(plan, deployment), run)
            worst = max(worst, show(title, lines, sensitivity(plan, deployment), STATISTICS))
    print(f"largest error {worst:.1%} (target {TARGET:.0%})")
    return int(worst > TARGET)


def deployed(profile: Path, limits: Limits) -> Deployment:
    config = models() / "target" / "config.json"
    return Deployment(
        system="vllm-v1", model=str(config), device="cpu", cost=f"profile:{profile}", limits=limits
    )


def workload(rate_per_s: float, seconds: float) -> WorkloadSpec:
    return WorkloadSpec(
        arrivals=Poisson(rate=rate_per_s),
        prompt_tokens="lognormal:median=160,sigma=0.8,high=1000",
        output_tokens="uniform:low=16,high=128",
        duration_s=seconds,
        seed=5,
    )


def capacity(deployment: Deployment, seconds: float) -> float:
    """Requests per second when they all come at once."""
    plan = make_plan(workload(400 / seconds, seconds))
    at_once = replace(plan, intended_ns=np.zeros(len(plan), np.int64))
    timeline = simulate(at_once, deployment).timeline
    return len(plan) / (float(timeline.ended_ns.max()) / 1e9)


def lines_of(predicted: Run, real: Run) -> list[Line]:
    def of(run: Run) -> dict[str, np.ndarray]:
        timeline = run.timeline
        return {
            "ttft": latency.ttft(timeline),
            "tbt": tokens.gaps_ns(timeline).values / 1e9,
            "normalized_latency": latency.normalized_latency(timeline),
        }

    ours, theirs = of(predicted), of(real)
    return [Line(name, values, finite(theirs[name])) for name, values in ours.items()]


def finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


if __name__ == "__main__":
    sys.exit(main())
