"""From a run to the small tables that charts are drawn from: quantile points, time bins, the tokens of three requests.

A chart never sees a raw token. What is here has at most a few hundred rows, however large the run: a distribution is a
few hundred quantiles, time is `BINS` bins, lengths are a grid of counts. A table is a dict of equally long lists, in
the units that a person reads (seconds, tokens, requests); None is "no such number", as everywhere.
Knows runs and metrics; must never know how a chart or a page looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.metrics import latency, rates, tokens
from inferometer.metrics.view import View
from inferometer.run import Run
from inferometer.timeline import ABSENT, Array, Ints, Timeline

Table = dict[str, list[Any]]
Floats = npt.NDArray[np.float64]

BINS = 150
POINTS = np.unique(np.concatenate([np.linspace(0, 1, 161), 1 - np.geomspace(1e-4, 0.1, 40)]))
BANDS = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
MOST_TOKENS_DRAWN = 400


# --- distributions ----------------------------------------------------------------------------------------------------


def cdf(values: npt.ArrayLike, *, of: int | None = None, scale: float = 1.0) -> Table:
    """The distribution function of `values` [N] at a few hundred quantiles: columns `value`, `share`.

    `of`: how many there would have been had none failed, so that the curve ends below 1 where some did.
    """
    found = np.asarray(values)
    if not found.size:
        return {"value": [], "share": []}
    points = POINTS[(POINTS <= 1 - 1 / found.size) | (POINTS == 1)]
    rank = np.ceil(points * (found.size - 1)).astype(np.int64)
    parted = np.partition(found, np.unique(rank))
    share = (rank + 1) / (found.size if of is None else of)
    return {"value": plain(parted[rank] * scale), "share": plain(share)}


def ttft_band(view: View) -> Table:
    """The 95 % intervals of TTFT's quantiles: columns `share`, `lo`, `hi` [s]; only those that the sample carries."""
    values = latency.ttft(view.timeline)[view.ok]
    values = values[~np.isnan(values)]
    shown = _carried(BANDS, values.size)
    return _band(shown, stats.series_quantile_ci(values, shown) if shown.size else [], 1.0)


def tbt_band(view: View) -> Table:
    """The same of the gaps between tokens, which are clustered by request."""
    offset = np.unique(view.gaps.offset)
    shown = _carried(BANDS, len(offset) - 1)
    got = stats.clustered_quantile_ci(view.gaps.values, offset, shown) if shown.size else []
    return _band(shown, got, 1 / SECOND)


def _carried(points: Floats, n: int) -> Floats:
    return np.array([p for p in points if n >= stats.needed_n(p)], dtype=float)


def _band(shares: Floats, found: Sequence[stats.Interval], scale: float) -> Table:
    known = [(p, ci) for p, ci in zip(shares, found, strict=True) if not math.isnan(ci.lo)]
    return {
        "share": [float(p) for p, _ in known],
        "lo": [ci.lo * scale for _, ci in known],
        "hi": [ci.hi * scale for _, ci in known],
    }


# --- a few requests, token by token -----------------------------------------------------------------------------------


class Picked(NamedTuple):
    """Three requests: `row` of the view's timeline, and what it stands for."""

    row: int
    name: str


def picked(view: View) -> list[Picked]:
    """The best, the median and the worst request by the time that its user looked at nothing new.

    That is TTFT plus stall time, both as the scorecard defines them; ties by the row. Only requests whose chunks'
    times are known.
    """
    timeline = view.timeline
    waited = latency.ttft(timeline) + np.nan_to_num(
        latency.stall_time(timeline, view.settings.stall_threshold_ns)
    )
    rows = np.flatnonzero(view.ok & ~np.isnan(waited) & timeline.knows("chunks"))
    if not rows.size:
        return []
    ordered = rows[np.argsort(waited[rows], kind="stable")]
    places = {0: "best", len(ordered) // 2: "median", len(ordered) - 1: "worst"}
    return [Picked(int(ordered[place]), name) for place, name in places.items()]


def token_timeline(view: View, chosen: Sequence[Picked] | None = None) -> tuple[Table, Table]:
    """Tokens received over time of those three (or of `chosen`) [s since intended], and their stalls: (steps, stalls).

    Columns: request, t, tokens; and request, start, end, tokens.
    """
    steps: Table = {"request": [], "t": [], "tokens": []}
    stalls: Table = {"request": [], "start": [], "end": [], "tokens": []}
    for one in picked(view) if chosen is None else chosen:
        at_s, count = _received(view.timeline, one.row)
        late = np.flatnonzero(np.diff(at_s) > view.settings.stall_threshold_ns / SECOND)
        late = late[late > 0]  # the wait for the first token is TTFT, and no stall
        keep = _thinned(len(at_s), late)
        _append(steps, request=one.name, t=at_s[keep], tokens=count[keep])
        _append(stalls, request=one.name, start=at_s[late], end=at_s[late + 1], tokens=count[late])
    return steps, stalls


def _received(timeline: Timeline, row: int) -> tuple[Floats, Ints]:
    chunks = slice(timeline.chunk_offset[row], timeline.chunk_offset[row + 1])
    at_s = (timeline.chunk_ns[chunks] - timeline.intended_ns[row]) / SECOND
    count = np.cumsum(timeline.chunk_tokens[chunks], dtype=np.int64)
    return np.insert(at_s, 0, 0.0), np.insert(count, 0, 0)


def _thinned(n: int, late: Ints) -> Ints:
    """Which of n points to draw: a few hundred, with both ends of every stall."""
    even = np.linspace(0, n - 1, min(n, MOST_TOKENS_DRAWN)).astype(np.int64)
    return np.unique(np.concatenate([even, late[:MOST_TOKENS_DRAWN], late[:MOST_TOKENS_DRAWN] + 1]))


# --- over time --------------------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """The run's time in equal bins: their edges [ns since the epoch], [B + 1]."""

    edges: Ints

    @property
    def middle_s(self) -> Floats:
        """The middle of each bin [B], in seconds since the run's first intended request."""
        return np.asarray(
            ((self.edges[:-1] + self.edges[1:]) / 2 - self.edges[0]) / SECOND, dtype=float
        )

    @property
    def length_s(self) -> float:
        """From the first edge to the last."""
        return float(self.edges[-1] - self.edges[0]) / SECOND

    @property
    def width_s(self) -> float:
        """The length of a bin."""
        return float(self.edges[1] - self.edges[0]) / SECOND

    def bin_of(self, at_ns: Ints) -> Ints:
        """The bin of each time; the last one holds its end, too."""
        found = np.searchsorted(self.edges, at_ns, side="right") - 1
        return np.minimum(found, len(self.edges) - 2)

    def counts(self, at_ns: Ints, weights: Array | None = None) -> Floats:
        """How many (or how much weight) fell into each bin [B]."""
        inside = (at_ns >= self.edges[0]) & (at_ns <= self.edges[-1])
        weights = None if weights is None else weights[inside]
        found = np.bincount(self.bin_of(at_ns[inside]), weights, minlength=len(self.edges) - 1)
        return np.asarray(found, dtype=float)


def axis(timeline: Timeline, *, each: int = 2) -> Axis | None:
    """The bins of a run, warm-up and drain included, with about `each` requests or more in one; None without length."""
    if not len(timeline):
        return None
    start, end = int(timeline.intended_ns.min()), int(timeline.ended_ns.max())
    bins = int(min(BINS, max(len(timeline) // each, 10)))
    if end - start < bins:
        return None
    return Axis(np.linspace(start, end, bins + 1).astype(np.int64))


def arrivals(timeline: Timeline, on: Axis) -> Table:
    """Requests per second that were intended, sent, and ended: columns t, rate, what."""
    sent = timeline.sent_ns[timeline.sent_ns != ABSENT]
    kinds = {
        "intended": timeline.intended_ns,
        "sent": sent,
        "completed": timeline.ended_ns[timeline.ok],
    }
    out: Table = {"t": [], "rate": [], "what": []}
    for what, at_ns in kinds.items():
        _append(out, t=on.middle_s, rate=on.counts(at_ns) / on.width_s, what=what)
    return out


def load(timeline: Timeline, on: Axis) -> Table:
    """Requests in flight (time average of each bin) and tokens per second: columns t, in_flight, token_rate.

    Without every chunk's time there is no token rate (None).
    """
    steps = rates.in_flight(timeline)
    area = _area(steps, on.edges)
    received = on.counts(timeline.chunk_ns, timeline.chunk_tokens)
    if not timeline.knows("chunks").all():
        received = np.full(len(on.middle_s), np.nan)
    return {
        "t": plain(on.middle_s),
        "in_flight": plain(np.diff(area) / np.diff(on.edges)),
        "token_rate": plain(received / on.width_s),
    }


def _area(steps: rates.Steps, at_ns: Ints) -> Floats:
    """The integral of a step function up to each time [level x ns]."""
    if not len(steps.t_ns):
        return np.zeros(len(at_ns))
    held = np.concatenate([[0.0], np.cumsum(np.diff(steps.t_ns) * steps.level[:-1])])
    place = np.searchsorted(steps.t_ns, at_ns, side="right") - 1
    since = at_ns - steps.t_ns[np.maximum(place, 0)]
    return np.where(place < 0, 0.0, held[place] + since * steps.level[place])


def latency_over_time(timeline: Timeline, on: Axis) -> Table:
    """Quantiles of TTFT by when the request was due, and of the gaps by when the token came: columns t, metric, p50, p90.

    A bin with too few values for a quantile has none (None).
    """
    out: Table = {"t": [], "metric": [], "p50": [], "p90": []}
    ttft = latency.ttft(timeline)
    seen = ~np.isnan(ttft)
    _quantiles_by_bin(out, "ttft", on, timeline.intended_ns[seen], ttft[seen])
    gaps = tokens.gaps_ns(timeline)
    ends = np.ones(len(timeline.chunk_ns), dtype=bool)
    ends[tokens.starts(timeline.chunk_offset)] = False
    if len(gaps.values) == int(ends.sum()):  # one token per chunk: each gap ends at a chunk's stamp
        _quantiles_by_bin(out, "tbt", on, timeline.chunk_ns[ends], gaps.values / SECOND)
    return out


def _quantiles_by_bin(out: Table, metric: str, on: Axis, at_ns: Ints, values: Floats) -> None:
    at = on.bin_of(at_ns).astype(np.int16)  # so that 20 M of them are sorted by radix
    order = np.argsort(at, kind="stable")
    edges = np.searchsorted(at[order], np.arange(len(on.edges)))
    for number, (start, stop) in enumerate(pairwise(edges)):
        part = values[order[start:stop]]
        got = [
            float(np.quantile(part, q)) if len(part) >= stats.needed_n(q, 0.5) else None
            for q in (0.5, 0.9)
        ]
        _append(out, t=on.middle_s[number : number + 1], metric=metric, p50=got[:1], p90=got[1:])


def phases(timeline: Timeline) -> Table:
    """Where warm-up and drain lie, in seconds since the first intended request: columns phase, start, end."""
    out: Table = {"phase": [], "start": [], "end": []}
    if not len(timeline):
        return out
    begin = int(timeline.intended_ns.min())
    for phase in ("warmup", "drain"):
        rows = timeline.phase == phase
        if rows.any():
            span = timeline.intended_ns[rows]
            last = timeline.ended_ns[rows].max() if phase == "drain" else span.max()
            out["phase"].append("warm-up" if phase == "warmup" else phase)
            out["start"].append((int(span.min()) - begin) / SECOND)
            out["end"].append((int(last) - begin) / SECOND)
    return out


# What a server says of itself, under the names that servers use for it.
GAUGES = {
    "running": ("num_requests_running", "num_running_reqs", "requests_processing"),
    "waiting": ("num_requests_waiting", "num_queue_reqs", "requests_deferred"),
    "KV cache used": ("kv_cache_usage_perc", "gpu_cache_usage_perc", "token_usage", "kv_cache_usage_ratio"),
}  # fmt: skip


def telemetry(run: Run, on: Axis) -> Table:
    """The server's own gauges on the run's axis: columns t, what, value; empty where it showed none."""
    out: Table = {"t": [], "what": [], "value": []}
    series = run.telemetry
    if not series or not len(series["t_ns"]):
        return out
    names = np.array([str(name).rpartition(":")[2] for name in series["name"]], dtype=object)
    for what, known in GAUGES.items():
        rows = np.isin(names, known)
        if rows.any():
            t = (np.asarray(series["t_ns"])[rows] - on.edges[0]) / SECOND
            _append(out, t=t, what=what, value=np.asarray(series["value"], dtype=float)[rows])
    return out


# --- by length, by application ----------------------------------------------------------------------------------------


def by_prompt(view: View) -> Table:
    """Counts of requests by prompt length and TTFT, both in logarithmic bins: columns p0, p1 [tokens], t0, t1 [s], count."""
    ttft = latency.ttft(view.timeline)
    seen = view.ok & ~np.isnan(ttft) & (ttft > 0) & (view.timeline.prompt_tokens > 0)
    out: Table = {"p0": [], "p1": [], "t0": [], "t1": [], "count": []}
    if not seen.any():
        return out
    prompt = view.timeline.prompt_tokens[seen].astype(float)
    at, across = _log_edges(prompt, 40), _log_edges(ttft[seen], 30)
    grid, _, _ = np.histogram2d(prompt, ttft[seen], bins=(at, across))
    for i, j in zip(*np.nonzero(grid), strict=True):
        row = (at[i], at[i + 1], across[j], across[j + 1], int(grid[i, j]))
        for name, value in zip(out, row, strict=True):
            out[name].append(float(value) if name != "count" else value)
    return out


def _log_edges(values: Floats, bins: int) -> Floats:
    low, high = float(values.min()), float(values.max())
    if high <= low * 1.001:
        low, high = low * 0.95, high * 1.05
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def by_app(view: View) -> Table:
    """Quantiles of TTFT and of the longest gap for each application: columns app, metric, n, p50, p90, p99."""
    out: Table = {"app": [], "metric": [], "n": [], "p50": [], "p90": [], "p99": []}
    for app in sorted(set(view.timeline.app.tolist())):
        part = view.only(app)
        for metric, column in APP_METRICS.items():
            values = column(part.timeline)[part.ok]
            values = values[~np.isnan(values)]
            got = [
                float(np.quantile(values, q)) if values.size >= stats.needed_n(q) else None
                for q in (0.5, 0.9, 0.99)
            ]
            row = (app, metric, int(values.size), *got)
            for name, value in zip(out, row, strict=True):
                out[name].append(value)
    return out


APP_METRICS: dict[str, Callable[[Timeline], Floats]] = {
    "ttft": latency.ttft,
    "tpot": latency.tpot,
    "max_gap": latency.max_gap,
}


# --- plain values -----------------------------------------------------------------------------------------------------


def plain(values: npt.ArrayLike) -> list[Any]:
    """A column as JSON has it: numbers with six significant digits, None for what is not finite."""
    array = np.asarray(values)
    if array.dtype.kind in "iub":
        return array.tolist()  # type: ignore[no-any-return]
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in array.astype(float).tolist()]


def _append(table: Table, **columns: Any) -> None:
    """More rows; a column given as one string is repeated."""
    size = max(len(v) for v in columns.values() if not isinstance(v, str))
    for name, values in columns.items():
        if isinstance(values, str):
            table[name] += [values] * size
        else:
            table[name] += values if isinstance(values, list) else plain(values)
