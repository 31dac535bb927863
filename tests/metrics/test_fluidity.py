"""The fluidity-index: the definition, its worked example and edge cases, and that the fast form is the same."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.metrics import fluidity as module
from inferometer.metrics.fluidity import (
    fluid_token_deadline_ns,
    fluid_token_rate,
    fluidity,
    fluidity_curve,
    fluidity_index,
    min_token_deadline_ns,
)
from inferometer.timeline import ABSENT

MS = MILLISECOND
GAPS = st.lists(st.integers(0, 60), max_size=25)


class Walked(NamedTuple):
    missed: int
    total: int
    on_time: int
    first_miss: int | None  # when the first deadline passed without its token, since the start


def walk(gaps, first, each, *, ignore_first=False):
    """The definition, token by token (reference/fluidity_index.md, section 1.1)."""
    slack = missed = total = on_time = at = 0
    first_miss = None
    for i, gap in enumerate(gaps):
        if ignore_first and i == 0:
            continue
        due = first if i == 0 else each
        if gap <= due + slack:
            slack += due - gap
            total += 1
            on_time += 1
        else:
            if first_miss is None:
                first_miss = at + due + slack
            passed = (gap - slack - due) // each + 1
            missed += passed
            total += passed
            slack = 0
        at += gap
    return Walked(missed, total, on_time, first_miss)


def index(gaps_ms, first_ms, each_ms, **options):
    """`fluidity_index` in milliseconds (of any fraction of them that is a whole number of nanoseconds)."""
    return fluidity_index(
        [round(gap * MS) for gap in gaps_ms],
        first_deadline_ns=round(first_ms * MS),
        token_deadline_ns=round(each_ms * MS),
        **options,
    )


@settings(deadline=None, max_examples=300)
@given(GAPS.filter(bool), st.integers(0, 80), st.integers(1, 40), st.booleans())
def test_the_running_maximum_is_the_walk(gaps, first, each, ignore_first):
    """Misses, totals and tokens on time equal the plain definition's, in exact integers."""
    got = fluidity_index(
        gaps, first_deadline_ns=first, token_deadline_ns=each, ignore_first=ignore_first
    )
    expected = walk(gaps, first, each, ignore_first=ignore_first)
    assert (got.missed, got.total) == (expected.missed, expected.total)
    if expected.total:
        assert got.index == 1 - expected.missed / expected.total
        assert got.on_time_fraction == expected.on_time / (len(gaps) - ignore_first)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.booleans())
def test_all_requests_at_once_are_each_by_itself(
    some_requests, token_stamps, timeline_of, data, ignore_first
):
    """Columns equal the walk of every request, with empty requests, bursts and any cut into blocks."""
    requests = data.draw(some_requests)
    first, each, block = data.draw(
        st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 7))
    )
    timeline = timeline_of(*requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_CHUNKS", block)
        got = fluidity(
            timeline, first_deadline_ns=first, token_deadline_ns=each, ignore_first=ignore_first
        )
    for i, request in enumerate(requests):
        stamps = token_stamps(request)
        gaps = np.diff([0, *stamps]).tolist()
        expected = walk(gaps, first, each, ignore_first=ignore_first)
        if not stamps:
            assert (got.missed[i], got.total[i], got.index[i]) == (1, 1, 0.0)
            continue
        assert (got.missed[i], got.total[i]) == (expected.missed, expected.total)
        if expected.first_miss is None:
            assert np.isnan(got.first_miss_s[i])
        elif not ignore_first:
            assert got.first_miss_s[i] == expected.first_miss / SECOND


def test_worked_example_of_etalon():
    """Vector R05: three tokens just in time, a stall of 12 deadlines, two more: 1 - 12/17 = 0.2941."""
    gaps = [250, 62.5, 62.5, 750, 62.5, 62.5]
    got = index(gaps, 250, 62.5)
    assert (got.missed, got.total) == (12, 17)
    assert got.index == pytest.approx(0.2941, abs=5e-5)
    assert got.on_time_fraction == pytest.approx(5 / 6)


def test_a_head_start_buys_slack():
    """The same with D_p = 0.5 s: the first token leaves 0.25 s of slack, so 8 deadlines are missed of 13."""
    got = index([250, 62.5, 62.5, 750, 62.5, 62.5], 500, 62.5)
    assert (got.missed, got.total) == (8, 13)


@pytest.mark.parametrize(
    ("gaps_ms", "first_ms", "each_ms", "expected"),
    [
        pytest.param([100, 50, 50], 100, 50, 1.0, id="equality is on time"),
        pytest.param([150], 100, 50, 0.0, id="first token late by exactly D_d"),
        pytest.param([100, 60_000], 100, 50, 1 / 1201, id="a 60 s hang in a 2-token answer"),
        pytest.param([100] + [55] * 20, 100, 50, 1 / 21, id="every token 10 % late"),
        pytest.param([0] + [55] * 20, 100, 50, 1.0, id="the same with 100 ms in hand"),
        pytest.param([0, 0, 0, 0, 400], 100, 100, 1.0, id="a burst banks slack"),
        pytest.param([0, 300, 0, 0, 200], 0, 100, 1 - 3 / 7, id="a burst after a miss does too"),
        pytest.param([0, 300], 0, 100, 1 - 3 / 4, id="0.3 // 0.1 is 3 in integers"),
        pytest.param([0, 1500], 0, 50, 1 - 30 / 31, id="1.5 // 0.05 is 30 in integers"),
    ],
)
def test_edge_cases(gaps_ms, first_ms, each_ms, expected):
    """The edge-case table of the reference, with floor taken in integers."""
    assert index(gaps_ms, first_ms, each_ms).index == pytest.approx(expected, abs=1e-12)


def test_first_token_late_by_exactly_one_deadline_misses_two():
    """1 + floor(1): the deadline that passed, and the one at which it came."""
    assert index([150], 100, 50)[:2] == (2, 2)


def test_the_same_gaps_hurt_more_when_the_stall_comes_early():
    """Late in a reply there is slack in hand."""
    early = index([100, 700, *[25] * 19], 100, 50)
    late = index([100, *[25] * 19, 700], 100, 50)
    assert early.index < late.index


def test_no_tokens_is_never_perfect():
    """Nothing came of what was promised: 0, not Etalon's 1; and without decode tokens there is nothing to say."""
    assert index([], 100, 50)[:3] == (1, 1, 0.0)
    alone = index([5000], 100, 50, ignore_first=True)
    assert alone[:2] == (0, 0)
    assert np.isnan(alone.index)


@pytest.mark.parametrize("gaps", [[0.25, 0.1], [-1, 3]])
def test_gaps_must_be_whole_nanoseconds(gaps):
    """Seconds by mistake, or a stamp that runs backwards, is refused."""
    with pytest.raises(UserError, match="whole nanoseconds"):
        fluidity_index(gaps, first_deadline_ns=1, token_deadline_ns=1)


def test_a_deadline_must_be_positive():
    """Zero would divide by zero."""
    with pytest.raises(UserError, match="at least 1 ns"):
        fluidity_index([1], first_deadline_ns=1, token_deadline_ns=0)


def test_a_failed_request_missed_all_that_it_promised(timeline_of):
    """Index 0 over the planned tokens, or over what it brought, or over 1; the first miss is when the next was due."""
    chunks = [(10 * MS, 1), (20 * MS, 1)]
    timeline = timeline_of(
        {"chunks": chunks, "status": "truncated"},
        {"chunks": [], "status": "http_error"},
        {"chunks": []},
    )
    deadlines = {"first_deadline_ns": 100 * MS, "token_deadline_ns": 50 * MS}
    got = fluidity(timeline, **deadlines)
    assert got.total.tolist() == got.missed.tolist() == [2, 1, 1]
    assert got.index.tolist() == got.on_time_fraction.tolist() == [0, 0, 0]
    assert got.first_miss_s.tolist() == [0.2, 0.1, 0.1]
    planned = fluidity(timeline, promised=np.array([128, 64, 32]), **deadlines)
    assert planned.total.tolist() == planned.missed.tolist() == [128, 64, 32]


def test_deadlines_may_be_one_for_each_request(timeline_of):
    """D_p from a prefill curve: the same TTFT is on time for the long prompt only."""
    timeline = timeline_of({"chunks": [(300, 1)]}, {"chunks": [(300, 1)]})
    got = fluidity(timeline, first_deadline_ns=np.array([100, 300]), token_deadline_ns=1000)
    assert got.index.tolist() == [0.0, 1.0]


def test_deadlines_count_from_the_intended_time(timeline_of):
    """A request that was sent late by the instrument does not get a later deadline for it."""
    timeline = timeline_of({"intended": 100, "sent": 150, "chunks": [(300, 1)]})
    assert fluidity(timeline, first_deadline_ns=199, token_deadline_ns=9).missed.tolist() == [1]
    assert fluidity(timeline, first_deadline_ns=200, token_deadline_ns=9).missed.tolist() == [0]


@settings(deadline=None, max_examples=40)
@given(GAPS.filter(bool), st.integers(0, 60), st.booleans())
def test_the_index_never_falls_as_the_deadline_grows(gaps, first, ignore_first):
    """Misses and late tokens are monotone in D_d: what makes the exact searches exact."""
    seen = [
        fluidity_index(
            gaps, first_deadline_ns=first, token_deadline_ns=d, ignore_first=ignore_first
        )
        for d in range(1, 65)
    ]
    missed = [one.missed for one in seen]
    on_time = [one.on_time_fraction for one in seen if one.total]
    assert missed == sorted(missed, reverse=True)
    assert on_time == sorted(on_time)


def smallest(stamps, miss_rate):
    """The smallest D_d by trying all of them."""
    gaps = np.diff([0, *stamps]).tolist()
    for each in range(1, 10_000):
        walked = walk(gaps, 0, each, ignore_first=True)
        if walked.missed <= miss_rate * walked.total:
            return each
    raise AssertionError


RATES = st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(1, 3)])


@settings(deadline=None, max_examples=60)
@given(st.data(), RATES)
def test_smallest_deadlines_are_found_exactly(
    some_requests, token_stamps, timeline_of, data, miss_rate
):
    """The smallest D_d of each request equals that of an exhaustive scan; undefined without a decode token."""
    requests = data.draw(some_requests)
    got = min_token_deadline_ns(timeline_of(*requests), miss_rate)
    for i, request in enumerate(requests):
        decodes = len(token_stamps(request)) >= 2
        assert got[i] == (smallest(token_stamps(request), miss_rate) if decodes else ABSENT)


@settings(deadline=None, max_examples=60)
@given(st.data(), RATES)
def test_the_fluid_deadline_is_the_quantile_of_the_smallest(
    some_requests, token_stamps, timeline_of, data, miss_rate
):
    """The run's D_d is the order statistic of the requests' own; a tokenless request never counts as fluid."""
    share = data.draw(st.sampled_from([Fraction(99, 100), Fraction(1, 2)]))
    requests = data.draw(some_requests)
    stamps = [token_stamps(request) for request in requests]
    own = sorted(smallest(each, miss_rate) for each in stamps if len(each) >= 2)
    needed = -(
        -len([each for each in stamps if len(each) != 1]) * share.numerator // share.denominator
    )
    expected = own[needed - 1] if 0 < needed <= len(own) else None
    assert fluid_token_deadline_ns(timeline_of(*requests), miss_rate, share) == expected


def test_a_steady_stream_sustains_exactly_its_own_rate(timeline_of):
    """20 ms a token is 50 tokens/s, to the last nanosecond (bisection to 0.1 ms says 20.08 ms)."""
    stream = {"chunks": [(i * 20 * MS, 1) for i in range(100)]}
    assert min_token_deadline_ns(timeline_of(stream)).tolist() == [20 * MS]
    assert fluid_token_rate(timeline_of(*[stream] * 5)) == 50.0


def test_too_many_failures_leave_no_fluid_rate(timeline_of):
    """With 2 of 101 requests failed, no deadline makes 99 % of them fluid; with 1 of 100 there is one."""
    stream = {"chunks": [(i * 20 * MS, 1) for i in range(10)]}
    timeline = timeline_of(*[stream] * 99, *[stream | {"status": "timeout"}] * 2)
    assert np.isnan(fluid_token_rate(timeline))
    assert fluid_token_rate(timeline.take(np.arange(100))) == 50.0


def test_nothing_has_no_fluid_rate(timeline_of):
    """No request, or none with a decode token: undefined."""
    assert np.isnan(fluid_token_rate(timeline_of()))
    assert np.isnan(fluid_token_rate(timeline_of({"chunks": [(1, 1)]})))
    assert min_token_deadline_ns(timeline_of({"chunks": [(1, 1)]})).tolist() == [ABSENT]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True))
def test_a_curve_is_the_index_at_each_deadline(some_requests, timeline_of, data, deadlines):
    """Dropping what can no longer be late changes no point of the curve."""
    timeline = timeline_of(*data.draw(some_requests))
    curve = fluidity_curve(timeline, deadlines, first_deadline_ns=20)
    assert curve.token_deadline_ns.tolist() == sorted(deadlines)
    for k, each in enumerate(sorted(deadlines)):
        one = fluidity(timeline, first_deadline_ns=20, token_deadline_ns=each)
        expected = (
            [1 - one.missed.sum() / one.total.sum(), one.index.mean()]
            if len(timeline)
            else [np.nan] * 2
        )
        np.testing.assert_allclose([curve.pooled_index[k], curve.mean_index[k]], expected)


def test_the_curve_shows_the_cliff(timeline_of):
    """10 ms a token, 20 tokens: nothing is kept just below 10 ms, everything at it; the failed request stays at 0."""
    stream = {"chunks": [(i * 10 * MS, 1) for i in range(20)]}
    timeline = timeline_of(stream, stream | {"status": "timeout"})
    curve = fluidity_curve(timeline, [10 * MS - 1, 10 * MS], first_deadline_ns=0)
    assert curve.share.tolist() == [0.0, 0.5]
    assert curve.mean_index.tolist() == pytest.approx([1 / 20 / 2, 0.5])
    assert curve.pooled_index.tolist() == pytest.approx([1 / 40, 20 / 40])
