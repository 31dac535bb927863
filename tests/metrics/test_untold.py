"""Where less was recorded than a metric needs, it is undefined; what is defined is what the whole record says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.metrics import conventions, score, steady
from inferometer.metrics.prefill import Point, PrefillCurve, with_curve
from inferometer.metrics.scorecard import view_of
from inferometer.metrics.steady import steady_state
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES, NEEDS, NEEDS_SLO, column_of, value_of
from inferometer.run import Manifest, Run
from inferometer.timeline import STAMPED, Timeline, build, offsets

MS = 1_000_000


def less(timeline: Timeline, stamped: list[str]) -> Timeline:
    """The same requests, of which only so much was recorded."""
    ns: list[int] = []
    counts: list[int] = []
    sizes: list[int] = []
    for row, kind in enumerate(stamped):
        part = slice(timeline.chunk_offset[row], timeline.chunk_offset[row + 1])
        at, n = timeline.chunk_ns[part].tolist(), timeline.chunk_tokens[part].tolist()
        total = sum(n)
        end = int(timeline.ended_ns[row])
        if kind == "nothing" and total:
            at, n = [end], [total]
        elif kind in ("first", "ends") and total:
            last = end if kind == "first" else at[-1]
            at, n = [at[0], last], [1, total - 1]
        elif kind == "chunks" and total:
            n = [1] * (len(at) - 1) + [total - len(at) + 1]
        ns += at
        counts += n
        sizes.append(len(at))
    return timeline.with_columns(
        stamped=np.array(stamped, dtype=object),
        chunk_offset=offsets(np.array(sizes)),
        chunk_ns=np.array(ns, dtype=np.int64),
        chunk_tokens=np.array(counts, dtype=np.int32),
        chunk_channel=np.zeros(len(ns), dtype=np.int8),
    ).check()


@st.composite
def timelines(draw):
    """A few requests 50 ms apart, of 2 to 6 chunks of 1 to 3 tokens; some fail before their first."""
    rows = draw(st.integers(1, 6))
    gap = st.integers(0, 400).map(lambda ms: ms * MS)
    ns, counts, sizes, ended, status = [], [], [], [], []
    for row in range(rows):
        fails = draw(st.booleans()) and draw(st.booleans())
        gaps = [] if fails else draw(st.lists(gap, min_size=2, max_size=6))
        at = (row * 50 * MS + np.cumsum(gaps)).astype(int).tolist()
        ns += at
        counts += [draw(st.integers(1, 3)) for _ in at]
        sizes.append(len(at))
        ended.append((at[-1] if at else row * 50 * MS) + draw(gap))
        status.append("timeout" if fails else "ok")
    offset = offsets(np.array(sizes))
    sums = [sum(counts[a:b]) for a, b in pairwise(offset)]
    start = np.arange(rows) * 50 * MS
    return build(
        rows, request_id=[f"r{row}" for row in range(rows)], intended_ns=start, sent_ns=start,
        ended_ns=ended, status=np.array(status, dtype=object), output_tokens=sums,
        prompt_tokens=7, chunk_offset=offset, chunk_ns=ns, chunk_tokens=counts, chunk_channel=0,
    )  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(timeline=timelines(), data=st.data())
def test_what_is_defined_is_what_the_whole_record_says(timeline, data):
    """For each request and metric: undefined, or the value of the full record; figures alike."""
    stamped = [data.draw(st.sampled_from(STAMPED)) for _ in range(len(timeline))]
    whole = view_of(Run(timeline, Manifest()))
    part = view_of(Run(less(timeline, stamped), Manifest()))
    for name, metric in DISTRIBUTIONS.items():
        if metric.column is not None:
            told, truth = column_of(part, name), column_of(whole, name)
            seen = ~np.isnan(told)
            assert np.array_equal(told[seen], truth[seen]), name
    for name in FIGURES.keys() - set(NEEDS_SLO):
        told = value_of(part, name)
        assert np.isnan(told) or told == value_of(whole, name), name
    for row in range(len(timeline)):
        gaps = [v.gaps.values[v.gaps.offset[row] : v.gaps.offset[row + 1]] for v in (part, whole)]
        assert not len(gaps[0]) or sorted(gaps[0].tolist()) == sorted(gaps[1].tolist())


STREAM = build(
    3, request_id=["a", "b", "c"], intended_ns=[0, 10 * MS, 20 * MS], sent_ns=[0, 10 * MS, 20 * MS],
    ended_ns=[100 * MS, 110 * MS, 20 * MS], status=np.array(["ok", "ok", "timeout"], dtype=object),
    output_tokens=[3, 3, 0], prompt_tokens=5, chunk_offset=[0, 3, 6, 6],
    chunk_ns=np.array([30, 50, 90, 40, 60, 100]) * MS, chunk_tokens=1, chunk_channel=0,
)  # fmt: skip
DEFINED = {
    "nothing": set(),
    "first": {"ttft", "ttfat", "ttft_from_sent", "ttft_with_failures"},
    "ends": {"ttlt", "tpot", "normalized_latency", "tpot_with_failures"},
    "chunks": {"tbt", "max_gap", "stalls", "stall_time", "max_gap_with_failures"},
    "tokens": {"ttst", "fluidity_index", "on_time_fraction"},
}


@pytest.mark.parametrize("level", STAMPED)
def test_each_level_of_knowledge_defines_its_metrics_and_no_more(level):
    """From nothing to every token: each level adds what it can carry, and failures add nothing by themselves."""
    card = score(Run(less(STREAM, [level] * 3), Manifest()))
    place = STAMPED.index(level)
    for k, name in enumerate(STAMPED):
        for metric in DEFINED[name]:
            assert (card.row(metric).n > 0) == (k <= place), metric
    assert (card.curve is not None) == (level == "tokens")


@pytest.mark.parametrize("fact", NEEDS)
def test_a_fact_that_was_not_recorded_takes_its_metrics_along(fact):
    """What stands in place of a missing fact is in no number that is made of it."""
    run = Run(STREAM, Manifest(missing={fact: "something else stands here"}))
    card = score(run)
    for metric in set(NEEDS[fact]) - set(NEEDS_SLO):
        if metric in FIGURES:
            assert np.isnan(card.value(metric).value)
        else:
            assert card.row(metric).n == 0
    rate = conventions(run)["vllm bench"]["request_rate"]["value"]
    assert (rate is None) == (fact == "starts")


def test_an_slo_on_what_was_not_recorded_is_not_met_and_not_failed():
    """A bound on gaps that nobody recorded: unknown, with the reason, and attainment too."""
    card = score(Run(less(STREAM, ["ends"] * 3), Manifest()), "tbt.p50 <= 1s")
    assert card.slo.met is None
    card = score(
        Run(STREAM, Manifest(missing={"failures": ""})), "each: ttft <= 1s; attainment >= 0.5"
    )
    assert card.slo.met is None


def test_other_tools_formulas_leave_out_what_is_not_known():
    """No gap of first-and-last stamps enters anybody's ITL; TTFT and TPOT are as before."""
    whole, ends = (conventions(Run(t, Manifest())) for t in (STREAM, less(STREAM, ["ends"] * 3)))
    assert ends["vllm bench"]["itl"]["n"] == ends["sglang"]["itl_native"]["n"] == 0
    assert ends["inference-perf"]["itl"]["n"] == 0
    for tool in whole:
        for name in {"ttft", "tpot"} & set(whole[tool]):
            assert ends[tool][name] == whole[tool][name]


def test_no_steady_state_is_judged_without_a_time_axis():
    """Requests on clocks of their own, all at 0: the reason stands there, whatever their number."""
    told = "each is on a clock of its own"
    found = score(Run(STREAM, Manifest(missing={"starts": told}))).steady_state
    assert (found.verdict, found.reason) == ("too short to tell", told)
    assert not found.in_place_of_numbers


def test_tokens_that_stand_at_the_end_are_no_token_rate_over_time():
    """Series that are judged for steadiness hold stamps, not stand-ins."""
    rows = 300
    start = np.arange(rows) * 20 * MS
    whole = build(
        rows, request_id=[f"r{row}" for row in range(rows)], intended_ns=start, sent_ns=start,
        ended_ns=start + 90 * MS, status="ok", output_tokens=9, prompt_tokens=5,
        chunk_offset=np.arange(rows + 1) * 2, chunk_ns=np.stack([start + 30 * MS, start + 90 * MS], 1).ravel(),
        chunk_tokens=np.tile([1, 8], rows), chunk_channel=0,
    )  # fmt: skip
    ends = whole.with_columns(stamped=np.array(["ends"] * rows, dtype=object))
    both = [steady_state(Run(t, Manifest())) for t in (whole, ends)]
    assert both[0].verdict == both[1].verdict == "steady"
    grid = steady._grid(start)
    series = [steady._series(Run(t, Manifest()), grid) for t in (whole, ends)]
    assert ["token rate" in each for each in series] == [True, False]


def test_a_prefill_curve_says_nothing_of_prompts_of_unknown_length():
    """Where prompt lengths are missing, no deadline and no slowdown is made of their stand-in, 0."""
    curve = PrefillCurve(
        constant_s=0.01,
        per_token_s=0.001,
        per_token2_s=0.0,
        points=(Point(prompt_tokens=5, n=9, p25_s=0.01, p50_s=0.01, p75_s=0.01, residual=0.0),),
    )
    run = with_curve(Run(STREAM, Manifest()), curve)
    assert score(run).row("ttft_slowdown").n == 2
    run.manifest.missing = {"prompt_tokens": "0 stands for them"}
    assert score(run).row("ttft_slowdown").n == 0
