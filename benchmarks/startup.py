"""Start-up: what the tool costs before it measures anything, and what it takes to install.

python -m benchmarks.startup [--no-install]

help       wall time of `inferometer --help`, the median of 9 after one to warm the file cache
6 requests CPU seconds of `inferometer measure URL --requests 6 --concurrency 6`, all its processes, against the C
           server (whose own cost is not counted), and of the same without a URL (the emulated server counted)
install    `pip install <this repository>` into an empty venv: wall time with pip's cache off, and how much the
           venv grew; needs a package index
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stage import (
    Schedule,
    Target,
    conditions,
    inferometer,
    judge,
    pinned,
    serving,
    spend,
)

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = Schedule(ttft_ms=50.0, gap_ms=10.0, tokens=32)
SIX = ["--requests", 6, "--concurrency", 6, "--output-tokens", SHORT.tokens]


def main() -> int:
    """Measure all three; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--no-install", action="store_true", help="leave the installation out")
    options = parser.parse_args()
    print(conditions())
    targets = [
        Target("inferometer --help", help_s(), 0.3, "s"),
        Target("6 requests, client only", six_requests_s(given_url=True), 1.5, "CPU-s"),
        Target(
            "6 requests, with its emulated server", six_requests_s(given_url=False), 1.5, "CPU-s"
        ),
    ]
    return judge(targets + ([] if options.no_install else install()))


def help_s() -> float:
    """Median wall time of --help."""
    argv = pinned(inferometer("--help"), (0,))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def six_requests_s(*, given_url: bool) -> float:
    """Median CPU seconds of three runs of six requests."""
    return float(np.median([_six(given_url) for _ in range(3)]))


def _six(given_url: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(SHORT, folder, room_for=10_000, seconds=120) as server:
            url: list[Any] = [server.url] if given_url else []
            argv = inferometer("measure", *url, *SIX, "-o", folder / "run")
            cost = spend(argv, folder, timeout_s=60, cores=(0, 1))
    if cost.code:
        raise SystemExit(f"inferometer measure ended with {cost.code}: {cost.said[-500:]}")
    return cost.cpu_s


def install() -> list[Target]:
    """Time and size of an installation of the core."""
    with tempfile.TemporaryDirectory() as name:
        venv = Path(name) / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        before = size_mb(venv)
        start = time.perf_counter()
        pip = [venv / "bin" / "pip", "install", "--quiet", "--no-cache-dir", REPOSITORY]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        took_s = time.perf_counter() - start
        bytecode = size_mb(venv, "*.pyc")
        print(f"of the venv, bytecode that pip compiled: {bytecode:.0f} MB")
        return [
            Target("pip install, empty venv", took_s, 60, "s"),
            Target("what it adds to the venv", size_mb(venv) - before, 450, "MB"),
        ]


def size_mb(folder: Path, pattern: str = "*") -> float:
    """What the files of a folder take on disk, in MB of 10^6 bytes."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob(pattern)) / 1e6


if __name__ == "__main__":
    sys.exit(main())
