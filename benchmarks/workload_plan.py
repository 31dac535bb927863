"""Planning: how long it takes to decide a workload before t = 0, on one core.

python -m benchmarks.workload_plan [--traces ../shared/traces]

1 M requests   CPU seconds of `make_plan` for each profile that ships, and for a plain Poisson workload
Mooncake       the 12,031-row conversation trace, from its original file to a plan with shared prefixes
fingerprint    of the largest of these plans
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.stage import Target, conditions, judge
from inferometer.plan import Plan
from inferometer.workload import WorkloadSpec, cached_share, make_plan, shipped_profiles

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = 1_000_000


def main() -> int:
    """Measure all; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    options = parser.parse_args()
    print(conditions())
    targets = [_planned("poisson, lognormal lengths", WorkloadSpec(requests=REQUESTS))]
    for name in shipped_profiles():
        spec = WorkloadSpec(profile=name, requests=REQUESTS)
        targets.append(_planned(f"1 M requests of {name}", spec))
    file = options.traces / "original_format" / "mooncake_fast25_conversation_trace.jsonl"
    if file.is_file():
        targets.append(_mooncake(file))
    return judge(targets)


def _planned(what: str, spec: WorkloadSpec) -> Target:
    plan, seconds = _timed(lambda: make_plan(spec))
    assert len(plan) == REQUESTS
    _, digest = _timed(lambda: plan.fingerprint)
    print(f"{what}: {seconds:.2f} s, fingerprint {digest:.2f} s, {len(plan.block_id):,} block ids")
    return Target(what, seconds, 5.0, "CPU-s")


def _mooncake(file: Path) -> Target:
    plan, seconds = _timed(lambda: make_plan(WorkloadSpec(trace=str(file))))
    assert isinstance(plan, Plan)
    print(f"Mooncake conversation: {len(plan):,} rows, {cached_share(plan):.1%} could be cached")
    return Target("Mooncake conversation, file to plan", seconds, 5.0, "CPU-s")


def _timed(make: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    return make(), time.process_time() - begin


if __name__ == "__main__":
    raise SystemExit(main())
