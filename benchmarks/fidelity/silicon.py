"""Real engines on H100 to GB300 beside the simulator: median absolute error of TTFT and TPOT per system and precision.

    python -m benchmarks.fidelity.silicon [--data ../shared/silicon_sample.csv] [--family dense|moe|all] [--rows] [--json]

A row is a steady closed loop: lengths, concurrency, parallelism and what came of it (TTFT and TPOT, means). How rows of one
kind were loaded is known (InferenceMAX: lengths uniform in 0.8-1 of the nominal ones, ten requests a slot, the first wave
at once); of the others only the lengths are, so that their TTFT is mostly the unknown protocol: read their TPOT.
Every third row was looked at while the constants of narrow GEMMs and the host's time were chosen; those rows are left
out (--fitted shows them instead). Rows of disaggregated servers, of expert- or data-parallel attention, and of models that
the simulator does not know are counted, not scored. Exits with 1 if the dense bf16 or fp8 rows miss 15 % in TPOT, or those
of the known protocol in TTFT.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inferometer.errors import UserError
from inferometer.metrics import latency
from inferometer.plan import build_plan
from inferometer.sim import Deployment, Limits, simulate
from inferometer.timeline import ABSENT

TARGET = 0.15
MODELS = {
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "deepseek-ai/DeepSeek-R1": "deepseek-v3",
    "deepseek-ai/DeepSeek-V3": "deepseek-v3",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-v3",
}
MOE = ("gpt-oss-120b", "qwen3-235b-a22b", "deepseek-v3")
Row = dict[str, str]


class Found(NamedTuple):
    """Relative errors of one row, and whether its protocol is known."""

    key: tuple[str, ...]  # family, model, system, precision, backend
    known: bool
    ttft: float
    tpot: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/silicon_sample.csv"))
    parser.add_argument("--family", choices=("dense", "moe", "all"), default="all")
    parser.add_argument("--fitted", action="store_true", help="the rows that were looked at")
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with asked.data.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "agg"]
    chosen = [row for i, row in enumerate(rows) if (i % 3 == 0) == asked.fitted]
    left: Counter[str] = Counter()
    found = [one for row in chosen if (one := predict(row, left, asked)) is not None]
    return report(found, left, as_json=asked.json)


def predict(row: Row, left: Counter[str], asked: argparse.Namespace) -> Found | None:
    """The errors of a row; None, and counted, where it is not for the simulator."""
    model = MODELS.get(row["model_path"])
    if model is None or asked.family not in ("all", "moe" if model in MOE else "dense"):
        left[row["model_path"] if model is None else "another family"] += 1
        return None
    if row["attention_dp_size"] not in ("", "0", "1") or row["moe_ep_size"] not in ("", "0", "1"):
        left["expert- or data-parallel attention"] += 1
        return None
    try:
        ttft_ms, tpot_ms = simulated(row, model)
    except UserError as error:
        left[str(error).split(";")[0]] += 1
        return None
    if asked.rows:
        print(
            f"{row['id']:80} {row['silicon_ttft_ms']:.7} {ttft_ms:.1f} {row['silicon_tpot_ms']:.6} {tpot_ms:.2f}"
        )
    family = "moe" if model in MOE else "dense"
    key = (family, model, row["system"], precision(row), row["backend"])
    ttft = ttft_ms / float(row["silicon_ttft_ms"]) - 1
    return Found(key, protocol_known(row), ttft, tpot_ms / float(row["silicon_tpot_ms"]) - 1)


def simulated(row: Row, model: str) -> tuple[float, float]:
    """Mean TTFT and TPOT [ms] of the row's closed loop."""
    slots, known = int(row["batch_size"]), protocol_known(row)
    requests = slots * (10 if known else 5)
    rng = np.random.default_rng(1)
    low = 0.8 if known else 1.0
    prompts = np.maximum(int(row["isl"]) * rng.uniform(low, 1, requests), 1).astype(int)
    outputs = np.maximum(int(row["osl"]) * rng.uniform(low, 1, requests), 2).astype(int)
    plan = build_plan(
        requests,
        intended_ns=[ABSENT] * requests,
        prompt_tokens=prompts,
        output_tokens=outputs,
        concurrency=slots,
    )
    deployment = Deployment(
        system="vllm-v1",
        model=model,
        device=row["system"].removesuffix("_sxm"),
        tp=int(row["tp_size"]),
        precision=precision(row),
        limits=Limits(max_batched_tokens=8192, max_batch=max(slots, 8)),
    )
    timeline = simulate(plan, deployment).timeline
    ttft = latency.ttft(timeline)
    tpot = (latency.ttlt(timeline) - ttft) / (outputs - 1)
    return float(ttft.mean()) * 1e3, float(tpot.mean()) * 1e3


def precision(row: Row) -> str:
    return row["precision"] or "bf16"


def protocol_known(row: Row) -> bool:
    """Rows of InferenceMAX, by its exports' names; the others come from private gap analyses."""
    return "gap-analysis" not in row["silicon_data_source"]


def report(found: list[Found], left: Counter[str], *, as_json: bool) -> int:
    groups: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for one in found:
        family, model, system, width, backend = one.key
        groups[family, model, system, width, backend].append(one)
        if family == "dense" and width in ("bf16", "fp8"):
            groups["all dense", "", "", width, ""].append(one)
            groups["all dense", "", "", "bf16 + fp8", ""].append(one)
        if family == "moe":
            groups["all moe", "", "", width, ""].append(one)
    lines = [line(key, ones) for key, ones in sorted(groups.items())]
    if as_json:
        print(json.dumps({"groups": lines, "left_out": dict(left)}, indent=1))
    else:
        table(lines, left)
    dense = [one for one in lines if one["precision"] == "bf16 + fp8"]
    return int(any((one[name] or 0.0) > TARGET for one in dense for name in ("tpot", "ttft")))


def line(key: tuple[str, ...], ones: list[Found]) -> dict[str, object]:
    """Median absolute errors and median errors; TTFT of rows of the known protocol, and of the others."""
    family, model, system, width, backend = key
    out: dict[str, object] = {
        "family": family,
        "model": model,
        "system": system,
        "precision": width,
        "backend": backend,
        "rows": len(ones),
    }
    tpot = np.array([one.tpot for one in ones])
    out |= {"tpot": float(np.median(abs(tpot))), "tpot_bias": float(np.median(tpot))}
    for name, known in (("ttft", True), ("ttft_unknown", False)):
        ttft = np.array([one.ttft for one in ones if one.known == known])
        out[name] = float(np.median(abs(ttft))) if len(ttft) else None
        out[f"{name}_bias"] = float(np.median(ttft)) if len(ttft) else None
    return out


def table(lines: list[dict[str, object]], left: Counter[str]) -> None:
    def cell(one: dict[str, object], name: str) -> str:
        value, bias = one[name], one[f"{name}_bias"]
        return "-" if value is None else f"{value:.0%} ({bias:+.0%})"

    print("median absolute error (median error)")
    print(f"{'':62}{'rows':>5}{'TPOT':>14}{'TTFT':>14}{'TTFT, unknown':>16}")
    for one in lines:
        names = [str(one[k]) for k in ("family", "model", "system", "precision", "backend")]
        columns = "".join(
            f"{cell(one, name):>{wide}}"
            for name, wide in (("tpot", 14), ("ttft", 14), ("ttft_unknown", 16))
        )
        print(f"{' '.join(n for n in names if n):62}{one['rows']:>5}{columns}")
    print("left out: " + "; ".join(f"{count} {why}" for why, count in left.most_common()))


if __name__ == "__main__":
    sys.exit(main())
