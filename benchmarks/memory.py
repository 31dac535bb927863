"""Memory: resident size with 1,024 streams, and what each further token adds.

    python -m benchmarks.memory [--streams 1024] [--seconds 6,24] [--repeats 3]

The same closed loop for two durations. *live* is the peak while tokens were arriving, *peak* that of the whole command
(reading the spool, scoring and writing the run directory included), both summed over all processes of the tool, from
VmHWM in /proc. Growth per token is the difference of the peaks over the difference of the tokens.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.stage import (
    Schedule,
    Target,
    conditions,
    inferometer,
    judge,
    note,
    number,
    serving,
    spend,
    table,
)


class Memory(NamedTuple):
    """Tokens served and megabytes taken."""

    seconds: float
    tokens: float
    live_mb: float
    peak_mb: float


def main() -> int:
    """Measure both durations; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", type=int, default=1024)
    parser.add_argument("--seconds", default="6,24", help="a short and a long duration")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    short_s, long_s = (float(part) for part in options.seconds.split(","))
    print(conditions())
    short, long = (typical(options.streams, s, options.repeats) for s in (short_s, long_s))
    rows = [[number(figure, 4) for figure in one] for one in (short, long)]
    print(table(["seconds", "tokens", "live MB", "peak MB"], rows))
    more = long.tokens - short.tokens
    growth = [
        (b - a) * 1e6 / more
        for a, b in ((short.live_mb, long.live_mb), (short.peak_mb, long.peak_mb))
    ]
    return judge(
        [
            Target(f"{options.streams} streams, peak", short.peak_mb, 150, "MB"),
            Target("growth while live", growth[0], 16, "bytes/token"),
            Target("growth of the peak", growth[1], 16, "bytes/token"),
        ]
    )


def typical(streams: int, seconds: float, repeats: int) -> Memory:
    """The median of each figure."""
    runs = [measure(streams, seconds) for _ in range(repeats)]
    return Memory(*(float(np.median(column)) for column in zip(*runs, strict=True)))


def measure(streams: int, seconds: float) -> Memory:
    """One closed-loop run."""
    schedule = Schedule()
    room = int(schedule.rate(streams) * (2 * seconds + 10))
    limit_s = 4 * seconds + 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(schedule, folder, room_for=room, seconds=int(limit_s) + 10) as server:
            how = ["--concurrency", streams, "--duration", f"{seconds}s"]
            how += ["--prompt-tokens", 16, "--output-tokens", schedule.tokens]
            argv = inferometer("measure", server.url, *how, "-o", folder / "run")
            cost = spend(argv, folder, timeout_s=limit_s)
        note(server)
    if cost.code not in {0, 3} or not server.truth.tokens:
        raise SystemExit(f"inferometer measure ended with {cost.code}: {cost.said[-500:]}")
    end = int(server.truth.wrote_ns.max())
    return Memory(seconds, server.truth.tokens, cost.rss_mb_until(end), cost.rss_mb)


if __name__ == "__main__":
    sys.exit(main())
