"""Truth: what a tool printed of its run is what its imported run says under that tool's formulas; and both are near
what the emulator really wrote.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from inferometer.importers import read_results
from inferometer.metrics import conventions
from inferometer.metrics.tokens import first_token_ns, gaps_ns

MS, US = 1e-3, 1_000


def agree(ours: dict, printed: dict[str, float], scale: float = MS, rel: float = 1e-6) -> None:
    """Each printed statistic is ours, but for the rounding of stamps to ns."""
    for statistic, value in printed.items():
        assert ours[statistic] == pytest.approx(value * scale, rel=rel, abs=2e-9), statistic


@pytest.mark.parametrize("file", ["vllm.json", "vllm-chat.json"])
def test_vllm_bench_printed_what_its_imported_run_says(file, fixtures):
    """TTFT, TPOT, ITL, E2EL and rates; in a chat, its ITL counted the role event's gap of nothing."""
    printed = json.loads((fixtures / "vllm" / file).read_text())
    ours = conventions(read_results(fixtures / "vllm" / file).runs["01"])["vllm bench"]
    chat = "chat" in file
    for ours_name, name in (("tpot", "tpot"), ("ttft", "ttft"), ("e2el", "e2el"), ("itl", "itl")):
        told = {"mean": printed[f"mean_{name}_ms"]}
        told |= {f"p{p}": printed[f"p{p}_{name}_ms"] for p in (50, 90, 99)}
        if name == "itl" and chat:
            assert ours["itl"]["n"] == sum(map(len, printed["itls"])) - len(printed["itls"])
        else:  # the role event came some microseconds before the first token
            agree(ours[ours_name], told, rel=1e-3 if chat else 1e-6)
    rate = ours["request_rate"]["value"]  # vLLM's window begins before its first send
    assert printed["request_throughput"] <= rate * 1.0001
    assert rate == pytest.approx(printed["request_throughput"], rel=0.15)


def test_sglang_printed_what_its_imported_run_says(fixtures):
    """TTFT and ITL to rounding; its E2E goes on to the last byte, which it keeps for no request."""
    printed = json.loads((fixtures / "sglang/sglang.jsonl").read_text())
    ours = conventions(read_results(fixtures / "sglang/sglang.jsonl").runs["01"])["sglang"]
    for name in ("ttft", "itl"):
        told = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
        agree(ours[name], {key: printed[f"{word}_{name}_ms"] for key, word in told.items()})
    agree(ours["e2e"], {"mean": printed["mean_e2e_latency_ms"]}, rel=0.02)
    assert ours["e2e"]["mean"] <= printed["mean_e2e_latency_ms"] * MS
    assert ours["request_rate"]["value"] is None


def test_aiperf_printed_what_its_imported_run_says(fixtures):
    """TTFT, ITL (a mean per request) and latency, as its own summary has them."""
    printed = json.loads((fixtures / "aiperf/profile_export_aiperf.json").read_text())
    ours = conventions(read_results(fixtures / "aiperf").runs["01"])["aiperf"]
    names = {
        "ttft": "time_to_first_token",
        "itl": "inter_token_latency",
        "request_latency": "request_latency",
    }
    for name, theirs in names.items():
        found = printed[theirs]
        agree(
            ours[name],
            {"mean": found["avg"], **{k: found[k] for k in ("p50", "p90", "p95", "p99", "max")}},
        )


def test_guidellm_printed_what_its_imported_runs_say(fixtures):
    """All four latencies of both benchmarks, by its weighted inverse CDF."""
    printed = json.loads((fixtures / "guidellm/benchmarks.json").read_text())["benchmarks"]
    runs = read_results(fixtures / "guidellm").runs.values()
    names = {
        "ttft": ("time_to_first_token_ms", MS),
        "tpot": ("time_per_output_token_ms", MS),
        "itl": ("inter_token_latency_ms", MS),
        "request_latency": ("request_latency", 1.0),
    }
    for benchmark, run in zip(printed, runs, strict=True):
        ours = conventions(run)["guidellm"]
        for name, (theirs, scale) in names.items():
            found = benchmark["metrics"][theirs]["successful"]
            told = {p: found["percentiles"][p] for p in ("p50", "p90", "p95", "p99")}
            agree(ours[name], {"mean": found["mean"], "max": found["max"], **told}, scale, rel=1e-5)


def test_inference_perf_printed_what_its_imported_run_says(fixtures):
    """All five latencies (its tokenizer and the server count alike here)."""
    printed = json.loads((fixtures / "inference-perf/summary.json").read_text())["successes"][
        "latency"
    ]
    file = fixtures / "inference-perf/per_request_lifecycle_metrics.json"
    ours = conventions(read_results(file).runs["01"])["inference-perf"]
    names = {
        "ttft": "time_to_first_token",
        "tpot": "time_per_output_token",
        "ntpot": "normalized_time_per_output_token",
        "itl": "inter_token_latency",
        "request_latency": "request_latency",
    }
    for name, theirs in names.items():
        found = printed[theirs]
        told = {
            "p50": found["median"],
            **{p: found[p] for p in ("mean", "p90", "p95", "p99", "max")},
        }
        agree(ours[name], told, 1.0)


def test_evalscope_printed_what_its_imported_run_says(fixtures):
    """Averages, to the digits that it prints; its formulas are vLLM's."""
    printed = json.loads((fixtures / "evalscope/summary.json").read_text())["summary"]
    ours = conventions(read_results(fixtures / "evalscope").runs["01"])["vllm bench"]
    assert ours["ttft"]["mean"] == pytest.approx(printed["Avg TTFT (ms)"] * MS, abs=6e-6)
    assert ours["tpot"]["mean"] == pytest.approx(printed["Avg TPOT (ms)"] * MS, abs=60e-6)
    assert ours["itl"]["mean"] == pytest.approx(printed["Avg ITL (ms)"] * MS, abs=60e-6)


def truth(fixtures, tool: str) -> dict[str, np.ndarray]:
    """When the emulator wrote each token [ns], per request."""
    found = json.loads((fixtures / tool / "truth.json").read_text())
    return {name: np.array(at) * US for name, at in found.items()}


@pytest.mark.parametrize(
    ("tool", "file"),
    [("vllm", "vllm.json"), ("inference-perf", "per_request_lifecycle_metrics.json")],
)
def test_an_imported_stamp_is_never_before_the_token_was_written(tool, file, fixtures):
    """On one clock with the emulator: every token arrives after its write, half of them within 2 ms."""
    run = read_results(fixtures / tool / file).runs["01"]
    t, wrote = run.timeline, list(truth(fixtures, tool).values())
    rows = np.flatnonzero(t.ok)
    spare = [at for at in wrote if len(at) > 5]  # the others were cut off by a fault
    spare.sort(key=lambda at: at[0])
    lag = []
    for row in rows[np.argsort(first_token_ns(t)[rows])]:
        at = t.chunk_ns[t.chunk_offset[row] : t.chunk_offset[row + 1]] + int(t.intended_ns.min())
        match = next(
            w for w in spare if len(w) == len(at) and abs(w - at - _zero(t, run)).max() < 50e6
        )
        lag.append(at + _zero(t, run) - match)
    late = np.concatenate(lag)
    assert late.min() >= -2 * US
    assert np.median(late) < 2e6


def _zero(t, run) -> int:
    """The truth counts from the first send; the run from the first due time."""
    return -int(t.sent_ns.min())


def test_aiperfs_gaps_are_the_emulators(fixtures):
    """Request by request: the gaps differ by what the client adds, a fraction of a ms at the median."""
    run = read_results(fixtures / "aiperf").runs["01"]
    wrote, gaps = truth(fixtures, "aiperf"), gaps_ns(run.timeline)
    off = []
    for row, name in enumerate(run.timeline.request_id.tolist()):
        if run.timeline.ok[row]:
            ours = gaps.values[gaps.offset[row] : gaps.offset[row + 1]]
            off.append(np.abs(ours - np.diff(wrote[name])))
    assert np.median(np.concatenate(off)) < 1e6
