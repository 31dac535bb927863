"""Scorecard: how long a large run takes to score, and in how much memory.

    python -m benchmarks.scorecard [--requests 100000] [--tokens 200]

The timeline is generated, and not kinder than a real one: a role-only chunk before each reply, 2 % failures, 1 % of
warm-up, a rare stall, bursts with --burst k. Each way of scoring has a process of its own, so that a peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.stage import Target, conditions, judge
from inferometer.clock import MILLISECOND, SECOND
from inferometer.metrics import score
from inferometer.run import Manifest, Run
from inferometer.timeline import Timeline, build, offsets

SLO = "ttft.p99 <= 0.5s and tbt.p99 <= 50ms; each: ttft <= 0.5s and fluidity_index >= 0.9; attainment >= 0.95"


def main() -> int:
    """Score with and without intervals; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=200, help="per request")
    parser.add_argument("--burst", type=int, default=1, help="tokens per chunk")
    parser.add_argument("--only", choices=("quick", "full"), help="in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(once(options)))
        return 0
    print(conditions())
    quick, full = (apart(kind) for kind in ("quick", "full"))
    print(f"{quick['tokens']:,} tokens of {options.requests:,} requests")
    return judge(
        [
            Target("without intervals", quick["seconds"], 3, "s"),
            Target("with intervals", full["seconds"], 15, "s"),
            Target("peak, without intervals", quick["peak_gb"], 3, "GB"),
            Target("peak, with intervals", full["peak_gb"], 3, "GB"),
        ]
    )


def apart(kind: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scorecard", *sys.argv[1:], "--only", kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def once(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to score (generating left out), and the peak of the whole process."""
    run = Run(generate(options), Manifest(instrument={"valid": True}))
    begin = time.perf_counter()
    score(run, SLO, intervals=options.only == "full").to_dict()
    return {
        "seconds": time.perf_counter() - begin,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "tokens": int(run.timeline.output_tokens.sum()),
    }


def generate(options: argparse.Namespace) -> Timeline:
    """A Poisson run at 100 requests/s: 50 to 500 ms to the role-only chunk, then 20 ms a chunk on average."""
    rng = np.random.default_rng(0)
    requests, chunks = options.requests, 1 + -(-options.tokens // options.burst)
    intended = np.cumsum(rng.exponential(SECOND / 100, requests)).astype(np.int64)
    gaps = rng.exponential(20 * MILLISECOND, (requests, chunks)).astype(np.int64)
    gaps[rng.random(gaps.shape) < 0.001] += SECOND
    gaps[:, 0] = rng.integers(50 * MILLISECOND, 500 * MILLISECOND, requests)
    np.cumsum(gaps, axis=1, out=gaps)
    gaps += intended[:, None]
    held = np.full((requests, chunks), options.burst, dtype=np.int32)
    held[:, 0] = 0
    row = np.arange(requests)
    return build(
        requests,
        request_id=[f"r{i}" for i in range(requests)],
        intended_ns=intended,
        sent_ns=intended,
        ended_ns=gaps[:, -1],
        status=np.where(row % 50 == 7, "truncated", "ok").astype(object),
        phase=np.where(row < requests // 100, "warmup", "measure").astype(object),
        prompt_tokens=512,
        output_tokens=held.sum(axis=1),
        chunk_offset=offsets(np.full(requests, chunks)),
        chunk_ns=gaps.ravel(),
        chunk_tokens=held.ravel(),
        chunk_channel=0,
    )


if __name__ == "__main__":
    sys.exit(main())
