"""What a trace, a profile or a plan is like, as four pictures: lengths, prompt:output, the rate over time, burstiness.

Draws what `workload.describe` says, and nothing that it does not: no times, no picture of times.
"""

from __future__ import annotations

from typing import Any

from inferometer.report import charts
from inferometer.report.charts import Chart
from inferometer.report.sections import Section
from inferometer.report.tables import Table

Told = dict[str, Any]

_LENGTHS = {"prompt_tokens": "prompt", "output_tokens": "output"}
_RATIOS = {"pd_ratio": "all prompt tokens", "pd_ratio_uncached": "those that no cache could hold"}


def workload_sections(told: Told) -> list[Section]:
    """The chapter of a page that `workload.describe` fills."""
    drawn = workload_charts(told)
    lead = " ".join(filter(None, (told.get("source"), *told.get("notes", ()))))
    return [Section("workload", "The workload", lead=lead, charts=drawn)]


def workload_charts(told: Told) -> tuple[Chart, ...]:
    """Those of the four charts for which something is known."""
    found = (_lengths(told), _ratio(told), _rate(told), _bursts(told))
    return tuple(chart for chart in found if chart is not None)


def _lengths(told: Told) -> Chart | None:
    p50 = {name: (told[name] or {}).get("p50") for name in _LENGTHS}
    note = f"Half of the prompts have up to {_short(p50['prompt_tokens'])} tokens, half of the outputs up to {_short(p50['output_tokens'])}."
    table = _curves(told["curves"], _LENGTHS)
    return _distribution("lengths", "Prompt and output lengths", note, table, "tokens")


def _ratio(told: Told) -> Chart | None:
    table = _curves(told["curves"], _RATIOS)
    note = f"The median is {_short(told['pd_ratio']['p50'])}"
    if told.get("prefix"):
        rest = told["prefix"]["pd_ratio_uncached"]["p50"]
        note += f"; {_short(rest)} by the tokens that an infinite prefix cache would not hold"
    title = "Prompt tokens per output token"
    return _distribution("prompt-output", title, f"{note}.", table, "prompt : output")


def _distribution(name: str, title: str, note: str, table: Table, x_title: str) -> Chart | None:
    if not table["value"]:
        return None
    return charts.lines(
        name, title, note, table,
        x="value", y="share", what="what", x_title=x_title, y_title="share of requests", log_x=True, y_format="%",
    )  # fmt: skip


def _curves(curves: Told, names: dict[str, str]) -> Table:
    """Quantiles as a long table; a logarithmic axis has no place for 0."""
    table: Table = {"value": [], "share": [], "what": []}
    for name, label in names.items():
        for value, level in zip(curves.get(name) or (), curves["levels"], strict=False):
            if value > 0:
                for column, item in zip(table.values(), (value, level, label), strict=True):
                    column.append(item)
    return table


def _rate(told: Told) -> Chart | None:
    found = told["curves"].get("arrivals")
    if not found or len(found["counts"]) < 2:
        return None
    every = found["every_s"]
    hours = every * len(found["counts"]) > 36_000
    unit, scale = ("h", 3600.0) if hours else ("s", 1.0)
    table: Table = {
        "time": [place * every / scale for place in range(len(found["counts"]))],
        "rate": [count / every for count in found["counts"]],
    }
    arrivals = told["arrivals"]
    note = (
        f"In stretches of {every:g} s. The mean is {_short(arrivals['rate_per_s'])} requests/s, the busiest "
        f"minute has {_short(arrivals['peak_to_mean_per_minute'])} times that."
    )
    return charts.lines(
        "rate", "Arrivals over time", note, table,
        x="time", y="rate", x_title=f"time [{unit}]", y_title="requests per second", step=True,
    )  # fmt: skip


def _bursts(told: Told) -> Chart | None:
    arrivals = told["arrivals"]
    if not arrivals:
        return None
    known = [(int(window), value) for window, value in arrivals["idc"].items() if value]
    if not known:
        return None
    windows, values = zip(*known, strict=True)
    table: Table = {
        "window": [*windows, *windows],
        "dispersion": [*values, *[1.0] * len(windows)],
        "what": ["this workload"] * len(windows) + ["Poisson"] * len(windows),
    }
    note = "Variance over mean of the arrivals in a window: 1 for Poisson arrivals at every window; above it, bursts."
    return charts.lines(
        "burstiness", "Index of dispersion", note, table,
        x="window", y="dispersion", what="what", x_title="window [s]", y_title="variance / mean",
        log_x=True, log_y=True, points=True,
    )  # fmt: skip


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"
