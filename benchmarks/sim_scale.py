"""How the simulator's cost grows with requests, replicas and batch size; a million requests; a day of Azure's chat.

    python -m benchmarks.sim_scale [--requests 10000,160000] [--replicas 1,64] [--batch 8,256] [--most 40000]
    python -m benchmarks.sim_scale --million         1,000,000 requests on one replica at 85 % of its capacity
    python -m benchmarks.sim_scale --day             3.9 M requests of the azure-2024 profile's chat over 64 replicas

Llama-3-8B on an H100 by roofline under vllm-v1, lognormal lengths (medians 400 and 150), Poisson arrivals. CPU and
resident memory of a fresh process for each, with the timeline streamed to Parquet; making the plan is not counted. A
slope is that of log CPU over log size: 1 is linear, 0 is free. Exits with 1 if a target is missed: a slope with requests
above 1.15; a million requests in 100 CPU-s; a day in 10 minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.stage import conditions, table
from inferometer.plan import Plan, build_plan
from inferometer.sim import Deployment, Limits, simulate, simulate_into
from inferometer.workload import load_profile, make_plan
from inferometer.workload.contents import WorkloadSpec

MODEL, DEVICE, SYSTEM = "llama-3-8b", "h100", "vllm-v1"
LOAD = 0.85


def drawn(requests: int, rate_per_s: float) -> Plan:
    rng = np.random.default_rng(0)
    return build_plan(
        requests,
        intended_ns=np.cumsum(rng.exponential(1e9 / rate_per_s, requests)).astype(np.int64),
        prompt_tokens=np.clip(rng.lognormal(math.log(400), 0.8, requests), 1, 4000).astype(int),
        output_tokens=np.clip(rng.lognormal(math.log(150), 0.8, requests), 1, 2000).astype(int),
    )


def day() -> Plan:
    """The profile's chat alone: as many requests as a day of its week has on average."""
    whole = load_profile("azure-2024")
    chat = [client for client in whole.clients if client.name == "conv"]
    return make_plan(
        WorkloadSpec(
            profile=msgspec.structs.replace(whole, clients=tuple(chat)), requests=3_900_000
        )
    )


def capacity(limits: Limits) -> float:
    """Requests per second that one replica ends with a queue that is never empty."""
    burst = drawn(4000, 1e6)
    run = simulate(burst, Deployment(system=SYSTEM, model=MODEL, device=DEVICE, limits=limits))
    return len(burst) / (int(run.timeline.ended_ns.max()) / 1e9)


def child(asked: dict) -> dict:
    """One simulation, in this process."""
    limits = Limits(max_batch=asked["batch"])
    if asked["day"]:
        plan = day()
    else:
        plan = drawn(asked["requests"], LOAD * capacity(limits) * asked["replicas"])
    deployment = Deployment(
        system=SYSTEM, model=MODEL, device=DEVICE, replicas=asked["replicas"], limits=limits,
        router=asked["router"],
    )  # fmt: skip
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory(dir=asked["folder"]) as folder:
        cpu, wall = time.process_time(), time.monotonic()
        path = simulate_into(plan, deployment, Path(folder) / "run", iterations=asked["iterations"])
        spent = time.process_time() - cpu, time.monotonic() - wall
        size = sum(file.stat().st_size for file in path.iterdir())
        target = json.loads((path / "manifest.json").read_text())["target"]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "requests": len(plan),
        "tokens": int(plan.output_tokens.sum()),
        "iterations": target["iterations"],
        "cpu_s": spent[0],
        "wall_s": spent[1],
        "plan_mb": before_mb,
        "peak_mb": peak_mb,
        "disk_mb": size / 1e6,
    }


def measured(options: argparse.Namespace, **asked: object) -> dict:
    """The same in a process of its own, so that memory is its own."""
    asked = {
        "requests": options.most, "replicas": 1, "batch": 256, "day": False, "folder": None,
        "router": options.router, "iterations": options.iterations,
    } | asked  # fmt: skip
    words = [sys.executable, "-m", "benchmarks.sim_scale", "--child", json.dumps(asked)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout) | {"replicas": asked["replicas"], "batch": asked["batch"]}


COLUMNS = (
    "requests", "replicas", "batch", "tokens", "iterations", "cpu_s", "wall_s", "us/request",
    "plan_mb", "peak_mb", "disk_mb",
)  # fmt: skip


def shown(rows: list[dict]) -> str:
    for row in rows:
        row["us/request"] = row["cpu_s"] / row["requests"] * 1e6
    return table(list(COLUMNS), [[f"{row[name]:.4g}" for name in COLUMNS] for row in rows])


def slope(rows: list[dict], name: str, what: str) -> float:
    """Of log `what` over log `name`."""
    x, y = ([math.log(row[key]) for row in rows] for key in (name, what))
    return float(np.polyfit(x, y, 1)[0])


def doubling(text: str) -> list[int]:
    """ "10000,160000" as 10,000, 40,000, 160,000: in steps of four."""
    low, high = (int(part) for part in text.split(","))
    steps = max(round(math.log(high / low, 4)), 1)
    return [round(low * (high / low) ** (step / steps)) for step in range(steps + 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--requests", default="10000,160000")
    parser.add_argument("--replicas", default="1,64")
    parser.add_argument("--batch", default="8,256", help="most sequences of a batch")
    parser.add_argument("--most", type=int, default=40_000, help="requests where they do not vary")
    parser.add_argument("--router", default="round-robin")
    parser.add_argument("--iterations", action="store_true", help="write iterations.parquet, too")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--day", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return 0
    print(conditions())
    if options.million or options.day:
        return large(options)
    good = True
    for name, text in (("requests", options.requests), ("replicas", options.replicas), ("batch", options.batch)):  # fmt: skip
        rows = [measured(options, **{name: size}) for size in doubling(text)]
        print(shown(rows))
        found = slope(rows, name, "cpu_s")
        print(f"slope of CPU with {name}: {found:.2f}\n")
        good &= name != "requests" or found <= 1.15
    return 0 if good else 1


def large(options: argparse.Namespace) -> int:
    rows = []
    if options.million:
        rows.append(measured(options, requests=1_000_000))
    if options.day:
        rows.append(measured(options, day=True, replicas=64))
    print(shown(rows))
    limits = [100.0] * options.million + [600.0] * options.day
    return 0 if all(row["cpu_s"] <= most for row, most in zip(rows, limits, strict=True)) else 1


if __name__ == "__main__":
    sys.exit(main())
