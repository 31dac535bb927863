"""The SLO language: what it says, what it refuses, and who attains."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer import slo as slos
from inferometer.errors import UserError
from inferometer.slo import METRICS, PRESETS, Seen, met, parse

OK = np.array([True, True, True, False])
APPS = np.array(["chat", "code", "chat", "chat"], dtype=object)
TOKENS = np.array([10, 1, 0, 5])


def attained(text, columns, tokens=TOKENS, ok=OK):
    """The attainment of four requests: a chat, a code reply of one token, a tokenless chat, a failed chat."""
    values = {name: np.array(column, dtype=float) for name, column in columns.items()}
    return parse(text).attained(values.__getitem__, ok=ok, output_tokens=tokens, app=APPS)


def test_a_run_is_judged_by_statistics_joined_by_and():
    """Metric, statistic, operator, bound in seconds, ratios and rates; spaces and a last semicolon do not matter."""
    slo = parse("ttft.p99<=0.5s and tbt.p99.9 <= 50 ms and attainment >= 95% and goodput > 10/s;")
    assert [c[:4] for c in slo.conditions] == [
        ("ttft", "p99", "<=", 0.5),
        ("tbt", "p99.9", "<=", 0.05),
        ("attainment", None, ">=", 0.95),
        ("goodput", None, ">", 10.0),
    ]
    assert slo.each == ()


@pytest.mark.parametrize(
    ("bound", "seconds"), [("0.1s", 0.1), ("100ms", 0.1), ("100000us", 0.1), ("1e5 µs", 0.1)]
)
def test_units_give_the_nearest_float(bound, seconds):
    """0.1 s is the same number however it is written, so that "<=" means equality is met."""
    assert parse(f"ttft.mean <= {bound}").conditions[0].bound == seconds


def test_clauses_are_about_each_request_a_class_or_the_settings():
    """`each:`, `[app=...]` and `with` stand in clauses of their own."""
    slo = parse(
        "with token_deadline = 25ms and first_deadline = 0.5s; each: ttft <= 1s;"
        "[app=chat] each: tpot <= 50ms and max_gap <= 0.2s; [app=code] ttlt.p90 <= 2s; attainment >= 0.9"
    )
    assert slo.settings_ns == {"token_deadline": 25_000_000, "first_deadline": 500_000_000}
    assert [(e.app, [c.metric for c in e.conditions]) for e in slo.each] == [
        (None, ["ttft"]),
        ("chat", ["tpot", "max_gap"]),
    ]
    assert [(c.app, c.metric) for c in slo.conditions] == [("code", "ttlt"), (None, "attainment")]


@pytest.mark.parametrize(
    ("text", "implied"),
    [
        ("each: ttft <= 1s", [(None, 1.0)]),
        ("each: ttft <= 1s; attainment >= 0.9", [(None, 0.9)]),
        (
            "[app=chat] each: ttft <= 1s; [app=code] each: ttlt <= 2s",
            [("chat", 1.0), ("code", 1.0)],
        ),
        ("[app=chat] each: ttft <= 1s; [app=chat] attainment >= 0.9", [("chat", 0.9)]),
        ("ttft.p99 <= 1s", []),
    ],
)
def test_each_means_each_unless_a_share_is_given(text, implied):
    """Conditions on requests without a threshold on attainment ask for all of them."""
    found = [(c.app, c.bound) for c in parse(text).conditions if c.metric == "attainment"]
    assert found == implied


@pytest.mark.parametrize(
    ("text", "token", "says"),
    [
        ("tttf.p99 <= 0.5s", "tttf", "did you mean tt"),
        ("ttft.p99 <= 0.5", "", "add the unit"),
        ("ttft.p99 <= 5req", "req", "s, ms, us"),
        ("ttft.p99 <= fast", "fast", "a number"),
        ("ttft.p99 = 1s", "=", "one of <=, <, >=, >"),
        ("ttft.p99 <== 1s", "=", "a number"),
        ("ttft.p100 <= 1s", "p100", "between 0 and 100"),
        ("ttft.median <= 1s", "median", "pNN"),
        ("ttft <= 1s", "<", "needs a statistic"),
        ("attainment.p99 >= 1", ".p99", "single value"),
        ("each: ttft.p99 <= 1s", ".p99", "single value"),
        ("each: tbt <= 1s", "tbt", "write max_gap or tpot"),
        ("each ttft <= 1s", "ttft", "colon"),
        ("[tenant=a] ttft.p99 <= 1s", "tenant", "write [app=chat]"),
        ("[app=chat ttft.p99 <= 1s", "ttft", "']'"),
        ("ttft.p99 <= 1s or tbt.p99 <= 1s", "or", "joined by 'and'"),
        ("ttft.p99 <= 1s, tbt.p99 <= 1s", ",", "joined by 'and'"),
        ("ttft.p99 <= 1s and", "", "a metric"),
        ("ttft.p99 <= 1s and __import__('os')", "__import__", "unknown metric"),
        ("with speed = 1s", "speed", "unknown setting"),
        ("with token_deadline = 0s", "", "above 0"),
        ("with token_deadline = 1s", "", "ask for nothing"),
        ("with token_deadline = 1s and token_deadline = 2s; goodput > 1", ";", "another value"),
        ("attainment >= 95", "95", "between 0 and 1"),
        ("error_rate <= 101 %", "101 %", "between 0 and 1"),
        ("each: fluidity_index >= -0.1", "-0.1", "between 0 and 1"),
        ("ttft.p99 <= -1s", "-1s", "0 or more"),
        ("ttft.p99 <= 1e400s", "1e400s", "0 or more"),
        ("ttft.p99 <= ١s", "١s", "a number"),
        ("etalon; ttft.p99 <= 1s", "etalon", "is a preset"),
        ("reading-speed and ttft.p99 <= 1s", "reading-speed", "is a preset"),
    ],
)
def test_an_error_points_at_its_token(text, token, says):
    """A person sees what is wrong, the text, and carets under the place."""
    with pytest.raises(UserError) as caught:
        parse(text, where="--slo")
    what, line, caret = str(caught.value).split("\n")
    assert what.startswith("--slo: ")
    assert says in what
    assert line.strip() == text
    under = line[len(caret) - caret.count("^") : len(caret)]
    assert under.strip() == token
    assert set(caret) <= {" ", "^"}


def test_an_unknown_preset_is_told_its_neighbours():
    """A bare word is a preset's name."""
    with pytest.raises(UserError, match=r"did you mean .*distserve-chat-13b"):
        parse("distserve-chat-13")


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="ttft.p9<>= 0.5s;:[]andeachwith\n%/", max_size=40))
def test_any_text_is_parsed_or_refused(text):
    """Whatever is written, the answer is an SLO or a UserError, never another exception."""
    with contextlib.suppress(UserError):
        assert parse(text).text == text.strip()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_parse_and_cite_their_source(name):
    """Every preset is in the language, has conditions, and says who gave its numbers."""
    slo = parse(name)
    assert slo.name == name
    assert slo.conditions
    assert slo.source
    assert slo.text == PRESETS[name].text


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("sarathi-strict-yi-34b", [0.2, 2.0]),
        ("sarathi-relaxed-falcon-180b", [5.0, 2.0]),
        ("mlperf-llama-405b", [6.0, 0.175]),
        ("etalon", [0.9]),
        ("reading-speed", [6.0]),
    ],
)
def test_presets_hold_the_numbers_of_their_source(name, bounds):
    """As the references state them."""
    assert [c.bound for c in parse(name).conditions] == bounds


def test_who_attains():
    """Only a completed request that meets all; equality meets; NaN does not."""
    got = attained("each: ttft <= 0.5s", {"ttft": [0.5, 0.51, math.nan, 0.1]})
    assert got.attained.tolist() == [True, False, False, False]


def test_without_each_to_attain_is_to_complete():
    """A failed request never attains."""
    assert attained("ttft.p99 <= 1s", {}).attained.tolist() == OK.tolist()


@pytest.mark.parametrize("metric", [name for name, kind in METRICS.items() if kind.gap])
def test_a_reply_of_one_token_has_no_gap_to_judge(metric):
    """It passes vacuously and is counted; a reply without tokens does not pass."""
    bound = "0" if metric == "stalls" else "0s"
    got = attained(f"each: {metric} <= {bound}", {metric: [0.0, math.nan, math.nan, 0.0]})
    assert got.attained.tolist() == [True, True, False, False]
    assert got.vacuous == {f"{metric} <= {bound}": 1}


def test_a_class_is_asked_only_its_own_conditions():
    """The code reply is not held to what chats must do."""
    got = attained("[app=chat] each: ttft <= 0.5s", {"ttft": [0.6, 9.0, 0.4, 0.1]})
    assert got.attained.tolist() == [False, True, True, False]


def test_what_was_not_measured_is_unknown_not_failed():
    """scheduling_delay without a server that tells: those that brought tokens cannot be judged, the others meet nothing."""
    got = attained("each: scheduling_delay <= 1s", {"scheduling_delay": [math.nan] * 4})
    assert got.unknown.tolist() == [True, True, False, False]
    assert not got.attained.any()


def judged(text, *seen):
    """The verdicts on conditions for which these things were seen, in order."""
    found = iter(seen)
    return parse(text).judge(lambda condition: next(found))


def test_verdicts():
    """Met, not met, cannot be said; resolved where the whole interval agrees."""
    text = "ttft.p99 <= 1s and tbt.p99 <= 1s and ttlt.p99 <= 1s and tpot.p99 <= 1s"
    verdicts = judged(
        text,
        Seen(0.5, 0.4, 0.6),
        Seen(0.9, 0.8, 1.1),
        Seen(math.inf),
        Seen(math.nan, note="too few"),
    )
    assert [v.met for v in verdicts] == [True, True, False, None]
    assert [v.resolved for v in verdicts] == [True, False, None, None]
    assert met(verdicts) is False
    assert met([verdicts[0], verdicts[3]]) is None
    assert met(verdicts[:2]) is True


def test_a_mistyped_statistic_of_a_preset_is_no_preset():
    """Text with a dot and an operator is a condition, even without spaces."""
    assert parse("ttft.p50<=1s").name is None
    assert slos.parse("  reading-speed ").name == "reading-speed"
