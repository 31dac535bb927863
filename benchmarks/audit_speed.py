"""Audit: how long a study of many large runs takes to judge.

    python -m benchmarks.audit_speed [--runs 100] [--requests 10000]

Two simulated systems on two workloads, each run once and written again and again as repeats of a study: reading, reducing
and judging cost what they would cost of as many different runs. Runs stand in a temporary folder (about 1 MB per 1,000
requests), which is removed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from itertools import product
from pathlib import Path

import msgspec

from benchmarks.stage import Target, conditions, judge
from inferometer.audit import audit, evaluation_of
from inferometer.run import Run, write_run
from inferometer.sim.simulate import Deployment, simulate
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Poisson

SYSTEMS = ("vllm-v1", "sarathi-serve")
WORKLOADS = {"azure-conv-2023": 6.0, "azure-code-2023": 6.0}


def main() -> int:
    """Write, judge, tell; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory() as folder:
        chunks = written(Path(folder), options.runs, options.requests)
        begin = time.perf_counter()
        evaluation = evaluation_of(sorted(Path(folder).iterdir()))
        read_s = time.perf_counter() - begin
        report = audit(evaluation)
        seconds = time.perf_counter() - begin
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    verdicts = {name: finding.verdict for name, finding in report.findings().items()}
    print(f"{len(evaluation.points)} runs, {chunks:,} tokens; reading {read_s:.1f} s; {verdicts}")
    return judge([Target("audit", seconds, 60, "s"), Target("peak memory", peak_gb, 4, "GB")])


def written(folder: Path, runs: int, requests: int) -> int:
    """Write `runs` run directories; the tokens in all of them."""
    made = {}
    for system, (workload, rate) in product(SYSTEMS, WORKLOADS.items()):
        asked = WorkloadSpec(profile=workload, requests=requests, arrivals=Poisson(rate=rate))
        deployment = Deployment(system=system, model="llama-3.1-8b", device="h100")
        made[system, workload] = simulate(make_plan(asked, 1), deployment)
    kinds = list(made)
    for k in range(runs):
        key = kinds[k % len(kinds)]
        write_run(repeat_of(made[key], *key, k // len(kinds)), folder / f"run-{k:03d}")
    return sum(made[kinds[k % len(kinds)]].timeline.chunks for k in range(runs))


def repeat_of(run: Run, system: str, workload: str, repeat: int) -> Run:
    """The same run as another repeat of a study."""
    place = {"fingerprint": "x", "cell": f"{system}-{workload}-{repeat}", "split": "headline"}
    place |= {"system": system, "model": "", "workload": workload, "repeat": repeat}
    manifest = msgspec.structs.replace(
        run.manifest,
        spec=run.manifest.spec | {"study": place | {"load": {"kind": "rate", "value": 6.0}}},
        workload=run.manifest.workload | {"fingerprint": f"{workload}-{repeat}"},
    )
    return Run(run.timeline, manifest, run.plan)


if __name__ == "__main__":
    raise SystemExit(main())
