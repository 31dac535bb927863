"""Reading: how fast a long CSV trace is read on one core, and in how much memory.

python -m benchmarks.workload_traces [--rows 27000000]

A CSV in the format of Azure's 2024 traces (27 million rows, 1.3 GB) is written to a temporary folder, then read and
described in a process of its own, pinned to one core. Memory that grows with the file is what is returned: 16 bytes a row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks.stage import Target, conditions, judge

CHILD = """
import json, resource, sys, time
from inferometer.workload import describe, read_trace
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
trace = read_trace(sys.argv[1])
read = time.process_time() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
told = describe(trace)
print(json.dumps({"rows": len(trace), "read_s": read, "described_s": time.process_time() - begin,
                  "grown_mb": (peak - base) / 1024, "problems": trace.problems.rows,
                  "median": told["prompt_tokens"]["p50"]}))
"""


def main() -> int:
    """Write, read, judge; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=27_000_000)
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder) / "trace.csv", options.rows)
        print(f"{options.rows:,} rows, {file.stat().st_size / 1e9:.2f} GB")
        core = min(os.sched_getaffinity(0))
        command = ["taskset", "-c", str(core), sys.executable, "-c", CHILD, str(file)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(told)
    assert told["rows"] == options.rows
    assert not told["problems"]
    return judge(
        [
            Target(
                "rows read", told["rows"] / told["read_s"] / 1e6, 1.0, "M/s/core", at_least=True
            ),
            Target("memory grown by", told["grown_mb"], 300 + 40e-6 * options.rows, "MB"),
            Target("described in", told["described_s"], 60.0, "CPU-s"),
        ]
    )


def written(file: Path, rows: int) -> Path:
    """A CSV like AzureLLMInferenceTrace_conv_1week: stamps of 6 digits with a zone, heavy-tailed lengths."""
    rng = np.random.default_rng(0)
    part = 1_000_000
    start = np.datetime64("2024-05-12T00:00:00", "us").astype(np.int64)
    with file.open("wb") as out:
        out.write(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for begin in range(0, rows, part):
            count = min(part, rows - begin)
            times = start + ((begin + np.arange(count)) * (604_800e6 / rows)).astype(np.int64)
            stamps = pa.array(times, pa.timestamp("us")).cast(pa.string())
            table = pa.table(
                {
                    "a": pa.compute.binary_join_element_wise(stamps, "+00:00", ""),
                    "b": pa.array(rng.lognormal(6.8, 1, count).astype(np.int32) + 1),
                    "c": pa.array(rng.lognormal(4, 1, count).astype(np.int32) + 1),
                }
            )
            options = csv.WriteOptions(include_header=False, quoting_style="none")
            csv.write_csv(table, out, options)
    return file


if __name__ == "__main__":
    raise SystemExit(main())
