"""The table of metrics: id, unit, definition, population, and the function that computes it.

Ids are stable: people write them in SLOs, dashboards and papers. Two kinds of row:
    Distribution   a value per request (or per gap), summarised by percentiles
    Figure         one number for the run
An SLO's vocabulary (`inferometer.slo.METRICS`) is a part of this table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np

from inferometer.metrics import fluidity, latency, rates
from inferometer.metrics.tokens import Bools, Floats
from inferometer.metrics.view import View
from inferometer.timeline import ABSENT, Timeline

Population = Literal["ok", "all", "sent", "gaps"]
POPULATIONS: dict[Population, str] = {
    "ok": "requests of phase measure that completed",
    "all": "all requests of phase measure, failed and never sent ones too",
    "sent": "requests of phase measure that were sent, whatever became of them",
    "gaps": "gaps between consecutive tokens of requests of phase measure that completed, pooled",
}


class Distribution(NamedTuple):
    """A metric with a value per request; `column` gives it [R], NaN where undefined. Pooled gaps have no column."""

    id: str
    unit: str
    definition: str
    column: Callable[[View], Floats] | None
    population: Population = "ok"
    higher_is_better: bool = False


class Figure(NamedTuple):
    """A metric with one value for the run, NaN where undefined; `counts` gives k of n where it is a proportion."""

    id: str
    unit: str
    definition: str
    value: Callable[[View], float]
    population: Population = "ok"
    indicator: Callable[[View], Bools] | None = None


def _unlucky(name: str) -> Distribution:
    """A latency in which failures count as +inf."""
    plain = next(row for row in _LATENCIES if row.id == name)

    def column(view: View) -> Floats:
        return latency.with_failures(column_of(view, name), view.timeline)

    return Distribution(
        f"{name}_with_failures",
        plain.unit,
        f"{plain.definition}; +inf for a request that failed or was never sent",
        column,
        "all",
    )


def _scheduling_delay(view: View) -> Floats:
    known = latency.scheduling_delay(view.timeline)
    return np.where(np.isnan(known), column_of(view, "ttft") - view.zero_load_s, known)


def column_of(view: View, name: str) -> Floats:
    """The values of a metric for each request [R], NaN where undefined; computed once per view."""
    if name not in view.columns:
        compute = DISTRIBUTIONS[name].column
        if compute is None:
            raise KeyError(f"{name} has no value per request")
        told = name not in view.unknown
        view.columns[name] = compute(view) if told else np.full(len(view), np.nan)
    return view.columns[name]


def value_of(view: View, name: str) -> float:
    """The value of a figure, NaN where undefined."""
    return np.nan if name in view.unknown else FIGURES[name].value(view)


def rows_of(view: View, population: Population) -> Bools:
    """Which requests a population holds [R]."""
    if population == "all":
        return np.ones(len(view), dtype=bool)
    if population == "sent":
        return np.asarray(view.timeline.sent_ns != ABSENT)
    return view.ok


_LATENCIES = (
    Distribution(
        "ttft",
        "s",
        "first chunk with a token, on any channel, minus intended send time",
        lambda v: latency.ttft(v.timeline),
    ),
    Distribution(
        "ttfat",
        "s",
        "first token of the answer (content or tool call, not reasoning) minus intended send time",
        lambda v: latency.ttfat(v.timeline),
    ),
    Distribution(
        "tbt",
        "s",
        "every gap between consecutive tokens; k tokens in a chunk are one gap and k-1 zero gaps; intervals by request",
        None,
        "gaps",
    ),
    Distribution(
        "tpot",
        "s",
        "(last token - first token) / (n - 1) of a request; undefined for n < 2",
        lambda v: latency.tpot(v.timeline),
    ),
    Distribution(
        "ttlt",
        "s",
        "last token minus intended send time",
        lambda v: latency.ttlt(v.timeline),
    ),
    Distribution(
        "ttst",
        "s",
        "gap between the first and the second token; undefined for n < 2",
        lambda v: latency.ttst(v.timeline),
    ),
    Distribution(
        "normalized_latency",
        "s",
        "ttlt / n; dilutes the wait before the first token by the length: never read it alone",
        lambda v: latency.normalized_latency(v.timeline),
    ),
    Distribution(
        "max_gap",
        "s",
        "longest gap between two tokens of a request; undefined for n < 2",
        lambda v: latency.max_gap(v.timeline),
    ),
    Distribution(
        "stalls",
        "1",
        "gaps longer than {stall} in a request; undefined for n < 2",
        lambda v: latency.stalls(v.timeline, v.settings.stall_threshold_ns),
    ),
    Distribution(
        "stall_time",
        "s",
        "summed length of the gaps longer than {stall} in a request; undefined for n < 2",
        lambda v: latency.stall_time(v.timeline, v.settings.stall_threshold_ns),
    ),
    Distribution(
        "scheduling_delay",
        "s",
        "prefill began minus intended send time, where the server or simulator says when; else ttft minus the prefill "
        "curve at its prompt's length, an estimate that may lie below 0; not measurable without either",
        _scheduling_delay,
    ),
    Distribution(
        "ttft_slowdown",
        "1",
        "ttft over the prefill curve at its prompt's length, which is what it would be at zero load; not measurable "
        "without a curve",
        lambda v: column_of(v, "ttft") / v.zero_load_s,
    ),
    Distribution(
        "ttft_from_sent",
        "s",
        "first chunk with a token minus actual send time (blind to a late instrument)",
        lambda v: latency.ttft_from_sent(v.timeline),
    ),
    Distribution(
        "ttlt_from_sent",
        "s",
        "last token minus actual send time (blind to a late instrument)",
        lambda v: latency.ttlt_from_sent(v.timeline),
    ),
)

_OTHERS = (
    Distribution(
        "fluidity_index",
        "1",
        "1 - missed/total token deadlines of a request (Etalon): first due after {first}, each later one {token} after "
        "the one before, re-anchored at a miss; 0 for a failed or tokenless request",
        lambda v: v.fluidity.index,
        "all",
        True,
    ),
    Distribution(
        "on_time_fraction",
        "1",
        "tokens of a request that met their deadline (as in fluidity_index); 0 for a failed or tokenless one",
        lambda v: v.fluidity.on_time_fraction,
        "all",
        True,
    ),
    Distribution(
        "time_to_first_miss",
        "s",
        "from intended send time to the first missed token deadline; undefined where none was missed",
        lambda v: v.fluidity.first_miss_s,
        "all",
        True,
    ),
    Distribution(
        "send_lag",
        "s",
        "actual minus intended send time: the instrument's own lateness",
        lambda v: latency.send_lag(v.timeline),
        "sent",
    ),
    Distribution(
        "connect",
        "s",
        "wait for a connection to open; undefined where one stood ready",
        lambda v: latency.connect(v.timeline),
        "all",
    ),
)

DISTRIBUTIONS: dict[str, Distribution] = {
    row.id: row
    for row in (
        *_LATENCIES,
        *map(_unlucky, ("ttft", "ttfat", "ttlt", "tpot", "normalized_latency", "max_gap")),
        *_OTHERS,
    )
}


def _pooled_index(view: View) -> float:
    total = int(view.fluidity.total.sum())
    return 1 - int(view.fluidity.missed.sum()) / total if total else np.nan


def _tokens_per_chunk(view: View) -> float:
    chunks = view.timeline.chunks
    return int(view.timeline.output_tokens.sum(dtype=np.int64)) / chunks if chunks else np.nan


def _attained(view: View) -> Bools:
    return np.zeros(0, dtype=bool) if view.attainment is None else view.attainment.attained


def _attainment(view: View) -> float:
    attainment = view.attainment
    if attainment is None or attainment.unknown.any() or not len(view):
        return np.nan
    return float(np.mean(attainment.attained))


def _goodput(view: View) -> float:
    attainment = view.attainment
    if attainment is None or attainment.unknown.any():
        return np.nan
    return rates.goodput(attainment.attained, view.window)


FIGURES: dict[str, Figure] = {
    row.id: row
    for row in (
        Figure(
            "request_rate",
            "requests/s",
            "completed requests / time from first intended send to last end",
            lambda v: rates.request_rate(v.timeline, v.window),
        ),
        Figure(
            "token_rate",
            "tokens/s",
            "output tokens of completed requests / time from first intended send to last end",
            lambda v: rates.token_rate(v.timeline, v.window),
        ),
        Figure(
            "total_token_rate",
            "tokens/s",
            "prompt and output tokens of completed requests / time from first intended send to last end",
            lambda v: rates.total_token_rate(v.timeline, v.window),
        ),
        Figure(
            "token_rate_while_arriving",
            "tokens/s",
            "output tokens of completed requests that came before the last intended send / time to it: without the drain",
            lambda v: rates.token_rate(v.timeline, rates.arriving_window(v.timeline)),
        ),
        Figure(
            "offered_rate",
            "requests/s",
            "(n - 1) / time from first to last intended send",
            lambda v: rates.offered_rate(v.timeline),
            "all",
        ),
        Figure(
            "sent_rate",
            "requests/s",
            "(n - 1) / time from first to last actual send",
            lambda v: rates.sent_rate(v.timeline),
            "sent",
        ),
        Figure(
            "mean_in_flight",
            "1",
            "time average of requests sent and not ended, from first intended send to last end",
            lambda v: rates.mean_in_flight(v.in_flight, v.window),
            "sent",
        ),
        Figure(
            "peak_in_flight",
            "1",
            "most requests sent and not ended at one time",
            lambda v: float(rates.peak_in_flight(v.in_flight)),
            "sent",
        ),
        Figure(
            "error_rate",
            "1",
            "requests that did not complete, or were never sent / all",
            lambda v: float(np.mean(~v.ok)) if len(v) else np.nan,
            "all",
            lambda v: ~v.ok,
        ),
        Figure(
            "tokens_per_chunk",
            "1",
            "tokens / chunks that bear any, over all requests: above 1, gaps of chunks and of tokens are two things",
            _tokens_per_chunk,
            "all",
        ),
        Figure(
            "fluidity_index_pooled",
            "1",
            "1 - missed/total over the deadlines of all requests; one long hang can dominate it",
            _pooled_index,
            "all",
        ),
        Figure(
            "fluid_token_rate",
            "tokens/s",
            "largest 1/deadline at which 99 % of the requests keep 90 % of their decode-token deadlines (exact to 1 ns)",
            lambda v: fluidity.fluid_token_rate(v.timeline),
            "all",
        ),
        Figure(
            "attainment",
            "1",
            "requests that meet every condition of the SLO on a request / all; a failed one never does",
            _attainment,
            "all",
            _attained,
        ),
        Figure(
            "goodput",
            "requests/s",
            "requests that attain the SLO / time from first intended send to last end",
            _goodput,
            "all",
        ),
    )
}
NEEDS_SLO = ("attainment", "goodput")
# What depends on how long one looked, once a system is past saturation: all but the instrument's own and the rates.
NEEDS_STEADY = frozenset(DISTRIBUTIONS) - {"send_lag", "connect"} | {
    "mean_in_flight",
    "peak_in_flight",
    "error_rate",
    "fluidity_index_pooled",
    "fluid_token_rate",
    *NEEDS_SLO,
}

# What another tool may not have recorded (the keys of `Manifest.missing`), and the metrics that cannot do without.
NEEDS: dict[str, tuple[str, ...]] = {
    "intended": ("send_lag", "offered_rate"),
    "starts": (
        "send_lag",
        "offered_rate",
        "sent_rate",
        "request_rate",
        "token_rate",
        "total_token_rate",
        "token_rate_while_arriving",
        "goodput",
        "mean_in_flight",
        "peak_in_flight",
    ),
    "prompt_tokens": ("total_token_rate",),
    "channels": ("ttfat", "ttfat_with_failures"),
    "failures": (  # what is said of all requests
        "error_rate",
        "attainment",
        "goodput",
        "fluidity_index",
        "fluidity_index_pooled",
        "on_time_fraction",
        "fluid_token_rate",
        *(row.id for row in DISTRIBUTIONS.values() if row.id.endswith("_with_failures")),
    ),
}


class Stamps(NamedTuple):
    """Metrics that need so much to be known of when tokens came: of every reply, or of one at least."""

    every: tuple[str, ...] = ()
    some: tuple[str, ...] = ()


# By what of STAMPED they need. Only metrics that failures have a say in: all others are undefined request by request.
NEEDS_STAMPS = {
    "first": Stamps(some=("ttft_with_failures", "ttfat_with_failures")),
    "ends": Stamps(
        some=("ttlt_with_failures", "tpot_with_failures", "normalized_latency_with_failures")
    ),
    "chunks": Stamps(("tokens_per_chunk",), ("max_gap_with_failures",)),
    "tokens": Stamps(
        ("fluidity_index_pooled", "fluid_token_rate", "token_rate_while_arriving"),
        ("fluidity_index", "on_time_fraction", "time_to_first_miss"),
    ),
}


def unknown(timeline: Timeline, missing: Iterable[str]) -> frozenset[str]:
    """The metrics that cannot be told of a run, for want of what was not recorded: `missing`, and token times."""
    out = {metric for fact in missing for metric in NEEDS.get(fact, ())}
    replies = timeline.ok & (timeline.output_tokens > 0)
    for least, metrics in NEEDS_STAMPS.items():
        known = timeline.knows(least)[replies]
        out.update(metrics.every if not known.all() else ())
        out.update(metrics.some if known.size and not known.any() else ())
    return frozenset(out)
