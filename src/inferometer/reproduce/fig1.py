"""Figure 1 of the seed: the anatomy of a request (waiting to be scheduled, prefill, decode), from a real timeline.

The paper draws a diagram; this one is drawn from a simulated run in which the scheduler's own stamps are known: the
request whose scheduling delay is the median of those that waited, in a busy vLLM (V1) with Llama 3 8B on an A100.
"""

from __future__ import annotations

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import latency, tokens
from inferometer.report import charts
from inferometer.report.charts import BLUE, GREY, ORANGE, Chart
from inferometer.report.sections import Grid, number
from inferometer.report.tables import Table
from inferometer.reproduce.reproduction import SEED, Ask, Reproduction, Statement
from inferometer.run import Run
from inferometer.timeline import Timeline

PHASES = {"waiting (T_s)": GREY, "prefill (T_p)": ORANGE, "decode (T_d)": BLUE}
RATE_PER_S, REQUESTS = 2.5, 400


def make(ask: Ask) -> Reproduction:
    """One request of a busy server, from the moment it is due to its last token."""
    run = _run(ask)
    timeline = run.timeline
    row = median_waiter(timeline)
    spans, marks = anatomy(timeline, row)
    lengths = [spans["end"][k] - spans["start"][k] for k in range(3)]
    total = latency.ttlt(timeline)[row]
    adds_up = bool(np.isclose(sum(lengths), total, rtol=1e-9))
    gaps = int(timeline.output_tokens[row]) - 1
    statements = (
        Statement(
            "a request is T_s + T_p + T_d, one after the other",
            f"{number(lengths[0])} + {number(lengths[1])} + {number(lengths[2])} = {number(total)} s",
            adds_up,
        ),
        Statement(
            "the prefill makes the first token, each later one is a step of its own",
            f"1 token at the end of prefill, {gaps} stamped steps of decode",
            len(marks["t"]) == gaps + 1,
        ),
    )
    cells = [[name, number(length)] for name, length in zip(spans["phase"], lengths, strict=True)]
    cells += [
        ["prompt", f"{timeline.prompt_tokens[row]:,} tokens"],
        ["output", f"{gaps + 1} tokens"],
    ]
    return Reproduction(
        "fig1",
        "Figure 1: anatomy of a request",
        f"{SEED}, figure 1. Ours: {timeline.request_id[row]} of a simulated vLLM V1, Llama 3 8B on one A100, "
        f"{RATE_PER_S} requests/s of arxiv-summarization ({'fewer requests: --quick' if ask.quick else f'{REQUESTS} requests'}).",
        statements,
        (Grid("This request", ("part", "length [s]"), cells),),
        (_chart(spans, marks),),
    )


def _run(ask: Ask) -> Run:
    from inferometer.sim import Deployment, simulate
    from inferometer.workload import WorkloadSpec, make_plan
    from inferometer.workload.arrivals import Poisson

    asked = WorkloadSpec(
        profile="arxiv-summarization",
        arrivals=Poisson(rate=RATE_PER_S),
        requests=100 if ask.quick else REQUESTS,
        seed=ask.seed,
    )
    return simulate(make_plan(asked), Deployment(system="vllm-v1", model="llama-3-8b"))


def median_waiter(timeline: Timeline) -> int:
    """The row whose scheduling delay is the median of the delays above 0, among requests of 8 to 64 tokens."""
    delay = latency.scheduling_delay(timeline)
    fits = (timeline.output_tokens >= 8) & (timeline.output_tokens <= 64)
    rows = np.flatnonzero((delay > 0) & fits)
    if not rows.size:
        rows = np.flatnonzero(~np.isnan(delay))
    return int(rows[np.argsort(delay[rows], kind="stable")[len(rows) // 2]])


def anatomy(timeline: Timeline, row: int) -> tuple[Table, Table]:
    """The three spans (columns phase, start, end) and the tokens (columns t, token) of a request [s since intended]."""
    first = int(tokens.first_token_ns(timeline)[row])
    last = int(tokens.last_token_ns(timeline)[row])
    edges = [int(timeline.intended_ns[row]), int(timeline.scheduled_ns[row]), first, last]
    at = [(edge - edges[0]) / SECOND for edge in edges]
    stamps = timeline.chunk_ns[timeline.chunk_offset[row] : timeline.chunk_offset[row + 1]]
    marks = [(int(ns) - edges[0]) / SECOND for ns in stamps]
    spans: Table = {"phase": list(PHASES), "start": at[:3], "end": at[1:]}
    return spans, {"t": marks, "token": list(range(1, len(marks) + 1))}


def _chart(spans: Table, marks: Table) -> Chart:
    x = {"axis": {"title": "time since the request was due [s]"}, "scale": {"zero": True}}
    colour = {
        "field": "phase",
        "type": "nominal",
        "scale": {"domain": list(PHASES), "range": list(PHASES.values())},
        "legend": {"title": None, "orient": "top"},
    }
    bars = {
        "data": {"name": "spans"},
        "mark": {"type": "bar", "height": 46},
        "encoding": {
            "x": charts.quantity("start", **x),
            "x2": {"field": "end"},
            "color": colour,
            "tooltip": charts.tooltip(spans),
        },
    }
    ticks = {
        "data": {"name": "marks"},
        "mark": {"type": "tick", "thickness": 1.5, "size": 62, "color": "#1c4f86"},
        "encoding": {"x": charts.quantity("t", **x), "tooltip": charts.tooltip(marks)},
    }
    note = "Grey: due, but not scheduled. Orange: prefill. Blue: decode, a mark for every token."
    title = "One request: waiting, prefill, decode"
    return Chart(
        "fig1", title, note, {"layer": [bars, ticks]}, {"spans": spans, "marks": marks}, 90
    )
