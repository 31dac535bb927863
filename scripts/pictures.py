"""Makes the pictures of docs/anti-patterns.md from our own (simulated) runs: one for each of the seed's anti-patterns.

    python scripts/pictures.py [FOLDER]      (some ten seconds)

Each picture is a chart of `report.charts` whose numbers come from runs made here; nothing is drawn by hand. The same
seed gives the same pictures. Source of the anti-patterns: Agrawal et al., 2025, section 3.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inferometer.metrics import score
from inferometer.metrics.scorecard import Scorecard
from inferometer.report import charts, tables
from inferometer.report.charts import Chart
from inferometer.report.page import save_figures
from inferometer.report.tables import Table
from inferometer.reproduce import dilution, fig2
from inferometer.reproduce.reproduction import Ask
from inferometer.sim import Deployment, Limits, simulate
from inferometer.sim.models import model
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Closed, Poisson

CHAT = {"system": "vllm", "model": "llama-3-8b"}
QUIET = Ask(quick=True, tell=lambda _: None)


def main() -> None:
    """Write all pictures."""
    folder = Path(
        sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "pictures"
    )
    for path in save_figures([make() for make in PICTURES], folder, ("svg",)):
        if path.suffix == ".csv":
            path.unlink()
        else:
            print(path)


def fairness() -> Chart:
    """1: a gain is an engine's and an algorithm's; only an arm that has one of the two tells them apart."""
    arms = {
        "old engine, old policy": {"system": "orca", "host_s": 0.010},
        "new engine, old policy": {"system": "orca", "host_s": 0.001},
        "new engine, new policy": {"system": "vllm-v1", "host_s": 0.001},
    }
    plan = make_plan(
        WorkloadSpec(profile="sharegpt-8k", arrivals=Closed(concurrency=64), requests=600)
    )
    rate = {
        name: score(simulate(plan, Deployment(**CHAT | arm)), intervals=False)
        .value("token_rate")
        .value
        for name, arm in arms.items()
    }
    old, engine, both = rate.values()
    table: Table = {
        "what": ["the engine", "the policy", "together"],
        "factor": [engine / old, both / engine, both / old],
    }
    note = "Throughput gains as factors. Without the middle arm, all of it would be claimed for the policy."
    return bars(
        "fairness",
        "A gain, and whose it is",
        note,
        table,
        what="what",
        y="factor",
        y_title="times faster",
    )


def tuning() -> Chart:
    """2: one parameter of one system moves both latencies by more than systems differ."""
    table: Table = {"chunk": [], "ms": [], "what": []}
    plan = make_plan(
        WorkloadSpec(profile="azure-conv-2023", arrivals=Poisson(rate=6.0), requests=1500)
    )
    for chunk in (128, 256, 512, 1024, 2048, 4096):
        deployed = Deployment(**CHAT | {"system": "sarathi-serve"}, limits=Limits(chunk=chunk))
        card = score(simulate(plan, deployed), intervals=False)
        for metric in ("ttft", "tbt"):
            row = (chunk, 1e3 * card.row(metric).quantiles["p99"], f"{metric} p99")
            for name, value in zip(table, row, strict=True):
                table[name].append(value)
    note = (
        "Sarathi-Serve under one load, by its token budget: a baseline at its default says little."
    )
    return charts.lines(
        "tuning", "What one parameter does", note, table,
        x="chunk", y="ms", what="what", x_title="token budget", y_title="ms", log_x=True, log_y=True, points=True,
    )  # fmt: skip


def models() -> Chart:
    """3: memory claims shown on multi-head attention say little of today's models."""
    names = ("opt-13b", "llama-2-13b", "llama-3-8b", "qwen3-32b", "mixtral-8x7b", "deepseek-v3")
    found = [model(name) for name in names]
    table: Table = {
        "model": [f"{m.name} ({m.year})" for m in found],
        "kb": [m.kv_bytes_per_token() / 1024 for m in found],
    }
    note = "Bytes of KV cache for one token, by each model's own configuration."
    return bars(
        "models",
        "What a token costs in memory",
        note,
        table,
        what="model",
        y="kb",
        y_title="KiB per token",
    )


def workloads() -> Chart:
    """4: production workloads differ from each other by decades, and from any one data set."""
    table: Table = {"value": [], "share": [], "what": []}
    for name in (
        "azure-code-2023",
        "azure-conv-2023",
        "mooncake-arxiv",
        "sharegpt-8k",
        "deepseek-r1",
    ):
        plan = make_plan(WorkloadSpec(profile=name, arrivals=Poisson(rate=1.0), requests=20_000))
        one = tables.cdf(plan.prompt_tokens / np.maximum(plan.output_tokens, 1))
        keep = [k for k, value in enumerate(one["value"]) if 0.01 <= value <= 10_000]
        for column in ("value", "share"):
            table[column] += [one[column][k] for k in keep]
        table["what"] += [name] * len(keep)
    note = "Prompt tokens per output token, of five shipped profiles: four decades."
    return charts.distribution(
        "workloads", "Prompt to output ratio", note, table, unit="tokens per token"
    )


def bounds() -> Chart:
    """5: a gain outside of what any user would bear is no gain."""
    table: Table = {"load": [], "ms": [], "what": []}
    for load in (2, 4, 6, 8, 9, 10, 11, 12):
        plan = make_plan(
            WorkloadSpec(profile="azure-conv-2023", arrivals=Poisson(rate=load), requests=1500)
        )
        for name in ("vllm", "sarathi-serve"):
            card = score(simulate(plan, Deployment(**CHAT | {"system": name})), intervals=False)
            for column, value in zip(table, (load, 1e3 * _p99(card), name), strict=True):
                table[column].append(value)
    chart = charts.lines(
        "bounds", "p99 TTFT over load", "Above the line nobody waits: compare systems below it.", table,
        x="load", y="ms", what="what", x_title="requests/s", y_title="p99 TTFT [ms]", log_y=True, points=True,
    )  # fmt: skip
    rule = {
        "data": {"name": "bound"},
        "mark": {"type": "rule", "color": charts.RED, "strokeDash": [5, 3]},
        "encoding": {"y": charts.quantity("ms")},
    }
    layers = {"layer": [*chart.spec["layer"], rule]}
    return chart._replace(spec=layers, tables=chart.tables | {"bound": {"ms": [1000.0]}})


def _p99(card: Scorecard) -> float:
    value = card.row("ttft").quantiles["p99"]
    return value if math.isfinite(value) else math.nan


def of_figure_2(name: str, renamed: str) -> Callable[[], Chart]:
    """6 to 8: parts of the seed's figure 2 (`inferometer reproduce fig2`)."""

    def make() -> Chart:
        found = next(chart for chart in fig2.make(QUIET).charts if chart.id == name)
        return found._replace(id=renamed)

    return make


def normalization() -> Chart:
    """8: one wait of 10 s, divided by the length of the answer."""
    return dilution.make(QUIET).charts[0]._replace(id="normalization")


def bars(
    name: str, title: str, note: str, table: Table, *, what: str, y: str, y_title: str
) -> Chart:
    """A bar for each row."""
    spec = {
        "data": {"name": "table"},
        "mark": {"type": "bar", "color": charts.BLUE},
        "encoding": {
            "x": charts.quantity(y, axis={"title": y_title}),
            "y": {"field": what, "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 260}},
        },
    }  # fmt: skip
    return Chart(name, title, note, spec, {"table": table}, 34 * len(table[what]) + 20)


PICTURES = (
    fairness,
    tuning,
    models,
    workloads,
    bounds,
    of_figure_2("fig2b", "metrics"),
    of_figure_2("fig2c", "distribution"),
    normalization,
)

if __name__ == "__main__":
    main()
