"""Claims: parsed with carets, judged by intervals, with the share of cells in which their direction holds."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit import planted

from inferometer.audit import Facts, audit
from inferometer.audit.claims import (
    Claim,
    cells,
    evaluated,
    judged,
    parse,
    robustness,
    sustained,
)
from inferometer.audit.evaluation import Capacity
from inferometer.errors import UserError
from inferometer.stats import Interval
from inferometer.workload.arrivals import Poisson


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("A sustains >= 1.5x the rate of B", Claim("", "A", "B", "rate", "request_rate", 1.5)),
        ("A sustains the rate of B", Claim("", "A", "B", "rate", "request_rate", 1.0)),
        ("A sustains ≥ 2 times the rate of B under SLO chat on workload W", Claim("", "A", "B", "rate", "request_rate", 2.0, "chat", "W")),
        ('"my system" sustains >= 1.1x the rate of B under SLO "ttft.p99 <= 1s" on model m.1', Claim("", "my system", "B", "rate", "request_rate", 1.1, "ttft.p99 <= 1s", None, "m.1")),
        ("A sustains the rate of B under SLO ttft.p99 <= 1s on W", Claim("", "A", "B", "rate", "request_rate", 1.0, "ttft.p99 <= 1s", "W")),
        ("A lowers ttft.p99 of B by >= 20 %", Claim("", "A", "B", "lowers", "ttft.p99", 0.8)),
        ("A lowers tbt.mean of B", Claim("", "A", "B", "lowers", "tbt.mean", 1.0)),
        ("A raises token_rate of B by at least 10% on code at 2 rps", Claim("", "A", "B", "raises", "token_rate", 1.1, None, "code", None, "rate 2")),
        ("A lowers ttlt.p50 of B at 8 in flight.", Claim("", "A", "B", "lowers", "ttlt.p50", 1.0, load="concurrency 8")),
        ("A lowers max_gap.p99 of B by >= 20 % on code", Claim("", "A", "B", "lowers", "max_gap.p99", 0.8, None, "code")),
    ],
)  # fmt: skip
def test_a_claim_is_read(text, parsed):
    """Each sentence of the grammar."""
    found = parse(text)
    assert replace(found, text="", factor=round(found.factor, 9)) == parsed
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A beats B", "beats"),
        ("A lowers speed of B", "speed"),
        ("A lowers ttft of B", "ttft"),
        ("A lowers token_rate.p99 of B", "token_rate.p99"),
        ("A lowers ttft.p99 of B by some %", "some"),
        ("A lowers ttft.p99 of B by >= 20 percent", "percent"),
        ("A sustains >= much x the rate of B", "much"),
        ("A sustains the rate of B on W on V", "on"),
        ("A lowers ttft.p99 of B under SLO chat", "SLO"),
        ("A lowers ttft.p99 of B at 2 apples", "apples"),
        ("A lowers ttft.p99 of", ""),
    ],
)
def test_a_bad_claim_is_pointed_at(text, word):
    """The caret stands under the word that cannot be read."""
    with pytest.raises(UserError) as error:
        parse(text, where="study.yaml:7")
    lines = error.value.what.splitlines()
    line, caret = lines[1], lines[2]
    assert line[caret.index("^") : caret.rindex("^") + 1].strip() == word
    assert error.value.where == "study.yaml:7"


@settings(deadline=None, max_examples=60)
@given(st.text('AB lowersuinathtftp9.>=20%x,"', max_size=60))
def test_no_text_breaks_the_parser(text):
    """Whatever is claimed is read, or is a UserError."""
    with suppress(UserError):
        assert parse(text).text == text.strip()


LOWERS, RATE = (parse(t) for t in ("A lowers ttft.p99 of B by >= 20 %", "A sustains >= 1.5x the rate of B"))  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "interval", "verdict"),
    [
        (LOWERS, (0.5, 0.7), "supported"),
        (LOWERS, (0.7, 0.9), "not shown"),
        (LOWERS, (0.9, 1.2), "not shown"),
        (LOWERS, (1.1, 1.3), "reversed"),
        (RATE, (1.6, 2.0), "supported"),
        (RATE, (1.2, 2.0), "not shown"),
        (RATE, (0.5, 0.9), "reversed"),
        (RATE, (math.nan, math.nan), "not shown"),
    ],
)
def test_the_interval_decides(claim, interval, verdict):
    """Supported beyond the claimed size, reversed beyond no difference, else not shown."""
    assert judged(claim, Interval(*interval)) == verdict


@settings(deadline=None, max_examples=60)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1.001, 1.5))
def test_a_wider_interval_never_shows_more(lo, hi, wider):
    """Less certainty leads to the same verdict, or to none."""
    lo, hi = sorted((lo, hi))
    for claim in (LOWERS, RATE):
        less = judged(claim, Interval(lo / wider, hi * wider))
        assert less in (judged(claim, Interval(lo, hi)), "not shown")


# --- on runs ----------------------------------------------------------------------------------------------------------


def with_claims(case, *claims):
    found = case.evaluation
    return replace(found, facts=planted.replaced(found.facts, claims=claims))


def slowed(case):
    """One arm three times as slow between tokens, everywhere."""
    runs = {k: _stretched(run) if k[0] == "vllm-v1" else run for k, run in case.runs.items()}
    return replace(case, runs=runs)


def _stretched(run):
    t = run.timeline
    first = np.repeat(t.chunk_ns[t.chunk_offset[:-1]], np.diff(t.chunk_offset))
    ns = first + 3 * (t.chunk_ns - first)
    return planted.columns(run, chunk_ns=ns, ended_ns=ns[t.chunk_offset[1:] - 1])


def test_claims_about_a_slower_arm():
    """What is so is supported on every workload; its opposite is reversed, and exits with 1; other words are told."""
    said = (
        "sarathi-serve lowers tpot.p50 of vllm-v1 by >= 20 %",
        "vllm-v1 lowers tpot.p50 of sarathi-serve",
        "sarathi-serve is far better",
        "sarathi-serve lowers tpot.p50 of orca",
    )
    found = evaluated(with_claims(slowed(planted.clean()), *said))
    assert [each.verdict for each in found] == ["supported", "reversed", "not parsed", "not shown"]
    assert len(found[0].cells) == 2
    assert found[0].robustness.holds > found[0].robustness.against
    report = audit(with_claims(slowed(planted.clean()), said[1]))
    assert report.exit_code == 1


def test_the_same_server_twice_shows_nothing():
    """Two arms that are one system: nothing is supported or reversed, and no cell differs."""
    runs = planted.clean().runs
    twin = replace(planted.clean(), runs={k: planted.told(runs["vllm-v1", k[1]], target=run.manifest.target) for k, run in runs.items()})  # fmt: skip
    claim = "sarathi-serve lowers ttft.p50 of vllm-v1"
    (found,) = evaluated(with_claims(twin, claim))
    assert found.verdict == "not shown"
    assert found.robustness.holds == found.robustness.against == 0


def test_robustness_counts_against_the_claim():
    """Who claims to be ahead where it is behind holds nowhere that the other does."""
    case = slowed(planted.clean())
    ahead, behind = (
        robustness(parse(f"{a} lowers tpot.p50 of {b}"), case.evaluation)
        for a, b in (("sarathi-serve", "vllm-v1"), ("vllm-v1", "sarathi-serve"))
    )
    assert (ahead.holds, ahead.against) == (behind.against, behind.holds)
    assert ahead.share == pytest.approx(1 - behind.share)


def test_a_rate_from_searches_for_capacity():
    """Ratios of intervals: supported where the least that the ratio may be is enough."""
    found = with_claims(planted.clean(), "sarathi-serve sustains >= 1.5x the rate of vllm-v1")
    searched = (
        Capacity("sarathi-serve", "", "w", 4.0, (3.8, 4.2), "x"),
        Capacity("vllm-v1", "", "w", 2.0, (1.9, 2.1), "x"),
    )
    (told,) = evaluated(replace(found, points=(), capacities=searched))
    assert told.verdict == "supported"
    assert told.interval == (pytest.approx(3.8 / 2.1), pytest.approx(4.2 / 1.9))


def test_a_rate_from_a_sweep():
    """At least the highest load that surely met the objective, at most the lowest that surely did not."""
    slo = "ttft.p90 <= 500ms"
    runs = {}
    for rate, requests in ((2, 300), (4, 300), (400, 600)):
        plan = planted.plan_of("chat", arrivals=Poisson(rate=rate), requests=requests)
        run = planted.served("sarathi-serve", plan)
        runs["sarathi-serve", f"{rate}"] = planted.told(run, spec=run.manifest.spec | {"slo": slo})
    evaluation = planted.Case(runs, record=Facts(title="sweep")).evaluation
    place = evaluation.points[0].place
    found = sustained(evaluation, "sarathi-serve", place.model, place.workload)
    assert found is not None
    assert 3 < found.interval.lo < 5
    assert 300 < found.interval.hi < 500
    assert cells(parse("a sustains the rate of b"), evaluation) == []
