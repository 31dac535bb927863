"""The simulator's mechanics beside Vidur's own results: every request's times, and how much less CPU it takes.

    python -m benchmarks.fidelity.vidur [--oracle ../shared/vidur_oracle] [--repeats 5]

Needs a folder of Vidur's runs (results/NAME/{requests.csv,timing.json,command.txt}, traces, tables), each made by an
unmodified Vidur. Its options are read from `command.txt`, so a new run needs no line here. Exits with 1 if a target is
missed: 1e-6 relative for vLLM and Sarathi-Serve without a pipeline, 1 % else; 40 x less CPU each, 100 x in the
geometric mean. CPU: the event loop alone on both sides (ours: the best of the repeats), output of all token times included.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inferometer.plan import Plan, build_plan
from inferometer.sim import Deployment, Limits, simulate
from inferometer.sim.simulate import assemble, resolve

SYSTEMS = {
    "vllm": "vllm",
    "sarathi": "sarathi-serve",
    "orca": "orca",
    "faster_transformer": "static",
}
ROUTERS = {"round_robin": "round-robin", "lor": "least-outstanding", "random": "random"}
SEED = 42  # Vidur's default, of its random router
EXACT, CLOSE = 1e-6, 1e-2
EACH, MEAN = 40.0, 100.0


class Case(NamedTuple):
    name: str
    plan: Plan
    deployment: Deployment
    folder: Path


class Found(NamedTuple):
    name: str
    ttft: float
    e2e: float
    restarts: tuple[int, int]
    iterations: tuple[int, int]
    cpu_s: tuple[float, float]
    allowed: float

    @property
    def ratio(self) -> float:
        return self.cpu_s[1] / self.cpu_s[0]

    @property
    def met(self) -> bool:
        return max(self.ttft, self.e2e) <= self.allowed and self.ratio >= EACH


def options(command: str) -> dict[str, str]:
    """Vidur's command line as {name: value}."""
    words = shlex.split(command)
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {word[2:]: value for word, value in pairs if word.startswith("--")}


def case(oracle: Path, folder: Path) -> Case:
    given = options((folder / "command.txt").read_text())
    kind = given["replica_scheduler_config_type"]
    of = {
        name.removeprefix(f"{kind}_scheduler_config_"): int(value)
        for name, value in given.items()
        if name.startswith(f"{kind}_scheduler_config_") and value.isdigit()
    }
    tp = int(given.get("replica_config_tensor_parallel_size", 1))
    pp = int(given.get("replica_config_num_pipeline_stages", 1))
    limits = Limits(
        num_blocks=of.get("num_blocks"),
        block_size=of.get("block_size", 16),
        max_batch=of.get("batch_size_cap"),
        max_batched_tokens=of.get("max_tokens_in_batch"),
        chunk=of.get("chunk_size"),
    )
    deployment = Deployment(
        system=SYSTEMS[kind],
        model=given["replica_config_model_name"],
        device=given["replica_config_device"],
        tp=tp,
        pp=pp,
        cost=f"vidur:{tables(oracle, given['replica_config_model_name'], tp, pp)}",
        compat="vidur",
        replicas=int(given.get("cluster_config_num_replicas", 1)),
        router=ROUTERS[given.get("global_scheduler_config_type", "round_robin")],
        seed=int(given.get("seed", SEED)),
        limits=limits,
    )
    return Case(
        folder.name,
        plan(oracle / given["trace_request_generator_config_trace_file"]),
        deployment,
        folder,
    )


def tables(oracle: Path, model: str, tp: int, pp: int) -> Path:
    short = model.rsplit("/", 1)[-1].lower().removeprefix("meta-").removesuffix("-hf")
    stem = short.replace("llama-", "llama") + f"_a100_tp{tp}" + (f"_pp{pp}" if pp > 1 else "")
    return oracle / "tables" / f"{stem}.npz"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def plan(path: Path) -> Plan:
    trace = rows(path)
    return build_plan(
        len(trace),
        intended_ns=[round(float(row["arrived_at"]) * 1e9) for row in trace],
        prompt_tokens=[int(float(row["num_prefill_tokens"])) for row in trace],
        output_tokens=[int(float(row["num_decode_tokens"])) for row in trace],
    )


def loop_cpu_s(asked: Case, repeats: int) -> float:
    longest = int((asked.plan.prompt_tokens + asked.plan.output_tokens).max())
    best = math.inf
    for _ in range(repeats):
        cluster, _ = assemble(
            asked.plan, asked.deployment, resolve(asked.deployment, longest=longest), stretch=True
        )
        start = time.process_time()
        cluster.play()
        best = min(best, time.process_time() - start)
    return best


def compare(asked: Case, repeats: int) -> Found:
    run = simulate(asked.plan, asked.deployment)
    timeline, theirs = run.timeline, rows(asked.folder / "requests.csv")
    timing = json.loads((asked.folder / "timing.json").read_text())
    first_ns = timeline.chunk_ns[timeline.chunk_offset[:-1]]
    exact = asked.deployment.pp == 1 and asked.deployment.system != "orca"
    return Found(
        asked.name,
        worst(first_ns - timeline.intended_ns, theirs, "ttft"),
        worst(timeline.ended_ns - timeline.intended_ns, theirs, "e2e"),
        (run.manifest.target["preemptions"], sum(int(row["num_restarts"]) for row in theirs)),
        (run.manifest.target["iterations"], timing["iterations"]),
        (loop_cpu_s(asked, repeats), timing["run_cpu"]),
        EXACT if exact else CLOSE,
    )


def worst(ours_ns: np.ndarray, theirs: list[dict[str, str]], column: str) -> float:
    """The largest relative difference of any request."""
    expected = np.array([float(row[column]) for row in theirs])
    return float(np.abs(ours_ns / 1e9 / expected - 1).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracle", type=Path, default=Path("../shared/vidur_oracle"))
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    folders = sorted(path.parent for path in asked.oracle.glob("results/*/requests.csv"))
    if not folders:
        print(f"no results of Vidur in {asked.oracle}", file=sys.stderr)
        return 2
    found = [compare(case(asked.oracle, folder), asked.repeats) for folder in folders]
    print(
        f"{'run':42}{'ttft':>9}{'e2e':>9}  {'restarts':>9}  {'iterations':>15}  {'CPU s':>14}  ratio"
    )
    for one in found:
        print(
            f"{one.name:42}{one.ttft:9.1e}{one.e2e:9.1e}  {one.restarts[0]:4}/{one.restarts[1]:<4}"
            f"  {one.iterations[0]:7}/{one.iterations[1]:<7}  {one.cpu_s[0]:6.3f}/{one.cpu_s[1]:<7.2f}"
            f"  {one.ratio:5.0f}{'' if one.met else '   MISSED'}"
        )
    mean = math.exp(sum(math.log(one.ratio) for one in found) / len(found))
    print(f"geometric mean of the CPU ratios: {mean:.0f} (target {MEAN:.0f}; each {EACH:.0f})")
    return 0 if mean >= MEAN and all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
