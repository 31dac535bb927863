"""Long tables: how fast 27 million rows of CSV are read, described and made a profile of on one core, in how much memory.

python -m benchmarks.workload_stream [--rows 27000000] [--files FOLDER]

A CSV in the format of Azure's 2024 traces (27 million rows, 1.1 GB) is written to a temporary folder. Each way of reading
it is a process of its own, pinned to one core; its memory is the peak of what is resident, Python and Arrow included.

    batches     `read_batches`: one block at a time; memory must not grow with the file
    describe    `inferometer describe FILE --save ...`, whole: counted while it is read; nor may it here
    read_trace  all columns at once: 16 bytes a row stay, 24 while they are put together
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

from benchmarks.stage import Target, conditions, judge, table

WAYS = {
    "batches": "from inferometer.workload import read_batches\nrows = sum(map(len, read_batches(sys.argv[1])))",
    "describe": """
from inferometer.workload import describe, profile_of, save_profile
from inferometer.workload.tally import read_or_tally
counted = read_or_tally(sys.argv[1])
told = describe(counted)
save_profile(profile_of(counted, "big"), sys.argv[2])
rows = told["rows"]
""",
    "read_trace": "from inferometer.workload import read_trace\nrows = len(read_trace(sys.argv[1]))",
}
CHILD = """
import json, resource, sys, time
begin = time.process_time()
{way}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"rows": rows, "cpu_s": time.process_time() - begin, "peak_mb": peak}}))
"""


def main() -> int:
    """Write, read, judge; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=27_000_000)
    parser.add_argument("--files", type=Path, help="where to put the file  [a temporary folder]")
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory(dir=options.files) as folder:
        file = written(Path(folder) / "trace.csv", options.rows)
        print(f"{options.rows:,} rows, {file.stat().st_size / 1e9:.2f} GB")
        told = {name: _run(way, file) for name, way in WAYS.items()}
    rows = [
        [
            name,
            f"{one['rows'] / one['cpu_s'] / 1e6:.2f}",
            f"{one['cpu_s']:.1f}",
            f"{one['peak_mb']:.0f}",
        ]
        for name, one in told.items()
    ]
    print("\n" + table(["", "M rows/s/core", "CPU-s", "peak MB"], rows))
    assert all(one["rows"] == options.rows for one in told.values())
    speeds = [
        Target(f"{name}: rows", one["rows"] / one["cpu_s"] / 1e6, 1.0, "M/s/core", at_least=True)
        for name, one in told.items()
    ]
    kept = told["read_trace"]["peak_mb"] - 24e-6 * options.rows
    return judge(
        [
            *speeds,
            Target("batches: peak memory", told["batches"]["peak_mb"], 300, "MB"),
            Target("describe: peak memory", told["describe"]["peak_mb"], 500, "MB"),
            Target("read_trace: peak memory beyond 24 bytes a row", kept, 400, "MB"),
        ]
    )


def _run(way: str, file: Path) -> dict[str, float]:
    """One way of reading, in a process of its own on one core."""
    core = min(os.sched_getaffinity(0))
    script = CHILD.format(way=way)
    saved = file.with_name("profile.json")
    command = ["taskset", "-c", str(core), sys.executable, "-c", script, str(file), str(saved)]
    done = subprocess.run(command, check=True, capture_output=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


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
