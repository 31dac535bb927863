"""Profiles: how near what they draw comes to the traces that they were made from.

python -m benchmarks.workload_profiles [--traces ../shared/traces]

ServeGen's pools are not requests but rates and distributions: their arrivals are held against one day played from the
published windows, their lengths against the published distributions, weighted by rate; a ratio is not published.

KS      Kolmogorov-Smirnov distance of prompt, output and prompt:output, of 200,000 requests drawn
IDC     index of dispersion at 1, 10, 60, 300 s: mean of 16 seeds over the source's
cached  share of prompt tokens that an infinite prefix cache would hold
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scripts.make_profiles import Paths, Pdfs, played, pool

from benchmarks.stage import Target, conditions, judge, table
from inferometer.clock import SECOND
from inferometer.workload import WorkloadSpec, cached_share, make_plan, read_trace
from inferometer.workload.burstiness import WINDOWS_S, idc
from inferometer.workload.replay import spread
from inferometer.workload.sharing import shared
from inferometer.workload.traces import Trace

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "azure-code-2023": "azure2023_code",
    "azure-conv-2023": "azure2023_conv",
    "mooncake-arxiv": "mooncake_arxiv",
    "mooncake-conversation": "mooncake_fast25_conversation",
    "claude-code-agent": "claude_code_kvct",
    "sharegpt-8k": "etalon_sharegpt_8k_lengths",
    "arxiv-summarization": "etalon_arxiv_summarization_lengths",
    "bwb": "etalon_bwb_lengths",
}
POOLS = {"deepseek-r1": "deepseek-r1", "servegen-mm-image": "mm-image"}  # profile -> model
SEEDS = 16
DAY_S = 86_400.0


def main() -> int:
    """Compare every profile with its source; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    options = parser.parse_args()
    print(conditions())
    rows, targets = [], []
    for name, file in SOURCES.items():
        trace = read_trace(options.traces / f"{file}.parquet")
        distances = ks(name, trace)
        bursts = dispersion(name, trace)
        cached = caching(name, trace)
        rows.append(
            [
                name,
                " / ".join(f"{d:.3f}" for d in distances),
                " / ".join(f"{pair[1] / pair[0]:.2f}" for pair in bursts) or "-",
                "-" if cached is None else f"{cached[1]:.3f} of {cached[0]:.3f}",
            ]
        )
        targets.append(Target(f"{name}: largest KS", max(distances), 0.02))
        if bursts:
            worst = max(abs(drawn / source - 1) for source, drawn in bursts)
            targets.append(Target(f"{name}: IDC off by", worst, 0.25))
    for name, model in POOLS.items():
        distances, bursts = pooled(name, model, options.traces)
        rows.append(
            [
                name,
                " / ".join(f"{d:.3f}" for d in distances) or "-",
                " / ".join(f"{pair[1] / pair[0]:.2f}" for pair in bursts),
                "-",
            ]
        )
        if distances:
            targets.append(Target(f"{name}: largest KS", max(distances), 0.02))
        worst = max(abs(drawn / source - 1) for source, drawn in bursts)
        targets.append(Target(f"{name}: IDC off by", worst, 0.25))
    print("\n" + table(["", "KS prompt / output / P:D", "IDC drawn over source", "cached"], rows))
    return judge(targets)


def ks(name: str, trace: Trace) -> list[float]:
    """Distances of prompt, output and prompt:output."""
    plan = make_plan(WorkloadSpec(profile=name, requests=200_000))
    output = np.maximum(trace.output_tokens, 1)
    pairs = (
        (plan.prompt_tokens, trace.prompt_tokens),
        (plan.output_tokens, output),
        (plan.prompt_tokens / plan.output_tokens, trace.prompt_tokens / output),
    )
    return [float(stats.ks_2samp(*pair).statistic) for pair in pairs]


def dispersion(name: str, trace: Trace) -> list[tuple[float, float]]:
    """(source, drawn) at each window; nothing where the source has no times."""
    if trace.arrival_ns is None:
        return []
    source = spread(trace, detick=True, seed=0)[0] / SECOND
    span = float(source[-1])
    drawn = [
        make_plan(WorkloadSpec(profile=name, duration_s=span), seed).intended_ns / SECOND
        for seed in range(SEEDS)
    ]
    return [
        (idc(source, window), float(np.mean([idc(times, window, span) for times in drawn])))
        for window in WINDOWS_S
    ]


def pooled(name: str, model: str, traces: Path) -> tuple[list[float], list[tuple[float, float]]]:
    """Distances of prompt and output where they are published, and (source, drawn) dispersion of a day."""
    paths = Paths(traces, None)
    windows = pool(paths, model)
    source = played(windows)
    plans = [make_plan(WorkloadSpec(profile=name, duration_s=DAY_S), seed) for seed in range(3)]
    drawn = [plan.intended_ns / SECOND for plan in plans]
    bursts = [
        (idc(source, w, DAY_S), float(np.mean([idc(times, w, DAY_S) for times in drawn])))
        for w in WINDOWS_S
    ]
    if model != "deepseek-r1":
        return [], bursts
    pdfs = Pdfs(paths)
    return [
        apart(*pdfs.weighted("input_tokens", windows), plans[0].prompt_tokens),
        apart(*pdfs.weighted("output_tokens", windows), plans[0].output_tokens),
    ], bursts


def apart(values: Any, edge: Any, drawn: Any) -> float:
    """The Kolmogorov-Smirnov distance of drawn lengths from a published distribution."""
    last = np.append(values[1:] != values[:-1], True)
    below = np.searchsorted(np.sort(drawn), values[last], side="right") / len(drawn)
    return float(np.abs(below - edge[last]).max())


def caching(name: str, trace: Trace) -> tuple[float, float] | None:
    """(source, drawn) share of prompt tokens that could be cached."""
    if trace.blocks is None:
        return None
    known = shared(trace.blocks, trace.prompt_tokens).tokens.sum()
    plan = make_plan(WorkloadSpec(profile=name, requests=50_000))
    return float(known / trace.prompt_tokens.sum(dtype=np.int64)), cached_share(plan)


if __name__ == "__main__":
    raise SystemExit(main())
