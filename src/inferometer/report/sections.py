"""What a page says of a run, in the order in which a reader asks: may I believe it, what did users feel, what was the load.

A section is words, lights, grids of text and charts; how they look is the page's business. Everything that a server or a
model sent (ids, errors, names) is text here and stays text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import latency
from inferometer.metrics.scorecard import Scorecard, view_of
from inferometer.metrics.summary import Row, Value
from inferometer.metrics.view import View
from inferometer.report import charts, tables
from inferometer.report.charts import Chart
from inferometer.report.lanes import Lanes, lanes_of
from inferometer.report.scheduler import scheduler_charts
from inferometer.run import Run, redact
from inferometer.stats import Interval
from inferometer.timeline import ABSENT, Timeline


class Light(NamedTuple):
    """A verdict that is seen at a glance: `state` is good, bad, unsure or none; `details` are one click away."""

    title: str
    state: str
    text: str
    details: tuple[str, ...] = ()


class Grid(NamedTuple):
    """A table of text; the first column names its row."""

    caption: str
    head: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""


class Section(NamedTuple):
    """One chapter of a page."""

    id: str
    title: str
    lead: str = ""
    lights: tuple[Light, ...] = ()
    grids: tuple[Grid, ...] = ()
    charts: tuple[Chart, ...] = ()
    lanes: Lanes | None = None
    text: str = ""  # shown as it stands, in one typewriter block


def run_sections(run: Run, card: Scorecard, *, lights: tuple[Light, ...] = ()) -> list[Section]:
    """All sections of the page of one run; `lights` (the audit's) stand with the verdict."""
    view = view_of(run, card.settings)
    found = [
        verdict(run, card, lights),
        felt(card, view),
        over_time(run),
        by_what(view),
        *simulated(run, view),
        lanes(run),
        instrument(run, card),
        definitions(card),
        manifest(run),
    ]
    return [section for section in found if section is not None]


# --- the verdict ------------------------------------------------------------------------------------------------------


def verdict(run: Run, card: Scorecard, lights: tuple[Light, ...]) -> Section:
    """May it be believed, was the SLO met, was the plan kept; and the figures that most people came for."""
    own = [_validity(card), *_slo(card), *_plan_kept(card), _failures(card)]
    return Section(
        "verdict",
        "Verdict",
        lead=told(run, card),
        lights=(*own, *lights),
        grids=(figures(card), rates(card)),
    )


def told(run: Run, card: Scorecard) -> str:
    """One sentence: what was done to whom."""
    target, requests = run.manifest.target, card.requests
    who = target.get("system") or target.get("engine") or "a server"
    if "tool" in target:
        who = f"a server that {target['tool']} loaded"
    model = run.manifest.model.get("name") or target.get("model") or ""
    seconds = _length_s(run.timeline)
    doing = {"simulated": "simulated", "imported": "imported from another tool"}
    how = doing.get(run.manifest.world, "measured")
    return (
        f"{who}{f' serving {model}' if model else ''}, {how}: {requests.total:,} requests in "
        f"{number(seconds)} s, {requests.ok:,} of them ok. Workload {str(card.workload.get('fingerprint', ''))[:12]}."
    )


def _validity(card: Scorecard) -> Light:
    if card.valid:
        whole = "" if card.complete else "; the run ended before its plan"
        return Light("Measurement", "good" if not whole else "unsure", f"valid{whole}")
    return Light("Measurement", "bad", "invalid", card.invalid_reasons)


def _slo(card: Scorecard) -> Iterator[Light]:
    judged = card.slo
    if judged is None:
        return
    state = {True: "good", False: "bad", None: "unsure"}[judged.met]
    words = {True: "met", False: "not met", None: "cannot be said"}[judged.met]
    details = tuple(_condition(one) for one in judged.verdicts)
    yield Light("SLO", state, f"{words}: {judged.slo.name or judged.slo.text}", details)


def _condition(one: Any) -> str:
    seen = one.seen
    value = seen.note if math.isnan(seen.value) else number(seen.value)
    ci = "" if math.isnan(seen.lo) else f" [{number(seen.lo)}, {number(seen.hi)}]"
    outcome = {True: "holds", False: "does not hold", None: "cannot be said"}[one.met]
    return f"{one.condition.text}: {value}{ci}; {outcome}{'' if one.resolved else ', not clear of the bound'}"


def _plan_kept(card: Scorecard) -> Iterator[Light]:
    found = card.workload.get("fidelity")
    if not found:
        return
    off = [line for line in found["lines"] if line["ok"] is False]
    judged = [line for line in found["lines"] if line["ok"] is not None]
    text = f"{len(judged) - len(off)} of {len(judged)} properties of the plan were kept"
    details = tuple(
        f"{one['name']}: {number(one['intended'])} planned, {number(one['achieved'])} achieved {one['unit']}"
        for one in off
    )
    yield Light("Workload", "bad" if off else "good", text, details)


def _failures(card: Scorecard) -> Light:
    requests = card.requests
    if not requests.failed:
        return Light("Failures", "good", "none")
    kinds = tuple(f"{name}: {count:,}" for name, count in sorted(requests.by_status.items()))
    share = requests.failed / max(requests.total, 1)
    return Light(
        "Failures", "bad" if share > 0.01 else "unsure", f"{requests.failed:,} ({share:.2%})", kinds
    )


SHOWN = ("ttft", "tbt", "tpot", "ttst", "ttlt", "normalized_latency", "max_gap", "stall_time", "stalls", "scheduling_delay")  # fmt: skip


def figures(card: Scorecard) -> Grid:
    """The latencies: mean, p50, p90, p99 with intervals, and the largest."""
    rows = [_figure(row) for row in card.rows if row.id in SHOWN and row.n]
    head = ("metric", "unit", "n", "mean", "p50", "p90", "p99", "max")
    note = (
        "In brackets: 95 % intervals. A dash is a percentile that so few samples cannot bound. "
        + (
            f"{card.requests.failed:,} failed requests stand in none of these rows."
            if card.requests.failed
            else ""
        )
    )
    return Grid("What users felt", head, rows, note.strip())


def _figure(row: Row) -> list[str]:
    scale, unit = (1e3, "ms") if row.unit == "s" else (1.0, row.unit)

    def cell(value: float, ci: Interval | None = None) -> str:
        if math.isnan(value):
            return "–"
        known = ci is not None and not math.isnan(ci.lo)
        ends = f" [{number(ci.lo * scale)}, {number(ci.hi * scale)}]" if known and ci else ""
        return number(value * scale) + ends

    wanted = [cell(row.quantiles.get(p, math.nan), row.ci.get(p)) for p in ("p50", "p90", "p99")]
    mean = cell(row.mean, row.ci.get("mean"))
    return [row.id, unit, f"{row.n:,}", mean, *wanted, cell(row.max)]


def rates(card: Scorecard) -> Grid:
    """The single figures."""
    rows = []
    for value in card.values:
        if math.isnan(value.value):
            continue
        ci = "" if math.isnan(value.ci.lo) else f"[{number(value.ci.lo)}, {number(value.ci.hi)}]"
        rows.append([value.id, number(value.value), value.unit, ci])
    return Grid("Rates and shares", ("metric", "value", "unit", "95 % interval"), rows)


# --- what users feel --------------------------------------------------------------------------------------------------


def felt(card: Scorecard, view: View) -> Section | None:
    """Distributions, the tokens of three requests, and fluidity over deadlines."""
    if not len(view):
        return None
    drawn = [_ttft_chart(card, view), _tbt_chart(card, view), _token_chart(card, view)]
    if card.curve is not None:
        drawn.append(_fluidity_chart(card))
    return Section(
        "felt",
        "What users feel",
        "How long until something appears, and how steadily it goes on. Averages hide stalls; these pictures do not.",
        charts=tuple(chart for chart in drawn if chart is not None),
    )


def _ttft_chart(card: Scorecard, view: View) -> Chart | None:
    values = latency.ttft(view.timeline)[view.ok]
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    failed = card.requests.failed
    note = (
        f"Each point: the share of all {len(view):,} requests whose first token came within that time."
        + (f" The curve ends below 100 % because {failed:,} failed." if failed else "")
    )
    return charts.distribution(
        "ttft-cdf",
        "Time to first token",
        note,
        tables.cdf(values, of=len(view)),
        band=tables.ttft_band(view),
        bounds=_bounds(card, "ttft"),
    )


def _tbt_chart(card: Scorecard, view: View) -> Chart | None:
    if not view.gaps.values.size:
        return None
    return charts.distribution(
        "tbt-cdf",
        "Time between tokens",
        f"All {view.gaps.values.size:,} gaps between consecutive tokens; the tail is what a reader feels as stutter.",
        tables.cdf(view.gaps.values, scale=1 / SECOND),
        band=tables.tbt_band(view),
        bounds=_bounds(card, "tbt"),
    )


def _bounds(card: Scorecard, metric: str) -> tables.Table:
    """The bounds that the SLO sets to a metric: columns value, text."""
    out: tables.Table = {"value": [], "text": []}
    for one in card.slo.verdicts if card.slo is not None else ():
        if one.condition.metric == metric:
            out["value"].append(one.condition.bound)
            out["text"].append(one.condition.text)
    return out


def _token_chart(card: Scorecard, view: View) -> Chart | None:
    steps, stalls = tables.token_timeline(view)
    if not steps["t"]:
        return None
    least = card.settings.stall_threshold_ns / SECOND
    note = (
        "The best, the median and the worst request by TTFT plus stall time. "
        f"Red: a stall, nothing new for more than {number(least)} s."
    )
    return charts.token_steps("tokens", "Tokens of three requests", note, steps, stalls)


def _fluidity_chart(card: Scorecard) -> Chart:
    curve = card.curve
    assert curve is not None
    at = tables.plain(curve.token_deadline_ns / SECOND)
    table: tables.Table = {"deadline": [], "index": [], "what": []}
    kinds = {"requests with index ≥ 0.9": curve.share, "mean fluidity-index": curve.mean_index}
    for what, values in kinds.items():
        table["deadline"] += at
        table["index"] += tables.plain(values)
        table["what"] += [what] * len(at)
    return charts.lines(
        "fluidity",
        "Fluidity over the deadline for each token",
        "Further left is a more demanding reader. A fluid stream keeps its index near 1 (Etalon, arXiv 2407.07000).",
        table,
        x="deadline",
        y="index",
        what="what",
        x_title="deadline per token [s]",
        y_title="fluidity",
        log_x=True,
        points=True,
    )


# --- load and time ----------------------------------------------------------------------------------------------------


def over_time(run: Run) -> Section | None:
    """Arrivals, load, latency and the server's own gauges, on one time axis."""
    timeline = run.timeline
    on = tables.axis(timeline)
    if on is None:
        return None
    shaded = tables.phases(timeline)
    drawn = [
        charts.lines(
            "arrivals",
            "Requests: intended, sent, completed",
            f"Per bin of {number(on.width_s)} s. Where sent leaves intended, the instrument or the connection was late.",
            tables.arrivals(timeline, on),
            x="t", y="rate", what="what", y_title="requests/s", step=True, shaded=shaded, until=on.length_s,
        ),
        *_load_charts(timeline, on, shaded),
        *_latency_charts(timeline, shaded),
    ]  # fmt: skip
    gauges = tables.telemetry(run, on)
    drawn += _gauge_charts(gauges, shaded, on)
    lead = "One time axis for all, from the first request. Grey: warm-up and drain, which no figure counts."
    return Section("time", "Load and time", lead, charts=tuple(drawn))


def _load_charts(timeline: Timeline, on: tables.Axis, shaded: tables.Table) -> Iterator[Chart]:
    load = tables.load(timeline, on)
    both = {
        "in_flight": ("Requests in flight", "in flight"),
        "token_rate": ("Output tokens", "tokens/s"),
    }
    for column, (title, y_title) in both.items():
        table = {"t": load["t"], column: load[column]}
        note = {
            "in_flight": "A level that climbs to the end is a server past saturation.",
            "token_rate": "",
        }
        yield charts.lines(
            column.replace("_", "-"), title, note[column], table,
            x="t", y=column, y_title=y_title, step=True, shaded=shaded, until=on.length_s,
        )  # fmt: skip


def _latency_charts(timeline: Timeline, shaded: tables.Table) -> Iterator[Chart]:
    on = tables.axis(timeline, each=20)
    assert on is not None
    found = tables.latency_over_time(timeline, on)
    titles = {"ttft": "TTFT by when the request was due", "tbt": "Gaps by when the token came"}
    for metric, title in titles.items():
        table: tables.Table = {"t": [], "seconds": [], "what": []}
        for row in charts.rows(found):
            if row["metric"] == metric:
                for what in ("p50", "p90"):
                    table["t"].append(row["t"])
                    table["seconds"].append(row[what])
                    table["what"].append(what)
        if any(value is not None for value in table["seconds"]):
            note = "Median and p90 of each bin that has enough values."
            yield charts.lines(
                f"{metric}-time", title, note, table,
                x="t", y="seconds", what="what", y_title="s", shaded=shaded, until=on.length_s,
            )  # fmt: skip


def _gauge_charts(gauges: tables.Table, shaded: tables.Table, on: tables.Axis) -> list[Chart]:
    groups: dict[str, tuple[str, tuple[str, ...], str]] = {
        "server-queue": ("Requests, as the server counts them", ("running", "waiting"), "requests")
    }
    groups["server-kv"] = ("KV cache, as the server counts it", ("KV cache used",), "share")
    out = []
    for name, (title, members, y_title) in groups.items():
        keep = [k for k, what in enumerate(gauges["what"]) if what in members]
        if keep:
            table = {column: [values[k] for k in keep] for column, values in gauges.items()}
            note = "From the server's own /metrics, on the same axis."
            out.append(charts.lines(name, title, note, table, x="t", y="value", what="what", y_title=y_title, step=True, shaded=shaded, until=on.length_s))  # fmt: skip
    return out


# --- by length and application ----------------------------------------------------------------------------------------


def by_what(view: View) -> Section | None:
    """Who waited: by prompt length, by application."""
    drawn = []
    table = tables.by_prompt(view)
    if table["count"]:
        note = "A prefill that costs more than linearly bends upward; a queue smears every length upward alike."
        drawn.append(charts.heat("by-prompt", "TTFT by prompt length", note, table))
    apps = tables.by_app(view)
    for metric, title in {"ttft": "TTFT", "tpot": "TPOT", "max_gap": "Longest gap"}.items():
        keep = [
            k
            for k, name in enumerate(apps["metric"])
            if name == metric and apps["p50"][k] is not None
        ]
        if keep:
            part = {name: [values[k] for k in keep] for name, values in apps.items()}
            note = "p50, p90 and p99 of each application, where enough requests carry them."
            drawn.append(charts.dots(f"by-app-{metric.replace('_', '-')}", f"{title} by application", note, part, group="app"))  # fmt: skip
    if not drawn:
        return None
    return Section("groups", "By prompt length and by application", charts=tuple(drawn))


# --- a simulation -----------------------------------------------------------------------------------------------------


def simulated(run: Run, view: View) -> Iterator[Section]:
    """What a simulator knows and a server hides."""
    known = run.timeline.scheduled_ns != ABSENT
    if not known.any():
        return
    delay = latency.scheduling_delay(view.timeline)
    delay = delay[~np.isnan(delay)]
    drawn = []
    if delay.size:
        note = (
            "From the intended time to when prefill began: the wait that normalized latency hides."
        )
        drawn.append(
            charts.distribution("scheduling-delay", "Scheduling delay", note, tables.cdf(delay))
        )
    on = tables.axis(run.timeline)
    if on is not None:
        drawn += scheduler_charts(run.path, on)
    yield Section("scheduler", "What the scheduler did", charts=tuple(drawn))


# --- the rest ---------------------------------------------------------------------------------------------------------


def lanes(run: Run) -> Section | None:
    """Every request as a lane."""
    found = lanes_of(run.timeline)
    if found is None:
        return None
    lead = (
        f"{found.shown:,} of {found.total:,} requests. Each lane: waiting, prefill, then every token; stalls in red. "
        "Scroll to zoom, drag to move; arrow keys, + and - do the same."
    )
    return Section("lanes", "Every request, token by token", lead, lanes=found)


_WITHOUT = {
    "simulated": "This world has no instrument: its times are computed, not measured.",
    "imported": "The tool that these results come from kept no record of its own error: nobody vouches for its stamps.",
}


def instrument(run: Run, card: Scorecard) -> Section:
    """The instrument's own error and effort."""
    record = card.instrument
    grids = (
        (Grid("The instrument's record", ("what", "value"), list(_flat(record))),) if record else ()
    )
    lag = latency.send_lag(run.timeline)
    lag = lag[~np.isnan(lag) & (lag > 0)]
    drawn: tuple[Chart, ...] = ()
    if lag.size and run.manifest.world == "measured":
        note = "How late requests were sent: the instrument's error in every latency that counts from the intended time."
        drawn = (charts.distribution("send-lag", "Send lag", note, tables.cdf(lag)),)
    lead = "" if record else _WITHOUT.get(run.manifest.world, "There is no record of it.")
    return Section("instrument", "The instrument's own error", lead, grids=grids, charts=drawn)


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, float):
            yield [name, number(value)]
        elif value is not None and value != []:
            yield [name, "; ".join(map(str, value)) if isinstance(value, list) else str(value)]


def definitions(card: Scorecard) -> Section:
    """What every number means."""
    metrics: list[Row | Value] = [*card.rows, *card.values]
    rows = [[m.id, m.unit, m.definition, m.population] for m in metrics]
    grid = Grid("", ("metric", "unit", "definition", "population"), rows)
    return Section("definitions", "Definitions", grids=(grid,))


def manifest(run: Run) -> Section:
    """The conditions, whole."""
    plain = redact(msgspec.to_builtins(run.manifest))
    text = msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
    return Section(
        "manifest", "Manifest", "The conditions under which the run was made.", text=text
    )


def number(value: float | None) -> str:
    """A number for reading: three significant digits, thousands apart; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _length_s(timeline: Timeline) -> float:
    if not len(timeline):
        return math.nan
    return float(timeline.ended_ns.max() - timeline.intended_ns.min()) / SECOND
