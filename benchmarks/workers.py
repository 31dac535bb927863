"""Workers: what a token costs when two processes share the streams, beside one.

    python -m benchmarks.workers [--streams 1024] [--seconds 10] [--repeats 3]

The same closed loop with --workers 1 and 2, interleaved. All workers are pinned to the one core that the server leaves
(on a machine with more cores: to all the others), so this is the cost of sharing, not its speed. Start-up, measured
with one request, is subtracted from each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.stage import (
    SERVER_CORE,
    Schedule,
    Target,
    conditions,
    errors,
    inferometer,
    judge,
    note,
    number,
    observed_run,
    serving,
    spend,
    table,
)


class Shared(NamedTuple):
    """One run with some number of workers."""

    workers: int
    net_us: float
    all_us: float
    stamp_p99_us: float
    joined: float


def main() -> int:
    """Measure one and two workers; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(conditions())
    runs = [
        measure(workers, options.streams, options.seconds)
        for _ in range(options.repeats)
        for workers in (1, 2)
    ]
    one, two = (typical([run for run in runs if run.workers == workers]) for workers in (1, 2))
    head = ["workers", "CPU µs/token net", "all", "stamp err p99 µs", "requests joined"]
    print(table(head, [[number(figure) for figure in row] for row in (one, two)]))
    return judge([Target("two workers over one, net", two.net_us / one.net_us, 1.15, "×")])


def typical(runs: list[Shared]) -> Shared:
    """The median of each figure."""
    return Shared(*(float(np.median(column)) for column in zip(*runs, strict=True)))


def measure(workers: int, streams: int, seconds: float) -> Shared:
    """One closed-loop run, less the start-up of as many workers."""
    baseline_s, _, _, _ = play(workers, workers, ["--requests", workers], seconds)
    cpu_s, tokens, stamp_p99_us, joined = play(
        workers, streams, ["--duration", f"{seconds}s"], seconds
    )
    return Shared(
        workers, (cpu_s - baseline_s) / tokens * 1e6, cpu_s / tokens * 1e6, stamp_p99_us, joined
    )


def play(
    workers: int, streams: int, much: list[object], seconds: float
) -> tuple[float, int, float, int]:
    """(CPU seconds, tokens, p99 error of the stamps in µs, requests found in both logs)."""
    schedule = Schedule()
    room = int(schedule.rate(streams) * (2 * seconds + 10)) + 10_000
    limit_s = 4 * seconds + 60
    cores = sorted(os.sched_getaffinity(0) - {SERVER_CORE})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(schedule, folder, room_for=room, seconds=int(limit_s) + 10) as server:
            how = ["--concurrency", streams, *much, "--workers", workers]
            how += ["--prompt-tokens", 16, "--output-tokens", schedule.tokens]
            argv = inferometer("measure", server.url, *how, "-o", folder / "run")
            cost = spend(argv, folder, timeout_s=limit_s, cores=cores)
        note(server)
        if not (folder / "run" / "timeline.parquet").exists():
            raise SystemExit(f"inferometer measure ended with {cost.code}: {cost.said[-500:]}")
        found = errors(observed_run(folder / "run"), server.truth)
    return cost.cpu_s, server.truth.tokens, found.stamp_p99_us, found.joined


if __name__ == "__main__":
    sys.exit(main())
