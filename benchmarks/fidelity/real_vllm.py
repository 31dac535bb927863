"""Real vLLM servers beside their simulation, from kernel constants alone: TTFT, TPOT and end to end.

    python -m benchmarks.fidelity.real_vllm [--data ../shared/real_vllm]

A server is a file of per-request times (arrived_at, num_prefill_tokens, num_decode_tokens, ttft, e2e) and how it was
deployed, which its operator knows and `SERVERS` says; everything else is the simulator's default for that model and
device. Beside each error stands d ln(figure) / d ln(service time). Another server: --file, --model, --device, --tp,
--max-batch. Exits with 1 if an error is above 10 %.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.fidelity.errors import Line, show
from inferometer.metrics import latency
from inferometer.plan import Plan, build_plan
from inferometer.sim import Deployment, Limits, simulate
from inferometer.sim.sensitivity import sensitivity

TARGET = 0.10


class Server(NamedTuple):
    file: str
    deployment: Deployment


def deployed(
    model: str, device: str, tp: int = 1, max_batch: int = 256, blocks: int | None = None
) -> Deployment:
    limits = Limits(max_batch=max_batch, max_batched_tokens=2048, num_blocks=blocks)
    return Deployment(system="vllm-v1", model=model, device=device, tp=tp, limits=limits)


# The second server's deployment is read off its own times: never more than 128 requests run at once, and together they hold
# up to 174,000 tokens, 45 GB of cache beside 66 GB of weights: more than one card of 96 GB has.
SERVERS = (
    Server("RTX4090_Llama-3.1-8B_vllm0.19.csv", deployed("llama-3.1-8b", "rtx4090")),
    Server("RTX4090_Llama-3.1-8B_vllm0.19.csv", deployed("llama-3.1-8b", "rtx4090", blocks=2588)),
    Server("RTXPRO6000_Qwen3-32B_vllm0.19.csv", deployed("qwen3-32b", "rtxpro6000", 2, 128)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/real_vllm"))
    parser.add_argument("--file")
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--num-blocks", type=int)
    asked = parser.parse_args()
    servers = SERVERS
    if asked.file:
        own = deployed(asked.model, asked.device, asked.tp, asked.max_batch, asked.num_blocks)
        servers = (Server(asked.file, own),)
    worst = [compare(asked.data, server) for server in servers]
    print(f"largest error {max(worst):.1%} (target {TARGET:.0%})")
    return int(max(worst) > TARGET)


def compare(data: Path, server: Server) -> float:
    plan, ttft, e2e = measured(data / server.file)
    timeline = simulate(plan, server.deployment).timeline
    ours, ends = latency.ttft(timeline), latency.ttlt(timeline)
    steps = plan.output_tokens - 1
    lines = [
        Line("ttft", ours, ttft),
        Line("tpot", (ends - ours) / steps, (e2e - ttft) / steps),
        Line("ttlt", ends, e2e),
    ]
    d = server.deployment
    blocks = f", {d.limits.num_blocks} blocks" if d.limits.num_blocks else ""
    title = (
        f"{server.file}: {d.model} on {d.tp} x {d.device}, {d.limits.max_batch} sequences{blocks}"
    )
    return show(title, lines, sensitivity(plan, d))


def measured(path: Path) -> tuple[Plan, np.ndarray, np.ndarray]:
    """The plan that a server was given, and what came of it: TTFT and end to end [s]."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    plan = build_plan(
        len(rows),
        intended_ns=[round(float(row["arrived_at"]) * 1e9) for row in rows],
        prompt_tokens=[int(row["num_prefill_tokens"]) for row in rows],
        output_tokens=[int(row["num_decode_tokens"]) for row in rows],
    )
    return plan, *(np.array([float(row[name]) for row in rows]) for name in ("ttft", "e2e"))


if __name__ == "__main__":
    sys.exit(main())
