"""Measures two emulated servers from Python and says what a user would feel of the difference.

    python examples/compare_two_schedules.py

The second server is faster on average, and stops for a second in the middle of each reply. TPOT prefers it; the stall
shows in max_gap and stall_time. The fluidity-index forgives it: the tokens that came early before it cover the wait.
"""

import tempfile
from pathlib import Path

from inferometer import score
from inferometer.emulator import Schedule, serve_child
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.workload import WorkloadSpec, make_plan

STEADY = Schedule(ttft_s=0.2, gap_s=0.03)
STALLING = Schedule(ttft_s=0.2, gap_s=0.015, stall_s=1.0, stall_every=64)


def main() -> None:
    """Measure both with the same plan, and print four figures of each."""
    spec = WorkloadSpec(
        arrivals="closed:concurrency=8", prompt_tokens=64, output_tokens=100, requests=16
    )
    plan = make_plan(spec)
    with tempfile.TemporaryDirectory() as folder:
        for name, schedule in (("steady", STEADY), ("stalling", STALLING)):
            with serve_child(schedule) as url:
                run = measure(plan, find([url]), Drive(), Path(folder) / name, asked={})
            card = score(run)
            figures = ", ".join(
                f"{metric} {card.row(metric).mean:.3f}"
                for metric in ("tpot", "max_gap", "stall_time", "fluidity_index")
            )
            print(f"{name:9} mean: {figures}")


if __name__ == "__main__":
    main()
