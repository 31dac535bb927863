"""The mechanics against Vidur's own results: every request, to 1e-6. Needs ../shared/vidur_oracle."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from inferometer.plan import build_plan
from inferometer.sim import Deployment, Limits, simulate

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "vidur_oracle"
L8 = {"model": "meta-llama/Meta-Llama-3-8B", "cost": "llama3-8b_a100_tp1"}
CASES = {
    "l8_tp1_vllm_conv1000_q4": L8 | {"system": "vllm"},
    "l8_tp1_sarathi512_conv1000_q4": L8 | {"system": "sarathi-serve"},
    "l8_tp1_sarathi512_lowmem_conv1000_q8": L8
    | {"system": "sarathi-serve", "limits": Limits(num_blocks=1500)},
    "l70_tp2pp2_sarathi512_conv1000_q1": {
        "system": "sarathi-serve",
        "model": "meta-llama/Llama-2-70b-hf",
        "cost": "llama2-70b_a100_tp2_pp2",
        "tp": 2,
        "pp": 2,
    },
    "l7_tp1_orca_cap4_conv1000_q1": {
        "system": "orca",
        "model": "meta-llama/Llama-2-7b-hf",
        "cost": "llama2-7b_a100_tp1",
        "limits": Limits(max_batch=4),
    },
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.traces
@pytest.mark.parametrize("name", CASES)
def test_every_request_is_timed_as_vidur_times_it(name):
    """TTFT, e2e and the first schedule agree within 1e-6 relative; restarts agree in number."""
    if not ORACLE.is_dir():
        pytest.skip("no results of Vidur beside the checkout (../shared/vidur_oracle)")
    trace = rows(ORACLE / "traces" / ("_".join(name.split("_")[-2:]) + ".csv"))
    plan = build_plan(
        len(trace),
        intended_ns=[round(float(row["arrived_at"]) * 1e9) for row in trace],
        prompt_tokens=[int(row["num_prefill_tokens"]) for row in trace],
        output_tokens=[int(row["num_decode_tokens"]) for row in trace],
    )
    case = dict(CASES[name])
    case["cost"] = f"vidur:{ORACLE / 'tables' / case['cost']}.npz"
    run = simulate(plan, Deployment(compat="vidur", **case))
    timeline, theirs = run.timeline, rows(ORACLE / "results" / name / "requests.csv")
    first_ns = timeline.chunk_ns[timeline.chunk_offset[:-1]]
    for ours_ns, column in (
        (first_ns - timeline.intended_ns, "ttft"),
        (timeline.ended_ns - timeline.intended_ns, "e2e"),
        (timeline.scheduled_ns, "scheduled_at"),
    ):
        expected = np.array([float(row[column]) for row in theirs])
        np.testing.assert_allclose(ours_ns / 1e9, expected, rtol=1e-6, atol=1e-9)
    assert run.manifest.target["preemptions"] == sum(int(row["num_restarts"]) for row in theirs)
